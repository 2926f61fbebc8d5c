"""Connections kept between checks (KUBENURSE_REUSE_CONNECTIONS), and connections that are not."""

from __future__ import annotations

import socket
import threading

import pytest

from checks.probe.http import MOST_BODY_BYTES
from tests.support.phases import PLAIN_BY_ADDRESS, assert_in_order
from tests.support.servers import (
    GENEROUS,
    Conversation,
    Server,
    always,
    answer,
    probing,
    server_context,
    target,
)


def test_connections_are_new_every_time() -> None:
    """By default every check opens a new connection, even to a server that would keep the old one."""
    with Server(always(answer())) as server, probing() as prober:
        assert prober.check(target(server.url())).ok
        assert prober.check(target(server.url())).ok
    assert server.connections == 2


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_is_kept(tls: bool) -> None:
    """With reuse the next check uses the same connection and tells the same facts of it."""
    context = server_context() if tls else None
    with Server(always(answer(body=b"hello")), context=context) as server, probing(reuse_connections=True) as prober:
        first = prober.check(target(server.url()))
        second = prober.check(target(server.url()))
    assert server.connections == 1
    assert server.header("Connection") is None
    assert_in_order(second, ("got_conn", "wrote_request", "got_first_resp_byte"))
    assert second.tcp is not None
    assert (second.remote, second.not_after) == (first.remote, first.not_after)


def test_a_kept_connection_belongs_to_its_target() -> None:
    """Two checks of one URL do not share a connection."""
    with Server(always(answer())) as server, probing(reuse_connections=True) as prober:
        for _ in range(2):
            assert prober.check(target(server.url(), type="one")).ok
            assert prober.check(target(server.url(), type="other")).ok
    assert server.connections == 2


@pytest.mark.parametrize(
    "data",
    [answer("200 OK", "Connection: close"), answer(version="HTTP/1.0"), answer(body=b"x" * 100_000)],
    ids=["closing", "HTTP/1.0", "long"],
)
def test_a_connection_that_cannot_be_kept_is_not(data: bytes) -> None:
    """``Connection: close``, HTTP/1.0 and an unread rest of the body each end the connection."""
    with Server(always(data)) as server, probing(reuse_connections=True) as prober:
        for _ in range(2):
            assert prober.check(target(server.url())).state == "ok"
    assert server.connections == 2


def test_a_connection_with_an_answer_left_on_it_is_not_kept() -> None:
    """The unread rest of a long body is not taken for the next answer."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(answer(body=b"x" * (MOST_BODY_BYTES + 10))[:-10])
        conversation.wait_for_the_end()

    with Server(handle) as server, probing(reuse_connections=True) as prober:
        for _ in range(2):
            assert prober.check(target(server.url())).state == "ok"
    assert server.connections == 2


def test_a_kept_connection_that_the_server_ended() -> None:
    """A connection that ended while it was idle is replaced; the events are those of the new connection."""
    ended = threading.Event()

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(answer())
        conversation.sock.shutdown(socket.SHUT_RDWR)
        ended.set()

    with Server(handle) as server, probing(reuse_connections=True) as prober:
        assert prober.check(target(server.url())).ok
        assert ended.wait(GENEROUS)
        assert_in_order(prober.check(target(server.url())), PLAIN_BY_ADDRESS)
    assert server.connections == 2


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_kept_connection_that_ends_as_it_is_used(how: str) -> None:
    """When the server ends an idle connection at the next request, the check asks again on a new connection."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(answer())
        conversation.read_head()
        if how == "reset":
            conversation.reset()

    with Server(handle) as server, probing(reuse_connections=True) as prober:
        assert prober.check(target(server.url())).ok
        assert_in_order(prober.check(target(server.url())), PLAIN_BY_ADDRESS)
    assert (server.connections, len(server.received)) == (2, 3)
