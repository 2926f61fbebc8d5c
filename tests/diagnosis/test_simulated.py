"""Simulated clusters: every cause alone, several at once, and none. The numbers of docs/diagnosis.md, in small."""

from __future__ import annotations

from itertools import combinations

import pytest

from checks.diagnosis import diagnose
from tests.diagnosis.catalogue import FAULTS, is_hidden
from tests.diagnosis.score import Score, judge_all, make_case, verdicts_of

PAIRS = [pair for pair in combinations(FAULTS, 2) if not is_hidden(*pair)]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_cause_alone_is_named_and_nothing_else(fault: str) -> None:
    """The verdicts of a cluster with one fault are that fault's."""
    for seed in range(4):
        case = make_case([fault], seed)
        assert verdicts_of(diagnose(case.bundle)) == case.expected, seed


def test_two_causes_at_once_are_both_named() -> None:
    """Precision and recall of pairs stay where the documentation says they are."""
    score = judge_all((make_case(pair, 1) for pair in PAIRS[::4]), Score())
    assert score.precision() >= 0.97
    assert score.recall() >= 0.95


def test_a_healthy_cluster_has_no_verdict() -> None:
    """Single failures that mean nothing raise nothing, whatever the size of the cluster."""
    for seed in range(60):
        document = diagnose(make_case([], seed).bundle)
        assert document["healthy"], (seed, document)
        assert not document["verdicts"]
        assert not document["unexplained"]
