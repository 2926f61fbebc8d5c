"""Connected TCP sockets whose received bytes are stamped by the kernel.

Everything a check does on a TCP socket passes through here, under one deadline for the whole check. The clock is
``time.perf_counter``, seconds.

Why the kernel: a thread that waits for an answer runs again only when the interpreter lets it, up to several
milliseconds later when other checks are busy. The kernel stamps a segment as it arrives (``SO_TIMESTAMPNS``,
Documentation/networking/timestamping.rst in the Linux sources), so the moment does not depend on when it is read.
"""

from __future__ import annotations

import errno
import math
import select
import socket
import struct
import time

from checks.model import TcpFacts
from checks.probe import tcp_info

# SO_TIMESTAMPNS_OLD of include/uapi/asm-generic/socket.h, which Python has no name for: a struct timespec of longs.
# sparc and parisc number it differently; there the option is refused or the control message never arrives.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
# Two readings of clocks count as simultaneous when they are at most this many seconds apart.
_SAME_MOMENT = 20e-6
_MOST_READINGS = 4
_CONTROL_SPACE = socket.CMSG_SPACE(_TIMESPEC.size)

# Longest answer in bytes on the wire, head and body and TLS records together. A longer answer is not read further.
MOST_RECEIVED_BYTES = 256 * 1024


class TooMuchReceivedError(OSError):
    """The server sent more than MOST_RECEIVED_BYTES before the answer was complete."""


class KernelClock:
    """Whether this system stamps what arrives, and the translation of its stamps to ``time.perf_counter``.

    It keeps one idle socket with the option on. The kernel switches stamping on, with some delay, for the first such
    socket, and off again with the last: without this socket the stamps of most checks would be missing.
    """

    def __init__(self) -> None:
        self._anchor = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.available = self.enable(self._anchor)

    @staticmethod
    def enable(sock: socket.socket) -> bool:
        """Ask the kernel to stamp what arrives on a socket; return whether it will."""
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        except OSError:
            return False
        return hasattr(sock, "recvmsg_into")

    @property
    def source(self) -> str:
        """Name of the clock that answers' arrival is measured by, for /state."""
        return "kernel" if self.available else "perf_counter"

    def close(self) -> None:
        """Close the idle socket."""
        self._anchor.close()


