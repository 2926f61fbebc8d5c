"""What discovery logs: which neighbours came and left, which requests fail, which objects are odd. All rate-limited."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

from checks.model import Neighbour
from checks.text import printable

log = logging.getLogger("kubenurse.discovery")

# Seconds. While Pods come and go by the hundred, one line in so many seconds says which.
SECONDS_BETWEEN_LOGS = 5.0
NAMES_LOGGED = 10
# Seconds between two lines that say that requests fail, or that objects are left out.
SECONDS_BETWEEN_WARNINGS = 60.0
LONGEST_WHY = 400  # characters


class NeighbourLog:
    """Logs the neighbours that came and left, at most once in ``SECONDS_BETWEEN_LOGS``; for one thread at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._logged: tuple[Neighbour, ...] = ()
        self._logged_at = -math.inf
        self._latest: tuple[Neighbour, ...] = ()

    def note(self, neighbours: tuple[Neighbour, ...]) -> None:
        """Take the newest neighbours, and log what changed unless a line was logged just before."""
        self._latest = neighbours
        if self._clock() >= self._logged_at + SECONDS_BETWEEN_LOGS:
            self.flush()

    def flush(self) -> None:
        """Log now what has changed since the last line."""
        if self._latest is self._logged:
            return
        before, after = _names(self._logged), _names(self._latest)
        self._logged = self._latest
        added, removed = after - before, before - after
        if added or removed:
            self._logged_at = self._clock()
            facts = {"added": _some(added), "removed": _some(removed), "neighbours": len(after)}
            log.info("neighbours changed", extra={"facts": facts})

    def next_line(self) -> float:
        """Return when the changes held back may be logged, on the clock; infinity when there are none."""
        return math.inf if self._latest is self._logged else self._logged_at + SECONDS_BETWEEN_LOGS


class FailureLog:
    """Logs when requests for one resource begin to fail, why, and when they recover; for one thread at a time.

    "Failing" is logged at most once in ``SECONDS_BETWEEN_WARNINGS``, also for a change of the reason, and "recovered"
    only after it: at most two lines a minute, however often a failure comes and goes.
    """

    def __init__(self, resource: str, clock: Callable[[], float]) -> None:
        self._resource = resource
        self._clock = clock
        self._latest = self._logged = ""
        self._logged_at = -math.inf

    def note(self, failure: str) -> None:
        """Take the newest reason, empty when nothing fails, and log what may be logged now."""
        self._latest = failure
        if failure == self._logged:
            return
        if not failure:
            log.info("discovery recovered", extra={"facts": {"resource": self._resource}})
            self._logged = ""
        elif self._clock() >= self._logged_at + SECONDS_BETWEEN_WARNINGS:
            log.warning("discovery failing", extra={"facts": {"resource": self._resource, "why": failure}})
            self._logged, self._logged_at = failure, self._clock()

    def next_line(self) -> float:
        """Return when the reason held back may be logged, on the clock; infinity when there is none."""
        return math.inf if self._latest == self._logged else self._logged_at + SECONDS_BETWEEN_WARNINGS


class OddObjectLog:
    """Logs that objects are left out, at most once in ``SECONDS_BETWEEN_WARNINGS`` for each resource.

    It keeps one time and one count for each resource. Methods may be called by any thread.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._logged_at: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def note(self, resource: str, name: str, why: str) -> None:
        """Log that an object of that name is not used, and why, unless one of its resource was logged just before."""
        with self._lock:
            now = self._clock()
            if now < self._logged_at.get(resource, -math.inf) + SECONDS_BETWEEN_WARNINGS:
                self._held_back[resource] = self._held_back.get(resource, 0) + 1
                return
            self._logged_at[resource] = now
            more = self._held_back.pop(resource, 0)
        facts = {"resource": resource, "name": printable(name, 253), "why": printable(why, LONGEST_WHY), "others": more}
        log.warning("object left out", extra={"facts": facts})


def _names(neighbours: tuple[Neighbour, ...]) -> frozenset[str]:
    return frozenset(neighbour.pod_name for neighbour in neighbours)


def _some(names: frozenset[str]) -> str:
    shown = sorted(names)[:NAMES_LOGGED]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ",".join(shown) + more
