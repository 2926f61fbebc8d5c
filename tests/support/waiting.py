"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Shorter than every timer of the product that could make a test pass by itself. A test that waits for such a timer, or
# for a process to start, states its own limit.
PATIENCE = 5.0
# Starting an interpreter and its packages while other tests use all cores takes this long at most.
PROCESS_START = 20.0


def until(look: Callable[[], T], timeout: float = PATIENCE, every: float = 0.02) -> T:
    """Call ``look`` every ``every`` seconds until it returns a truthy value, and return that value.

    Raises:
        AssertionError: after ``timeout`` seconds without one.
    """
    deadline = time.monotonic() + timeout
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"still {seen!r} after {timeout:g} s")
        time.sleep(every)
