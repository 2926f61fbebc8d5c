"""The judgement of trials: correct results pass, wrong results fail."""

from __future__ import annotations

import contextlib
import re
from typing import cast

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.faults import Expected, Fault, sometimes
from tests.e2e.trial import MOST_IN_FLIGHT, SETTLING, SLACK, Trial
from tests.e2e.watcher import DISCOVERY, Seen

REFUSED = "connect: connection refused"
BROKEN = Expected(("node-1",), ("path_node-2",), REFUSED, "connect_done")
KEY = ("node-1", "path_node-2", "connect_done")


def trial(*expected: Expected) -> Trial:
    """Return the trial of a fault that came at 100 s and went at 110 s."""
    made = Trial(cast(Cluster, None), Fault("a fault", lambda _: contextlib.nullcontext(), expected))
    made.injecting, made.injected, made.healing, made.healed = 100.0, 100.1, 110.0, 110.1
    return made


def seen(begin: float, state: str, event: str = "", kind: str = "path_node-2", node: str = "node-1") -> Seen:
    """Return a result of a check that took 10 ms."""
    return Seen(node, "pod", kind, state, event, begin, begin + 0.01, begin + 0.1, {})


def refused(begin: float) -> Seen:
    """Return the failure that is expected of the broken path."""
    return seen(begin, REFUSED, "connect_done")


GOOD = [seen(99.5, "ok"), *(refused(100.5 + second) for second in range(9)), seen(110.6, "ok")]


def test_the_truth_passes() -> None:
    """Results that are ok before, the exact failure during, and ok after the fault pass, with their times."""
    judged = trial(BROKEN)
    judged._judge(GOOD)
    judged._judge_counters({}, {KEY: 9.0})
    judged._measure(GOOD)
    assert judged.record.detected == pytest.approx(0.51)
    assert judged.record.recovered == pytest.approx(0.61)
    assert judged.record.words == [f"node-1: path_node-2: {REFUSED} (connect_done)"]


@pytest.mark.parametrize(
    "lie",
    [
        seen(104, "ok"),
        seen(104, "connect: timed out after 1s", "connect_done"),
        seen(104, REFUSED, "timeout"),
        seen(104, REFUSED, "connect_done", kind="path_node-3"),
        seen(104, REFUSED, "connect_done", node="node-2"),
        seen(99.9, REFUSED, "connect_done", kind="me_service"),
        seen(110.1 + SETTLING, REFUSED, "connect_done"),
        seen(104, "pods: connection refused", kind=DISCOVERY),
    ],
    ids=["ok", "state", "event", "type", "node", "at-once", "afterwards", "discovery"],
)
def test_one_wrong_result_fails_the_trial(lie: Seen) -> None:
    """One unexpected result fails the trial."""
    with pytest.raises(AssertionError, match="a fault"):
        trial(BROKEN)._judge([*GOOD, lie])


@pytest.mark.parametrize("fair", [seen(100.05, "ok"), seen(109.999, "ok"), seen(100.2, "tls: truncated", "tls")])
def test_results_that_met_both_states_pass(fair: Seen) -> None:
    """A check that was under way when the fault came or went may have either result."""
    trial(BROKEN)._judge([*GOOD, fair])


def test_what_is_seen_now_and_then_has_its_words_too() -> None:
    """A check that may fail is ok or fails in the expected words, and in no others."""
    chance = sometimes(("node-1",), ("path_node-2",), re.compile("connect: .*"), "connect_done")
    trial(chance)._judge([seen(103, "ok"), refused(104), seen(105, "ok")])
    with pytest.raises(AssertionError):
        trial(chance)._judge([seen(104, "dns: name not known", "dns_done")])


@pytest.mark.parametrize(
    "counted",
    [
        {},
        {KEY: 3.0, ("node-1", "path_node-2", "timeout"): MOST_IN_FLIGHT + 1.0},
        {KEY: 3.0, ("node-1", "me_service", "timeout"): 1.0},
        {KEY: 3.0, ("node-2", "path_node-2", "connect_done"): 1.0},
    ],
    ids=["not", "too-often", "type", "node"],
)
def test_a_wrong_count_fails_the_trial(counted: dict[tuple[str, str, str], float]) -> None:
    """Unexpected errors in the counters fail the trial, and so do expected errors that are missing."""
    with pytest.raises(AssertionError, match="a fault"):
        trial(BROKEN)._judge_counters({}, counted)


@pytest.mark.parametrize(
    "late",
    [
        [*(refused(100.1 + BROKEN.detected + SLACK + second) for second in range(3)), seen(110.6, "ok")],
        [*GOOD[:-1], seen(110.1 + BROKEN.recovered + SLACK, "ok")],
        [*GOOD[:-1], seen(110.6, "ok"), refused(112.0), seen(113.0, "ok")],
    ],
    ids=["detected", "recovered", "relapsed"],
)
def test_lateness_fails_the_trial(late: list[Seen]) -> None:
    """A detection or a recovery after its limit fails the trial."""
    with pytest.raises(AssertionError, match="after"):
        trial(BROKEN)._measure(late)
