"""TCP connections that are measured by the kernel: when bytes arrived, and what it knows of the path.

Everything a check does on a socket passes through here, under one deadline for the whole check. The clock is
``time.perf_counter``, seconds.

Why the kernel: a thread that waits for an answer runs again only when the interpreter lets it, up to several
milliseconds later when other checks are busy. The kernel stamps a segment as it arrives (``SO_TIMESTAMPNS``,
Documentation/networking/timestamping.rst in the Linux sources), so the moment is right whenever it is read.
"""

from __future__ import annotations

import errno
import math
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from checks.model import TcpFacts
from checks.probe.resolver import Address

# SO_TIMESTAMPNS_OLD of include/uapi/asm-generic/socket.h, which Python has no name for: a struct timespec of longs.
# sparc and parisc number it differently; there the option is refused or the control message never comes.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
# Two readings of clocks that are so many seconds apart are taken for one; on a machine where none are, the best is.
_SAME_MOMENT = 20e-6
_MOST_READINGS = 4
_CONTROL_SPACE = socket.CMSG_SPACE(_TIMESPEC.size)

# struct tcp_info of include/uapi/linux/tcp.h, by byte offsets. Kernels before 4.19 end it before tcpi_dsack_dups.
_TCP_INFO_SIZE = 220
_SHORTEST_TCP_INFO = 104
_PATH_MTU_OFFSET = 60
_RTT_OFFSET = 68
_TOTAL_RETRANSMITS_OFFSET = 100
_DUPLICATES_OFFSET = 216
_UINT32 = struct.Struct("@I")

# A further address is tried this long after the one before, which goes on: RFC 8305, section 5.
STAGGER_SECONDS = 0.25

# An answer that is longer than this, in bytes on the wire, is not read further.
MOST_RECEIVED_BYTES = 256 * 1024


class TooMuchReceivedError(OSError):
    """The server sent more than MOST_RECEIVED_BYTES before the answer was complete."""


class KernelClock:
    """Whether this system stamps what arrives, and the translation of its stamps to ``time.perf_counter``.

    It keeps one idle socket with the option on: the kernel switches stamping on with the first such socket, not at
    once, and off again with the last; the stamps of a check that came first would be missing.
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
        """Let the anchor go."""
        self._anchor.close()


class Abort:
    """A switch that wakes everyone who waits on a socket here, for good: the agent is ending."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()

    def fileno(self) -> int:
        """Descriptor that becomes readable, and stays so, once the switch is thrown."""
        return self._reader.fileno()

    def throw(self) -> None:
        """Wake all who wait, now and later."""
        self._writer.close()

    def close(self) -> None:
        """Let the descriptors go; nobody may wait any more."""
        self._writer.close()
        self._reader.close()


class MeasuredSocket:
    """A connected, non-blocking TCP socket with an absolute deadline that notes when the last bytes read had arrived.

    It has the part of ``socket.socket`` that urllib3's ``SSLTransport`` uses.
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
        """Begin another request on this connection: what was received and sent again so far is of the one before."""
        self._received_bytes = 0
        info = self._tcp_info()
        if info is not None:
            self._retransmits_before = _needed_retransmits(info)
        self.deadline = deadline

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send all of it.

        Raises:
            OSError: as the socket does; TimeoutError, without errno, at the deadline.
        """
        # Stamped before, since an answer may be here before this thread runs again.
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
            TooMuchReceivedError: when the answer is longer than this program cares to read.
        """
        _wait(self._poller, self._sock, select.POLLIN, self.deadline, self._abort)
        count, control, _, _ = self._sock.recvmsg_into([buffer], _CONTROL_SPACE, flags)
        self.last_arrival = self._arrival(control)
        self._received_bytes += count
        if self._received_bytes > MOST_RECEIVED_BYTES:
            raise TooMuchReceivedError(f"longer than {MOST_RECEIVED_BYTES} bytes")
        return count

    def is_silent(self) -> bool:
        """Tell whether nothing waits to be read: on a kept connection, anything means that the server ended it."""
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        return not poller.poll(0)

    def tcp_facts(self) -> TcpFacts | None:
        """Return what the kernel measured on this connection, None where it does not tell (not Linux).

        Segments sent again are those since the connection began or was rearmed; the kernel counts SYNs too.
        """
        info = self._tcp_info()
        if info is None:
            return None
        return TcpFacts(
            rtt_seconds=_UINT32.unpack_from(info, _RTT_OFFSET)[0] / 1e6,
            path_mtu_bytes=_UINT32.unpack_from(info, _PATH_MTU_OFFSET)[0],
            retransmits=max(0, _needed_retransmits(info) - self._retransmits_before),
        )

    def _tcp_info(self) -> bytes | None:
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        except (OSError, AttributeError):
            return None
        return info if len(info) >= _SHORTEST_TCP_INFO else None

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
                # The stamp is of the wall clock. One that lies before the sending of the bytes this answers, or in
                # the future, was taken across a step of that clock: then the moment of reading is the best there is.
                if 0 <= age <= now - self.sent:
                    return now - age
        return now


def _clocks() -> tuple[float, int]:
    """Read both clocks at one moment: perf_counter in seconds, the wall clock in nanoseconds.

    A thread that has to wait between the two readings would take its wait for the network's: then they are read again.
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


