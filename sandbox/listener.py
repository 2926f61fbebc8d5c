"""A TCP server with a bounded number of connections, which all end with the server."""

from __future__ import annotations

import abc
import contextlib
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

MAX_CONNECTIONS = 128
STOP_TIMEOUT = 3.0
_ACCEPT_POLL = 0.1
_LINGER_NOTHING = struct.pack("ii", 1, 0)


def reset(connection: socket.socket) -> None:
    """Close a TCP connection so that its peer sees a reset (RFC 9293, section 3.10.4: ABORT) instead of an end."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
    connection.close()


class Listener(socketserver.ThreadingTCPServer, abc.ABC):
    """Accept TCP connections in one thread and handle each in one of at most ``MAX_CONNECTIONS`` others.

    A connection over the limit is reset. Subclasses implement ``handle_connection``, which runs in the connection's own
    thread. ``stop`` shuts down the sockets that ``track`` has registered, which ends handlers that wait for them.
    The constructor binds (OSError for a taken port). The server runs between ``start`` and ``stop``, or in a ``with``.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, name: str, address: str, port: int = 0) -> None:
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.stopping = threading.Event()
        super().__init__((address, port), socketserver.BaseRequestHandler)
        self.address = address
        self.port: int = self.socket.getsockname()[1]
        self._thread = threading.Thread(target=self.serve_forever, args=(_ACCEPT_POLL,), name=name, daemon=True)

    @abc.abstractmethod
    def handle_connection(self, connection: socket.socket, client_address: Any) -> None:
        """Serve one connection; ``client_address`` is what ``accept`` gave with it."""

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def stop(self) -> None:
        """Stop accepting, end open connections, and wait at most ``STOP_TIMEOUT`` seconds for their threads."""
        deadline = time.monotonic() + STOP_TIMEOUT
        self.stopping.set()
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()
        with self._lock:
            still_open = tuple(self._open)
        for connection in still_open:
            _shut(connection)
        # Every handler releases its slot when it ends. When all slots are acquired, no handler runs.
        held = [self._slots.acquire(timeout=max(0.0, deadline - time.monotonic())) for _ in range(MAX_CONNECTIONS)]
        self._slots.release(sum(held))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @contextlib.contextmanager
    def track(self, connection: socket.socket) -> Iterator[None]:
        """Let ``stop`` end this connection, and close it in the end."""
        with self._lock:
            self._open.add(connection)
        if self.stopping.is_set():
            _shut(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the connection's thread, if one is left."""
        if not self._slots.acquire(blocking=False):
            reset(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Run in the connection's thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Hand over to ``handle_connection``."""
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.handle_connection(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: broken connections are expected here."""


def _shut(connection: socket.socket) -> None:
    """Shut down below TLS: ``SSLSocket.shutdown`` would take the TLS state from the thread that is using it."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
