"""Quantiles over the last minute, in bounded memory: the summary that kubenurse v1.4 exposes.

The minute is a ring of slices. A slice keeps its values up to a number that checks do not reach, and beyond it a fair
sample of them.
Source of the sampling: J. S. Vitter, Random Sampling with a Reservoir, ACM TOMS 11(1), 1985, algorithm R.
"""

from __future__ import annotations

import math
import random
from array import array
from collections import deque
from collections.abc import Callable, Sequence

WINDOW_SECONDS = 60.0
SLICES = 12
# Values kept of a slice: 25 a second.
KEPT = 128


class Summary:
    """Quantiles over a sliding minute; count and sum since the start.

    The window moves in steps of five seconds: it covers the last 55 to 60 seconds. Quantiles are exact while no slice
    has more than KEPT values. Beyond that each value stands for several; the standard error of the rank p is
    sqrt(p(1-p)/n) for n values kept: 1.3 % at the median with full slices, 4.4 % when one slice has all values.
    Memory: at most SLICES * KEPT numbers, 12 kB. It does not lock: its owner does.
    ``clock`` returns monotonic seconds.
    """

    __slots__ = ("_clock", "_slices", "count", "sum")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slices: deque[_Slice] = deque()
        self.count = 0
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Add one value; a value that is not finite is ignored."""
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
        weighted = sorted((value, part.weight) for part in self._slices for value in part.values)
        total = sum(weight for _, weight in weighted)
        return [_at(weighted, quantile * total) for quantile in wanted]

    def kept(self) -> int:
        """Return how many values are held: the memory in use."""
        return sum(len(part.values) for part in self._slices)

    def _expire(self) -> int:
        """Drop the slices that left the window; return the number of the slice that is now."""
        number = int(self._clock() // (WINDOW_SECONDS / SLICES))
        while self._slices and self._slices[0].number <= number - SLICES:
            self._slices.popleft()
        return number


class _Slice:
    """The values of five seconds, or a fair sample of KEPT of them."""

    __slots__ = ("_count", "number", "values")

    def __init__(self, number: int) -> None:
        self.number = number
        self.values = array("d")
        self._count = 0

    @property
    def weight(self) -> float:
        """How many values each kept one stands for."""
        return self._count / len(self.values)

    def add(self, value: float) -> None:
        self._count += 1
        if len(self.values) < KEPT:
            self.values.append(value)
            return
        place = random.randrange(self._count)  # noqa: S311 # a sample, not a secret
        if place < KEPT:
            self.values[place] = value


def _at(weighted: Sequence[tuple[float, float]], rank: float) -> float:
    """Return the first value at which the weights add up to ``rank``, the last one when rounding leaves it short."""
    reached = 0.0
    for value, weight in weighted:
        reached += weight
        if reached >= rank:
            return value
    return weighted[-1][0] if weighted else math.nan