class Connected(NamedTuple):
    """A non-blocking socket, the address it is connected to, and when the first of all attempts began."""

    sock: socket.socket
    address: Address
    started: float


def connect(addresses: Sequence[Address], deadline: float, abort: Abort) -> Connected:
    """Connect to the first of the addresses that answers.

    Each further address is tried STAGGER_SECONDS after the one before, or at once when that fails (RFC 8305), so that
    one address that swallows packets does not use up the time of the others. At most one socket an address is open.

    Raises:
        OSError: the first address's error when none works; TimeoutError, without errno, at the deadline.
    """
    waiting = deque(addresses)
    pending: dict[int, tuple[socket.socket, Address]] = {}
    errors: list[OSError] = []
    poller = select.poll()
    poller.register(abort, select.POLLIN)
    started = next_start = 0.0
    try:
        while waiting or pending:
            if waiting and (not pending or time.perf_counter() >= next_start):
                address = waiting.popleft()
                try:
                    sock, now = _begin_connect(address)
                except OSError as error:
                    errors.append(error)
                    continue
                started = started or now
                next_start = now + STAGGER_SECONDS
                pending[sock.fileno()] = (sock, address)
                poller.register(sock, select.POLLOUT)
            for descriptor in _poll(poller, min(deadline, next_start) if waiting else deadline, deadline, abort):
                poller.unregister(descriptor)
                sock, address = pending.pop(descriptor)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    return Connected(sock, address, started)
                sock.close()
                errors.append(_os_error(code))
                next_start = 0.0
    finally:
        for sock, _ in pending.values():
            sock.close()
    try:
        raise errors[0]
    finally:
        errors.clear()  # the error's traceback holds this frame, which must not hold the error


def _needed_retransmits(info: bytes) -> int:
    """How many segments had to be sent again.

    Where a path's round trip is short the kernel sends the last segment again within milliseconds of silence (tail
    loss probe, RFC 8985, section 7), which a busy server is enough for. What was not lost the other side reports as a
    duplicate (RFC 2883), and that is no loss.
    """
    sent_again: int = _UINT32.unpack_from(info, _TOTAL_RETRANSMITS_OFFSET)[0]
    knows_duplicates = len(info) >= _DUPLICATES_OFFSET + _UINT32.size
    duplicates: int = _UINT32.unpack_from(info, _DUPLICATES_OFFSET)[0] if knows_duplicates else 0
    return max(0, sent_again - duplicates)


def _begin_connect(address: Address) -> tuple[socket.socket, float]:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        KernelClock.enable(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        started = time.perf_counter()
        code = sock.connect_ex(where)
        if code not in (0, errno.EINPROGRESS):
            raise _os_error(code)
    except BaseException:
        sock.close()
        raise
    return sock, started


def _wait(poller: select.poll, sock: socket.socket, events: int, deadline: float, abort: Abort) -> None:
    """Wait until the socket is ready; a poller is made once a socket since most wait twice."""
    poller.register(sock, events)
    while not _poll(poller, deadline, deadline, abort):
        pass


def _poll(poller: select.poll, until: float, deadline: float, abort: Abort) -> list[int]:
    """Return the descriptors that are ready, none at ``until``; TimeoutError at the deadline."""
    ready = [descriptor for descriptor, _ in poller.poll(max(0.0, (until - time.perf_counter()) * 1000))]
    if abort.fileno() in ready:
        raise OSError(errno.ECANCELED, "the agent is ending")
    if not ready and time.perf_counter() >= deadline:
        raise TimeoutError
    return ready


def _os_error(code: int) -> OSError:
    """Make the subclass of OSError that stands for an error number."""
    return OSError(code, errno.errorcode.get(code, ""))
