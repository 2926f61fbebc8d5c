"""One connection in its thread: the handshake, then requests one after the other, every wait bounded.

Requests carry no body: one that announces a body is answered and its connection closed, so no body is ever parsed.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import threading
import time
import traceback
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from socketserver import BaseRequestHandler
from typing import TYPE_CHECKING, Any

from checks.addresses import host_port
from checks.web.connections import Doing, reset_when_closed
from checks.web.http1 import (
    LARGEST_HEAD_BYTES,
    HeadBuffer,
    RefusedRequestError,
    Request,
    Response,
    encode_response,
    parse_head,
)

if TYPE_CHECKING:
    from checks.web.server import Server

log = logging.getLogger("kubenurse.server")

LINGER_SECONDS = 1.0
PIPELINING_PAUSE_SECONDS = 0.2

_WOULD_WAIT = (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError)


class Connection(BaseRequestHandler):
    """Serves one connection of a ``Server``, whose limits of time it keeps.

    What it does at each moment is noted in the server's ``connections``, by which it may be shut: every wait for the
    client is one in which it gives its place up.
    """

    server: Server
    request: socket.socket

    def setup(self) -> None:
        """Name the thread."""
        threading.current_thread().name = f"{self.server.name}-connection"
        self._received = HeadBuffer()
        self._remote_addr = written_peer(self.client_address)

    def handle(self) -> None:
        """Serve requests until one side has had enough."""
        try:
            if isinstance(self.request, ssl.SSLSocket):
                self._handshake(self.request)
            more = self._receive(time.monotonic() + self.server.header_timeout)
            while more and self._answer_one():
                more = self._turn_to(Doing.KEPT) and (self._let_others_go_first() or self._await_next())
        except OSError as error:
            # Clients come and go, and port scans are no news.
            log.debug("connection ended", extra={"facts": {"remote_addr": self._remote_addr, "why": repr(error)}})

    def finish(self) -> None:
        """End a TLS connection by close_notify; the client's own is not waited for."""
        if isinstance(self.request, ssl.SSLSocket):
            with suppress(OSError, ValueError):
                self.request.settimeout(0)
                self.request.unwrap()

    def _turn_to(self, doing: Doing) -> bool:
        return self.server.connections.turn_to(self.request, doing)

    def _handshake(self, connection: ssl.SSLSocket) -> None:
        connection.settimeout(self.server.header_timeout)
        try:
            connection.do_handshake()
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                answer = Response(HTTPStatus.BAD_REQUEST, (), b"this port speaks HTTPS\n")
                socket.socket.send(connection, b"".join(encode_response(answer, head_only=False, close=True)))
                self._linger()
            raise

    def _let_others_go_first(self) -> bool:
        """Whether the next request has come already. While many others are there it waits a moment.

        No neighbour, probe or browser sends a request before it has the answer to the last one. Many clients that do
        would keep the interpreter from the others.
        """
        if self._received.begun and self.server.connections.crowded:
            shut = select.poll()
            shut.register(self.request, 0)
            shut.poll(PIPELINING_PAUSE_SECONDS * 1000)
        return self._received.begun

    def _await_next(self) -> bool:
        """Wait for the next request's first bytes; False when none come or the connection was shut to make room."""
        return self._receive(time.monotonic() + self.server.idle_timeout)

    def _answer_one(self) -> bool:
        """Answer the request whose first bytes have come; False when the connection is to be closed."""
        try:
            head = self._read_head()
            if head is None or not self._turn_to(Doing.ANSWERING):
                return False
            parsed = parse_head(head)
        except RefusedRequestError as refusal:
            answer = Response(refusal.status, (("Content-Type", "text/plain"),), f"{refusal}\n".encode())
            self._send(encode_response(answer, head_only=False, close=True))
            self._linger()
            return False
        response = self._response(Request(parsed.method, parsed.target, parsed.headers, self._remote_addr))
        close = parsed.last or self.server.connections.stopping
        self._send(encode_response(response, head_only=parsed.method == "HEAD", close=close))
        if parsed.has_body:
            self._linger()
        return not close

    def _read_head(self) -> bytes | None:
        """The next request's head; None when the client closed before the end of it."""
        deadline = time.monotonic() + self.server.header_timeout
        while (head := self._received.cut()) is None:
            try:
                if not self._receive(deadline):
                    return None
            except TimeoutError as error:
                if not self._received.begun:
                    return None
                raise RefusedRequestError(HTTPStatus.REQUEST_TIMEOUT, "request head took too long") from error
        return head

    def _response(self, request: Request) -> Response:
        try:
            return self.server.respond(request)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            self.server.errors.warning("request failed", path=request.path, why=repr(error), where=where)
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR, (("Content-Type", "text/plain"),), b"internal error\n")

    def _receive(self, deadline: float) -> bool:
        """Read what has come into the buffer; False at the end of the stream. Raises TimeoutError at the deadline."""
        self._set_timeout(deadline)
        data = self.request.recv(LARGEST_HEAD_BYTES)
        self._received.feed(data)
        return data != b""

    def _send(self, pieces: list[bytes]) -> None:
        """Send all of it within ``write_timeout``; as soon as the client has to read first, the place may be taken."""
        deadline = time.monotonic() + self.server.write_timeout
        for piece in pieces:
            unsent = memoryview(piece)
            self.request.settimeout(0)
            with suppress(*_WOULD_WAIT):
                while unsent:
                    unsent = unsent[self.request.send(unsent) :]
            if unsent:
                self._send_as_it_is_read(unsent, deadline)

    def _send_as_it_is_read(self, unsent: memoryview, deadline: float) -> None:
        while unsent:
            # Noted anew with each piece: a client that reads goes to the end of those that could be shut.
            if not self._turn_to(Doing.BLOCKED):
                raise ConnectionAbortedError("shut to make room")
            try:
                self._set_timeout(deadline)
                unsent = unsent[self.request.send(unsent) :]
            except TimeoutError:
                reset_when_closed(self.request)
                raise

    def _set_timeout(self, deadline: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("timed out")
        self.request.settimeout(remaining)

    def _linger(self) -> None:
        """Take in what the client still sends, for a moment.

        Closing with unread bytes would make the kernel reset the connection, and the client could lose the answer
        (RFC 9112 section 9.6).
        """
        self.finish()
        deadline = time.monotonic() + LINGER_SECONDS
        with suppress(OSError):
            self.request.shutdown(socket.SHUT_WR)
            while self._turn_to(Doing.LINGERING):
                self._set_timeout(deadline)
                if not self.request.recv(LARGEST_HEAD_BYTES):
                    break


def peer_address(peer: Any) -> str:
    """Return the client's address; an IPv4 client of a socket for both families is written as IPv4."""
    return str(peer[0]).removeprefix("::ffff:")


def written_peer(peer: Any) -> str:
    """Return ``ip:port``, ``[ip]:port`` for IPv6."""
    return host_port(peer_address(peer), peer[1])
