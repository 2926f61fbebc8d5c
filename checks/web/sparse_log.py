"""Warnings that clients can cause, at most one a minute for each kind."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("kubenurse.server")


class SparseLog:
    """Lets one warning in ``interval`` seconds through, with the number of those held back before it.

    ``clock`` returns monotonic seconds.
    """

    def __init__(self, interval: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0
        self._held_back = 0

    def warning(self, event: str, **facts: object) -> None:
        """Log, or count."""
        now = self._clock()
        with self._lock:
            if now < self._next:
                self._held_back += 1
                return
            self._next = now + self._interval
            held_back, self._held_back = self._held_back, 0
        log.warning(event, extra={"facts": facts | {"held_back": held_back}})
