"""A check that succeeds: the request it sends, the moments it measures and the figures of its connection."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from checks import __version__
from checks.probe.http import MOST_BODY_BYTES
from checks.probe.resolver import Address, Resolver
from tests.support.phases import BY_NAME, PLAIN_BY_ADDRESS, PLAIN_BY_NAME, assert_in_order
from tests.support.servers import (
    GENEROUS,
    BlackHole,
    Conversation,
    FixedTrust,
    Server,
    always,
    answer,
    certificate,
    once,
    probing,
    refusing,
    resolver_of,
    server_context,
    target,
)
from tests.support.waiting import until


def test_phases_of_a_plain_check_by_name_come_in_order() -> None:
    """Each phase of a plain request is noted once, in the order they happen."""
    with Server(always(answer())) as server, probing() as prober:
        result = prober.check(target(server.url(host="localhost")))
    assert_in_order(result, PLAIN_BY_NAME)
    assert (result.type, result.event, result.status_code, result.not_after) == ("test", "", 200, None)
    assert result.remote == server.host


def test_phases_of_a_tls_check_by_name_come_in_order() -> None:
    """Over TLS the result has the handshake too, and the end of the server's certificate."""
    shown = certificate("localhost")
    with Server(always(answer()), context=server_context(shown)) as server, probing() as prober:
        result = prober.check(target(server.url(host="localhost")))
    assert_in_order(result, BY_NAME)
    assert result.not_after == pytest.approx(time.time() + 30 * 86400, abs=3600)


def test_an_address_needs_no_resolver() -> None:
    """A URL with an IP address has no dns phase."""
    with Server(always(answer())) as server, probing(resolver=resolver_of()) as prober:
        assert_in_order(prober.check(target(server.url())), PLAIN_BY_ADDRESS)


@pytest.mark.parametrize("tls", [False, True])
def test_ipv6(tls: bool) -> None:
    """An IPv6 address is checked, and verified, like any other; the Host header has it in brackets."""
    with Server(always(answer()), host="::1", context=server_context() if tls else None) as server, probing() as prober:
        result = prober.check(target(server.url()))
    assert (result.state, result.remote) == ("ok", "::1")
    assert server.header("Host") == f"[::1]:{server.port}"


def test_when_the_result_was_made() -> None:
    """A result tells when it began, in epoch seconds, and when it was finished, on the monotonic clock."""
    with Server(always(answer())) as server, probing() as prober:
        before, before_monotonic = time.time(), time.monotonic()
        result = prober.check(target(server.url()))
        assert before <= result.started_at <= time.time()
        assert before_monotonic <= result.finished <= time.monotonic()


def test_the_request() -> None:
    """The request to a neighbour is a GET with the agent's name, its Pod's name and ``Connection: close``."""
    with Server(always(answer())) as server, probing() as prober:
        prober.check(target(server.url("/alwayshappy?a=b%20c"), origin="kubenurse-abc"))
    assert server.received[0].startswith(b"GET /alwayshappy?a=b%20c HTTP/1.1\r\n")
    assert server.header("Host") == f"127.0.0.1:{server.port}"
    assert server.header("User-Agent") == f"kubenurse/{__version__}"
    assert server.header("KUBENURSE-NEIGHBOUR-ORIGIN") == "kubenurse-abc"
    assert server.header("Connection") == "close"
    assert server.header("Accept-Encoding") == "identity"
    assert server.header("Authorization") is None


def test_only_neighbours_are_told_the_origin() -> None:
    """A target without an origin gets no such header."""
    with Server(always(answer())) as server, probing() as prober:
        prober.check(target(server.url()))
    assert server.header("KUBENURSE-NEIGHBOUR-ORIGIN") is None


def test_user_and_password_of_the_url_are_sent() -> None:
    """User and password of a URL, unescaped, go into the Authorization header (RFC 7617)."""
    with Server(always(answer())) as server, probing() as prober:
        assert prober.check(target(f"http://nurse:p%40ss@127.0.0.1:{server.port}/")).ok
    assert server.header("Authorization") == "Basic bnVyc2U6cEBzcw=="


def test_a_token_as_user_is_sent_with_a_colon() -> None:
    """A user without a password is sent as ``user:`` (RFC 7617, section 2)."""
    with Server(always(answer())) as server, probing() as prober:
        assert prober.check(target(f"http://token@127.0.0.1:{server.port}/")).ok
    assert server.header("Authorization") == "Basic dG9rZW46"


