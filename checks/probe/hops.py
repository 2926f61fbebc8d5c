"""How far packets to an address get: UDP with a growing TTL, and what ICMP says of it. No privilege is needed.

With ``IP_RECVERR`` the kernel queues the ICMP errors of a socket's own packets (ip(7), ipv6(7)). The router at which a
packet's TTL ends answers "time exceeded"; the address itself answers "port unreachable".
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass

from checks.probe.resolver import literal_address
from checks.probe.sockets import Abort, poll

# Clusters have one to five hops; a longer way is cut off.
MOST_HOPS = 16
# So many TTLs are sent at once. After a group without any answer no further one is sent.
_GROUP = 4
# In seconds: how long the answers to a group are waited for. Within one site they take milliseconds.
_GROUP_SECONDS = 0.4
# The ports of traceroute: the port tells which TTL an error belongs to.
_FIRST_PORT = 33434

# include/uapi/linux/in.h, in6.h and errqueue.h: Python has no names for these.
_IP_RECVERR, _IPV6_RECVERR, _IPV6_UNICAST_HOPS = 11, 25, 16
_MSG_ERRQUEUE = 0x2000
# struct sock_extended_err: errno, origin, type, code, padding, info, data. The offender's socket address follows.
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_ORIGIN_LOCAL, _ORIGIN_ICMP, _ORIGIN_ICMP6 = 1, 2, 3
_TIME_EXCEEDED = {socket.AF_INET: 11, socket.AF_INET6: 3}
_PORT_UNREACHABLE = {socket.AF_INET: (3, 3), socket.AF_INET6: (1, 4)}
_CONTROL_SPACE = 512
_SOCKADDR_IN_ADDRESS, _SOCKADDR_IN6_ADDRESS = slice(4, 8), slice(8, 24)


@dataclass(frozen=True, slots=True)
class Hop:
    """The last hop that answered: how many hops away (1 is the first), its address, and what it said in words.

    ``is_target`` is True when the address itself answered.
    """

    ttl: int
    address: str
    words: str
    is_target: bool


def last_hop(address: str, deadline: float, abort: Abort) -> Hop | None:
    """Return the last hop on the way to an IP address that answers, None when none does.

    At most MOST_HOPS packets are sent, one for each TTL.

    Raises:
        OSError: when nothing can be sent, with the reason of this node; ECANCELED once aborted.
        ValueError: when it is no IP address.
    """
    literal = literal_address(address, _FIRST_PORT)
    if literal is None:
        raise ValueError("not an IP address")
    family, _ = literal
    answers: dict[int, Hop] = {}
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        _receive_errors(sock)
        poller = select.poll()
        poller.register(abort, select.POLLIN)
        poller.register(sock, 0)  # POLLERR is always reported
        for first in range(1, MOST_HOPS + 1, _GROUP):
            group = range(first, first + _GROUP)
            poll(poller, 0.0, math.inf, abort)  # nothing more is sent once the agent is ending
            _send(sock, address, group, answers)
            _collect(sock, poller, group, answers, min(deadline, time.perf_counter() + _GROUP_SECONDS), abort)
            is_over = any(hop.is_target or hop.words != _EXCEEDED for hop in answers.values())
            if is_over or not any(ttl in answers for ttl in group) or time.perf_counter() >= deadline:
                break
    targets = [hop for hop in answers.values() if hop.is_target]
    if targets:
        return min(targets, key=lambda hop: hop.ttl)
    return max(answers.values(), key=lambda hop: hop.ttl, default=None)


_EXCEEDED = "time exceeded"


def _receive_errors(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def _send(sock: socket.socket, address: str, ttls: Iterable[int], answers: dict[int, Hop]) -> None:
    for ttl in ttls:
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_UNICAST_HOPS, ttl)
        where = (address, _FIRST_PORT + ttl)
        for attempts_left in (2, 1, 0):
            try:
                sock.sendto(b"", where)
                break
            except OSError:
                # An ICMP error of an earlier packet is reported here first. After it is read the packet goes out.
                _read_errors(sock, answers)
                if not attempts_left:
                    raise


def _collect(
    sock: socket.socket, poller: select.poll, ttls: range, answers: dict[int, Hop], until: float, abort: Abort
) -> None:
    """Read answers until all packets are answered, the target is, or the time is up."""
    with contextlib.suppress(TimeoutError):
        while not all(ttl in answers for ttl in ttls) and not any(hop.is_target for hop in answers.values()):
            poll(poller, until, until, abort)
            _read_errors(sock, answers)


def _read_errors(sock: socket.socket, answers: dict[int, Hop]) -> None:
    # At most one error for each packet, and a packet for each TTL.
    for _ in range(2 * MOST_HOPS):
        try:
            _, control, _, where = sock.recvmsg(0, _CONTROL_SPACE, _MSG_ERRQUEUE)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                return
            continue  # the error that was pending on the socket; the queue is read next
        ttl = where[1] - _FIRST_PORT
        for level, kind, data in control:
            is_error = (level, kind) in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR))
            if is_error and 1 <= ttl <= MOST_HOPS and (hop := _hop(sock.family, ttl, data)) is not None:
                answers.setdefault(ttl, hop)


def _hop(family: int, ttl: int, data: bytes) -> Hop | None:
    """Read a struct sock_extended_err and the offender's address behind it."""
    if len(data) < _EXTENDED_ERROR.size:
        return None
    number, origin, kind, code, *_ = _EXTENDED_ERROR.unpack_from(data)
    if origin not in (_ORIGIN_LOCAL, _ORIGIN_ICMP, _ORIGIN_ICMP6):
        return None
    offender = data[_EXTENDED_ERROR.size :]
    part = offender[_SOCKADDR_IN_ADDRESS if family == socket.AF_INET else _SOCKADDR_IN6_ADDRESS]
    try:
        address = socket.inet_ntop(family, part)
    except ValueError:
        return None
    if origin == _ORIGIN_LOCAL:
        return Hop(ttl, "", f"this node: {os.strerror(number).lower()}", is_target=False)
    if kind == _TIME_EXCEEDED[socket.AddressFamily(family)]:
        return Hop(ttl, address, _EXCEEDED, is_target=False)
    is_target = (kind, code) == _PORT_UNREACHABLE[socket.AddressFamily(family)]
    return Hop(ttl, address, "reached" if is_target else os.strerror(number).lower(), is_target=is_target)
