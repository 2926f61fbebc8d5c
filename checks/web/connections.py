"""How many connections may be open, and which of them gives up its place to a new one."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

# Connections that were shut and whose threads have not ended yet; with more of them the next one waits to be admitted.
MOST_ENDING = 32
ENDING_SECONDS = 1.0
# The share of an address among however many: a client's connection may begin before its last one has ended.
LEAST_SHARE = 4


class Doing(Enum):
    """What a connection is doing. All but ANSWERING give their place up, in this order."""

    LINGERING = "was answered for good; takes in what the client still sends"
    KEPT = "was answered; waits for the next request"
    BLOCKED = "waits for the client to read its answer"
    NEW = "has not sent a whole request yet"
    ANSWERING = "has its request answered"


_YIELDING = (Doing.LINGERING, Doing.KEPT, Doing.BLOCKED, Doing.NEW)


@dataclass(slots=True)
class _Place:
    address: str
    doing: Doing


class Connections:
    """The connections open now, at most ``limit``.

    When all places are taken, a new connection takes the place of one that gives it up (see ``Doing``); among equals
    the one that has been doing the same for longest. A client address that has its fair share already (``limit`` over
    the number of addresses, LEAST_SHARE at least) can only take a place of its own; another address takes first from
    those that have more than their share. With one address only, such as that of a proxy, its share is all places.

    At most MOST_ENDING connections beyond ``limit`` exist: those that were shut and whose threads still have to end.

    The lock is held over ``shutdown(2)``, which does not wait, so that no socket is closed (and its number given to
    another) between being chosen and being shut.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._places: dict[socket.socket, _Place] = {}
        # The connections by what they do, each in the order in which they began to do it.
        self._doing: dict[Doing, dict[socket.socket, None]] = {doing: {} for doing in Doing}
        self._of_address: Counter[str] = Counter()
        # Those that were shut, with the monotonic time until which their threads are waited for.
        self._ending: dict[socket.socket, float] = {}
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """True when a connection is to be closed after the answer it is working on."""
        return self._stopping

    @property
    def crowded(self) -> bool:
        """True when more than half of the places are taken."""
        return 2 * len(self._places) > self._limit

    def admit(self, connection: socket.socket, address: str) -> bool:
        """Take a new connection from ``address``; False when there is no place. Waits at most ENDING_SECONDS."""
        with self._changed:
            if self._stopping or not (self._has_place() or self._make_room(address)):
                return False
            if not self._changed.wait_for(self._few_are_ending, ENDING_SECONDS):
                self._forget_the_lost()
            # Other threads only free places while this one, which alone takes them, waits.
            if self._stopping or not self._few_are_ending():
                return False
            self._places[connection] = _Place(address, Doing.NEW)
            self._doing[Doing.NEW][connection] = None
            self._of_address[address] += 1
            return True

    def make_room(self) -> None:
        """Shut one connection that gives its place up, if any."""
        with self._changed:
            self._shut_first(least=0)

    def turn_to(self, connection: socket.socket, doing: Doing) -> bool:
        """Note what a connection does from now on; False when it was shut or shall not wait for another request."""
        with self._changed:
            place = self._places.get(connection)
            if place is None or (self._stopping and doing is Doing.KEPT):
                return False
            del self._doing[place.doing][connection]
            place.doing = doing
            self._doing[doing][connection] = None
            return True

    def remove(self, connection: socket.socket) -> None:
        """Forget a connection that is about to be closed."""
        with self._changed:
            self._drop(connection)
            self._ending.pop(connection, None)
            self._changed.notify_all()

    def stop(self, seconds: float) -> None:
        """Shut those that were answered at once and the rest after at most ``seconds``; wait half as long."""
        with self._changed:
            self._stopping = True
            for doing in (Doing.LINGERING, Doing.KEPT):
                for connection in list(self._doing[doing]):
                    self._shut(connection)
            if not self.wait_for_none(seconds):
                for connection in list(self._places):
                    self._shut(connection)
                self.wait_for_none(seconds / 2)

    def wait_for_none(self, seconds: float) -> bool:
        """Wait until no connection is open, for at most ``seconds``; whether that came to be."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._places or self._ending), seconds)

    def _has_place(self) -> bool:
        return len(self._places) < self._limit

    def _make_room(self, address: str) -> bool:
        """Free a place for a connection from ``address``, by the rule of the class."""
        addresses = len(self._of_address) + (address not in self._of_address)
        share = max(LEAST_SHARE, self._limit // addresses)
        if self._of_address[address] >= share:
            return self._shut_first(least=0, address=address)
        return self._shut_first(least=share) or self._shut_first(least=0)

    def _shut_first(self, *, least: int, address: str = "") -> bool:
        """Shut the first that gives its place up, of ``address`` if given, else of one with more than ``least``."""
        for doing in _YIELDING:
            for connection in self._doing[doing]:
                owner = self._places[connection].address
                if owner == address if address else self._of_address[owner] > least:
                    self._shut(connection)
                    return True
        return False

    def _shut(self, connection: socket.socket) -> None:
        """Wake the thread that reads or writes, past any TLS layer, whose state is that thread's own."""
        place = self._drop(connection)
        self._ending[connection] = time.monotonic() + ENDING_SECONDS
        with suppress(OSError):
            if place is not None and place.doing is Doing.BLOCKED:
                reset_when_closed(connection)
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _drop(self, connection: socket.socket) -> _Place | None:
        place = self._places.pop(connection, None)
        if place is not None:
            del self._doing[place.doing][connection]
            self._of_address[place.address] -= 1
            if not self._of_address[place.address]:
                del self._of_address[place.address]
        return place

    def _few_are_ending(self) -> bool:
        return len(self._ending) < MOST_ENDING

    def _forget_the_lost(self) -> None:
        """Forget those whose threads should have ended: a thread that memory did not suffice to begin never does."""
        now = time.monotonic()
        for connection, until in list(self._ending.items()):
            if now > until:
                del self._ending[connection]


def reset_when_closed(connection: socket.socket) -> None:
    """Let the end of a connection discard what its client does not read; the kernel would keep that for minutes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
