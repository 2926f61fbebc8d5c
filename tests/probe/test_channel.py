"""One HTTP connection of a check."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator

import pytest

from checks.probe.channel import Channel
from checks.probe.connecting import connect
from checks.probe.sockets import Abort, KernelClock, MeasuredSocket
from tests.support.servers import GENEROUS, answer
from tests.support.waiting import until


@pytest.fixture(scope="module", autouse=True)
def clock() -> Iterator[KernelClock]:
    """Time stamps, switched on in the kernel."""
    made = KernelClock()
    yield made
    made.close()


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel and the server's end of it."""
    abort, deadline = Abort(), time.perf_counter() + GENEROUS
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = connect([(socket.AF_INET, listener.getsockname())], deadline, abort)
        peer, _ = listener.accept()
    channel = Channel(MeasuredSocket(made.sock, deadline, abort), "127.0.0.1")
    with peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield channel, peer
    channel.end()
    abort.close()


def waiting(channel: Channel) -> int:
    """How many bytes have arrived and were not read."""
    return len(channel.sock._sock.recv(65536, socket.MSG_PEEK)) if not channel.sock.is_silent() else 0


def test_the_first_byte_is_of_the_first_segment(ends: tuple[Channel, socket.socket]) -> None:
    """The moment is that of the first byte, also when more of the answer has arrived before it is read."""
    channel, peer = ends
    data = answer()

    def is_right() -> bool:
        channel.begin(time.perf_counter() + GENEROUS)
        peer.sendall(data[:1])
        until(lambda: waiting(channel) == 1)
        there = time.perf_counter()
        until(lambda: time.perf_counter() > there + 0.02)
        peer.sendall(data[1:])
        until(lambda: waiting(channel) == len(data))
        assert channel.read_head("GET").status == 200
        assert channel.first_byte is not None
        # The wall clock, which the stamps are of, and perf_counter may drift apart by a little.
        return channel.first_byte <= there + 0.005

    # The kernel begins to stamp with some delay.
    until(is_right)


def test_invalid_requests_are_not_sent(ends: tuple[Channel, socket.socket]) -> None:
    """The error for an invalid target or header names it without its value, and nothing is sent."""
    channel, peer = ends
    for target, headers, name in (
        ("/secret\r\n", {}, "target"),
        ("/", {"X-Token": "secret\n"}, "X-Token"),
        ("/", {"X-Token": "sécret"}, "X-Token"),
    ):
        with pytest.raises(ValueError, match=rf"\A{name} holds a character that HTTP does not allow\Z"):
            channel.send_request("GET", target, headers)
    channel.send_request("GET", "/", {"Host": "a.test"})
    assert peer.recv(1000) == b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
    assert channel.wrote_request is not None


def test_a_head_cut_off_is_no_answer(ends: tuple[Channel, socket.socket]) -> None:
    """The end of the connection within the head is not the end of the head."""
    channel, peer = ends
    peer.sendall(answer()[:-2])
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(http.client.IncompleteRead):
        channel.read_head("GET")


def test_a_channel_is_read_only(ends: tuple[Channel, socket.socket]) -> None:
    """A channel gives http.client a file for reading bytes, and no other."""
    channel, _ = ends
    with pytest.raises(ValueError, match="mode='wb'"):
        channel.makefile("wb")


def test_each_request_has_its_own_deadline(ends: tuple[Channel, socket.socket]) -> None:
    """A request on a kept connection has the deadline of its own check."""
    channel, peer = ends
    channel.begin(time.perf_counter())
    with pytest.raises(TimeoutError):
        channel.read_head("GET")
    channel.begin(time.perf_counter() + GENEROUS)
    peer.sendall(answer())
    assert channel.read_head("GET").status == 200
