"""Which connections there is room for, and which of them make room."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from checks.web.connections import MOST_ENDING, Connections, Doing
from checks.web.http1 import Request, Response
from tests.web.clients import GET, PATIENCE, SLOW, Blocking, Client, serving

LARGE = b"x" * 50_000_000


class Places:
    """Connections with a limit, and real sockets to put there."""

    def __init__(self, limit: int, stack: ExitStack) -> None:
        self.connections = Connections(limit)
        self._stack = stack

    def admit(self, address: str = "10.0.0.1", doing: Doing = Doing.NEW) -> socket.socket | None:
        """A connection that was admitted and does this now; None when there was no place."""
        ours, theirs = socket.socketpair()
        self._stack.callback(theirs.close)
        self._stack.callback(ours.close)
        if not self.connections.admit(ours, address):
            return None
        assert self.connections.turn_to(ours, doing)
        return ours

    def fill(self, number: int, address: str, doing: Doing = Doing.NEW) -> list[socket.socket]:
        """That many connections of one address."""
        admitted = [self.admit(address, doing) for _ in range(number)]
        return [connection for connection in admitted if connection is not None]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is closed after the test."""
    with ExitStack() as opened:
        yield opened


def was_shut(connection: socket.socket) -> bool:
    """Whether this connection had to make room."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


@pytest.mark.parametrize(
    "order",
    [
        (Doing.LINGERING, Doing.KEPT, Doing.BLOCKED, Doing.NEW),
        (Doing.NEW, Doing.BLOCKED, Doing.KEPT, Doing.LINGERING),
    ],
    ids=["first to last", "last to first"],
)
def test_what_is_worth_least_makes_room_first(order: tuple[Doing, ...], stack: ExitStack) -> None:
    """First a lingering connection goes, then a kept, an unread and a new one; one being answered never does."""
    places = Places(5, stack)
    answering = places.admit(doing=Doing.ANSWERING)
    there = {doing: places.admit(doing=doing) for doing in order}
    for doing in (Doing.LINGERING, Doing.KEPT, Doing.BLOCKED, Doing.NEW):
        leaves = there.pop(doing)
        assert places.admit(doing=Doing.ANSWERING)
        assert leaves is not None
        assert was_shut(leaves)
        assert not places.connections.turn_to(leaves, Doing.ANSWERING)
        assert not any(was_shut(stays) for stays in there.values() if stays is not None)
    assert places.admit() is None
    assert answering is not None
    assert not was_shut(answering)


def test_the_connection_waiting_longest_makes_room(stack: ExitStack) -> None:
    """Of connections that do the same, the first to begin with it is shut."""
    places = Places(2, stack)
    second, first = places.fill(2, "10.0.0.1")
    for connection in (first, second):
        assert places.connections.turn_to(connection, Doing.KEPT)
    assert places.admit()
    assert (was_shut(first), was_shut(second)) == (True, False)


def test_an_address_with_its_share_takes_no_place_of_others(stack: ExitStack) -> None:
    """While other addresses have connections, a greedy one only replaces its own, or is refused."""
    places = Places(8, stack)
    quiet = places.fill(2, "10.0.0.1", Doing.LINGERING)
    greedy = places.fill(6, "10.0.0.2", Doing.NEW)
    assert len(places.fill(20, "10.0.0.2", Doing.ANSWERING)) == 6
    assert all(was_shut(connection) for connection in greedy)
    assert not any(was_shut(connection) for connection in quiet)


def test_an_address_below_its_share_takes_a_place_of_a_greedy_one(stack: ExitStack) -> None:
    """A new address gets places from the address that has more than its share, until it has its share."""
    places = Places(18, stack)
    third = places.fill(1, "10.0.0.3", Doing.KEPT)
    greedy = places.fill(17, "10.0.0.1")
    assert len(places.fill(10, "10.0.0.2", Doing.ANSWERING)) == 6
    assert sum(was_shut(connection) for connection in greedy) == 6
    assert not was_shut(third[0])


def test_one_address_may_have_all_places(stack: ExitStack) -> None:
    """Clients behind one proxy get every place while nobody else asks."""
    places = Places(8, stack)
    assert len(places.fill(8, "10.0.0.1", Doing.ANSWERING)) == 8
    assert places.admit() is None


def test_more_addresses_than_places_take_turns(stack: ExitStack) -> None:
    """With one connection an address, a new address still takes the place that is worth least."""
    places = Places(4, stack)
    there = [places.admit(f"10.0.0.{number}", Doing.KEPT) for number in range(4)]
    assert places.admit("10.0.1.1")
    assert there[0] is not None
    assert was_shut(there[0])


def test_threads_that_still_end_are_bounded(stack: ExitStack) -> None:
    """A new connection waits while MOST_ENDING connections are shut and not closed; it comes in when one is."""
    places = Places(1, stack)
    ending = places.fill(MOST_ENDING, "10.0.0.1")
    assert len(ending) == MOST_ENDING
    assert places.admit() is not None
    admitted = threading.Event()

    def admit() -> None:
        if places.admit():
            admitted.set()

    thread = threading.Thread(target=admit)
    thread.start()
    places.connections.remove(ending[0])
    assert admitted.wait(PATIENCE)
    thread.join(PATIENCE)


def test_threads_that_never_began_keep_nobody_out(stack: ExitStack) -> None:
    """Connections whose threads died before they ran are forgotten, however many there are."""
    places = Places(1, stack)
    assert len(places.fill(2 * MOST_ENDING, "10.0.0.1")) >= 2 * MOST_ENDING - 1


def test_a_kept_connection_makes_room_for_a_new_one() -> None:
    """With all places taken a kept connection, and no more than one, is closed for a new one."""
    with serving(max_connections=2) as server, Client.of(server) as first, Client.of(server) as second:
        assert first.ask().status == second.ask().status == 200
        status, deadline = 0, time.monotonic() + PATIENCE
        # Both are answered, but one of them has to be back in waiting before it can make room.
        while not status and time.monotonic() < deadline:
            with Client.of(server) as third, suppress(ConnectionError, IndexError):
                status = third.ask().status
        assert status == 200
        closed, _, _ = select.select([first.socket, second.socket], [], [], PATIENCE)
        assert len(closed) == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /alwayshappy HT",
        b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n",
        b"garbage\r\n\r\n",
        GET,
    ],
    ids=["nothing", "half a head", "a body announced", "garbage", "a large answer that it does not read"],
)
def test_clients_that_are_in_no_hurry_keep_nobody_out(sent: bytes) -> None:
    """However many clients send nothing, half of it or too much, or do not read, another one is answered at once."""

    def respond(request: Request) -> Response:
        return Response(200, (), LARGE if request.target == "/alwayshappy" else b"")

    with serving(respond, max_connections=4) as server, ExitStack() as stack:
        for _ in range(3):
            idlers = [stack.enter_context(Client.of(server)) for _ in range(10)]
            for idler in idlers:
                with suppress(ConnectionError):
                    idler.send(sent)
            with Client.of(server) as asking:
                assert asking.ask(b"GET / HTTP/1.1\r\n\r\n").status == 200


def test_an_answer_that_nobody_reads_ends_in_time() -> None:
    """An answer that is not taken in time ends the connection and frees its place."""
    with (
        serving(lambda _request: Response(200, (), LARGE), write_timeout=0.2) as server,
        Client.of(server) as client,
    ):
        client.send(GET)
        assert client.socket.recv(10)
        assert server.connections.wait_for_none(PATIENCE)


def test_when_full_of_busy_connections_a_new_one_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """With all connections at work a new one is closed, which is logged once, not each time."""
    blocking = Blocking()
    with serving(blocking, max_connections=1) as server, Client.of(server) as client:
        client.send(SLOW)
        assert blocking.busy.wait(PATIENCE)
        for _ in range(3):
            with Client.of(server) as refused:
                assert refused.is_closed()
        blocking.release()
        assert client.answer().status == 200
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG] == [
        "connection refused, all are in use"
    ]
