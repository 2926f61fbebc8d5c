"""The transport of the endpoints: HTTP/1.1 over TCP or TLS, one thread a connection, every wait bounded.

Requests carry no body: one that announces a body is answered and its connection closed, so no body is ever parsed.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer
from typing import Any

from checks.addresses import host_port
from checks.web.certificates import CertificateFiles, Certificates, in_words
from checks.web.connections import Connections, SparseLog
from checks.web.http1 import (
    LARGEST_HEAD_BYTES,
    RefusedRequestError,
    Request,
    Response,
    cut_head,
    parse_head,
    render,
)

log = logging.getLogger("kubenurse.server")

LINGER_SECONDS = 1.0
STOP_SECONDS = 2.0
SHORTAGE_PAUSE_SECONDS = 0.1
# Stopping wakes the server, so that it need not look for that. By default it would, twice a second on every node.
POLL_SECONDS = 60.0

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_LISTENER_IS_GONE = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})


class Server(ThreadingHTTPServer):
    """Serves ``respond`` on one port, plain or over TLS.

    ``address`` is a literal or a name, empty for all addresses, IPv6 and IPv4. With ``tls`` every connection is TLS 1.2
    or newer. Should the serving thread ever end by an error, it calls ``on_death`` with its name and that error.

    Bounded are connections (``max_connections``, a thread each, the backlog beyond), a request's head (16 KiB, complete
    within ``header_timeout`` seconds of its first byte, as is the first one and the TLS handshake of a connection), the
    time to wait for the next request (``idle_timeout``) and to take an answer (``write_timeout``).

    Raises:
        OSError: when the address cannot be bound or the certificate not be used; it says which and why.
    """

    request_queue_size = 128
    block_on_close = False

    def __init__(
        self,
        respond: Callable[[Request], Response],
        address: str = "",
        port: int = 0,
        tls: CertificateFiles | None = None,
        *,
        max_connections: int = 128,
        header_timeout: float = 10.0,
        idle_timeout: float = 75.0,
        write_timeout: float = 10.0,
        on_death: Callable[[str, BaseException], None] = lambda _name, _error: None,
    ) -> None:
        self.respond = respond
        self.header_timeout = header_timeout
        self.idle_timeout = idle_timeout
        self.write_timeout = write_timeout
        self.connections = Connections(max_connections)
        self._certificates = Certificates(tls) if tls else None
        self._on_death = on_death
        self._refusals = SparseLog()
        self._shortages = SparseLog()
        self.errors = SparseLog()
        self._thread: threading.Thread | None = None
        self._ending = False
        try:
            self.address_family, where = _where(address, port, dual_stack=socket.has_dualstack_ipv6())
            super().__init__(where, _Connection)
        except OSError as error:
            listened = f"{address or 'all addresses'} port {port}"
            raise OSError(error.errno, f"cannot listen on {listened}: {in_words(error)}") from error
        self.name = f"kubenurse-{'https' if tls else 'http'}-{self.port}"

    @property
    def address(self) -> str:
        """The address bound, ``::`` for all."""
        return str(self.server_address[0])

    @property
    def port(self) -> int:
        """The port bound, the one the system chose when 0 was asked for."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Serve in a thread of its own; call it once."""
        self._thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
        self._thread.start()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Take no more connections and end those there are; a second call does nothing.

        A request still being answered after ``seconds`` loses its connection; its thread, which cannot be ended, is
        left after half as long again.
        """
        self._ending = True
        if self._thread:
            # Wakes serve_forever, which then looks whether to end.
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.shutdown()
            self._thread.join()
        self.server_close()
        self.connections.stop(seconds)

    def _serve(self) -> None:
        try:
            self.serve_forever(poll_interval=POLL_SECONDS)
        except BaseException as error:
            log.critical("server died", extra={"facts": {"server": self.name, "why": repr(error)}})
            self._on_death(self.name, error)

    def server_bind(self) -> None:
        """Bind, for IPv4 clients too where all addresses are meant; without the reverse look-up of ``HTTPServer``."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # A client that hung up between the wake-up and the accept must not make the accept wait.
        self.socket.setblocking(False)
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.address, self.port

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept one connection; the TLS handshake is left to the connection's own thread."""
        try:
            connection, peer = self.socket.accept()
        except OSError as error:
            if error.errno in _LISTENER_IS_GONE and not self._ending:
                # serve_forever would go on over an OSError, at full speed.
                raise RuntimeError(f"accept: {in_words(error)}") from error
            if error.errno in _SHORTAGES:
                self._shortages.warning("connections cannot be accepted", why=in_words(error))
                self.connections.make_room()
                time.sleep(SHORTAGE_PAUSE_SECONDS)
            raise
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._certificates:
                context = self._certificates.context()
                connection = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        except OSError:
            connection.close()
            raise
        return connection, peer

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse a connection when all are in use."""
        admitted = self.connections.admit(request)
        if not admitted:
            self._refusals.warning("connection refused, all are in use", remote_addr=_written(client_address))
        return admitted

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and forget it."""
        self.connections.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's signature
        """Log what ended a connection's thread, or kept it from starting."""
        self.errors.warning("connection failed", remote_addr=_written(client_address), why=repr(sys.exc_info()[1]))


