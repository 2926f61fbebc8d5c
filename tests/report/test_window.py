"""The figures of a check's last minute."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.model import OK, CheckResult, TcpFacts
from checks.report.window import MOST_RESULTS, MOST_STATES, WINDOW_SECONDS, Windows

REFUSED = "connect: connection refused"
KIND = "path_node-2"


class Clock:
    """A clock that stands still until told."""

    now = 1000.0

    def __call__(self) -> float:
        """Return monotonic seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock for one test."""
    return Clock()


def result(clock: Clock, state: str = OK, seconds: float = 0.001, retransmits: int | None = None) -> CheckResult:
    """A result that has just come."""
    tcp = None if retransmits is None else TcpFacts(0.0004, 1500, retransmits)
    return CheckResult(KIND, state, duration=seconds, finished=clock.now, tcp=tcp)


def test_a_minute_of_checks(clock: Clock) -> None:
    """Twelve checks in a minute, of which three failed for two reasons and the last five were good."""
    windows = Windows(clock)
    for round_ in range(20):
        clock.now += 5
        state = {14: REFUSED, 12: REFUSED, 11: "404 Not Found"}.get(round_, OK)
        seconds = 5.0 if state != OK else 0.001 + 0.001 * (round_ == 17)
        windows.take(result(clock, state, seconds, retransmits=1 if round_ == 15 else None))
    assert windows.window(KIND) == {
        "seconds": 60,
        "made": 12,
        "failed": {REFUSED: 2, "404 Not Found": 1},
        "streak": 5,
        "retransmits": 1,
        "median_seconds": 0.001,
        "slowest_seconds": 0.002,
    }


def test_when_nothing_is_answered_the_figures_are_those_of_the_failures(clock: Clock) -> None:
    """With every check failing, median and slowest are the failures', and the streak is negative beyond the window."""
    windows = Windows(clock)
    for _ in range(30):
        clock.now += 5
        windows.take(result(clock, REFUSED, 5.0))
    window = windows.window(KIND)
    assert (window["made"], window["failed"], window["streak"]) == (12, {REFUSED: 12}, -30)
    assert (window["median_seconds"], window["slowest_seconds"]) == (5.0, 5.0)


def test_without_a_result_there_are_no_figures(clock: Clock) -> None:
    """A check that was never made, one that is no longer made and one that is forgotten have an empty window."""
    windows = Windows(clock)
    empty = {"seconds": 60, "made": 0, "failed": {}, "streak": 0, "retransmits": 0}
    nothing = {**empty, "median_seconds": None, "slowest_seconds": None}
    assert windows.window(KIND) == nothing
    windows.take(result(clock))
    clock.now += WINDOW_SECONDS
    assert windows.window(KIND) == {**nothing, "streak": 1}
    windows.retain([KIND])
    assert windows.window(KIND)["streak"] == 1
    windows.retain(["another"])
    assert windows.window(KIND) == nothing


@given(st.lists(st.tuples(st.sampled_from([OK, REFUSED, "404"]), st.floats(0, 30), st.floats(0, 5)), max_size=80))
def test_figures_are_those_of_the_last_minute(course: list[tuple[str, float, float]]) -> None:
    """Whatever the course, the figures are what the results of the last minute give."""
    clock, made, streak = Clock(), list[tuple[float, str, float]](), 0
    windows = Windows(clock)
    for state, pause, seconds in course:
        clock.now += pause
        windows.take(result(clock, state, seconds))
        made.append((clock.now, state, seconds))
        same = made[-2:-1] and (made[-2][1] == OK) == (state == OK)
        streak = (streak if same else 0) + (1 if state == OK else -1)
    recent = [each for each in made if clock.now - each[0] < WINDOW_SECONDS]
    window = windows.window(KIND)
    assert window["made"] == len(recent)
    assert window["streak"] == streak
    failures = [state for _, state, _ in recent if state != OK]
    assert window["failed"] == {state: failures.count(state) for state in failures}
    seconds_of = [seconds for _, state, seconds in recent if state == OK] or [seconds for *_, seconds in recent]
    expected = statistics.median(seconds_of) if seconds_of else None
    assert window["median_seconds"] == (pytest.approx(expected, abs=1e-6) if seconds_of else None)


def test_ever_new_states_and_many_checks_are_bounded(clock: Clock) -> None:
    """An endpoint that fails in ever new words fills a few states and "other"; a window that is too short says so."""
    windows = Windows(clock)
    for number in range(10 * MOST_RESULTS):
        clock.now += 0.01
        windows.take(result(clock, f"{400 + number % 100} Reason {number}"))
    window = windows.window(KIND)
    assert isinstance(window["failed"], dict)
    assert len(window["failed"]) == MOST_STATES + 1
    assert sum(window["failed"].values()) == window["made"] == MOST_RESULTS
    assert window["seconds"] == pytest.approx(0.01 * (MOST_RESULTS - 1))
    assert window["streak"] == -10 * MOST_RESULTS
