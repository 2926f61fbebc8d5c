"""One HTTP/1.1 connection of a check: plain or TLS, direct or through a proxy, new or kept."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from typing import cast

from urllib3.util.ssltransport import SSLTransport

from checks.probe.sockets import MeasuredSocket

# Answers before the final one (RFC 9110, section 15.2). After 101 the connection speaks another protocol.
INTERIM_STATUSES = frozenset({100, *range(102, 200)})
# Servers send one or two. http.client itself skips those with status 100, until MOST_RECEIVED_BYTES or the deadline.
MOST_INTERIM = 16


class _Inbound(io.RawIOBase):
    """The reading side that http.client parses an answer from."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # typeshed: any writable buffer
        return self._channel.receive_into(buffer)


class Channel:
    """A measured socket, with TLS over it after the handshake, and HTTP over both.

    ``remote`` is the address it is connected to. ``first_byte`` is when the first byte of the current answer arrived
    and ``wrote_request`` when its request had been sent, both ``time.perf_counter`` seconds, None before that.
    ``certificate`` is the server's, in DER form; None without TLS.

    Answers are parsed by ``http.client``. Requests are written here, since its errors quote header values, which may be
    secret.
    """

    def __init__(self, sock: MeasuredSocket, remote: str) -> None:
        self.sock = sock
        self.remote = remote
        self.tls: SSLTransport | None = None
        self.certificate: bytes | None = None
        self.first_byte: float | None = None
        self.wrote_request: float | None = None
        self._ended = False

    def handshake(self, context: ssl.SSLContext, server_name: str) -> None:
        """Speak TLS from here on.

        Raises:
            OSError: as the socket does, ``ssl.SSLError`` included.
        """
        self.tls = SSLTransport(cast("ssl.SSLSocket", self.sock), context, server_hostname=server_name)
        # Taken now: OpenSSL no longer tells after a connection has ended without close_notify.
        self.certificate = self.tls.getpeercert(binary_form=True)

    def begin(self, deadline: float) -> None:
        """Make ready for another request and its answer."""
        self.sock.rearm(deadline)
        self.first_byte = self.wrote_request = None

    def send_request(self, method: str, target: str, headers: Mapping[str, str]) -> None:
        """Send a request without a body (RFC 9112, section 2.1).

        ``target`` is a path and query, a whole URL for a proxy, or what CONNECT takes.

        Raises:
            OSError: as the socket does.
            ValueError: for a target or a header that HTTP does not allow; the message does not quote the value.
        """
        head = [f"{method} {_sendable(target, 'target')} HTTP/1.1\r\n"]
        head += [f"{name}: {_sendable(value, name)}\r\n" for name, value in headers.items()]
        head.append("\r\n")
        (self.tls or self.sock).sendall("".join(head).encode("ascii"))
        self.wrote_request = time.perf_counter()

    def read_head(self, method: str) -> http.client.HTTPResponse:
        """Read the head of the answer to a request of a method; the caller reads the body.

        Raises:
            OSError: as the socket does; ``http.client.RemoteDisconnected`` when there is no answer.
            http.client.HTTPException: for an answer that is no HTTP, ends within its head or never gets beyond interim
                answers.
        """
        response = http.client.HTTPResponse(cast("socket.socket", self), method=method)
        response.begin()
        for _ in range(MOST_INTERIM):
            if response.status not in INTERIM_STATUSES:
                break
            response = self._after(response, method)
        else:
            raise http.client.HTTPException(f"more than {MOST_INTERIM} interim answers")
        if self._ended:  # http.client takes the end of the connection for the end of the head
            raise http.client.IncompleteRead(b"")
        return response

    def _after(self, interim: http.client.HTTPResponse, method: str) -> http.client.HTTPResponse:
        """Read the head of the answer that follows an interim answer, out of the same buffer."""
        response = http.client.HTTPResponse(cast("socket.socket", self), method=method)
        # An answer closes its reader when it is collected. The reader is still needed, so it moves to the next answer.
        response.fp, interim.fp = interim.fp, None  # type: ignore[assignment] # None is what http.client itself puts there
        response.begin()
        return response

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a reader of the answer: the only method that http.client calls on its socket."""
        if mode != "rb":
            raise ValueError(f"mode={mode!r}: expected 'rb'")
        return io.BufferedReader(_Inbound(self))

    def receive_into(self, buffer: memoryview) -> int:
        """Receive a part of the answer, noting when its first byte had arrived."""
        if self.tls is not None:
            count = cast("int", self.tls.recv_into(buffer))
        else:
            # The first byte is read alone, since a stamp is that of the last segment read.
            count = self.sock.recv_into(buffer[:1] if self.first_byte is None else buffer)
        if self.first_byte is None and count:
            self.first_byte = self.sock.last_arrival
        self._ended = not count
        return count

    def end(self) -> None:
        """Close the connection, without TLS's close_notify: no server needs it here."""
        self.sock.close()


def _sendable(value: str, name: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{name} holds a character that HTTP does not allow")
    return value
