"""The neighbours that checked this agent in the last minute."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable

CALLER_SECONDS = 60.0
# As many neighbours as Kubernetes supports nodes; clients that make up names get no further.
MAX_CALLERS = 5000
# The longest name of a Pod (RFC 1123 subdomain, as Kubernetes has it).
_LONGEST_NAME = 253
_ORIGIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class Callers:
    """Counts distinct Pod names of the last CALLER_SECONDS, at most MAX_CALLERS.

    Every method may be called from any thread. It has its own lock: the answer to a neighbour waits for no scrape.
    ``clock`` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._called_at: OrderedDict[str, float] = OrderedDict()

    def add(self, origin: str) -> None:
        """Count the neighbour that announced itself as ``origin``; ignore what is no Pod name."""
        if len(origin) > _LONGEST_NAME or not _ORIGIN.fullmatch(origin):
            return
        with self._lock:
            self._forget()
            if origin in self._called_at or len(self._called_at) < MAX_CALLERS:
                self._called_at[origin] = self._clock()
                self._called_at.move_to_end(origin)

    def count(self) -> int:
        """Return the number of neighbours that called in the last CALLER_SECONDS."""
        with self._lock:
            self._forget()
            return len(self._called_at)

    def _forget(self) -> None:
        oldest = self._clock() - CALLER_SECONDS
        while self._called_at and next(iter(self._called_at.values())) <= oldest:
            self._called_at.popitem(last=False)
