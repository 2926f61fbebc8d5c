"""Hostile clients of one agent: garbage, half requests, bodies, answers that nobody reads.

    .venv/bin/python -m bench.hostile 127.0.1.1 8080 [--seconds 10]

Only loopback addresses are accepted. The number of clients is fixed, each holds one connection at a time, a connection
lasts ``LONGEST_SECONDS`` at most, and everything ends after ``--seconds``.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

# All hostile clients share this address, so that an agent that divides its connections by client can tell them apart.
SOURCE = "127.0.0.66"
CLIENTS_OF_A_KIND = 6
LONGEST_SECONDS = 2.0
_DRIP_SECONDS = 0.1
# A refused or reset connection is tried again after this pause: it bounds the connections of a client per second.
_PAUSE = 0.05
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s

Act = Callable[[socket.socket, float, random.Random], None]


def _garbage(sock: socket.socket, _: float, random_: random.Random) -> None:
    """Random bytes, then the end."""
    sock.sendall(random_.randbytes(random_.randrange(1, 8192)))
    sock.recv(4096)


def _half_request(sock: socket.socket, deadline: float, _: random.Random) -> None:
    """A request whose head does not end."""
    sock.sendall(b"GET /alive HTTP/1.1\r\nHost: here\r\nX-Half: ")
    _wait_until(deadline)


def _dripped_request(sock: socket.socket, deadline: float, _: random.Random) -> None:
    """A request that comes byte by byte."""
    for byte in b"GET /alwayshappy HTTP/1.1\r\nHost: here\r\n\r\n":
        if time.monotonic() > deadline:
            return
        sock.sendall(bytes((byte,)))
        time.sleep(_DRIP_SECONDS)


def _body(sock: socket.socket, deadline: float, _: random.Random) -> None:
    """A POST that announces a megabyte and sends a part of it."""
    sock.sendall(b"POST /alive HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n" + bytes(65536))
    _wait_until(deadline)


def _unread_answers(sock: socket.socket, deadline: float, _: random.Random) -> None:
    """Many pipelined requests, and no answer is read."""
    sock.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n" * 200)
    _wait_until(deadline)


def _slow_reader(sock: socket.socket, deadline: float, _: random.Random) -> None:
    """A scrape that is read byte by byte."""
    sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
    while time.monotonic() < deadline and sock.recv(1):
        time.sleep(_DRIP_SECONDS)


def _large_head(sock: socket.socket, _: float, random_: random.Random) -> None:
    """A head close to the limit, of text that expensive patterns are slow at."""
    piece = random_.choice((b"-eyJ", b"a=", b",;", b"Bearer ", b" \t"))
    value = piece * (15_000 // len(piece))
    sock.sendall(b"GET /alive HTTP/1.1\r\nHost: here\r\nX-Large: " + value + b"\r\n\r\n")
    sock.recv(65536)


def _reset(sock: socket.socket, _: float, __: random.Random) -> None:
    """A connection that is reset at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _scrape(sock: socket.socket, deadline: float, _: random.Random) -> None:
    """A correct scrape, as fast as answers come."""
    while time.monotonic() < deadline:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        while sock.recv(65536):
            pass
        return


KINDS: tuple[Act, ...] = (
    _garbage,
    _half_request,
    _dripped_request,
    _body,
    _unread_answers,
    _slow_reader,
    _large_head,
    _reset,
    _scrape,
)


def _wait_until(deadline: float) -> None:
    time.sleep(max(0.0, deadline - time.monotonic()))


@contextlib.contextmanager
def _connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.socket() as sock:
        # A small window: answers that nobody reads stay in the agent.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(LONGEST_SECONDS)
        sock.bind((SOURCE, 0))
        sock.connect(address)
        yield sock


def _client(address: tuple[str, int], act: Act, end: float, seed: int) -> None:
    # A seed of its own makes a client's garbage the same in each run.
    random_ = random.Random(seed)
    while time.monotonic() < end:
        with contextlib.suppress(OSError), _connected(address) as sock:
            act(sock, min(end, time.monotonic() + LONGEST_SECONDS), random_)
        time.sleep(_PAUSE)


def attack(address: tuple[str, int], seconds: float) -> None:
    """Be hostile to the agent at a loopback address for so many seconds.

    Raises:
        ValueError: when the address is none of loopback.
    """
    if not ipaddress.ip_address(address[0]).is_loopback:
        raise ValueError(f"{address[0]} is no loopback address")
    end = time.monotonic() + seconds
    acts = KINDS * CLIENTS_OF_A_KIND
    clients = [
        threading.Thread(target=_client, args=(address, act, end, number), name=f"hostile-{number}")
        for number, act in enumerate(acts)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


def main() -> None:
    """Read the arguments and begin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="of the agent, in 127.0.0.0/8 or ::1")
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    attack((options.address, options.port), options.seconds)


if __name__ == "__main__":
    main()
