"""Connections kept between rounds: at most so many, none too old, none that has ended."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from checks.probe.channel import Channel
from checks.probe.idle import MOST_IDLE_SECONDS, Keeper
from checks.probe.sockets import Abort, MeasuredSocket

LONG = 1e6


class World:
    """Channels over pairs of sockets, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.peers: dict[Channel, socket.socket] = {}
        self._abort = Abort()

    def clock(self) -> float:
        """Seconds, as a keeper asks for them."""
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
    """A kept connection is given to the first who asks with its key, and then is that one's."""
    keeper, channel = Keeper(world.clock), world.channel()
    keeper.keep("a", channel)
    assert keeper.take("b") is None
    assert keeper.take("a") is channel
    assert keeper.take("a") is None
    keeper.close()
    assert not world.ended(channel)


def test_the_newer_connection_is_kept(world: World) -> None:
    """A second connection under a key ends the first."""
    keeper, first, second = Keeper(world.clock), world.channel(), world.channel()
    keeper.keep("a", first)
    keeper.keep("a", second)
    assert (world.ended(first), world.ended(second)) == (True, False)
    assert keeper.take("a") is second


@pytest.mark.parametrize("how", ["end", "bytes"])
def test_a_connection_that_broke_the_silence(world: World, how: str) -> None:
    """A connection that the server ended, or on which it said something unasked, is ended and not given away."""
    keeper, channel = Keeper(world.clock), world.channel()
    keeper.keep("a", channel)
    if how == "end":
        world.peers[channel].shutdown(socket.SHUT_WR)
    else:
        world.peers[channel].sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert keeper.take("a") is None
    assert world.ended(channel)


@pytest.mark.parametrize(("idle", "good"), [(MOST_IDLE_SECONDS, True), (MOST_IDLE_SECONDS + 1, False)])
def test_a_connection_kept_for_long(world: World, idle: float, good: bool) -> None:
    """After too long a connection is ended and not given away."""
    keeper, channel = Keeper(world.clock), world.channel()
    keeper.keep("a", channel)
    world.now += idle
    assert (keeper.take("a") is channel) == good
    assert world.ended(channel) != good


def test_connections_nobody_asks_for_end(world: World) -> None:
    """What was kept for a target that has gone ends, by its age, as others are kept."""
    keeper, gone, other = Keeper(world.clock), world.channel(), world.channel()
    keeper.keep("gone", gone)
    world.now += MOST_IDLE_SECONDS / 2
    keeper.keep("other", other)
    world.now += MOST_IDLE_SECONDS / 2 + 1
    keeper.keep("new", world.channel())
    assert (world.ended(gone), world.ended(other)) == (True, False)


def test_at_most_so_many(world: World) -> None:
    """Of too many connections those kept for the longest end."""
    keeper = Keeper(world.clock, most=2)
    channels = [world.channel() for _ in range(4)]
    for key in (0, 1, 0, 2, 3):
        if key == 0:
            keeper.take(key)
        keeper.keep(key, channels[key])
    assert [world.ended(channel) for channel in channels] == [True, True, False, False]


def test_closing_ends_all(world: World) -> None:
    """A closed keeper ends what it has and what is brought to it later."""
    keeper, early, late = Keeper(world.clock), world.channel(), world.channel()
    keeper.keep("early", early)
    keeper.close()
    keeper.keep("late", late)
    assert world.ended(early)
    assert world.ended(late)
    assert keeper.take("early") is keeper.take("late") is None
