"""A web server that answers every request as the Go kubenurse does: 200, empty, no header of ours. It remembers all."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from sandbox.listener import Listener

TIMEOUT = 20.0
MOST_REMEMBERED = 10_000
ANSWER = b"HTTP/1.1 200 OK\r\nDate: Fri, 02 Jan 2026 03:04:05 GMT\r\nContent-Length: 0\r\n\r\n"


class Recorder(Listener):
    """``heads`` are the requests' first lines and headers as they came; with ``context`` it serves TLS."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None) -> None:
        super().__init__("test-recorder", address, port)
        self._context = context
        self.heads: list[str] = []

    def handle_connection(self, connection: socket.socket, client_address: Any) -> None:
        """Answer one request after the other."""
        connection.settimeout(TIMEOUT)
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self.track(connection), connection.makefile("rb") as stream:
            while head := self._read_head(stream):
                if len(self.heads) < MOST_REMEMBERED:
                    self.heads.append(head.decode("latin-1"))
                connection.sendall(ANSWER)

    @staticmethod
    def _read_head(stream: Any) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line: bytes = stream.readline()
            if not line:
                return b""
            head += line
        return head

    def header(self, name: str) -> str | None:
        """A header of the latest request, None when it was not there."""
        for line in self.heads[-1].split("\r\n")[1:]:
            found, _, value = line.partition(": ")
            if found.lower() == name.lower():
                return value
        return None
