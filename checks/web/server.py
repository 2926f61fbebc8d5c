"""The listening side of the endpoints' transport: HTTP/1.1 over TCP or TLS, one thread for each connection."""

from __future__ import annotations

import _thread
import errno
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from checks.web.certificates import CertificateFiles, Certificates, in_words
from checks.web.connection import Connection, peer_address, written_peer
from checks.web.connections import Connections
from checks.web.http1 import Request, Response
from checks.web.sparse_log import SparseLog

log = logging.getLogger("kubenurse.server")

STOP_SECONDS = 2.0
# Stopping wakes the accepting thread, which ends within this time unless something keeps it.
ACCEPTING_ENDS_SECONDS = 1.0
SHORTAGE_PAUSE_SECONDS = 0.1
# How often an idle server wakes to show that it lives. By default it would twice a second, on every node.
POLL_SECONDS = 15.0

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_LISTENER_IS_GONE = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})


class Server(ThreadingHTTPServer):
    """Serves ``respond`` on one port, plain or over TLS.

    ``address`` is a literal or a name, empty for all addresses, IPv6 and IPv4. With ``tls`` every connection is TLS 1.2
    or newer. Should the serving thread ever end by an error, it calls ``on_death`` with its name and that error.

    Bounded are connections (``max_connections``, a thread each, the backlog beyond), a request's head (16 KiB, complete
    within ``header_timeout`` seconds of its first byte, as is the first one and the TLS handshake of a connection), the
    time to wait for the next request (``idle_timeout``) and to take an answer (``write_timeout``). Which connection
    makes room when all places are taken: see ``Connections``.

    Raises:
        OSError: when the address cannot be bound or the certificate not be used; it says which and why.
    """

    # More than hostile clients bring up at once: a client that finds the queue full tries again only after a second.
    request_queue_size = 1024
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
        self._lived = time.monotonic()
        try:
            self.address_family, where = _where(address, port, dual_stack=socket.has_dualstack_ipv6())
            super().__init__(where, Connection)
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

    def last_lived(self) -> float:
        """Return when the accepting thread last showed that it lives (monotonic seconds).

        While it lives that is at most POLL_SECONDS ago, and what one acceptance may take (about a second).
        """
        return self._lived

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Accept no more connections and end the open ones; a second call does nothing.

        A request still being answered after ``seconds`` loses its connection; its thread, which cannot be ended, is
        left after half as long again. An accepting thread that does not end is left after ACCEPTING_ENDS_SECONDS.
        """
        self._ending = True
        if self._thread:
            # Wakes the accepting thread.
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self._thread.join(ACCEPTING_ENDS_SECONDS)
        self.server_close()
        self.connections.stop(seconds)

    def _serve(self) -> None:
        try:
            self.serve_forever(poll_interval=POLL_SECONDS)
        except _Stopped:
            pass
        except BaseException as error:
            log.critical("server died", extra={"facts": {"server": self.name, "why": repr(error)}})
            self._on_death(self.name, error)

    def service_actions(self) -> None:
        """Note that the accepting thread lives, and end it when the server stops; called after each time it woke."""
        self._lived = time.monotonic()
        if self._ending:
            raise _Stopped

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
            return self._accept()
        except MemoryError as error:
            self._wait_for_resources("out of memory")
            raise OSError(errno.ENOMEM, "out of memory") from error

    def _accept(self) -> tuple[socket.socket, Any]:
        try:
            connection, peer = self.socket.accept()
        except OSError as error:
            if error.errno in _LISTENER_IS_GONE and not self._ending:
                # serve_forever would go on over an OSError, at full speed.
                raise RuntimeError(f"accept: {in_words(error)}") from error
            if error.errno in _SHORTAGES:
                self._wait_for_resources(in_words(error))
            raise
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._certificates:
                context = self._certificates.context()
                connection = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        except BaseException:
            connection.close()
            raise
        return connection, peer

    def _wait_for_resources(self, why: str) -> None:
        """Free what another connection holds, and give it a moment."""
        with suppress(MemoryError):
            self._shortages.warning("connections cannot be accepted", why=why)
            self.connections.make_room()
        time.sleep(SHORTAGE_PAUSE_SECONDS)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse a connection when all places are taken."""
        try:
            admitted = self.connections.admit(request, peer_address(client_address))
            if not admitted:
                self._refusals.warning("connection refused, all are in use", remote_addr=written_peer(client_address))
        except MemoryError:
            return False
        return admitted

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own.

        ``threading.Thread.start`` waits until the new thread has begun. A thread that memory does not suffice to begin
        would make the accepting thread wait forever. So this starts one without waiting.

        Raises:
            RuntimeError, MemoryError: when no thread can be started; the caller then closes the connection.
        """
        _thread.start_new_thread(self._in_thread, (request, client_address))

    def _in_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection; whatever goes wrong ends this connection only."""
        # What threading.Thread does too, for coverage and debuggers.
        if trace := threading.gettrace():
            sys.settrace(trace)
        try:
            self.process_request_thread(request, client_address)
        except MemoryError:
            # It was raised by what ends a connection; without that the connection would keep its place.
            time.sleep(SHORTAGE_PAUSE_SECONDS)
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and forget it."""
        self.connections.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's signature
        """Log what ended a connection's thread, or kept it from starting."""
        with suppress(MemoryError):
            self.errors.warning(
                "connection failed", remote_addr=written_peer(client_address), why=repr(sys.exc_info()[1])
            )


class _Stopped(BaseException):
    """Ends the accepting thread's loop, which lets it through as it lets no Exception."""


def _where(address: str, port: int, *, dual_stack: bool) -> tuple[socket.AddressFamily, Any]:
    """The address family and socket address to bind; with no address all, by IPv4 alone where there is no IPv6."""
    if not address and dual_stack:
        return socket.AF_INET6, ("::", port)
    family = socket.AF_UNSPEC if address else socket.AF_INET
    found = socket.getaddrinfo(address or None, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0][0], found[0][4]
