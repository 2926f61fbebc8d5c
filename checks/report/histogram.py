"""Histograms of durations, small in memory: Prometheus's ``le`` buckets and VictoriaMetrics's ``vmrange`` buckets.

Neither locks: its owner does.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from prometheus_client.utils import floatToGoString

_LOWEST_DECADE, _HIGHEST_DECADE, _BUCKETS_PER_DECADE = -9, 18, 18
_VMRANGES = (_HIGHEST_DECADE - _LOWEST_DECADE) * _BUCKETS_PER_DECADE
_BELOW, _ABOVE = -1, _VMRANGES


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A histogram at one moment: (label value, number of observations) of each bucket, their number, their sum."""

    buckets: list[tuple[str, int]]
    count: int
    sum: float


class Histogram(Protocol):
    """What both kinds do."""

    def observe(self, value: float) -> None:
        """Count one value; a negative one or NaN is ignored."""

    def snapshot(self) -> Snapshot:
        """Return the buckets as they are exposed."""


class LeHistogram:
    """A histogram with fixed upper bounds, cumulative when read, as Prometheus defines it.

    ``bounds`` are finite and strictly increasing; ``+Inf`` is added. A value equal to a bound belongs to it. Its
    memory is fixed: eight bytes a bucket.
    Source: https://prometheus.io/docs/concepts/metric_types/#histogram.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = array("Q", bytes(8 * (len(bounds) + 1)))
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a negative one or NaN is ignored."""
        if value >= 0:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def snapshot(self) -> Snapshot:
        """Return all buckets, each with the number of values up to its bound."""
        buckets, total = [], 0
        for label, count in zip(_le_labels(self._bounds), self._counts, strict=True):
            total += count
            buckets.append((label, total))
        return Snapshot(buckets, total, self._sum)


class VmrangeHistogram:
    """A histogram with 18 buckets a decade from 1e-9 to 1e18, read as VictoriaMetrics defines it.

    A bucket holds the values above its start up to and including its end; values that are smaller or larger than all
    buckets have a bucket each. Only buckets that hold something are kept and exposed, at most 488.
    Source: https://pkg.go.dev/github.com/VictoriaMetrics/metrics#Histogram.
    """

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a negative one or NaN is ignored."""
        if value >= 0:
            bucket = _vmrange_index(value)
            self._counts[bucket] = self._counts.get(bucket, 0) + 1
            self._sum += value

    def snapshot(self) -> Snapshot:
        """Return the buckets that hold something, in rising order, each with its own values only."""
        buckets = [(_vmrange_label(bucket), self._counts[bucket]) for bucket in sorted(self._counts)]
        return Snapshot(buckets, sum(self._counts.values()), self._sum)


def go_string(value: float) -> str:
    """Return a number as Go, and so Prometheus, writes it."""
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]  # prometheus_client annotates most but not this
    return text


@lru_cache(maxsize=4)
def _le_labels(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(go_string(bound) for bound in (*bounds, math.inf))


def _vmrange_index(value: float) -> int:
    if value == 0:
        return _BELOW
    position = (math.log10(value) - _LOWEST_DECADE) * _BUCKETS_PER_DECADE
    if position < 0:
        return _BELOW
    if position >= _VMRANGES:
        return _ABOVE
    index = int(position)
    # A power of ten is the end of a bucket, not the start of the next. The first bucket has none before it.
    return index - 1 if index == position and index > 0 else index


@lru_cache(maxsize=_VMRANGES + 2)
def _vmrange_label(index: int) -> str:
    start = "0" if index == _BELOW else _vmrange_bound(index)
    end = "+Inf" if index == _ABOVE else _vmrange_bound(index + 1)
    return f"{start}...{end}"


def _vmrange_bound(index: int) -> str:
    return f"{10 ** (_LOWEST_DECADE + index / _BUCKETS_PER_DECADE):.3e}"
