"""A TLS connection to the API server. All waits of a request share one deadline, and all its bytes one bound.

``http.client`` and urllib3 apply a timeout to each read. A server that sends one byte a second, or 100-Continue answers
without end, never exceeds it. A ``Wire`` therefore replaces the socket below them.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import socket
import ssl
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from urllib3.connection import HTTPSConnection

from checks.kube.credentials import Credentials
from checks.kube.errors import PROTOCOL, TIMEOUT, ApiError
from checks.probe.connecting import connect
from checks.probe.resolver import Resolver, literal_address
from checks.probe.sockets import Abort

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# A TLS record carries at most 16 KiB (RFC 8446, section 5.1).
_READ_AHEAD = 16 * 1024

# Its warnings quote header lines that cannot be parsed. A server may have copied the request's Authorization into one.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)

# The kernel detects a dead peer after about a minute and a half, even while the agent sends nothing.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


class Wire:
    """The part of a connected TLS socket that ``http.client`` uses, with a deadline and a bound in bytes.

    ``allow`` sets both before the first read. ``close`` leaves the socket open, because ``http.client`` calls it before
    it reads the last answer of a connection. ``end`` closes the socket.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._until = 0.0
        self._most_bytes = self._bytes = 0.0
        self._late = ""

    def allow(self, until: float, most_bytes: float, late: str) -> None:
        """Set the deadline (``time.perf_counter``) and the number of bytes for all reads from now on.

        ``late`` is the reason in the ApiError after the deadline.
        """
        self._until, self._late = until, late
        self._most_bytes, self._bytes = most_bytes, 0.0

    def remaining(self) -> float:
        """Return the seconds until the deadline.

        Raises:
            ApiError: of kind ``timeout`` once it has passed.
        """
        remaining = self._until - time.perf_counter()
        if remaining <= 0:
            raise ApiError(TIMEOUT, self._late)
        return remaining

    def recv_into(self, buffer: WriteableBuffer) -> int:
        """Receive into a buffer and return the number of bytes, 0 at the end.

        Raises:
            ApiError: of kind ``timeout`` at the deadline, of kind ``protocol`` beyond the bound.
            OSError: as the socket does.
        """
        self._sock.settimeout(self.remaining())
        try:
            count = self._sock.recv_into(buffer)
        except TimeoutError:
            raise ApiError(TIMEOUT, self._late) from None
        self._bytes += count
        if self._bytes > self._most_bytes:
            raise ApiError(PROTOCOL, f"more than {self._most_bytes} bytes on the wire")
        return count

    def sendall(self, data: bytes) -> None:
        """Send all of it. The errors are those of ``recv_into``."""
        unsent = memoryview(data)
        while unsent:
            self._sock.settimeout(self.remaining())
            try:
                unsent = unsent[self._sock.send(unsent) :]
            except TimeoutError:
                raise ApiError(TIMEOUT, self._late) from None

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return the file that ``http.client`` reads an answer from."""
        assert mode == "rb"  # noqa: S101 - the only mode that http.client uses
        return io.BufferedReader(_Reading(self), _READ_AHEAD)

    def settimeout(self, timeout: float | None) -> None:
        """Do nothing, because the deadline replaces the timeout."""

    def close(self) -> None:
        """Do nothing, as the class explains."""

    def end(self) -> None:
        """Close the socket."""
        self._sock.close()


class _Reading(io.RawIOBase):
    """A ``Wire`` as an unbuffered file."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._wire.recv_into(buffer)


class Connection(HTTPSConnection):
    """A verified connection over a ``Wire``. ``connect_timeout`` covers name resolution, TCP and TLS together.

    Any thread may call ``shut``. All other methods belong to one thread, which must call ``end``.

    Raises:
        CredentialsError: when a file that the credentials need cannot be used.
    """

    def __init__(self, credentials: Credentials, connect_timeout: float, resolver: Resolver) -> None:
        url = urlsplit(credentials.base_url)
        self._endpoint = url.hostname or "", url.port or 443
        super().__init__(*self._endpoint, ssl_context=credentials.context(), server_hostname=credentials.server_name)
        self._connect_timeout = connect_timeout
        self._resolver = resolver
        self._shut = False
        # ``shut`` uses the first while TCP connects and the second afterwards. The handle is another descriptor of the
        # same socket: the owner may be changing the TLS state of its own.
        self._abort: Abort | None = None
        self._handle: socket.socket | None = None
        self._wire: Wire | None = None

    def wire(self) -> Wire:
        """Return the wire. Connect first if there is none or the server has closed the last one.

        Raises:
            OSError: when that fails; TimeoutError, without errno, at the deadline.
        """
        if self.sock is None or self._wire is None:
            self._end_wire()
            super().connect()
            assert isinstance(self.sock, ssl.SSLSocket)  # noqa: S101 - for the type checker
            self._wire = Wire(self.sock)
            self.sock = self._wire  # http.client uses no other part of a socket
        return self._wire

    def shut(self) -> None:
        """End what the owner waits for, with an OSError in its thread, and refuse further connecting."""
        # The owner sets ``_abort`` and ``_handle`` before it checks the flag, so one of the two threads sees the other.
        self._shut = True
        if abort := self._abort:
            abort.throw()
        if handle := self._handle:
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Close everything."""
        self.close()
        self._end_wire()

    def _end_wire(self) -> None:
        if self._wire is not None:
            self._wire.end()
            self._wire = None
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _new_conn(self) -> socket.socket:
        """Connect over TCP. urllib3's SOCKS connection overrides the same method."""
        deadline = time.perf_counter() + self._connect_timeout
        literal = literal_address(*self._endpoint)
        addresses = [literal] if literal else self._resolver.resolve(*self._endpoint, deadline)[0]
        with contextlib.closing(Abort()) as self._abort:
            self._check_shut()
            sock = connect(addresses, deadline, self._abort).sock
        try:
            self._handle = sock.dup()
            self._check_shut()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            # Python applies this timeout to the handshake as a whole.
            sock.settimeout(max(0.001, deadline - time.perf_counter()))
        except BaseException:
            sock.close()
            raise
        return sock

    def _check_shut(self) -> None:
        if self._shut:
            raise OSError(errno.ECANCELED, "the connection was shut")
