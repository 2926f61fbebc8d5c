"""Durations are read and written as Go reads and writes them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.config.durations import format_duration, parse_duration

NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("+0", 0.0),
        ("-0", 0.0),
        ("0s", 0.0),
        ("5s", 5.0),
        ("1m30s", 90.0),
        ("500ms", 0.5),
        ("1h15m30.918s", 4530.918),
        ("-1.5h", -5400.0),
        ("+.5s", 0.5),
        ("1.s", 1.0),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("1μs", 1e-6),
        ("3ns", 3e-9),
        ("1s1s", 2.0),
        ("30s1h", 3630.0),
        ("0.9ns", 0.0),
        ("0.33333333333333333333333333h", 1199.999999999),
        ("000000000000000000000000000000001s", 1.0),
        ("2562047h47m16.854775807s", 9223372036.854775807),
    ],
)
def test_reads_what_go_reads(text: str, seconds: float) -> None:
    """Every form of Go's syntax gives its seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "empty"),
        ("-", "empty"),
        ("+", "empty"),
        ("5", "unit missing"),
        ("1m30", "unit missing"),
        ("s", "no number"),
        (".s", "no number"),
        ("--5s", "no number"),
        ("-.s", "no number"),
        (" 5s", "no number"),
        ("5 s", "unknown unit"),
        ("5s ", "unknown unit"),
        ("5d", "unknown unit"),
        ("5S", "unknown unit"),
        ("5s-3s", "unknown unit"),
        ("1.2.3s", "unit missing"),
        ("1_000s", "unknown unit"),
        ("٣s", "no number"),
        ("2562047h47m16.854775808s", "too long"),
        ("9" * 10_000 + "h", "too long"),
    ],
)
def test_refuses_what_go_refuses(text: str, wrong: str) -> None:
    """What is no Go duration is a ValueError that says what is wrong and what is expected."""
    with pytest.raises(ValueError, match=rf"{wrong}.*, expected"):
        parse_duration(text)


@given(st.text(max_size=40))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    """Whatever the text, the answer is a finite number or a ValueError."""
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert math.isfinite(seconds)


@given(
    st.sampled_from(["", "+", "-"]),
    # Together less than the 292 years that are the most.
    st.lists(st.tuples(st.integers(0, 10**5), st.sampled_from(sorted(NANOSECONDS))), min_size=1, max_size=20),
)
def test_parts_add_up(sign: str, parts: list[tuple[int, str]]) -> None:
    """The parts of a duration add up exactly, and the sign is that of the whole."""
    text = sign + "".join(f"{amount}{unit}" for amount, unit in parts)
    total = sum(amount * NANOSECONDS[unit] for amount, unit in parts)
    assert parse_duration(text) == (-total if sign == "-" else total) / 1e9


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1e-10, "0s"),
        (1e-9, "1ns"),
        (1.1e-6, "1.1µs"),
        (2.2e-3, "2.2ms"),
        (0.1, "100ms"),
        (5, "5s"),
        (60, "1m0s"),
        (90.5, "1m30.5s"),
        (86_400, "24h0m0s"),
        (-5400, "-1h30m0s"),
        (3600.000000001, "1h0m0.000000001s"),
    ],
)
def test_writes_what_go_writes(seconds: float, text: str) -> None:
    """Durations are written as Go's Duration.String does."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [math.inf, -math.inf, math.nan])
def test_what_is_no_time_is_not_written(seconds: float) -> None:
    """Infinity and not-a-number are refused."""
    with pytest.raises(ValueError, match="not a duration"):
        format_duration(seconds)


# 2**50 nanoseconds are 13 days; beyond that a float of seconds begins to lose single ones.
@given(st.integers(-(2**50), 2**50))
def test_round_trip(nanoseconds: int) -> None:
    """What is written is read back as the same duration, to the nanosecond."""
    seconds = nanoseconds / 1e9
    assert parse_duration(format_duration(seconds)) == seconds
