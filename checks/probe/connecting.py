"""Connecting to one of several addresses, the next one tried while the one before still hangs."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from checks.model import TcpFacts
from checks.probe import tcp_info
from checks.probe.resolver import Address
from checks.probe.sockets import Abort, KernelClock, poll

# A further address is tried this long after the one before, which goes on: RFC 8305, section 5.
STAGGER_SECONDS = 0.25


class Connected(NamedTuple):
    """A non-blocking socket, the address it is connected to, and when the first of all attempts began."""

    sock: socket.socket
    address: Address
    started: float


class FailedAttempts:
    """The kernel's figures of attempts that got no connection, summed up: ``facts`` is None before the first one."""

    def __init__(self) -> None:
        self.facts: TcpFacts | None = None

    def add(self, sock: socket.socket) -> None:
        """Add the figures of an attempt's socket, which is about to be closed."""
        found = tcp_info.facts(sock)
        if found is not None:
            before = self.facts.retransmits if self.facts is not None else 0
            self.facts = TcpFacts(None, None, before + found.retransmits)


def connect(
    addresses: Sequence[Address], deadline: float, abort: Abort, failed: FailedAttempts | None = None
) -> Connected:
    """Connect to the first of the addresses that answers.

    Each further address is tried STAGGER_SECONDS after the one before, or at once when that fails (RFC 8305), so that
    one address that swallows packets does not use up the time of the others. At most one socket for each address is
    open. ``failed`` gets the figures of all attempts but the one returned.

    Raises:
        OSError: the first address's error when none works; TimeoutError, without errno, at the deadline.
    """
    failed = failed or FailedAttempts()
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
            for descriptor in poll(poller, min(deadline, next_start) if waiting else deadline, deadline, abort):
                poller.unregister(descriptor)
                sock, address = pending.pop(descriptor)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    return Connected(sock, address, started)
                failed.add(sock)
                sock.close()
                errors.append(_os_error(code))
                next_start = 0.0
    finally:
        for sock, _ in pending.values():
            failed.add(sock)
            sock.close()
    try:
        raise errors[0]
    finally:
        errors.clear()  # the error's traceback holds this frame, which must not hold the error


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


def _os_error(code: int) -> OSError:
    """Make the subclass of OSError that stands for an error number."""
    return OSError(code, errno.errorcode.get(code, ""))
