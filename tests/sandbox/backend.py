"""A server for one function, in the place of what the sandbox's parts pass connections to."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from sandbox.listener import Listener
from sandbox.service import Address
from tests.support.process import ADDRESS, free_port

TIMEOUT = 20.0


class Backend(Listener):
    """Hands each connection to a function."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        super().__init__("test-backend", "127.0.0.1")
        self.handle_one = handle

    def handle_connection(self, connection: socket.socket, client_address: Any) -> None:
        """Hand it over, to be closed in the end."""
        connection.settimeout(TIMEOUT)
        with self.track(connection):
            self.handle_one(connection)


def address_of(server: Listener) -> Address:
    """Where it listens."""
    return server.address, server.port


def everything(connection: socket.socket) -> bytes:
    """Return all bytes until the peer ends its side."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def connect(server: Listener) -> socket.socket:
    """A connection to it."""
    return socket.create_connection(address_of(server), TIMEOUT)


def say_nothing(connection: socket.socket) -> None:
    """Receive everything and answer nothing."""
    everything(connection)


def echo_after_the_end(name: bytes) -> Callable[[socket.socket], None]:
    """Return a backend that echoes after the client has ended its side."""

    def handle(connection: socket.socket) -> None:
        connection.sendall(name + everything(connection))

    return handle


def is_reset(server: Listener) -> bool:
    """Tell whether a connection that sends a request is reset."""
    try:
        with contextlib.closing(connect(server)) as client:
            client.sendall(b"anybody there?")
            return client.recv(1) != b""
    except ConnectionError:
        return True


def closed_port() -> Address:
    """An address that nobody listens on."""
    return ADDRESS, free_port()
