"""Connections kept between rounds (KUBENURSE_REUSE_CONNECTIONS)."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from checks.probe.channel import Channel

Key = Hashable

# Longer than the longest usual interval between rounds; a server ends idle connections after a minute or so itself.
MOST_IDLE_SECONDS = 120.0
# One a target; what is kept for targets that have gone ends by its age.
MOST_KEPT = 1024


class Keeper:
    """Idle connections, at most one a key and ``most`` in all, none idle for longer than MOST_IDLE_SECONDS.

    ``clock`` is monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST_KEPT) -> None:
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._idle: OrderedDict[Key, tuple[float, Channel]] = OrderedDict()
        self._closed = False

    def take(self, key: Key) -> Channel | None:
        """Return the connection kept under a key if it is still good; it is the caller's then."""
        with self._lock:
            since, channel = self._idle.pop(key, (0.0, None))
        if channel is None:
            return None
        if self._clock() - since > MOST_IDLE_SECONDS or not channel.sock.is_silent():
            channel.end()
            return None
        return channel

    def keep(self, key: Key, channel: Channel) -> None:
        """Keep a connection, ending the one kept under the key before and those that are too old or too many."""
        ended = []
        with self._lock:
            if (before := self._idle.pop(key, None)) is not None:
                ended.append(before[1])
            if self._closed:
                ended.append(channel)
            else:
                self._idle[key] = (self._clock(), channel)
            while self._idle and (len(self._idle) > self._most or self._oldest_age() > MOST_IDLE_SECONDS):
                ended.append(self._idle.popitem(last=False)[1][1])
        for old in ended:
            old.end()

    def close(self) -> None:
        """End all of them; those brought later end at once."""
        with self._lock:
            self._closed = True
            ended = [channel for _, channel in self._idle.values()]
            self._idle.clear()
        for channel in ended:
            channel.end()

    def _oldest_age(self) -> float:
        return self._clock() - next(iter(self._idle.values()))[0]
