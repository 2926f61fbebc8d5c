"""Idle connections kept between rounds (KUBENURSE_REUSE_CONNECTIONS)."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from checks.probe.channel import Channel

Key = Hashable

# Longer than the usual interval between rounds; servers end idle connections after a minute or so.
MOST_IDLE_SECONDS = 120.0
# One connection for each target. Connections of departed targets end by their age.
MOST_IDLE = 1024


class IdleChannels:
    """Idle connections: at most one for each key, ``most`` in all, none idle for longer than MOST_IDLE_SECONDS.

    ``clock`` is monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST_IDLE) -> None:
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._idle: OrderedDict[Key, tuple[float, Channel]] = OrderedDict()
        self._closed = False

    def take(self, key: Key) -> Channel | None:
        """Return the idle connection of a key if it is still good. It belongs to the caller from then on."""
        with self._lock:
            since, channel = self._idle.pop(key, (0.0, None))
        if channel is None:
            return None
        if self._clock() - since > MOST_IDLE_SECONDS or not channel.sock.is_silent():
            channel.end()
            return None
        return channel

    def put(self, key: Key, channel: Channel) -> None:
        """Keep a connection. End the previous connection of the key, and those that are too old or too many."""
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
        """End all connections, and each later one as it is put."""
        with self._lock:
            self._closed = True
            ended = [channel for _, channel in self._idle.values()]
            self._idle.clear()
        for channel in ended:
            channel.end()

    def _oldest_age(self) -> float:
        return self._clock() - next(iter(self._idle.values()))[0]
