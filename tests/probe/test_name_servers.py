"""One name server, asked by UDP and by TCP."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from checks.probe.dns import A, MessageError, Question
from checks.probe.name_servers import Ask, NameServer, new_question
from checks.probe.sockets import Abort
from tests.support.dns_server import DnsServer, address_record, nothing, response, zone
from tests.support.servers import GENEROUS, SHORT, Server, refusing
from tests.support.waiting import until

QUESTION = Question(0x1234, "a.test.", A)
ASKS = pytest.mark.parametrize("ask", [NameServer.ask_udp, NameServer.ask_tcp], ids=["udp", "tcp"])


@pytest.fixture
def abort() -> Iterator[Abort]:
    """An Abort that is not thrown."""
    made = Abort()
    yield made
    made.close()


def later(seconds: float = GENEROUS) -> float:
    """Return a deadline."""
    return time.perf_counter() + seconds


@ASKS
def test_an_answer(abort: Abort, ask: Ask) -> None:
    """A question gets its answer, by UDP in one datagram."""
    with DnsServer(zone({"a.test.": "10.0.0.1"})) as server:
        assert ask(NameServer("127.0.0.1", abort, server.port), QUESTION, later()).addresses == ("10.0.0.1",)
        assert [(name, kind) for _, name, kind in server.asked] == [("a.test.", A)]


def test_a_large_answer_by_tcp(abort: Abort) -> None:
    """An answer of many segments is read whole."""
    many = [address_record(f"10.0.{n}.1") for n in range(250)]
    with DnsServer(nothing, tcp=lambda query: [response(query, *many)]) as server:
        found = NameServer("127.0.0.1", abort, server.port).ask_tcp(QUESTION, later())
    assert len(found.addresses) == 250


def test_other_datagrams_are_passed_over(abort: Abort) -> None:
    """A wrong id, another question and garbage are passed over while the answer is waited for."""

    def respond(query: bytes) -> list[bytes]:
        other = Question(0x1234, "b.test.", A).encode()
        right = response(query, address_record("10.0.0.1"))
        return [b"\0\0" + right[2:], response(other, address_record("10.0.0.2")), b"", b"garbage", right]

    with DnsServer(respond) as server:
        found = NameServer("127.0.0.1", abort, server.port).ask_udp(QUESTION, later())
    assert found.addresses == ("10.0.0.1",)


def test_a_datagram_of_another_source_is_passed_over(abort: Abort) -> None:
    """A right answer from another socket than the one that was asked does not arrive."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        asked.bind(("127.0.0.1", 0))
        asked.settimeout(GENEROUS)
        server = NameServer("127.0.0.1", abort, asked.getsockname()[1])
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(server.ask_udp, QUESTION, later())
            query, client = asked.recvfrom(512)
            other.sendto(response(query, address_record("10.0.0.2")), client)
            asked.sendto(response(query, address_record("10.0.0.1")), client)
            assert asking.result(GENEROUS).addresses == ("10.0.0.1",)


def test_a_lost_datagram_is_sent_again(abort: Abort) -> None:
    """A question whose answer does not arrive is sent once more within its time."""
    lost = iter([True, False])

    def respond(query: bytes) -> list[bytes]:
        return [] if next(lost) else [response(query, address_record("10.0.0.1"))]

    with DnsServer(respond) as server:
        assert NameServer("127.0.0.1", abort, server.port).ask_udp(QUESTION, later(2 * SHORT)).addresses
        assert len(server.asked) == 2


@ASKS
def test_silence_ends_at_the_deadline(abort: Abort, ask: Ask) -> None:
    """A server that answers nothing is waited for until the deadline."""
    with DnsServer(nothing) as server, pytest.raises(TimeoutError) as caught:
        ask(NameServer("127.0.0.1", abort, server.port), QUESTION, later(SHORT))
    assert caught.value.errno is None


@ASKS
def test_a_port_without_a_server(abort: Abort, ask: Ask) -> None:
    """A closed port is refused at once, by UDP too: ICMP says so."""
    with refusing() as (_, (host, port)), pytest.raises(ConnectionRefusedError):
        ask(NameServer(host, abort, port), QUESTION, later())


@ASKS
def test_abort_ends_a_question(abort: Abort, ask: Ask) -> None:
    """The end of the agent ends a question that is waiting."""
    with DnsServer(nothing) as server, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, NameServer("127.0.0.1", abort, server.port), QUESTION, later())
        until(lambda: server.asked)
        abort.throw()
        error = asking.exception(GENEROUS)
    assert isinstance(error, OSError)
    assert error.errno == errno.ECANCELED


def test_tcp_that_is_no_dns(abort: Abort) -> None:
    """A connection that ends early, and bytes that are no DNS, are errors in words."""
    ended = pytest.raises((MessageError, ConnectionError))
    with Server(lambda conversation: conversation.dribble(b"\0")) as server, ended:
        NameServer("127.0.0.1", abort, server.port).ask_tcp(QUESTION, later())
    with DnsServer(nothing, tcp=lambda _: [b"garbage"]) as dns, pytest.raises(MessageError):
        NameServer("127.0.0.1", abort, dns.port).ask_tcp(QUESTION, later())


def test_a_flood_of_datagrams_ends(abort: Abort) -> None:
    """Datagrams without end that answer nothing end the question after a bounded number."""

    def respond(query: bytes) -> list[bytes]:
        return [b"\0\0" + response(query)[2:]] * 1000

    with DnsServer(respond) as server, pytest.raises(TimeoutError):
        NameServer("127.0.0.1", abort, server.port).ask_udp(QUESTION, later())


def test_ids_differ() -> None:
    """Each question has an id of its own."""
    assert len({new_question("a.test", A).id for _ in range(100)}) > 90