class _Connection(BaseRequestHandler):
    """One connection, in its thread: handshake, then requests one after the other."""

    server: Server
    request: socket.socket

    def setup(self) -> None:
        threading.current_thread().name = f"{self.server.name}-connection"
        self._buffer = bytearray()
        self._remote_addr = _written(self.client_address)

    def handle(self) -> None:
        try:
            if isinstance(self.request, ssl.SSLSocket):
                self._handshake(self.request)
            more = self._receive(time.monotonic() + self.server.header_timeout)
            while more and self._answer_one():
                # Some clients send an empty line too many (RFC 9112, section 2.2): with it no request begins.
                del self._buffer[: len(self._buffer) - len(self._buffer.lstrip(b"\r\n"))]
                more = self.server.connections.wait(self.request) and (bool(self._buffer) or self._await_next())
        except OSError as error:
            # Clients come and go, and whoever scans ports is no news.
            log.debug("connection ended", extra={"facts": {"remote_addr": self._remote_addr, "why": repr(error)}})

    def finish(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            # Sends close_notify; the client's own is not waited for.
            with suppress(OSError, ValueError):
                self.request.settimeout(0)
                self.request.unwrap()

    def _handshake(self, connection: ssl.SSLSocket) -> None:
        connection.settimeout(self.server.header_timeout)
        try:
            connection.do_handshake()
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                answer = Response(HTTPStatus.BAD_REQUEST, (), b"this port speaks HTTPS\n")
                socket.socket.send(connection, render(answer, head_only=False, close=True))
                self._linger()
            raise

    def _await_next(self) -> bool:
        """Wait for the next request's first bytes; False when none come or the connection was shut to make room."""
        return self._receive(time.monotonic() + self.server.idle_timeout)

    def _answer_one(self) -> bool:
        """Answer the request whose first bytes are in the buffer; False when the connection is to be closed."""
        try:
            head = self._read_head()
            if head is None or not self.server.connections.resume(self.request):
                return False
            parsed = parse_head(head)
        except RefusedRequestError as refusal:
            answer = Response(refusal.status, (("Content-Type", "text/plain"),), f"{refusal}\n".encode())
            self._send(render(answer, head_only=False, close=True))
            self._linger()
            return False
        response = self._response(Request(parsed.method, parsed.target, parsed.headers, self._remote_addr))
        close = parsed.last or self.server.connections.stopping
        self._send(render(response, head_only=parsed.method == "HEAD", close=close))
        if parsed.has_body:
            self._linger()
        return not close

    def _read_head(self) -> bytes | None:
        """The next request's head; None when the client closed before the end of it."""
        deadline = time.monotonic() + self.server.header_timeout
        while (head := cut_head(self._buffer)) is None:
            try:
                if not self._receive(deadline):
                    return None
            except TimeoutError as error:
                if not self._buffer.strip(b"\r\n"):
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
        received = self.request.recv(LARGEST_HEAD_BYTES)
        self._buffer += received
        return received != b""

    def _send(self, data: bytes) -> None:
        deadline = time.monotonic() + self.server.write_timeout
        unsent = memoryview(data)
        while unsent:
            self._set_timeout(deadline)
            unsent = unsent[self.request.send(unsent) :]

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
            while True:
                self._set_timeout(deadline)
                if not self.request.recv(LARGEST_HEAD_BYTES):
                    break


def _where(address: str, port: int, *, dual_stack: bool) -> tuple[socket.AddressFamily, Any]:
    """The address family and socket address to bind; with no address all, by IPv4 alone where there is no IPv6."""
    if not address and dual_stack:
        return socket.AF_INET6, ("::", port)
    family = socket.AF_UNSPEC if address else socket.AF_INET
    found = socket.getaddrinfo(address or None, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0][0], found[0][4]


def _written(peer: Any) -> str:
    """``ip:port``, ``[ip]:port`` for IPv6; an IPv4 client of a socket for both is written as IPv4."""
    address = str(peer[0]).removeprefix("::ffff:")
    return host_port(address, peer[1])