class Abort:
    """A switch that ends all waits on sockets here, now and later: the agent is ending."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()

    def fileno(self) -> int:
        """Descriptor that becomes readable, and stays so, once the switch is thrown."""
        return self._reader.fileno()

    def throw(self) -> None:
        """End all waits, those that begin later too."""
        self._writer.close()

    def close(self) -> None:
        """Close the descriptors. No wait may be under way any more."""
        self._writer.close()
        self._reader.close()


class MeasuredSocket:
    """A connected, non-blocking TCP socket with an absolute deadline. It notes when the last bytes read had arrived.

    It has the methods of ``socket.socket`` that urllib3's ``SSLTransport`` uses.
    """

    __slots__ = (
        "_abort",
        "_poller",
        "_received_bytes",
        "_retransmits_before",
        "_sock",
        "deadline",
        "last_arrival",
        "sent",
    )

    def __init__(self, sock: socket.socket, deadline: float, abort: Abort) -> None:
        self._sock = sock
        self._abort = abort
        self._poller = select.poll()
        self._poller.register(abort, select.POLLIN)
        self._received_bytes = 0
        self._retransmits_before = 0
        self.deadline = deadline
        self.sent = time.perf_counter()
        self.last_arrival = self.sent

    def rearm(self, deadline: float) -> None:
        """Begin another request on this connection: count received bytes and retransmits from zero."""
        self._received_bytes = 0
        facts = tcp_info.facts(self._sock)
        if facts is not None:
            self._retransmits_before = facts.retransmits
        self.deadline = deadline

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send all of it.

        Raises:
            OSError: as the socket does; TimeoutError, without errno, at the deadline.
        """
        # Stamped before sending, since an answer may arrive before this thread runs again.
        self.sent = time.perf_counter()
        unsent = memoryview(data)
        while unsent:
            try:
                unsent = unsent[self._sock.send(unsent, flags) :]
            except BlockingIOError:
                _wait(self._poller, self._sock, select.POLLOUT, self.deadline, self._abort)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive up to ``size`` bytes; see ``recv_into``."""
        buffer = bytearray(size)
        count = self.recv_into(memoryview(buffer), flags)
        return bytes(memoryview(buffer)[:count])

    def recv_into(self, buffer: memoryview, flags: int = 0) -> int:
        """Receive into a buffer, note when the bytes had arrived and return how many there are.

        Raises:
            OSError: as the socket does; TimeoutError, without errno, at the deadline.
            TooMuchReceivedError: when the answer is longer than MOST_RECEIVED_BYTES.
        """
        while True:
            _wait(self._poller, self._sock, select.POLLIN, self.deadline, self._abort)
            try:
                count, control, _, _ = self._sock.recvmsg_into([buffer], _CONTROL_SPACE, flags)
                break
            except BlockingIOError:
                # poll may report a socket that has nothing to read (poll(2), BUGS): wait again.
                continue
        self.last_arrival = self._arrival(control)
        self._received_bytes += count
        if self._received_bytes > MOST_RECEIVED_BYTES:
            raise TooMuchReceivedError(f"longer than {MOST_RECEIVED_BYTES} bytes")
        return count

    def is_silent(self) -> bool:
        """Tell whether nothing waits to be read. On an idle connection any input means that the server ended it."""
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        return not poller.poll(0)

    def tcp_facts(self) -> TcpFacts | None:
        """Return what the kernel measured on this connection, None where it does not tell (not Linux).

        Retransmits are counted since the connection began or was rearmed, those of the SYN too.
        """
        return tcp_info.facts(self._sock, self._retransmits_before)

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def _arrival(self, control: list[tuple[int, int, bytes]]) -> float:
        """When the bytes just read arrived, in perf_counter seconds."""
        now, wall = _clocks()
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack(data)
                age: float = (wall - seconds * 1_000_000_000 - nanoseconds) / 1e9
                # The stamp is of the wall clock. A stamp from before the request was sent, or from the future, was made
                # across a step of that clock; the moment of reading is the best estimate then.
                if 0 <= age <= now - self.sent:
                    return now - age
        return now


def _clocks() -> tuple[float, int]:
    """Read both clocks at one moment: perf_counter in seconds, the wall clock in nanoseconds.

    A thread that is suspended between the two readings would add its suspension to the network's time. So both are
    read again, up to _MOST_READINGS times, and the closest pair is taken.
    """
    apart = math.inf
    now, wall = 0.0, 0
    for _ in range(_MOST_READINGS):
        before = time.perf_counter()
        between = time.time_ns()
        after = time.perf_counter()
        if after - before < apart:
            apart, now, wall = after - before, (before + after) / 2, between
        if apart < _SAME_MOMENT:
            break
    return now, wall


def _wait(poller: select.poll, sock: socket.socket, events: int, deadline: float, abort: Abort) -> None:
    """Wait until the socket is ready. Each socket has one poller, since most sockets are waited for twice."""
    poller.register(sock, events)
    while not poll(poller, deadline, deadline, abort):
        pass


def poll(poller: select.poll, until: float, deadline: float, abort: Abort) -> list[int]:
    """Return the descriptors that are ready, none when ``until`` passes first; raise TimeoutError at the deadline."""
    ready = [descriptor for descriptor, _ in poller.poll(max(0.0, (until - time.perf_counter()) * 1000))]
    if abort.fileno() in ready:
        raise OSError(errno.ECANCELED, "the agent is ending")
    if not ready and time.perf_counter() >= deadline:
        raise TimeoutError
    return ready
