"""Clients that keep others out: they hold as many connections as they can, and come back when they are shut."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from tests.support.waiting import until

CLIENTS = 130
GET_METRICS = b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\n\r\n"
KINDS = {
    "silent": b"",
    "half a head": b"GET /alive HTTP/1.1\r\nHost: ",
    "body announced": b"POST /alive HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
    "garbage": b"\x16\x03\x01garbage\r\n\r\n",
    "pipelining unread": GET_METRICS * 250,
    "keeping alive": b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n",
    "asking for checks": b"GET /alive HTTP/1.1\r\nHost: a\r\n\r\n",
    "scraping": GET_METRICS,
}
# The kinds whose answer ends the connection. The server lingers for what they still send, and they let it.
_LINGERING = ("body announced", "garbage")
_LINGER_SECONDS = 1.2
# What a client that was shut waits before it comes back, in seconds: all together they come back 1,000 times a second.
_PAUSE = 0.001
# Of Linux's enum in net/tcp_states.h.
_ESTABLISHED, _CLOSE_WAIT = 1, 8


class Hostile:
    """CLIENTS clients of one kind, from these addresses in turn, in a thread of their own. None of them reads."""

    def __init__(self, port: int, kind: str, addresses: list[str]) -> None:
        self._port = port
        self._sent = KINDS[kind]
        self._patience = _LINGER_SECONDS if kind in _LINGERING else 0.0
        self._shut_since: dict[object, float] = {}
        self._addresses = addresses
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self.have_sent = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        for number in range(CLIENTS):
            self._connect(self._addresses[number % len(self._addresses)])
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            self._leave(key)
        self._selector.close()

    def _connect(self, address: str) -> None:
        client = socket.socket()
        client.bind((address, 0))
        client.setblocking(False)
        # The kernel may put a request of this port off while it is full; that is a client less for this moment.
        with suppress(BlockingIOError):
            client.connect(("127.0.0.1", self._port))
        self._selector.register(client, selectors.EVENT_WRITE, address)

    def _leave(self, key: selectors.SelectorKey) -> None:
        self._shut_since.pop(key.fileobj, None)
        self._selector.unregister(key.fileobj)
        if isinstance(key.fileobj, socket.socket):
            key.fileobj.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for key, events in self._selector.select(0.02):
                if events & selectors.EVENT_WRITE:
                    self.have_sent += 1
                    with suppress(OSError):
                        assert isinstance(key.fileobj, socket.socket)
                        key.fileobj.send(self._sent)
                    # A socket that was shut is ready to be read; here only its end is looked for.
                    self._selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
                elif self._was_shut(key):
                    self._leave(key)
                    self._connect(key.data)

    def _was_shut(self, key: selectors.SelectorKey) -> bool:
        """Whether the server has ended a connection, and this client has held it for as long as it can."""
        # An answer that has come is neither read nor looked at again.
        time.sleep(_PAUSE)
        assert isinstance(key.fileobj, socket.socket)
        state = key.fileobj.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state == _ESTABLISHED:
            return False
        now = time.monotonic()
        return state != _CLOSE_WAIT or now - self._shut_since.setdefault(key.fileobj, now) >= self._patience


@contextmanager
def hostile(port: int, kind: str, *, many_addresses: bool) -> Iterator[Hostile]:
    """Hostile clients of one kind, from one address or from 130."""
    addresses = [f"127.0.9.{number}" for number in range(1, 1 + (CLIENTS if many_addresses else 1))]
    with Hostile(port, kind, addresses) as clients:
        until(lambda: clients.have_sent >= CLIENTS, timeout=20)
        yield clients
