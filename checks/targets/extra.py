"""The checks of other places, named by the user."""

from __future__ import annotations

from checks.config.settings import Config
from checks.model import Target


def targets(config: Config) -> list[Target]:
    """Return a check of each URL of KUBENURSE_EXTRA_CHECKS."""
    return [Target(name, url, follow_redirects=True, use_proxy=True) for name, url in config.extra_checks]
