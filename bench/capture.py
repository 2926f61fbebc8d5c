"""Times of TCP segments on the loopback interface, from a packet capture (AF_PACKET; needs root).

Times are the kernel's (``SO_TIMESTAMPNS``), epoch seconds. Formats: RFC 791 (IPv4), RFC 9293 (TCP), RFC 5246 (TLS
records); packet(7) and socket(7) of the Linux manual.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

_ETH_P_IP = 0x0800
_PACKET_OUTGOING = 4
_SO_TIMESTAMPNS = 35
_SYN, _ACK = 0x02, 0x10
_TLS_HANDSHAKE_TYPES = frozenset({20, 21, 22})
_TLS_APPLICATION_DATA = 23


@dataclass(slots=True)
class Exchange:
    """One connection: from its SYN to the first byte that the server sends as an answer."""

    server: tuple[str, int]
    syn_at: float
    answered_at: float | None = None

    @property
    def wire_seconds(self) -> float | None:
        """SYN to the answer's first byte; None while there is none."""
        return None if self.answered_at is None else self.answered_at - self.syn_at


@dataclass(slots=True)
class Capture:
    """Records the exchanges with the given server ports on loopback until stopped, at most ``most`` of them."""

    ports: frozenset[int]
    most: int = 100_000
    exchanges: dict[tuple[str, int, str, int], Exchange] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _socket: socket.socket | None = None

    def start(self) -> None:
        """Begin to capture."""
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024 * 1024)
        self._socket.bind(("lo", _ETH_P_IP))
        self._socket.settimeout(0.2)
        self._thread = threading.Thread(target=self._run, name="capture")
        self._thread.start()

    def stop(self) -> list[Exchange]:
        """End the capture and return the exchanges in the order of their SYNs."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        if self._socket is not None:
            self._socket.close()
        return sorted(self.exchanges.values(), key=lambda exchange: exchange.syn_at)

    def _run(self) -> None:
        for packet, at in self._packets():
            self._segment(packet, at)

    def _packets(self) -> Iterator[tuple[bytes, float]]:
        assert self._socket is not None
        while not self._stopping.is_set() and len(self.exchanges) < self.most:
            try:
                packet, control, _, sender = self._socket.recvmsg(65535, 64)
            except TimeoutError:
                continue
            # On loopback each packet is captured twice, leaving and arriving. The first one is used.
            if sender[2] != _PACKET_OUTGOING and control:
                seconds, nanoseconds = struct.unpack("@ll", control[0][2])
                yield packet, seconds + nanoseconds / 1e9

    def _segment(self, packet: bytes, at: float) -> None:
        header = (packet[0] & 0x0F) * 4
        if packet[9] != socket.IPPROTO_TCP:
            return
        length = struct.unpack_from("!H", packet, 2)[0]
        source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
        source_port, target_port = struct.unpack_from("!HH", packet, header)
        offset, flags = (packet[header + 12] >> 4) * 4, packet[header + 13]
        payload = packet[header + offset : length]
        if flags & _SYN and not flags & _ACK and target_port in self.ports:
            key = (source, source_port, target, target_port)
            self.exchanges[key] = Exchange((target, target_port), at)
        elif payload and source_port in self.ports:
            exchange = self.exchanges.get((target, target_port, source, source_port))
            if exchange is not None and exchange.answered_at is None and _is_answer(payload):
                exchange.answered_at = at


def _is_answer(payload: bytes) -> bool:
    """Tell an HTTP answer from a TLS handshake's records (TLS 1.2, whose record types are not encrypted)."""
    position = 0
    while position + 5 <= len(payload):
        kind, major, _, length = struct.unpack_from("!BBBH", payload, position)
        if major != 3 or kind not in _TLS_HANDSHAKE_TYPES:
            return kind == _TLS_APPLICATION_DATA or payload.startswith(b"HTTP/")
        position += 5 + length
    return False