def test_the_pod_that_answered_is_told() -> None:
    """A result has the Pod name of the answer's KUBENURSE-POD header, printable and of bounded length."""
    for value, expected in (("kubenurse-xyz", "kubenurse-xyz"), ("a\x1bb", "a b"), ("x" * 300, "x" * 252 + "…")):
        with Server(always(answer("200 OK", f"KUBENURSE-POD: {value}"))) as server, probing() as prober:
            assert prober.check(target(server.url())).answered_by == expected
    with Server(always(answer())) as server, probing() as prober:
        assert prober.check(target(server.url())).answered_by == ""


def test_a_kind_of_check_that_is_unknown() -> None:
    """A target of an unknown kind is a failure of the setup phase."""
    with probing() as prober:
        result = prober.check(target("http://127.0.0.1/", kind="carrier pigeon"))
    assert (result.state, result.phase) == ("setup: no kind of check is called 'carrier pigeon'", "setup")
    assert (result.event, result.kind) == ("round_trip_error", "carrier pigeon")


@pytest.mark.parametrize(
    "url", ["http://\ud800.test/", "http://127.0.0.1/\udfff", "\ud800", "http://\ud800@127.0.0.1/"]
)
def test_lone_surrogates_do_not_stop_a_check(url: str) -> None:
    """Text that no encoding takes, in any field of a target, ends in a result."""
    with refusing() as address, probing(resolver=resolver_of(address)) as prober:
        odd = target(url, type="\ud800", origin="\ud800", server_name="\ud800", follow_redirects=True)
        assert prober.check(odd).state.isprintable()


def test_the_name_to_verify_may_be_another() -> None:
    """A target's server_name is asked for by SNI and verified; the Host header stays that of the URL."""
    asked: list[str | None] = []
    context = server_context(certificate("neighbours.test"))
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    with Server(always(answer()), context=context) as server, probing() as prober:
        good = prober.check(target(server.url(), server_name="neighbours.test"))
        bad = prober.check(target(server.url(), server_name="other.test"))
        assert server.header("Host") == f"127.0.0.1:{server.port}"
    assert good.state == "ok"
    assert bad.state == "tls: hostname mismatch, certificate is not valid for 'other.test'"
    assert asked == ["neighbours.test", "other.test"]


def test_the_answer_is_stamped_as_it_arrives() -> None:
    """The moment of the first byte is the kernel's stamp, also when the body follows much later."""
    sent = threading.Event()

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        sent.set()
        threading.Event().wait(0.2)
        conversation.send(b"ok")

    with Server(handle) as server, probing() as prober:
        begun = time.perf_counter()
        result = prober.check(target(server.url()))
        took = time.perf_counter() - begun
    assert sent.is_set()
    assert result.duration == result.trace["got_first_resp_byte"] <= took - 0.15


def test_what_the_kernel_knows_of_the_connection() -> None:
    """A result has the round-trip time, path MTU and retransmissions of its connection; loopback's MTU is known."""
    with Server(always(answer()), context=server_context()) as server, probing() as prober:
        assert prober.kernel_clock.source == "kernel"
        facts = prober.check(target(server.url())).tcp
    assert facts is not None
    assert facts.rtt_seconds is not None
    assert 0 < facts.rtt_seconds < GENEROUS
    assert facts.path_mtu_bytes is not None
    assert 1280 <= facts.path_mtu_bytes <= 65536
    assert facts.retransmits == 0


def test_a_segment_sent_again_is_counted() -> None:
    """Retransmits show a path that loses packets although the check is ok: here a full backlog drops the SYN."""
    with BlackHole() as hole, probing() as prober, ThreadPoolExecutor(1) as pool:
        checking = pool.submit(prober.check, target(f"http://127.0.0.1:{hole.port}/"))
        until(hole.is_tried)
        with hole.accept() as sock:
            sock.sendall(answer())
            sock.shutdown(socket.SHUT_WR)
            result = checking.result(GENEROUS)
    assert result.state == "ok"
    assert result.tcp is not None
    assert result.tcp.retransmits >= 1


