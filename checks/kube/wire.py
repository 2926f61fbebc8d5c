"""A TLS connection to the API server on which every wait counts against one deadline, and every byte against a bound.

``http.client`` and urllib3 know a timeout for each read only: a server that sends a byte a second, or 100-Continue
answers without end, is never late by that. So a ``Wire`` takes the socket's place below them.
"""

from __future__ import annotations

import contextlib
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

# Its warnings quote header lines that cannot be parsed: the request's Authorization header, if a server sends it back.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)

# The kernel notices after about a minute and a half that a peer is gone, also where nothing is sent to it.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


class Wire:
    """The part of a connected TLS socket that ``http.client`` uses, with a deadline and a bound in bytes.

    ``allow`` sets both before anything is read. ``close`` leaves the socket open: an answer that is the last on its
    connection is still read after ``http.client`` has closed its end. ``Connection.end`` closes the socket.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._until = 0.0
        self._most_bytes = self._bytes = 0.0
        self._late = ""

    def allow(self, until: float, most_bytes: float, late: str) -> None:
        """Let the reads from now on last until a moment (``time.perf_counter``) and bring at most so many bytes.

        ``late`` is the reason of the ApiError that is raised after that moment.
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
            ApiError: at the deadline and beyond the bound.
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
        """Send all of it; errors are those of ``recv_into``."""
        unsent = memoryview(data)
        while unsent:
            self._sock.settimeout(self.remaining())
            try:
                unsent = unsent[self._sock.send(unsent) :]
            except TimeoutError:
                raise ApiError(TIMEOUT, self._late) from None

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return what ``http.client`` reads an answer from."""
        assert mode == "rb"  # noqa: S101 - http.client asks for nothing else
        return io.BufferedReader(_Reading(self), _READ_AHEAD)

    def settimeout(self, timeout: float | None) -> None:
        """Do nothing: the deadline decides."""

    def close(self) -> None:
        """Do nothing: see the class."""

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

    ``shut`` may be called from any thread at any time, everything else by one thread only. ``end`` must be called.

    Raises:
        CredentialsError: when a file that the credentials need cannot be used.
    """

    def __init__(self, credentials: Credentials, connect_timeout: float, resolver: Resolver) -> None:
        url = urlsplit(credentials.base_url)
        self._endpoint = url.hostname or "", url.port or 443
        super().__init__(*self._endpoint, ssl_context=credentials.context(), server_hostname=credentials.server_name)
        self._connect_timeout = connect_timeout
        self._resolver = resolver
        self._abort = Abort()
        # Another descriptor of the same socket: ending the connection by it takes no part in the TLS state.
        self._handle: socket.socket | None = None
        self._wire: Wire | None = None

    def wire(self) -> Wire:
        """Return the wire, connecting first where there is none or the server has ended the last one.

        Raises:
            OSError: when that fails; TimeoutError, without errno, at the deadline.
        """
        if self.sock is None or self._wire is None:
            self._end_wire()
            super().connect()
            assert isinstance(self.sock, ssl.SSLSocket)  # noqa: S101 - for the type checker
            self._wire = Wire(self.sock)
            self.sock = self._wire  # it has the part of a socket that is used from here on
        return self._wire

    def shut(self) -> None:
        """End whatever the connection waits for, with an OSError where it waits."""
        self._abort.throw()
        if handle := self._handle:
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Close all of it."""
        self.close()
        self._end_wire()
        self._abort.close()

    def _end_wire(self) -> None:
        if self._wire is not None:
            self._wire.end()
            self._wire = None
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _new_conn(self) -> socket.socket:
        """Connect over TCP. urllib3's own SOCKS connection overrides this method too."""
        deadline = time.perf_counter() + self._connect_timeout
        literal = literal_address(*self._endpoint)
        addresses = [literal] if literal else self._resolver.resolve(*self._endpoint, deadline)[0]
        sock = connect(addresses, deadline, self._abort).sock
        try:
            self._handle = sock.dup()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            # The whole handshake is under this timeout: Python counts it over all reads and writes of one handshake.
            sock.settimeout(max(0.001, deadline - time.perf_counter()))
        except BaseException:
            sock.close()
            raise
        return sock
