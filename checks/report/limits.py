"""How often something may be said: limits for log lines, which count what they hold back."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

_KUBENURSE = logging.getLogger("kubenurse")


class Limit:
    """Lets at most ``most`` events through in any ``seconds`` seconds, and counts those held back in between.

    Times are seconds of one clock, given by the caller. Its memory is ``most`` numbers. It does not lock: its owner
    does.
    """

    __slots__ = ("_let_through", "_seconds", "held_back")

    def __init__(self, most: int, seconds: float) -> None:
        self._seconds = seconds
        self._let_through: deque[float] = deque(maxlen=most)
        self.held_back = 0

    def lets_through(self, now: float) -> bool:
        """Count an event at ``now`` as let through when there is room for it, else as held back."""
        oldest = self._let_through[0] if len(self._let_through) == self._let_through.maxlen else None
        if oldest is not None and now - oldest < self._seconds:
            self.held_back += 1
            return False
        self._let_through.append(now)
        return True

    def take_held_back(self) -> int:
        """Return how many events were held back since the last call, and count anew."""
        held_back, self.held_back = self.held_back, 0
        return held_back


class Bucket:
    """Lets a burst of ``most`` events through, and over a long time one in ``seconds`` seconds (a token bucket).

    Times are seconds of one clock, given by the caller; a time before the last one counts as the last one. It does not
    lock: its owner does.
    """

    __slots__ = ("_at", "_most", "_seconds", "_tokens")

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._tokens = float(most)
        self._at: float | None = None

    def lets_through(self, now: float) -> bool:
        """Take a token for an event at ``now``; False when there is none."""
        if self._at is not None and now > self._at:
            self._tokens = min(float(self._most), self._tokens + (now - self._at) / self._seconds)
        self._at = now if self._at is None else max(now, self._at)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class SparseLog:
    """Logs one warning in ``interval`` seconds, with the number of those held back before it.

    Every method may be called from any thread. The lock is not held while the logger works. ``clock`` returns
    monotonic seconds.
    """

    def __init__(
        self,
        interval: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        logger: logging.Logger = _KUBENURSE,
    ) -> None:
        self._limit = Limit(1, interval)
        self._clock = clock
        self._lock = threading.Lock()
        self._logger = logger

    def warning(self, event: str, **facts: object) -> None:
        """Log ``event`` with its facts and ``held_back``, or count it."""
        now = self._clock()
        with self._lock:
            if not self._limit.lets_through(now):
                return
            held_back = self._limit.take_held_back()
        self._logger.warning(event, extra={"facts": facts | {"held_back": held_back}})
