"""Pauses between the tries of a reflector: random, growing with the failures, and cut short when there is news."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

# Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), in seconds.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
LONGEST_RETRY_AFTER = 60.0
# Seconds. A sleeping thread says that it lives this often.
STEP = 10.0


class Backoff:
    """Computes the pauses. ``failures`` counts those in a row; ``random`` returns a number from 0 to 1."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.failures = 0
        self._random = random

    def pause(self) -> float:
        """Return how long to wait, in seconds. It is random without a failure too: a fleet's watches end together."""
        return self._random() * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.failures, 10))


class Sleeper:
    """Lets one thread sleep; other threads may wake it, or stop it for good. Its clock is ``time.monotonic``.

    ``on_step`` is called by the sleeping thread, at least every ``STEP`` seconds; it must return at once.
    """

    def __init__(self, on_step: Callable[[], None] = lambda: None) -> None:
        self._on_step = on_step
        self._changed = threading.Condition()
        self._stopped = False
        self._earliest = self._until = -math.inf

    @property
    def stopped(self) -> bool:
        """True once ``stop`` was called."""
        return self._stopped

    def sleep(self, at_least: float, seconds: float) -> None:
        """Sleep for ``seconds``; ``wake_within`` shortens that, but not below ``at_least`` seconds."""
        with self._changed:
            now = time.monotonic()
            self._earliest, self._until = now + at_least, now + max(at_least, seconds)
            while not self._stopped and (left := self._until - time.monotonic()) > 0:
                self._changed.wait(min(left, STEP))
                self._on_step()
            self._earliest = self._until = -math.inf

    def wake_within(self, seconds: float) -> bool:
        """Let a sleep that is under way end within ``seconds``; tell whether one is under way."""
        with self._changed:
            if self._until == -math.inf:
                return False
            self._until = max(self._earliest, min(self._until, time.monotonic() + seconds))
            self._changed.notify_all()
            return True

    def stop(self) -> None:
        """End the sleep and all later ones at once."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
