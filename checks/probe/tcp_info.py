"""What the kernel knows of a TCP connection: Linux ``TCP_INFO``, read without privilege."""

from __future__ import annotations

import socket
import struct

from checks.model import TcpFacts

# struct tcp_info of include/uapi/linux/tcp.h, by byte offsets. Kernels before 4.19 end it before tcpi_dsack_dups.
_TCP_INFO_SIZE = 220
_SHORTEST_TCP_INFO = 104
_PATH_MTU_OFFSET = 60
_RTT_OFFSET = 68
_TOTAL_RETRANSMITS_OFFSET = 100
_DUPLICATES_OFFSET = 216
_UINT32 = struct.Struct("@I")


def facts(sock: socket.socket, retransmits_before: int = 0) -> TcpFacts | None:
    """Return the kernel's figures of a socket, None where it does not tell (not TCP, not Linux).

    Retransmits are those of the connection's whole life, of the SYN too, less ``retransmits_before``.
    """
    info = _read(sock)
    if info is None:
        return None
    # Before the first measurement, as in an attempt that never got a SYN-ACK, these are zero.
    rtt = _UINT32.unpack_from(info, _RTT_OFFSET)[0]
    mtu = _UINT32.unpack_from(info, _PATH_MTU_OFFSET)[0]
    return TcpFacts(
        rtt_seconds=rtt / 1e6 if rtt else None,
        path_mtu_bytes=mtu or None,
        retransmits=max(0, _needed_retransmits(info) - retransmits_before),
    )


def _read(sock: socket.socket) -> bytes | None:
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except (OSError, AttributeError):
        return None
    return info if len(info) >= _SHORTEST_TCP_INFO else None


def _needed_retransmits(info: bytes) -> int:
    """Return how many segments had to be sent again.

    On a path with a short round trip the kernel sends the last segment again within milliseconds of silence (tail loss
    probe, RFC 8985, section 7): a busy server is enough. The other side reports such a segment as a duplicate
    (RFC 2883). Duplicates are no loss, so they are subtracted.
    """
    sent_again: int = _UINT32.unpack_from(info, _TOTAL_RETRANSMITS_OFFSET)[0]
    knows_duplicates = len(info) >= _DUPLICATES_OFFSET + _UINT32.size
    duplicates: int = _UINT32.unpack_from(info, _DUPLICATES_OFFSET)[0] if knows_duplicates else 0
    return max(0, sent_again - duplicates)