@pytest.mark.parametrize("redirected", [False, True])
def test_segments_of_a_connection_that_failed_are_counted(redirected: bool) -> None:
    """SYNs sent again without success count; the figures of the path are those of the last connection, if any."""
    with BlackHole() as hole, Server(always(answer("302 Found", f"Location: http://127.0.0.1:{hole.port}/"))) as server:
        url = server.url() if redirected else f"http://127.0.0.1:{hole.port}/"
        # The kernel sends a SYN again after 1 s (RFC 6298, section 2).
        with probing(timeout=1.5) as prober:
            result = prober.check(target(url, follow_redirects=True))
    assert result.state == "connect: timed out after 1.5s"
    assert result.tcp is not None
    assert result.tcp.retransmits >= 1
    assert (result.tcp.rtt_seconds is not None) == (result.tcp.path_mtu_bytes is not None) == redirected


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_losing_address_is_no_error(host: str) -> None:
    """A check is ok when one address of a name works, even if the addresses before it refuse or swallow connections."""
    with Server(always(answer()), host=host) as server, BlackHole() as hole, refusing() as refused:
        addresses: list[Address] = [refused, hole.address, server.address]
        with probing(resolver=resolver_of(*addresses)) as prober:
            result = prober.check(target(server.url(host="several.test")))
    assert_in_order(result, PLAIN_BY_NAME)
    assert result.remote == host
    assert server.connections == 1
    assert server.header("Host") == f"several.test:{server.port}"


def test_a_trailing_dot_is_for_the_resolver() -> None:
    """A name that ends with a dot is resolved with it, past the search domains, and verified without it."""
    asked = []

    def lookup(host: str, port: int) -> list[Address]:
        asked.append((host, port))
        return [server.address]

    context = server_context(certificate("kubenurse.test"))
    with Server(always(answer()), context=context) as server, probing(resolver=Resolver(lookup)) as prober:
        assert prober.check(target(server.url(host="kubenurse.test."))).state == "ok"
    assert asked == [("kubenurse.test.", server.port)]


def test_certificates_are_not_verified_when_told_so() -> None:
    """Without verification an expired certificate of an unknown CA for another name is ok, and its end is known."""
    context = server_context(certificate("elsewhere.test", ca="stranger", days=-1))
    with Server(always(answer()), context=context) as server, probing(trust=FixedTrust(verify=False)) as prober:
        result = prober.check(target(server.url()))
    assert result.state == "ok"
    assert result.not_after == pytest.approx(time.time() - 86400, abs=3600)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        answer(),
        answer(body=b"x" * 50_000),
        answer(body=b"x" * MOST_BODY_BYTES),
        answer(body=b"x" * (MOST_BODY_BYTES + 1)),
        CHUNKED,
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer(),
        b"HTTP/1.1 200\r\n\r\nuntil the end",
        answer(version="HTTP/1.0"),
    ],
    ids=["empty", "50 kB", "64 KiB", "more", "chunked", "continue", "until the end", "HTTP/1.0"],
)
@pytest.mark.parametrize("tls", [False, True])
def test_whole_answers(data: bytes, tls: bool) -> None:
    """An answer is ok however HTTP frames it, also over TLS without close_notify."""
    with Server(once(data), context=server_context() if tls else None) as server, probing() as prober:
        assert prober.check(target(server.url())).state == "ok"


# A compressed member of 10 MB of zeros, which compresses to 10 KB.
BOMB = gzip.compress(bytes(10_000_000))


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"", b"x" * 65536),
        (b"Content-Encoding: gzip\r\n", BOMB),
        (b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", b"%x\r\n%s\r\n" % (len(BOMB), BOMB)),
    ],
    ids=["plain", "compressed", "compressed chunks"],
)
def test_an_endless_answer_is_not_read_to_its_end(head: bytes, body: bytes) -> None:
    """A part of a long body, compressed or not, is enough: the status was good."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        conversation.send_forever(body)

    with Server(handle) as server, probing(reuse_connections=True) as prober:
        assert prober.check(target(server.url())).state == "ok"


def test_interim_answers_are_not_the_answer() -> None:
    """Interim answers (RFC 9110, section 15.2) are skipped; a switch to another protocol is a failure."""
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    with Server(always(early + answer(body=b"whole"))) as server, probing(reuse_connections=True) as prober:
        for _ in range(2):
            result = prober.check(target(server.url()))
            assert (result.state, result.status_code) == ("ok", 200)
        assert server.connections == 1
    with Server(always(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")) as server, probing() as prober:
        assert prober.check(target(server.url())).state == "101 Switching Protocols"


def test_checks_at_once_share_nothing() -> None:
    """Concurrent checks each get their own answer and their own moments."""
    with Server(always(answer()), context=server_context()) as good, Server(always(answer("404 Not Found"))) as bad:
        urls = [good.url(), bad.url()] * 10
        with probing(reuse_connections=True) as prober, ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda n: prober.check(target(urls[n], type=f"t{n}")), range(20)))
    assert [result.state for result in results] == ["ok", "404 Not Found"] * 10
    assert all(("tls_handshake_done" in result.trace) == (n % 2 == 0) for n, result in enumerate(results))
