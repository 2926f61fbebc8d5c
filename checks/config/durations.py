"""Durations as Go writes them, because that is how kubenurse has always been configured.

Source: the documentation of Go's ``time.ParseDuration`` and ``time.Duration.String`` (https://pkg.go.dev/time).
"""

from __future__ import annotations

import math
import re

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # micro sign
    "\u03bcs": 1_000,  # Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_LARGEST = 2**63 - 1  # Go counts nanoseconds in 64 bits
_PART = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?([^0-9.]*)")
_EXAMPLES = "expected a duration like 5s, 1m30s or 500ms"


def parse_duration(text: str) -> float:
    """Convert a Go duration (``1h15m30.5s``, ``-1.5h``, ``0``) to seconds.

    Fractions of a nanosecond are dropped, as in Go.

    Raises:
        ValueError: with what is wrong and what is expected.
    """
    sign = -1 if text.startswith("-") else 1
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    if unsigned == "0":
        return 0.0
    if not unsigned:
        raise ValueError(f"empty, {_EXAMPLES}")
    total = 0
    position = 0
    while position < len(unsigned):
        part = _PART.match(unsigned, position)
        if part is None or not (part[1] or part[3]):
            raise ValueError(f"no number where one should be, {_EXAMPLES}")
        total += _nanoseconds(part[1], part[3] or "", part[4])
        position = part.end()
    if total > _LARGEST:
        raise ValueError("too long, expected less than 292 years")
    return sign * total / 1e9


def _nanoseconds(whole: str, fraction: str, unit: str) -> int:
    if not unit:
        raise ValueError(f"unit missing, {_EXAMPLES}")
    if unit not in _NANOSECONDS:
        raise ValueError(f"unknown unit, {_EXAMPLES} with the units ns, us, ms, s, m, h")
    # More digits than these can only be out of range, or below a nanosecond; int() is not asked to read them.
    significant = whole.lstrip("0")[:20]
    fraction = fraction[:20]
    scale = _NANOSECONDS[unit]
    parts: int = 10 ** len(fraction)
    return int(significant or "0") * scale + int(fraction or "0") * scale // parts


def format_duration(seconds: float) -> str:
    """Write seconds as Go does: ``1h15m30.918s``, ``1.5ms``, ``0s``; rounded to the nanosecond.

    Raises:
        ValueError: when ``seconds`` is infinite or not a number.
    """
    if not math.isfinite(seconds):
        raise ValueError(f"{seconds} is not a duration")
    nanoseconds = round(abs(seconds) * 1e9)
    if nanoseconds == 0:
        return "0s"
    sign = "-" if seconds < 0 else ""
    if nanoseconds < _NANOSECONDS["s"]:
        unit = next(unit for unit in ("ms", "\u00b5s", "ns") if nanoseconds >= _NANOSECONDS[unit])
        return f"{sign}{_decimal(nanoseconds, _NANOSECONDS[unit])}{unit}"
    minutes, rest = divmod(nanoseconds, _NANOSECONDS["m"])
    hours, minutes = divmod(minutes, 60)
    leading = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{leading}{_decimal(rest, _NANOSECONDS['s'])}s"


def _decimal(amount: int, scale: int) -> str:
    """``amount / scale`` in decimal digits, exactly; ``scale`` is a power of ten."""
    whole, rest = divmod(amount, scale)
    digits = f"{rest:0{len(str(scale)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
