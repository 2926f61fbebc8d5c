"""One image for the whole run, or the reason to skip."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.image.podman import Podman, built_image
from tests.image.requirements import reason_to_skip

_FACTS: list[str] = []


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """Podman with the image and its base in it."""
    reason = reason_to_skip()
    if reason:
        pytest.skip(reason)
    with built_image() as podman:
        yield podman


@pytest.fixture
def report() -> list[str]:
    """Lines that are printed at the end of the run."""
    return _FACTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the measurements."""
    for fact in _FACTS:
        terminalreporter.write_line(fact)
