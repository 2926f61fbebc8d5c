"""Quantiles over the last minute, in bounded memory: the summary that kubenurse v1.4 exposes.

The minute is a ring of slices. A slice is exact up to some hundred values, far more than checks produce; beyond, it is
a Greenwald-Khanna summary. Slices are put together at reading, by the ranks that each value can have.
Source: M. Greenwald, S. Khanna, Space-Efficient Online Computation of Quantile Summaries, SIGMOD 2001.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple

WINDOW_SECONDS = 60.0
SLICES = 12
EPSILON = 0.004
_EXACT = 500
_value = itemgetter(0)


class _Entry(NamedTuple):
    """A value, how many values up to it since the entry before (at least), and how many more there may be."""

    value: float
    step: int
    slack: int


class Summary:
    """Quantiles over a sliding minute; count and sum since the start.

    The window moves in steps of five seconds: it covers the last 55 to 60 seconds. A quantile's rank is within 1 % of
    the exact one (within 0.4 % by the paper's theorem), and exact while a slice holds at most 500 values.
    Memory is bounded by 12 slices, each of 500 values and at most 11/(2*0.004)*log2(2*0.004*n) entries for n values
    in 5 seconds (the paper's theorem; a few hundred entries in practice). It does not lock: its owner does.
    ``clock`` returns monotonic seconds.
    """

    __slots__ = ("_clock", "_slices", "count", "sum")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slices: deque[_Slice] = deque()
        self.count = 0
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Add one value; what is not finite is ignored."""
        if not math.isfinite(value):
            return
        self.count += 1
        self.sum += value
        number = self._expire()
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        self._slices[-1].add(value)

    def quantiles(self, wanted: Sequence[float]) -> list[float]:
        """Return the value at each of the quantiles ``wanted`` (0 to 1), NaN each when the window is empty."""
        self._expire()
        return _quantiles([entries for part in self._slices for entries in part.summaries()], wanted)

    def entries(self) -> int:
        """Return how many values and entries are held: what the memory is for."""
        return sum(len(entries) for part in self._slices for entries in part.summaries())

    def _expire(self) -> int:
        """Drop the slices that left the window; return the number of the slice that is now."""
        number = int(self._clock() // (WINDOW_SECONDS / SLICES))
        while self._slices and self._slices[0].number <= number - SLICES:
            self._slices.popleft()
        return number


class _Slice:
    """The values of some seconds: the latest as they are, sorted into a Greenwald-Khanna summary when they get many."""

    __slots__ = ("_count", "_entries", "_latest", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._latest = array("d")
        self._entries: list[_Entry] = []
        self._count = 0

    def add(self, value: float) -> None:
        if len(self._latest) == _EXACT:
            self._entries = _insert(self._entries, sorted(self._latest), int(2 * EPSILON * self._count))
            self._count += _EXACT
            self._entries = _compress(self._entries, int(2 * EPSILON * self._count))
            del self._latest[:]
        self._latest.append(value)

    def summaries(self) -> Iterable[list[_Entry]]:
        if self._entries:
            yield self._entries
        yield [_Entry(value, 1, 0) for value in sorted(self._latest)]


def _insert(entries: list[_Entry], values: list[float], threshold: int) -> list[_Entry]:
    """Insert sorted values (the paper's INSERT); ``threshold`` is 2*epsilon*n for the n values in ``entries``."""
    if not entries:
        return [_Entry(value, 1, 0) for value in values]
    lowest, highest = entries[0].value, entries[-1].value
    # The rank of a new minimum or maximum is known; any other value falls into an entry that is at most so wide.
    added = [_Entry(value, 1, threshold - 1 if lowest <= value < highest else 0) for value in values]
    # Sorting is stable and knows runs, so this is a merge, with a new value after its equals.
    return sorted(entries + added, key=_value)


def _compress(entries: list[_Entry], threshold: int) -> list[_Entry]:
    """Merge entries as long as none becomes wider than ``threshold`` (the paper's COMPRESS); the minimum stays."""
    bands = {slack: _band(slack, threshold) for slack in {entry.slack for entry in entries}}
    kept = [entries[-1]]
    index = len(entries) - 2
    while index > 0:
        # An entry goes together with its descendants: the run before it that came later.
        _, step, slack = entries[index]
        first = index - 1
        while first > 0 and bands[entries[first].slack] < bands[slack]:
            step += entries[first].step
            first -= 1
        last = kept[-1]
        if bands[slack] <= bands[last.slack] and step + last.step + last.slack < threshold:
            kept[-1] = last._replace(step=last.step + step)
            index = first
        else:
            kept.append(entries[index])
            index -= 1
    kept.append(entries[0])
    kept.reverse()
    return kept


def _band(slack: int, threshold: int) -> int:
    """How long ago, in powers of two, an entry with this slack came: older ones are in higher bands."""
    if slack == 0:
        return threshold + 1
    band = 0
    while slack <= threshold - (1 << band) - threshold % (1 << band):
        band += 1
    return band


def _quantiles(summaries: list[list[_Entry]], wanted: Sequence[float]) -> list[float]:
    """Return for each quantile the value whose possible ranks, over all summaries, are the nearest to its own."""
    values = []
    for source, entries in enumerate(summaries):
        rank = 0
        for value, step, slack in entries:
            rank += step
            values.append((value, source, step, rank + slack))
    if not values:
        return [math.nan for _ in wanted]
    values.sort(key=_value)  # stable: among equals the summaries keep their order, so every rank is well defined
    lowest = list(accumulate(step for _, _, step, _ in values))
    total = lowest[-1]
    # Before a value come, of each other summary, at most those before the next larger entry there, or all.
    before = [sum(entry.step for entry in entries) for entries in summaries]
    before_all = total
    highest = [0] * len(values)
    for index in range(len(values) - 1, -1, -1):
        _, source, _, rank = values[index]
        highest[index] = before_all - before[source] + rank
        before_all += rank - 1 - before[source]
        before[source] = rank - 1

    def nearest(rank: int) -> int:
        return min(range(len(values)), key=lambda index: max(rank - lowest[index], highest[index] - rank))

    return [values[nearest(max(1, math.ceil(quantile * total)))][0] for quantile in wanted]
