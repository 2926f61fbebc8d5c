"""An agent's process while hostile clients want to keep others out."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.process import ADDRESS, Running, agent
from tests.web.clients import Client
from tests.web.hostile import KINDS, hostile

REQUESTS = 15
# What the agent promises whatever clients do.
MOST_SECONDS = 1.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An agent outside any cluster."""
    with agent(tmp_path_factory.mktemp("agent")) as started:
        yield started


def ask(port: int, path: str) -> int:
    """The status answered to a client of its own address; 0 when it was turned away, within MOST_SECONDS."""
    try:
        with socket.create_connection((ADDRESS, port), MOST_SECONDS, source_address=("127.0.0.7", 0)) as plain:
            client = Client(plain)
            plain.settimeout(MOST_SECONDS)
            return client.ask(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()).status
    except (OSError, IndexError):
        return 0


@pytest.mark.parametrize("many_addresses", [False, True], ids=["one address", "many addresses"])
@pytest.mark.parametrize("kind", KINDS)
def test_others_are_answered_whatever_hostile_clients_do(running: Running, kind: str, many_addresses: bool) -> None:
    """With more hostile clients than connections, neighbours and probes from another address are answered at once."""
    with hostile(running.port, kind, many_addresses=many_addresses):
        answered = [ask(running.port, path) for _ in range(REQUESTS) for path in ("/alwayshappy", "/ready")]
    assert answered == [200] * 2 * REQUESTS
