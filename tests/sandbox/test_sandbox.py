"""The parts of the sandbox, each alone: certificates and Service."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from sandbox.certificates import ServiceAccountDirectory
from sandbox.listener import MAX_CONNECTIONS, reset
from sandbox.service import Service
from tests.sandbox.backend import (
    TIMEOUT,
    Backend,
    address_of,
    closed_port,
    connect,
    echo_after_the_end,
    everything,
    is_reset,
)

# Certificates


def test_service_account_rotation_is_seen_through_the_same_paths(tmp_path: Path) -> None:
    """A rotated token and CA are read from the same paths. Nothing of the old version remains."""
    account = ServiceAccountDirectory(tmp_path / "account", token="one", ca="first CA", namespace="here")
    token_file = account.path / "token"
    assert (token_file.read_text(), (account.path / "namespace").read_text()) == ("one", "here")
    before = token_file.resolve()
    account.rotate(token="two", ca="second CA")
    assert (token_file.read_text(), (account.path / "ca.crt").read_text()) == ("two", "second CA")
    assert (account.path / "namespace").read_text() == "here"
    assert account.token == "two"
    assert not before.exists()
    assert sorted(path.name for path in account.path.iterdir() if not path.name.startswith("..")) == [
        "ca.crt",
        "namespace",
        "token",
    ]
    assert len(list(account.path.glob("..*"))) == 2, "the current version, and the link to it"


# Service


def test_service_spreads_connections_over_all_backends() -> None:
    """Among many new connections every backend gets some."""
    with (
        Backend(echo_after_the_end(b"a")) as one,
        Backend(echo_after_the_end(b"b")) as other,
        Service(lambda: [address_of(one), address_of(other)]) as service,
    ):
        seen = set()
        for _ in range(64):
            with contextlib.closing(connect(service)) as client:
                client.shutdown(socket.SHUT_WR)
                seen.add(everything(client))
    assert seen == {b"a", b"b"}, "a fair spreader misses one with a probability of 2 ** -63"


def test_service_copies_both_ways_and_passes_the_half_close_on() -> None:
    """A client that has ended its side gets the whole answer, of any size."""
    payload = bytes(range(256)) * 4096
    with (
        Backend(echo_after_the_end(b"")) as backend,
        Service(lambda: [address_of(backend)]) as service,
        contextlib.closing(connect(service)) as client,
    ):
        client.sendall(payload)
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == payload


def test_service_resets_when_its_backend_is_dead() -> None:
    """A connection to a dead backend is reset. A connection without a backend is reset too."""
    backends = [closed_port()]
    with Service(lambda: backends) as service:
        assert is_reset(service)
        backends.clear()
        assert is_reset(service)


def test_service_passes_a_reset_on() -> None:
    """A backend that resets a connection resets it for the client."""

    def break_off(connection: socket.socket) -> None:
        connection.recv(1)
        reset(connection)

    with Backend(break_off) as backend, Service(lambda: [address_of(backend)]) as service:
        assert is_reset(service)


def test_connections_over_the_limit_are_reset_and_stop_ends_the_rest() -> None:
    """As many connections as allowed are served, the next is reset, and stopping ends all of them."""
    arrived = threading.Semaphore(0)

    def hold(connection: socket.socket) -> None:
        arrived.release()
        everything(connection)

    with contextlib.ExitStack() as clients:
        server = Backend(hold)
        with server:
            opened = [clients.enter_context(contextlib.closing(connect(server))) for _ in range(MAX_CONNECTIONS)]
            for _ in opened:
                assert arrived.acquire(timeout=TIMEOUT)
            assert is_reset(server)
        assert [client.recv(1) for client in opened] == [b""] * len(opened)


def test_stop_without_start_closes_the_port() -> None:
    """A server that was never started can be stopped."""
    server = Backend(lambda connection: None)
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        connect(server)
