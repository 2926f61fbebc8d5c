"""Histograms: ``le`` buckets as Prometheus defines them, ``vmrange`` buckets as VictoriaMetrics does."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.report.histogram import Histogram, LeHistogram, VmrangeHistogram

BOUNDS = (0.005, 0.1, 1.0, 2.5)
NOT_NEGATIVE = st.floats(min_value=0, max_value=1e20)


def buckets_of(histogram: Histogram, *values: float) -> dict[str, int]:
    """Observe the values and return the buckets by their label."""
    for value in values:
        histogram.observe(value)
    return dict(histogram.snapshot().buckets)


def test_le_value_equal_to_a_bound_belongs_to_it() -> None:
    """A value equal to a bound is counted in that bucket, and in all above it."""
    assert buckets_of(LeHistogram(BOUNDS), 0.1) == {"0.005": 0, "0.1": 1, "1.0": 1, "2.5": 1, "+Inf": 1}


def test_le_value_above_all_bounds_is_only_in_the_last_bucket() -> None:
    """What is larger than every bound is in +Inf alone."""
    assert buckets_of(LeHistogram(BOUNDS), 99.0) == {"0.005": 0, "0.1": 0, "1.0": 0, "2.5": 0, "+Inf": 1}


@given(st.lists(NOT_NEGATIVE), st.lists(NOT_NEGATIVE.filter(bool), min_size=1, max_size=20, unique=True))
def test_le_buckets_count_what_is_at_most_their_bound(values: list[float], bounds: list[float]) -> None:
    """For any bounds and values each bucket is the number of values up to its bound, and count and sum agree."""
    bounds.sort()
    histogram = LeHistogram(tuple(bounds))
    for value in values:
        histogram.observe(value)
    snapshot = histogram.snapshot()
    assert [count for _, count in snapshot.buckets] == [
        sum(value <= bound for value in values) for bound in (*bounds, math.inf)
    ]
    assert [float(label) for label, _ in snapshot.buckets] == [*bounds, math.inf]
    assert snapshot.count == len(values)
    assert snapshot.sum == pytest.approx(math.fsum(values))


@pytest.mark.parametrize("histogram", [LeHistogram(BOUNDS), VmrangeHistogram()])
def test_negative_and_nan_are_ignored(histogram: Histogram) -> None:
    """A negative value or NaN changes nothing, whatever the kind of histogram."""
    before = histogram.snapshot()
    for value in (-1.0, -1e-300, -math.inf, math.nan):
        histogram.observe(value)
    assert histogram.snapshot() == before


def reference_ranges() -> list[tuple[float, str]]:
    """Each bucket's end and label, by multiplying up from the lowest as VictoriaMetrics's documentation has it."""
    ranges, start = [], 1e-9
    for _ in range(27 * 18):
        end = start * 10 ** (1 / 18)
        ranges.append((end, f"{start:.3e}...{end:.3e}"))
        start = end
    return ranges


def test_every_vmrange_has_the_label_that_victoriametrics_gives_it() -> None:
    """A value in the middle of each of the 486 buckets gets the label of an independent reference."""
    for end, label in reference_ranges():
        assert buckets_of(VmrangeHistogram(), end * 10 ** (-1 / 36)) == {label: 1}


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0.0, "0...1.000e-09"),
        (5e-324, "0...1.000e-09"),
        (9.9e-10, "0...1.000e-09"),
        (1e-9, "1.000e-09...1.136e-09"),
        (1e-3, "8.799e-04...1.000e-03"),
        (0.0011, "1.000e-03...1.136e-03"),
        (1.0, "8.799e-01...1.000e+00"),
        (10.0, "8.799e+00...1.000e+01"),
        (15.0, "1.468e+01...1.668e+01"),
        (1e17, "8.799e+16...1.000e+17"),
        (9.9e17, "8.799e+17...1.000e+18"),
        (1e18, "1.000e+18...+Inf"),
        (1e300, "1.000e+18...+Inf"),
        (math.inf, "1.000e+18...+Inf"),
    ],
)
def test_vmrange_of_a_value(value: float, label: str) -> None:
    """Powers of ten end a bucket; zero, tiny and huge values have the two outer ones."""
    assert buckets_of(VmrangeHistogram(), value) == {label: 1}


@pytest.mark.parametrize("exponent", range(-8, 18))
def test_a_power_of_ten_ends_its_bucket(exponent: int) -> None:
    """Each power of ten is counted in the bucket that ends with it, as ``le`` would."""
    (label,) = buckets_of(VmrangeHistogram(), float(f"1e{exponent}"))
    assert label.endswith(f"...1.000e{exponent:+03d}")


@given(st.lists(NOT_NEGATIVE))
def test_vmranges_hold_their_values(values: list[float]) -> None:
    """Only buckets that hold something are exposed, in rising order, and together they hold every value."""
    histogram = VmrangeHistogram()
    for value in values:
        histogram.observe(value)
    snapshot = histogram.snapshot()
    starts = [float(label.partition("...")[0]) for label, _ in snapshot.buckets]
    assert starts == sorted(set(starts))
    assert all(count > 0 for _, count in snapshot.buckets)
    assert snapshot.count == sum(count for _, count in snapshot.buckets) == len(values)
    assert snapshot.sum == pytest.approx(math.fsum(values))
    for value in values:
        assert any(
            float(start) * 0.999 <= value <= float(end) * 1.001
            for start, end in (label.split("...") for label, _ in snapshot.buckets)
        )


def test_vmranges_are_bounded() -> None:
    """However wide the values, there are never more than 488 buckets."""
    histogram = VmrangeHistogram()
    for tenth in range(-3200, 3080):
        histogram.observe(10 ** (tenth / 10))
        histogram.observe(1.04 * 10 ** (tenth / 10))
    for step in range(-10 * 18, 20 * 18):
        histogram.observe(10 ** ((step + 0.5) / 18))
    assert len(histogram.snapshot().buckets) == 488
