"""Limits: no more than so many events in any stretch of time, and the rest counted."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.report.limits import Bucket, Limit, SparseLog


@given(
    st.integers(min_value=1, max_value=5),
    st.lists(st.floats(min_value=0, max_value=30), max_size=60),
)
def test_no_window_has_more_than_the_limit(most: int, pauses: list[float]) -> None:
    """In any 60 seconds at most the limit is let through, nothing is held back without need, and all are counted."""
    limit, now, let_through = Limit(most, 60.0), 1000.0, list[float]()
    held_back = 0
    for pause in pauses:
        now += pause
        recent = [moment for moment in let_through if now - moment < 60.0]
        allowed = limit.lets_through(now)
        assert allowed == (len(recent) < most)
        if allowed:
            let_through.append(now)
        else:
            held_back += 1
    assert limit.take_held_back() == held_back
    assert limit.take_held_back() == 0


def test_a_bucket_lets_a_burst_through_and_then_little() -> None:
    """The burst comes through at once, then one event in each stretch, and a long pause fills it again."""
    bucket = Bucket(3, 10.0)
    assert [bucket.lets_through(0.0) for _ in range(5)] == [True, True, True, False, False]
    assert [bucket.lets_through(float(second)) for second in range(5, 41, 5)] == [False, True] * 4
    assert not bucket.lets_through(20.0)
    assert [bucket.lets_through(1000.0) for _ in range(4)] == [True, True, True, False]


def test_a_sparse_log_says_how_much_it_held_back(caplog: pytest.LogCaptureFixture) -> None:
    """One warning an interval; the next one has the number of those held back."""
    now = [0.0]
    sparse = SparseLog(60.0, lambda: now[0], logging.getLogger("test.sparse"))
    for second in range(0, 130, 10):
        now[0] = float(second)
        sparse.warning("it happened", at=second)
    found = [(record.getMessage(), record.__dict__["facts"]) for record in caplog.records]
    assert found == [
        ("it happened", {"at": 0, "held_back": 0}),
        ("it happened", {"at": 60, "held_back": 5}),
        ("it happened", {"at": 120, "held_back": 5}),
    ]
