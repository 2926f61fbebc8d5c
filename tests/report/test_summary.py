"""The one-minute summary: ranks, window and memory."""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.report.summary import KEPT, SLICES, Summary

QUANTILES = (0.5, 0.9, 0.99)
MANY = 10_000

ORDERS: dict[str, Callable[[int], Iterable[float]]] = {
    "sorted": lambda n: range(n),
    "reverse": lambda n: range(n, 0, -1),
    "constant": lambda n: (1.0 for _ in range(n)),
    "zigzag outwards": lambda n: (i if i % 2 else -i for i in range(n)),
    "zigzag inwards": lambda n: (i if i % 2 else 2 * n - i for i in range(n)),
    "saw": lambda n: (i % 997 + i / n for i in range(n)),
    "few values": lambda n: (float(i * i % 5) for i in range(n)),
    "uniform": lambda n: map(random.Random(7).uniform, [0] * n, [1] * n),
    "heavy tail": lambda n: map(random.Random(7).paretovariate, [0.5] * n),
}


class Clock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return monotonic seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock for one test."""
    return Clock()


def rank_errors(values: Iterable[float], answers: Sequence[float]) -> list[float]:
    """How far each answer's rank is from its quantile's, as a fraction of all values; equal values share ranks."""
    ranked = sorted(values)
    errors = []
    for quantile, answer in zip(QUANTILES, answers, strict=True):
        wanted = max(1, math.ceil(quantile * len(ranked)))
        first, last = bisect_left(ranked, answer) + 1, bisect_right(ranked, answer)
        assert first <= last, f"{answer} was never observed"
        errors.append(max(0, first - wanted, wanted - last) / len(ranked))
    return errors


def test_empty_window_is_nan(clock: Clock) -> None:
    """Before the first value every quantile is NaN, as in Prometheus's own client."""
    assert all(math.isnan(value) for value in Summary(clock).quantiles(QUANTILES))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=KEPT))
def test_few_values_are_exact(values: list[float]) -> None:
    """As long as no slice is full, quantiles are the exact ones."""
    summary = Summary(Clock())
    for value in values:
        summary.observe(value)
    assert rank_errors(values, summary.quantiles(QUANTILES)) == [0, 0, 0]
    assert summary.count == len(values)
    assert summary.sum == pytest.approx(math.fsum(values), rel=1e-6, abs=1e-6 * max(map(abs, values)))


@given(st.lists(st.tuples(st.floats(min_value=0, max_value=9), st.integers(0, 1000)), min_size=1, max_size=100))
def test_quantiles_follow_the_window(course: list[tuple[float, int]]) -> None:
    """Whatever comes when, the quantiles are those of all values of the slices in the window."""
    clock = Clock()
    summary, values = Summary(clock), []
    for pause, value in course:
        clock.now += pause
        summary.observe(value)
        values.append((clock.now // 5, value))
    recent = [value for number, value in values if number > clock.now // 5 - SLICES]
    assert rank_errors(recent, summary.quantiles(QUANTILES)) == [0, 0, 0]
    assert summary.kept() == len(recent)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seconds", [0.0, 59.9], ids=["one slice", "all slices"])
def test_any_load_is_sampled_fairly(order: str, seconds: float, clock: Clock) -> None:
    """Ten thousand values in any order are answered within five standard errors of rank, from a bounded sample."""
    random.seed(1)  # the sample is random, the test is not
    summary, start = Summary(clock), clock.now
    for number, value in enumerate(ORDERS[order](MANY)):
        clock.now = start + seconds * number / MANY
        summary.observe(value)
    kept = summary.kept()
    assert kept == (KEPT * SLICES if seconds else KEPT)
    for quantile, error in zip(QUANTILES, rank_errors(ORDERS[order](MANY), summary.quantiles(QUANTILES)), strict=True):
        assert error <= 5 * math.sqrt(quantile * (1 - quantile) / kept) + 2 / kept


def test_a_busy_slice_counts_for_all_its_values(clock: Clock) -> None:
    """A slice of many values outweighs one of few, although no more of them are kept."""
    summary = Summary(clock)
    for _ in range(KEPT):
        summary.observe(1.0)
    clock.now += 5
    for _ in range(9 * KEPT):
        summary.observe(2.0)
    assert summary.quantiles((0.05, 0.15, 0.5)) == [1.0, 2.0, 2.0]


def test_old_values_leave_the_window(clock: Clock) -> None:
    """A value counts for at least 55 seconds and never after 60; count and sum keep it."""
    summary = Summary(clock)
    summary.observe(7.0)
    clock.now += 54.9
    assert summary.quantiles((0.5,)) == [7.0]
    clock.now += 5.1
    assert math.isnan(summary.quantiles((0.5,))[0])
    assert (summary.count, summary.sum) == (1, 7.0)
    assert summary.kept() == 0


def test_window_slides(clock: Clock) -> None:
    """With a value a second, the median follows the last minute and memory does not grow."""
    summary = Summary(clock)
    for second in range(600):
        clock.now = 1000.0 + second
        summary.observe(float(second))
        assert summary.kept() <= 60
    (median,) = summary.quantiles((0.5,))
    assert 600 - 31 <= median <= 600 - 27


def test_load_that_ended_is_forgotten(clock: Clock) -> None:
    """After a minute of silence a heavy load leaves nothing behind, and the next value stands alone."""
    summary = Summary(clock)
    for value in range(20_000):
        summary.observe(float(value))
    clock.now += 3600
    summary.observe(0.25)
    assert summary.quantiles(QUANTILES) == [0.25, 0.25, 0.25]
    assert summary.kept() == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_ignored(value: float, clock: Clock) -> None:
    """NaN and infinities change neither count, sum nor quantiles."""
    summary = Summary(clock)
    summary.observe(1.0)
    summary.observe(value)
    assert (summary.count, summary.sum, summary.quantiles(QUANTILES)) == (1, 1.0, [1.0, 1.0, 1.0])
