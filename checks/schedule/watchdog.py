"""Ends an agent that no longer does its work: endpoints that answer 200 over dead loops would lie for good."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

# How often the main thread looks, in seconds.
LOOK_SECONDS = 5.0
# A part may be silent for this many intervals between rounds, and for at least this many seconds.
MOST_INTERVALS = 10
LEAST_SECONDS = 60.0
# A quiet watch of the API server shows life once a minute, or when its client gives it up after a minute and a half.
WATCH_SECONDS = 180.0


class Watchdog:
    """Knows which part of the agent has shown no life for too long.

    Each part tells when it was last at work, in seconds of ``clock`` (monotonic). ``limit`` is the longest silence.
    The process may have stood still itself (SIGSTOP, a frozen cgroup): a look that comes late starts the count anew.
    """

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._parts: dict[str, Callable[[], float]] = {}
        self._groups: list[tuple[Callable[[], Mapping[str, float]], float]] = []
        self._since = self._looked = clock()

    def watch(self, name: str, last_lived: Callable[[], float]) -> None:
        """Add a part; its life counts from now on."""
        self._parts[name] = last_lived

    def watch_all(self, last_lived: Callable[[], Mapping[str, float]], limit: float) -> None:
        """Add the parts that one source tells of, by name, with a longest silence of their own where that is longer."""
        self._groups.append((last_lived, max(limit, self._limit)))

    def silent(self) -> str:
        """Return which part has been silent for too long, in words; empty while all are alive."""
        now = self._clock()
        if now - self._looked > 2 * LOOK_SECONDS:
            self._since = now
        self._looked = now
        lived = [(name, last_lived(), self._limit) for name, last_lived in self._parts.items()]
        for group, limit in self._groups:
            lived += [(name, moment, limit) for name, moment in group().items()]
        for name, moment, limit in lived:
            silence = now - max(moment, self._since)
            if silence > limit:
                return f"{name} has shown no life for {silence:.0f} s, expected at most {limit:.0f} s"
        return ""


def longest_silence(interval: float) -> float:
    """Return how long a part may be silent, in seconds, where rounds start every ``interval`` seconds."""
    return max(LEAST_SECONDS, MOST_INTERVALS * interval)
