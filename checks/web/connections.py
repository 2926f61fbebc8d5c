"""How many connections may be open, which of them makes room for another, and how seldom that is logged."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger("kubenurse.server")


class Connections:
    """The connections open now: at most ``limit``, and which of them wait for a request.

    One that waits may be shut to make room for another: first those that had an answer already, then those that have
    not asked yet, so that nobody keeps others out by connecting and saying nothing.

    The lock is held over ``shutdown(2)``, which does not wait, so that no socket is closed (and its number given to
    another) between being chosen and being shut.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        # Both in the order in which they began to wait.
        self._waiting: dict[socket.socket, None] = {}
        self._new: dict[socket.socket, None] = {}
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """True when a connection is to be closed after the answer it is working on."""
        return self._stopping

    def admit(self, connection: socket.socket) -> bool:
        """Take one more, which waits; when full another makes room, and with none waiting the answer is False."""
        with self._changed:
            if self._stopping or (len(self._open) >= self._limit and not self._make_room()):
                return False
            self._open.add(connection)
            self._new[connection] = None
            return True

    def make_room(self) -> None:
        """Shut one that waits, if any."""
        with self._changed:
            self._make_room()

    def wait(self, connection: socket.socket) -> bool:
        """Mark as waiting for the next request; False when it shall not."""
        with self._changed:
            if self._stopping:
                return False
            self._new.pop(connection, None)
            self._waiting[connection] = None
            return True

    def resume(self, connection: socket.socket) -> bool:
        """Mark as busy; False when it was shut in the meantime."""
        with self._changed:
            for waiting in (self._waiting, self._new):
                if connection in waiting:
                    del waiting[connection]
                    return True
            return False

    def remove(self, connection: socket.socket) -> None:
        """Forget a connection that is about to be closed."""
        with self._changed:
            self._open.discard(connection)
            self._waiting.pop(connection, None)
            self._new.pop(connection, None)
            self._changed.notify_all()

    def stop(self, seconds: float) -> None:
        """Shut those waiting for another request at once and the rest after at most ``seconds``; wait half as long."""
        with self._changed:
            self._stopping = True
            while self._shut_first(self._waiting):
                pass
            if not self.wait_for_none(seconds):
                for connection in self._open:
                    _hang_up(connection)
                self.wait_for_none(seconds / 2)

    def wait_for_none(self, seconds: float) -> bool:
        """Wait until no connection is open, for at most ``seconds``; whether that came to be."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, seconds)

    def _make_room(self) -> bool:
        return self._shut_first(self._waiting) or self._shut_first(self._new)

    def _shut_first(self, waiting: dict[socket.socket, None]) -> bool:
        connection = next(iter(waiting), None)
        if connection is None:
            return False
        del waiting[connection]
        self._open.discard(connection)
        _hang_up(connection)
        return True


def _hang_up(connection: socket.socket) -> None:
    """Wake the thread that reads or writes; past any TLS layer, whose state is that thread's own."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class SparseLog:
    """Lets one warning in ``interval`` seconds through, with the number of those held back before it."""

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
