"""Clients that send the bytes they are given, and servers for them, on real sockets of loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from checks.web.http1 import Request, Response
from checks.web.server import Server

# Shorter than the server's own 10 s for a head or for writing, which would make a test pass for another reason.
PATIENCE = 5.0
GET = b"GET /alwayshappy HTTP/1.1\r\nHost: a\r\n\r\n"


class Answer(NamedTuple):
    """One response as read from the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A client that sends the bytes it is given."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        self.socket = connection
        self._file = connection.makefile("rb")

    @classmethod
    def of(cls, server: Server, host: str = "127.0.0.1") -> Client:
        """Connect to a server."""
        return cls(socket.create_connection((host, server.port), timeout=PATIENCE))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send everything."""
        self.socket.sendall(data)

    def answer(self, *, head_only: bool = False) -> Answer:
        """Read one response."""
        status = int(self._file.readline().split()[1])
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode("latin-1").partition(": ")
            headers[name] = value
        body = b"" if head_only else self._file.read(int(headers["Content-Length"]))
        return Answer(status, headers, body)

    def ask(self, data: bytes = GET) -> Answer:
        """Send one request and read its response."""
        self.send(data)
        return self.answer()

    def is_closed(self) -> bool:
        """Wait for the server to close; False when it sends something instead."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


class Blocking:
    """Endpoints of which those below /slow answer only once released."""

    def __init__(self) -> None:
        self.busy = threading.Event()
        self._released = threading.Event()
        self.release = self._released.set

    def __call__(self, request: Request) -> Response:
        """Answer with an empty 200, sooner or later."""
        if request.target.startswith("/slow"):
            self.busy.set()
            assert self._released.wait(PATIENCE)
        return Response(200)


SLOW = b"GET /slow HTTP/1.1\r\n\r\n"


def happy(_request: Request) -> Response:
    """Answer every request with an empty 200."""
    return Response(200)


def echo(request: Request) -> Response:
    """Answer with the request's target."""
    return Response(200, (), request.target.encode())


@contextmanager
def serving(
    respond: Callable[[Request], Response] = happy, address: str = "127.0.0.1", **options: Any
) -> Iterator[Server]:
    """Serve on a port of the system's choice for the time of the block."""
    server = Server(respond, address, 0, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop(0.1)
