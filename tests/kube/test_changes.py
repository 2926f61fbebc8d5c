"""What discovery logs, and how often: by a clock that the test sets."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from checks.kube.changes import (
    LONGEST_WHY,
    NAMES_LOGGED,
    SECONDS_BETWEEN_LOGS,
    SECONDS_BETWEEN_WARNINGS,
    FailureLog,
    NeighbourLog,
    OddObjectLog,
)
from checks.model import RUNNING, Neighbour

INFINITY = float("inf")


class Lines:
    """The lines of discovery, and a clock that stands still."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "kubenurse.discovery")
        self._caplog = caplog
        self.now = 0.0

    def clock(self) -> float:
        """Return the time."""
        return self.now

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """Return event and facts of the lines since the last call."""
        found = [(record.getMessage(), record.__dict__["facts"]) for record in self._caplog.records]
        self._caplog.clear()
        return found


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """The lines of one test."""
    return Lines(caplog)


def neighbours(*numbers: int) -> tuple[Neighbour, ...]:
    """Return neighbours of these numbers."""
    return tuple(Neighbour(f"pod-{number}", "10.0.0.1", "", "node", RUNNING) for number in numbers)


def test_changes_of_neighbours_are_logged_in_bounded_lines(lines: Lines) -> None:
    """A line says which neighbours came and left, up to a bound; the next comes seconds later with all since then."""
    kept = NeighbourLog(lines.clock)
    kept.note(())
    assert (lines.take(), kept.next_line()) == ([], INFINITY)
    kept.note(neighbours(*range(100, 140)))
    [(event, facts)] = lines.take()
    assert (event, facts["neighbours"], facts["removed"]) == ("neighbours changed", 40, "")
    assert facts["added"].count("pod-") == NAMES_LOGGED
    assert facts["added"].endswith(" and 30 more")
    kept.note(neighbours(100))
    kept.note(neighbours(100, 7))
    assert (lines.take(), kept.next_line()) == ([], SECONDS_BETWEEN_LOGS)
    lines.now = SECONDS_BETWEEN_LOGS
    kept.note(neighbours(100, 7))
    [(_, facts)] = lines.take()
    assert (facts["neighbours"], facts["added"]) == (2, "pod-7")
    assert facts["removed"].startswith("pod-101,pod-102,")
    assert kept.next_line() == INFINITY


def test_changes_held_back_are_logged_at_the_end(lines: Lines) -> None:
    """An agent that stops logs what it had held back; what is the same as before is no change."""
    kept = NeighbourLog(lines.clock)
    kept.note(neighbours(1))
    kept.note(neighbours(1, 2))
    lines.take()
    kept.flush()
    assert [facts["added"] for _, facts in lines.take()] == ["pod-2"]
    kept.note(neighbours(1, 3))
    kept.note(neighbours(1, 2))
    kept.flush()
    assert lines.take() == []


def test_a_failure_is_logged_when_it_begins_and_when_it_ends(lines: Lines) -> None:
    """One line when requests begin to fail, with the reason, and one when they recover, however often it is noted."""
    kept = FailureLog("pods", lines.clock)
    for failure in ("", "503", "503", "", ""):
        kept.note(failure)
    assert lines.take() == [
        ("discovery failing", {"resource": "pods", "why": "503"}),
        ("discovery recovered", {"resource": "pods"}),
    ]
    assert kept.next_line() == INFINITY


def test_failures_that_come_and_go_log_two_lines_a_minute(lines: Lines) -> None:
    """A new reason and a failure that begins again wait for their minute; the latest reason is logged then."""
    kept = FailureLog("pods", lines.clock)
    for second in range(int(10 * SECONDS_BETWEEN_WARNINGS)):
        lines.now = float(second)
        kept.note(("503", "", "timed out", "")[second % 4])
    assert len(lines.take()) <= 20
    kept.note("403")
    assert kept.next_line() <= lines.now + SECONDS_BETWEEN_WARNINGS
    lines.now = kept.next_line()
    kept.note("403")
    assert lines.take()[-1] == ("discovery failing", {"resource": "pods", "why": "403"})


def test_odd_objects_are_logged_once_a_minute_in_bounded_text(lines: Lines) -> None:
    """The first odd object of a resource is logged, safe to print; then one a minute, with the number of the others."""
    kept = OddObjectLog(lines.clock)
    for _ in range(100):
        kept.note("pods", "pod\n-1", "x" * 10_000)
    kept.note("nodes", "node-1", "odd")
    (event, facts), (_, others) = lines.take()
    assert (event, facts["resource"], facts["name"], facts["others"]) == ("object left out", "pods", "pod -1", 0)
    assert len(facts["why"]) == LONGEST_WHY
    assert others["resource"] == "nodes"
    lines.now = SECONDS_BETWEEN_WARNINGS
    kept.note("pods", "pod-2", "odd")
    assert [facts["others"] for _, facts in lines.take()] == [99]
