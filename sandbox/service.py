"""A Service: what kube-proxy does for a cluster IP."""

from __future__ import annotations

import random
import selectors
import socket
from collections.abc import Callable, Sequence
from typing import Any

from sandbox.listener import Listener, reset

Address = tuple[str, int]

CONNECT_TIMEOUT = 3.0
SEND_TIMEOUT = 10.0
IDLE_TIMEOUT = 60.0
_CHUNK = 65536


class Service(Listener):
    """One address in front of many backends: each new connection goes to a random one.

    ``backends`` is called for each connection. Without a backend, or when the chosen one refuses, the connection is
    reset. With kube-proxy the client would see a refusal; a program must accept before it knows.
    """

    def __init__(self, backends: Callable[[], Sequence[Address]], address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__("sandbox-service", address, port)
        self.backends = backends

    @property
    def url(self) -> str:
        """The Service's URL."""
        return f"http://{self.address}:{self.port}"

    def handle_connection(self, connection: socket.socket, client_address: Any) -> None:  # noqa: ARG002 - the base's
        """Connect to a backend and copy bytes until both sides have ended."""
        with self.track(connection):
            backends = self.backends()
            if not backends:
                reset(connection)
                return
            # The choice needs no cryptographic randomness.
            chosen = random.choice(backends)  # noqa: S311
            try:
                backend = socket.create_connection(chosen, CONNECT_TIMEOUT)
            except OSError:
                reset(connection)
                return
            with self.track(backend):
                backend.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pipe(connection, backend)


def pipe(left: socket.socket, right: socket.socket) -> None:
    """Copy bytes both ways between two TCP connections until both sides have ended.

    The end of one side is passed on to the other, which may go on sending. A reset is passed on as one. Copying ends
    after ``IDLE_TIMEOUT`` seconds without data, or ``SEND_TIMEOUT`` seconds in which a side accepts no data. The
    connections are left open.
    """
    for connection in (left, right):
        connection.settimeout(SEND_TIMEOUT)
    with selectors.PollSelector() as readable:
        readable.register(left, selectors.EVENT_READ, right)
        readable.register(right, selectors.EVENT_READ, left)
        try:
            while readable.get_map() and (ready := readable.select(IDLE_TIMEOUT)):
                for key, _ in ready:
                    _copy(key.fileobj, key.data, readable)
        except OSError:
            reset(left)
            reset(right)


def _copy(source: Any, sink: socket.socket, readable: selectors.BaseSelector) -> None:
    if data := source.recv(_CHUNK):
        sink.sendall(data)
        return
    readable.unregister(source)
    sink.shutdown(socket.SHUT_WR)
