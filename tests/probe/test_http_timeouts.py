"""A check that takes too long, in each phase, and checks that are stopped."""

from __future__ import annotations

import ssl
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from checks.model import CheckResult
from checks.probe.resolver import Address, Resolver
from tests.support.servers import (
    GENEROUS,
    LARGE,
    SHORT,
    BlackHole,
    Conversation,
    Server,
    answer,
    probing,
    refusing,
    resolver_of,
    server_context,
    silent,
    target,
)
from tests.support.waiting import until


def timing_out(url: str, phase: str, resolver: Resolver | None = None, **facts: bool | str) -> CheckResult:
    """Check a URL that takes too long in a phase, and assert that the state says so."""
    with probing(timeout=SHORT, resolver=resolver) as prober:
        result = prober.check(target(url, **facts))
    assert (result.state, result.event) == (f"{phase}: timed out after 300ms", "timeout")
    assert SHORT / 2 <= result.duration < GENEROUS
    return result


def test_timeout_in_dns() -> None:
    """A hung resolver holds a check up for its timeout and no longer."""
    answered = threading.Event()

    def hang(_host: str, _port: int) -> list[Address]:
        answered.wait(GENEROUS)
        return []

    assert set(timing_out("http://hangs.test/", "dns", Resolver(hang)).trace) == {"dns_start"}
    answered.set()


def test_timeout_in_connect() -> None:
    """An address that swallows packets runs into the timeout, even beside one that refuses."""
    with BlackHole() as hole, refusing() as address:
        assert set(timing_out(f"http://127.0.0.1:{hole.port}/", "connect").trace) == {"connect_start"}
        timing_out("http://both.test/", "connect", resolver_of(address, hole.address))


def test_timeout_in_tls() -> None:
    """A server that never answers the handshake runs into the timeout."""
    with Server(silent) as server:
        result = timing_out(server.url().replace("http:", "https:"), "tls")
    assert set(result.trace) == {"connect_start", "connect_done", "tls_handshake_start"}


def test_timeout_in_the_request() -> None:
    """A server that takes no request runs into the timeout."""
    left = threading.Event()

    def handle(conversation: Conversation) -> None:
        conversation.sock.recv(1)
        left.wait(GENEROUS)

    with Server(handle) as server:
        result = timing_out(server.url(), "request", origin=LARGE)
        left.set()
    assert set(result.trace) == {"connect_start", "connect_done", "got_conn"}


@pytest.mark.parametrize("tls", [False, True])
def test_timeout_in_the_response(tls: bool) -> None:
    """A server that never answers runs into the timeout."""
    with Server(silent, context=server_context() if tls else None) as server:
        result = timing_out(server.url(), "response")
    assert result.status_code is None
    assert "got_first_resp_byte" not in result.trace


def test_timeout_in_a_slow_head() -> None:
    """A head that arrives byte by byte runs into the timeout although every wait is short."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.dribble(b"HTTP/1.1 200 OK\r\n" + b"X-Slow: yes\r\n" * 1000)

    with Server(handle) as server:
        assert timing_out(server.url(), "response").status_code is None


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 1000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 1000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000,
    ],
    ids=["body", "chunks", "chunk size", "trailers", "100 Continue", "103 Early Hints"],
)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_one_deadline_for_the_whole_answer(data: bytes, tls: bool) -> None:
    """An answer that arrives byte by byte meets the deadline of its check, whichever part of it is slow."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.dribble(data)

    with Server(handle, context=server_context() if tls else None) as server:
        begun = time.perf_counter()
        timing_out(server.url(), "response")
        assert time.perf_counter() - begun < GENEROUS / 2


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (b"100 Continue", "response: longer than 262144 bytes"),
        (b"103 Early Hints", "response: more than 16 interim answers"),
    ],
)
def test_a_flood_of_interim_answers(status: bytes, state: str) -> None:
    """Interim answers without end fail the check after a bounded number or a bounded number of bytes."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send_forever(b"HTTP/1.1 " + status + b"\r\n\r\n")

    with Server(handle) as server, probing() as prober:
        result = prober.check(target(server.url()))
    assert (result.state, result.phase, result.event) == (state, "response", "round_trip_error")


def test_timeout_in_the_body() -> None:
    """An answer whose body does not end runs into the timeout."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(answer(body=b"12345")[:-1])
        conversation.wait_for_the_end()

    with Server(handle) as server, probing(timeout=SHORT) as prober:
        result = prober.check(target(server.url()))
    assert (result.state, result.event) == ("response: timed out after 300ms", "timeout")


def test_what_comes_before_the_network_takes_none_of_its_time() -> None:
    """Slow preparation, as by a slow disk, takes nothing of the check's time for the network."""

    class SlowTrust:
        """Trust whose files are read slowly."""

        def context(self) -> ssl.SSLContext:
            threading.Event().wait(2 * SHORT)
            return ssl.create_default_context()

    with Server(silent) as server, probing(timeout=SHORT, trust=SlowTrust()) as prober:
        result = prober.check(target(f"https://{server.host}:{server.port}/"))
    assert result.state == f"tls: timed out after {1000 * SHORT:g}ms"
    assert result.duration >= SHORT


def test_timeout_on_a_kept_connection() -> None:
    """A timeout on a kept connection is a failure; the check does not try again on a new connection."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(answer())
        conversation.wait_for_the_end()

    with Server(handle) as server, probing(timeout=1, reuse_connections=True) as prober:
        assert prober.check(target(server.url())).state == "ok"
        assert prober.check(target(server.url())).state == "response: timed out after 1s"
        assert server.connections == 1
        assert prober.check(target(server.url())).state == "ok"
    assert server.connections == 2


def test_stop_ends_the_checks_under_way() -> None:
    """Stopping ends checks that hang in any phase, and checks that begin afterwards."""
    asked, answered = threading.Event(), threading.Event()

    def hang(_host: str, _port: int) -> list[Address]:
        asked.set()
        answered.wait(GENEROUS)
        return []

    with Server(silent) as server, BlackHole() as hole, probing(resolver=Resolver(hang)) as prober:
        urls = {
            "dns": "http://hangs.test/",
            "connect": f"http://127.0.0.1:{hole.port}/",
            "tls": server.url().replace("http:", "https:"),
            "response": server.url(),
        }
        with ThreadPoolExecutor(len(urls)) as pool:
            checks: dict[str, Future[CheckResult]] = {
                phase: pool.submit(prober.check, target(url)) for phase, url in urls.items()
            }
            until(lambda: asked.is_set() and hole.is_tried() and server.connections == 2)
            prober.stop()
            for phase, check in checks.items():
                result = check.result(GENEROUS)
                assert result.state == f"{phase}: operation canceled"
                assert result.duration < GENEROUS / 2
        assert prober.check(target(server.url())).state == "connect: operation canceled"
        assert prober.check(target("http://hangs.test/")).state == "dns: operation canceled"
    answered.set()
