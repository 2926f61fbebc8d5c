"""Fields of a document that another Pod wrote: any of them may be absent, of another type or absurd. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from checks.diagnosis.states import clean

# The longest DNS name, and so the longest name of a node or Pod.
LONGEST_NAME = 253
# Larger numbers mean nothing in a bundle; epoch seconds are the largest that do.
LARGEST_NUMBER = 1e12


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping, empty when the value is none."""
    return value if isinstance(value, dict) else {}


def entries(value: Any, most: int) -> Sequence[Any]:
    """Return the first ``most`` entries of a list, none when the value is no list."""
    return value[:most] if isinstance(value, list) else ()


def text(value: Any) -> str:
    """Return a text on one printable line, empty when the value is none."""
    return clean(value) if isinstance(value, str) else ""


def name(value: Any) -> str:
    """Return the name of a node, Pod, zone or check, empty when the value cannot be one."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        return ""
    return value if value.isascii() and value.isprintable() and " " not in value else ""


def number(value: Any) -> float | None:
    """Return a finite number of a plausible size, None when the value is none."""
    # NaN compares false; bool is a type of its own here.
    if type(value) not in (int, float) or not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        return None
    return float(value)


def positive(value: Any, default: float = 0.0) -> float:
    """Return a number that is not negative, else ``default``."""
    found = number(value)
    return default if found is None or found < 0 else found


def flag(value: Any) -> bool:
    """Return True only when the value is true itself."""
    return value is True
