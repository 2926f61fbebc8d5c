"""Waiting for something to become true, with a deadline instead of a hope."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], timeout: float = 40.0, every: float = 0.02) -> T:
    """Look again and again until what is seen is truthy, and return it; fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"still {seen!r} after {timeout:g} s")
        time.sleep(every)
