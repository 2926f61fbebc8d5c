"""The commands a person types: ``check``, ``status``, ``--help`` and ``--version``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from checks import __version__
from checks.cli.ask import NoAnswerError, ask, local_url
from checks.cli.configure import BAD_CONFIGURATION, configure, print_problems
from checks.cli.diagnose import diagnose_file
from checks.cli.table import as_table
from checks.config import convert
from checks.config.colour import wants_colour
from checks.config.settings import Config, ConfigError
from checks.config.variables import help_text
from checks.model import OK, SKIPPED
from checks.web.endpoints import state_document
from checks.web.view import View

# As shells report a program that SIGINT ended: 128 and its number.
INTERRUPTED = 130
# Exit codes of every command: all is well, something fails, there was no answer to judge.
ALL_WELL, FAILING, COULD_NOT_ASK = 0, 1, 2


class CheckingAgent(Protocol):
    """What ``kubenurse check`` needs of an agent."""

    view: View

    def start_discovery(self) -> None:
        """Begin to look for neighbours."""

    def close(self) -> None:
        """End everything."""


def main(arguments: Sequence[str], make_agent: Callable[[Config], CheckingAgent]) -> int:
    """Carry out a command; return its exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "diagnose":
        return diagnose(options.bundle, as_json=options.json)  # needs no configuration
    config = configure()
    if config is None:
        return BAD_CONFIGURATION
    try:
        if options.command == "check":
            return check(config, make_agent, as_json=options.json)
        return status(config, options.url or local_url(config), as_json=options.json)
    except ConfigError as error:
        print_problems(error)
        return BAD_CONFIGURATION
    except KeyboardInterrupt:
        return INTERRUPTED


def check(config: Config, make_agent: Callable[[Config], CheckingAgent], *, as_json: bool) -> int:
    """Run one round of all checks in the foreground and print what they found."""
    agent = make_agent(config)
    try:
        agent.start_discovery()
        report = agent.view.alive(wait_for_sync=config.check_timeout)
        document = state_document(agent.view, report)
    finally:
        agent.close()
    print(json.dumps(document, indent=1) if as_json else as_table(document, agent.view.skips))
    return ALL_WELL if report.ok else FAILING


def status(config: Config, url: str, *, as_json: bool) -> int:
    """Ask a running agent for its latest round and print it."""
    try:
        document = ask(config, url.rstrip("/") + "/state")
        table, states = _read(document)
    except NoAnswerError as error:
        print(f"kubenurse: no agent answers at {convert.redact(url)}: {error}", file=sys.stderr)
        return COULD_NOT_ASK
    print(json.dumps(document, indent=1) if as_json else table)
    return ALL_WELL if all(state in (OK, SKIPPED) for state in states) else FAILING


def diagnose(path: str, *, as_json: bool) -> int:
    """Judge the bundle in a file and print what broke."""
    text, code = diagnose_file(path, as_json=as_json, colour=wants_colour(sys.stdout))
    print(text, file=sys.stderr if code == COULD_NOT_ASK else sys.stdout)
    return code


def _read(document: Any) -> tuple[str, list[str]]:
    """Return the table of a /state document and all states in it.

    Raises:
        NoAnswerError: when the document is something else.
    """
    try:
        states = [document["neighbourhood"]["state"], *(found["state"] for found in document["checks"].values())]
        return as_table(document, {}), states
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise NoAnswerError("the answer is not kubenurse's /state") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubenurse",
        description="Without arguments: run the agent, configured by the environment variables below.",
        epilog=help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kubenurse {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    command = commands.add_parser(
        "check", help="run all checks once, print what they found; exit 0 if all is ok, else 1"
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command = commands.add_parser("status", help="ask a running agent what it sees; exit 0 if all is ok, else 1")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.add_argument("--url", type=_url, help="where it listens (default: this Pod's own agent)")
    command = commands.add_parser(
        "diagnose", help="say what broke, from a bundle of all agents' states; exit 0 if all is well, else 1"
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of sentences")
    command.add_argument("--from", dest="bundle", metavar="FILE", required=True, help="the bundle, - for stdin")
    return parser


def _url(text: str) -> str:
    try:
        return convert.base_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{convert.redact(text)}': {error}") from error
