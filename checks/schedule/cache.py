"""The TTL cache: what was found last, and whether that is young enough to answer with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class TTLCache(Generic[Key, Value]):
    """The latest value of each key with its age, behind one lock.

    A value is fresh for ``ttl`` seconds after it was put; later it is still the latest value. It holds as
    many values as there are keys in use: ``retain`` lets the others go. ``clock`` is monotonic seconds.
    """

    def __init__(self, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[Key, tuple[float, Value]] = {}

    def put(self, key: Key, value: Value) -> None:
        """Store a value; its age begins now."""
        with self._lock:
            self._entries[key] = (self._clock(), value)

    def fresh(self, key: Key) -> Value | None:
        """Return the value when it is younger than the TTL."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or self._clock() - entry[0] >= self.ttl:
                return None
            return entry[1]

    def latest(self, key: Key) -> Value | None:
        """Return the value, however old."""
        with self._lock:
            entry = self._entries.get(key)
            return None if entry is None else entry[1]

    def retain(self, keys: Collection[Key]) -> None:
        """Forget the values of all other keys: they are no longer in use."""
        with self._lock:
            for key in self._entries.keys() - set(keys):
                del self._entries[key]

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)
