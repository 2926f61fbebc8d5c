"""A small name server on loopback, by UDP and TCP on one port, that answers what a test tells it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Self

A, CNAME, AAAA = 1, 5, 28
NO_ERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5


def wire(name: str) -> bytes:
    """Return a name as it travels."""
    labels = [label.encode() for label in name.strip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def record(owner: bytes, kind: int, content: bytes) -> bytes:
    """Return a resource record of class IN."""
    return owner + struct.pack("!HHIH", kind, 1, 30, len(content)) + content


def address_record(address: str, owner: bytes = b"\xc0\x0c") -> bytes:
    """Return the record of an address; its owner is by default the name of the question, compressed."""
    if ":" in address:
        return record(owner, AAAA, socket.inet_pton(socket.AF_INET6, address))
    return record(owner, A, socket.inet_pton(socket.AF_INET, address))


def response(query: bytes, *records: bytes, code: int = NO_ERROR, flags: int = 0x8180) -> bytes:
    """Return the answer to a query: its id and question, then the records."""
    return query[:2] + struct.pack("!HHHHH", flags | code, 1, len(records), 0, 0) + query[12:] + b"".join(records)


def question_of(query: bytes) -> tuple[str, int]:
    """Return name and type of a query."""
    labels, offset = [], 12
    while query[offset]:
        labels.append(query[offset + 1 : offset + 1 + query[offset]].decode())
        offset += 1 + query[offset]
    return ".".join(labels) + ".", int.from_bytes(query[offset + 1 : offset + 3], "big")


Respond = Callable[[bytes], list[bytes]]


def zone(addresses: Mapping[str, str | int]) -> Respond:
    """Answer each full name with its address or its response code, and NXDOMAIN for every other name."""

    def respond(query: bytes) -> list[bytes]:
        name, kind = question_of(query)
        found = addresses.get(name, NXDOMAIN)
        if isinstance(found, int):
            return [response(query, code=found)]
        right = kind == (AAAA if ":" in found else A)
        return [response(query, *([address_record(found)] if right else []))]

    return respond


def nothing(_query: bytes) -> list[bytes]:
    """Answer nothing."""
    return []


class DnsServer:
    """A name server on 127.0.0.1. ``udp`` and ``tcp`` return the messages that answer a query; TCP then closes.

    ``asked`` is the questions, with the protocol, as they came.
    """

    def __init__(self, udp: Respond, tcp: Respond | None = None) -> None:
        self._respond = {"udp": udp, "tcp": tcp or udp}
        self.asked: list[tuple[str, str, int]] = []
        self._udp, self._tcp = _pair()
        self.port: int = self._udp.getsockname()[1]
        self._threads = [
            threading.Thread(target=run, name="test-dns", daemon=True) for run in (self._serve_udp, self._serve_tcp)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._tcp.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):  # a UDP socket wakes its reader all the same
            self._udp.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()
        self._udp.close()
        self._tcp.close()

    def _answers(self, protocol: str, query: bytes) -> list[bytes]:
        name, kind = question_of(query)
        self.asked.append((protocol, name, kind))
        return self._respond[protocol](query)

    def _serve_udp(self) -> None:
        while True:
            query, client = self._udp.recvfrom(4096)
            if not query:
                return
            for message in self._answers("udp", query):
                with contextlib.suppress(OSError):  # the client has left
                    self._udp.sendto(message, client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                sock, _ = self._tcp.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                sock.settimeout(5)
                length = int.from_bytes(sock.recv(2), "big")
                messages = self._answers("tcp", sock.recv(length))
                for message in messages:
                    sock.sendall(struct.pack("!H", len(message)) + message)
                if not messages:
                    sock.recv(1)


def _pair() -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a listening TCP socket on the same port."""
    while True:
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:  # somebody else has that port by UDP
            tcp.close()
            udp.close()
            continue
        return udp, tcp
