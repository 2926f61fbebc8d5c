"""Connections kept between rounds: bounded in number and age, and none that the server ended."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from checks.probe.channel import Channel
from checks.probe.idle import MOST_IDLE_SECONDS, IdleChannels
from checks.probe.sockets import Abort, MeasuredSocket

LONG = 1e6


class World:
    """Channels over pairs of sockets, and a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.peers: dict[Channel, socket.socket] = {}
        self._abort = Abort()

    def clock(self) -> float:
        """Seconds, as IdleChannels asks for them."""
        return self.now

    def channel(self) -> Channel:
        """Make a connection."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(20)
        made = Channel(MeasuredSocket(ours, time.perf_counter() + LONG, self._abort), "test")
        self.peers[made] = theirs
        return made

    def ended(self, channel: Channel) -> bool:
        """Tell whether this end of a connection was closed."""
        peer = self.peers[channel]
        peer.setblocking(False)
        try:
            return peer.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def close(self) -> None:
        """End all of it."""
        for channel, peer in self.peers.items():
            channel.end()
            peer.close()
        self._abort.close()


@pytest.fixture
def world() -> Iterator[World]:
    """A world of the test's own."""
    made = World()
    yield made
    made.close()


def test_a_connection_is_taken_once(world: World) -> None:
    """The first caller with the right key gets the connection; it then belongs to that caller."""
    idle, channel = IdleChannels(world.clock), world.channel()
    idle.put("a", channel)
    assert idle.take("b") is None
    assert idle.take("a") is channel
    assert idle.take("a") is None
    idle.close()
    assert not world.ended(channel)


def test_the_newer_connection_replaces_the_older(world: World) -> None:
    """A second connection of a key ends the first."""
    idle, first, second = IdleChannels(world.clock), world.channel(), world.channel()
    idle.put("a", first)
    idle.put("a", second)
    assert (world.ended(first), world.ended(second)) == (True, False)
    assert idle.take("a") is second


@pytest.mark.parametrize("how", ["end", "bytes"])
def test_a_connection_with_input(world: World, how: str) -> None:
    """A connection that the server ended, or on which it sent something, is closed instead of used again."""
    idle, channel = IdleChannels(world.clock), world.channel()
    idle.put("a", channel)
    if how == "end":
        world.peers[channel].shutdown(socket.SHUT_WR)
    else:
        world.peers[channel].sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert idle.take("a") is None
    assert world.ended(channel)


@pytest.mark.parametrize(("age", "good"), [(MOST_IDLE_SECONDS, True), (MOST_IDLE_SECONDS + 1, False)])
def test_an_old_connection(world: World, age: float, good: bool) -> None:
    """A connection that was idle for too long is closed instead of used again."""
    idle, channel = IdleChannels(world.clock), world.channel()
    idle.put("a", channel)
    world.now += age
    assert (idle.take("a") is channel) == good
    assert world.ended(channel) != good


def test_connections_of_departed_targets_end(world: World) -> None:
    """Putting a connection ends those of departed targets that are too old."""
    idle, gone, other = IdleChannels(world.clock), world.channel(), world.channel()
    idle.put("gone", gone)
    world.now += MOST_IDLE_SECONDS / 2
    idle.put("other", other)
    world.now += MOST_IDLE_SECONDS / 2 + 1
    idle.put("new", world.channel())
    assert (world.ended(gone), world.ended(other)) == (True, False)


def test_the_number_is_bounded(world: World) -> None:
    """The connections that were idle for the longest end when there are too many."""
    idle = IdleChannels(world.clock, most=2)
    channels = [world.channel() for _ in range(4)]
    for key in (0, 1, 0, 2, 3):
        if key == 0:
            idle.take(key)
        idle.put(key, channels[key])
    assert [world.ended(channel) for channel in channels] == [True, True, False, False]


def test_closing_ends_all(world: World) -> None:
    """Closing ends all connections, and each one that is put later."""
    idle, early, late = IdleChannels(world.clock), world.channel(), world.channel()
    idle.put("early", early)
    idle.close()
    idle.put("late", late)
    assert world.ended(early)
    assert world.ended(late)
    assert idle.take("early") is idle.take("late") is None
