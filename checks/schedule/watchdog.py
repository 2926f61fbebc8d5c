"""Ends an agent that no longer does its work: endpoints that answer 200 over dead loops would lie for good."""

from __future__ import annotations

import time
from collections.abc import Callable

# How often the main thread looks, in seconds.
LOOK_SECONDS = 5.0
# A part may be silent for this many intervals between rounds, and for at least this many seconds.
MOST_INTERVALS = 10
LEAST_SECONDS = 60.0


class Watchdog:
    """Knows which part of the agent has shown no life for too long.

    Each part tells when it was last at work, in seconds of ``clock`` (monotonic). ``limit`` is the longest silence.
    The process may have stood still itself (SIGSTOP, a frozen cgroup): a look that comes late starts the count anew.
    """

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._parts: dict[str, Callable[[], float]] = {}
        self._since = self._looked = clock()

    def watch(self, name: str, last_lived: Callable[[], float]) -> None:
        """Add a part; its life counts from now on."""
        self._parts[name] = last_lived

    def silent(self) -> str:
        """Return which part has been silent for too long, in words; empty while all are alive."""
        now = self._clock()
        if now - self._looked > 2 * LOOK_SECONDS:
            self._since = now
        self._looked = now
        for name, last_lived in self._parts.items():
            silence = now - max(last_lived(), self._since)
            if silence > self._limit:
                return f"{name} has shown no life for {silence:.0f} s, expected at most {self._limit:.0f} s"
        return ""


def longest_silence(interval: float) -> float:
    """Return how long a part may be silent, in seconds, where rounds start every ``interval`` seconds."""
    return max(LEAST_SECONDS, MOST_INTERVALS * interval)
