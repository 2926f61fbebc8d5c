"""Asking one name server a question, by UDP or by TCP, past the C library's resolver."""

from __future__ import annotations

import secrets
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from checks.probe import dns
from checks.probe.connecting import connect
from checks.probe.dns import Answer, MessageError, Question
from checks.probe.resolver import Address
from checks.probe.sockets import Abort, MeasuredSocket, poll

DNS_PORT = 53
# A question by UDP is sent again after this share of its time: one lost datagram is no dead server.
_RESEND_AFTER = 0.5
# An answer by UDP without EDNS has at most 512 bytes (RFC 1035, section 2.3.4); some servers send more all the same.
_LONGEST_DATAGRAM = 4096
_LENGTH = struct.Struct("!H")
# Datagrams read while waiting for one answer. More come from a flood only, and then the time is up.
_MOST_DATAGRAMS = 64

Ask = Callable[["NameServer", Question, float], Answer]


@dataclass(frozen=True, slots=True)
class NameServer:
    """One name server, asked within deadlines of ``time.perf_counter``; ``abort`` ends a question early."""

    address: str
    abort: Abort
    port: int = DNS_PORT

    def ask_udp(self, question: Question, deadline: float) -> Answer:
        """Ask by UDP. Datagrams that are no answer to this question, or of another source, are passed over.

        Raises:
            OSError: as the socket does, ConnectionRefusedError where nothing listens; TimeoutError at the deadline.
            ValueError: when the name is no domain name.
        """
        family, where = self._where()
        message = question.encode()
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(where)  # the kernel drops datagrams of other sources from here on
            poller = select.poll()
            poller.register(self.abort, select.POLLIN)
            poller.register(sock, select.POLLIN)
            resend = time.perf_counter() + (deadline - time.perf_counter()) * _RESEND_AFTER
            sock.send(message)
            for _ in range(_MOST_DATAGRAMS):
                if not poll(poller, min(resend, deadline), deadline, self.abort):
                    sock.send(message)
                    resend = deadline
                    continue
                try:
                    return dns.parse(sock.recv(_LONGEST_DATAGRAM), question)
                except (MessageError, BlockingIOError):
                    continue
        raise TimeoutError

    def ask_tcp(self, question: Question, deadline: float) -> Answer:
        """Ask by TCP (RFC 1035, section 4.2.2: each message is preceded by its length).

        Raises:
            OSError: as the socket does; TimeoutError at the deadline.
            ValueError: when the name is no domain name; MessageError when the answer is none to this question.
        """
        message = question.encode()
        connected = connect([self._where()], deadline, self.abort)
        sock = MeasuredSocket(connected.sock, deadline, self.abort)
        try:
            sock.sendall(_LENGTH.pack(len(message)) + message)
            (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
            return dns.parse(_exactly(sock, length), question)
        finally:
            sock.close()

    def _where(self) -> Address:
        # Nothing is looked up: a literal address, perhaps with a scope (fe80::1%eth0), becomes a socket address.
        found = socket.getaddrinfo(self.address, self.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        family, _, _, _, where = found[0]
        return family, where


def new_question(name: str, kind: int) -> Question:
    """Return a question with an id that nobody can guess (RFC 5452)."""
    return Question(secrets.randbelow(1 << 16), name, kind)


def _exactly(sock: MeasuredSocket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise MessageError("the connection was closed before the answer")
        data += more
    return data
