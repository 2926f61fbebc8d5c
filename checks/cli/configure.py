"""The first step of every command: the configuration, or all that is wrong with it, and the log."""

from __future__ import annotations

import sys

from checks.config.load import load
from checks.config.settings import Config, ConfigError
from checks.report import log

BAD_CONFIGURATION = 2


def configure() -> Config | None:
    """Read the configuration and set the log up; None when it is wrong, with every problem printed on stderr."""
    try:
        config = load()
    except ConfigError as error:
        print_problems(error)
        return None
    log.setup(config.log_level, config.log_format, sys.stderr)
    log.adopt_process()
    return config


def print_problems(error: ConfigError) -> None:
    """Print every problem on a line of its own on stderr."""
    for problem in error.problems:
        print(f"kubenurse: {problem}", file=sys.stderr)
