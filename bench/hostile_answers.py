"""Answers that are made to fill the memory of a client of the API server, and a server that gives them."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sandbox.listener import Listener
from sandbox.objects import make_pod

_PIECE = 64 * 1024
Pieces = Callable[[], Iterator[bytes]]


def _pods(count: int, size: int = 0, name: str = "kubenurse-{:06}") -> Iterator[bytes]:
    """Yield a list of Pods as JSON, with nothing but a name, a node, an address and a phase where no size is given."""
    yield b'{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":['
    for number in range(count):
        address = f"10.{number // 65536}.{number // 256 % 256}.{number % 256}"
        tiny = {
            "metadata": {"name": name.format(number)},
            "spec": {"nodeName": name.format(number)},
            "status": {"phase": "Running", "podIP": address, "hostIP": address},
        }
        pod = make_pod(name.format(number), name.format(number), address, size=size) if size else tiny
        yield (b"," if number else b"") + json.dumps(pod, separators=(",", ":")).encode()
    yield b"]}"


def _one_object(fill: bytes, megabytes: int = 100) -> Iterator[bytes]:
    yield b'{"items":[{"metadata":{"name":"x"},"spec":' + (b"[" if fill.endswith(b",") else b'"')
    yield from (fill * (_PIECE // len(fill)) for _ in range(megabytes * 16))


def _blank(megabytes: int) -> Iterator[bytes]:
    yield from (b" " * _PIECE for _ in range(megabytes * 16))


def _packed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(9, wbits=31)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _answer(pieces: Pieces, encoding: str = "") -> Pieces:
    """Return an answer whose body, packed once for each gzip in ``encoding``, ends with its connection."""

    def answer() -> Iterator[bytes]:
        body = pieces()
        for _ in range(encoding.count("gzip")):
            body = _packed(body)
        yield b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
        yield f"Content-Encoding: {encoding or 'identity'}\r\n\r\n".encode()
        yield from body

    return answer


ANSWERS: Mapping[str, Pieces] = {
    "100 MB: 10,000 Pods of 10 KB": _answer(lambda: _pods(10_000, 10_000)),
    "100 MB: one object": _answer(lambda: _one_object(b"x")),
    "100 MB: one object of empty arrays": _answer(lambda: _one_object(b"[],")),
    "100 MB: one object of wide characters": _answer(lambda: _one_object("x\U0001f600".encode())),
    "gzip of 512 MB of white space": _answer(lambda: _blank(512), "gzip"),
    "gzip of 512 MB in one string": _answer(lambda: _one_object(b"x", 512), "gzip"),
    "gzip of gzip of 512 MB": _answer(lambda: _blank(512), "gzip, gzip"),
    "450,000 tiny Pods, gzip": _answer(lambda: _pods(450_000), "gzip"),
    "20,000 Pods with names of 253 letters": _answer(lambda: _pods(20_000, name="n" * 247 + "{:06}"), "gzip"),
}


class HostileServer(Listener):
    """Gives every request but a watch the same answer; ``answered`` counts the answers that were taken or left."""

    def __init__(self, context: ssl.SSLContext, answer: Pieces) -> None:
        super().__init__("hostile", "127.0.0.1")
        self._context = context
        # Made once: it takes longer than reading it does. What is packed twice is a few hundred bytes.
        self._pieces = list(answer())
        self._counting = threading.Lock()
        self.answered = 0

    def handle_connection(self, connection: socket.socket, client_address: Any) -> None:  # noqa: ARG002 - the base class's
        """Answer a connection's first request."""
        connection.settimeout(30)
        tls = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self.track(tls):
            tls.do_handshake()
            request = tls.recv(65536)
            if b"watch=true" in request or b"limit=" not in request:
                tls.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
                return
            try:
                for piece in self._pieces:
                    tls.sendall(piece)
            finally:
                with self._counting:
                    self.answered += 1
