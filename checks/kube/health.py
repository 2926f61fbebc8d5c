"""The state of a reflector: why its requests fail, and when the API server last confirmed its objects. Pure.

A watch that opens says little: it may be cut the next moment, again and again. So a failure ends only after a watch has
stayed open for a while, and an open watch confirms the objects only then, or by an event.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

# Seconds. A watch that stays open for that long ends a failure: requests work again.
STEADY = 0.5
# Seconds. A watch that ends earlier is a short one: the pause before the next watch grows.
HEALTHY_WATCH = 5.0
# So many short watches in a row are a failure. Then only a watch of ``HEALTHY_WATCH`` ends it.
SHORT_WATCHES = 3


@dataclass(frozen=True, slots=True)
class Status:
    """What can be said at one moment.

    ``failure`` is why requests fail, in words, empty while they work. ``synced_at`` is when the API server last
    confirmed the objects, None before the first time. ``steady_at`` is when the watch that is open will have stayed
    long enough, infinity without one. All times are of one monotonic clock.
    """

    failure: str = ""
    synced_at: float | None = None
    steady_at: float = math.inf

    def at(self, now: float) -> Status:
        """Return the status at a moment: an open watch becomes steady by time alone."""
        if now < self.steady_at:
            return self
        return Status(failure="", synced_at=max(self.synced_at or -math.inf, self.steady_at))


class Health:
    """Follows the requests of one reflector. Its methods are for one thread; ``status`` may be read by any.

    Each method takes the moment on the clock at which something happened.
    """

    def __init__(self) -> None:
        self.status = Status()
        self._opened_at = math.inf
        self._short_watches = 0

    def listed(self, now: float) -> None:
        """Take a complete list: it confirms the objects; whether requests work, the watch will tell."""
        self.status = dataclasses.replace(self.status, synced_at=now)

    def failed(self, now: float, why: str) -> None:
        """Take a failed request."""
        self.status = dataclasses.replace(self.status.at(now), failure=why, steady_at=math.inf)

    def opened(self, now: float) -> None:
        """Take a watch that has opened."""
        self._opened_at = now
        wait = HEALTHY_WATCH if self._short_watches >= SHORT_WATCHES else STEADY
        self.status = dataclasses.replace(self.status, steady_at=now + wait)

    def heard(self, now: float) -> None:
        """Take an event or a bookmark: it confirms the objects."""
        self.status = dataclasses.replace(self.status.at(now), synced_at=now)

    def ended(self, now: float, why: str) -> bool:
        """Take the end of the watch and its reason; tell whether the watch lived for ``HEALTHY_WATCH``."""
        healthy = now - self._opened_at >= HEALTHY_WATCH
        self._opened_at = math.inf
        self._short_watches = 0 if healthy else self._short_watches + 1
        self.status = dataclasses.replace(self.status.at(now), steady_at=math.inf)
        if self._short_watches >= SHORT_WATCHES:
            self.status = dataclasses.replace(self.status, failure=f"each watch ends at once: {why}")
        return healthy
