"""A check that goes well: the request sent, the moments measured, and what is told of the connection."""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from checks import __version__
from checks.model import TRACE_EVENTS, CheckResult
from checks.probe.http import MOST_BODY_BYTES, MOST_REDIRECTS
from checks.probe.resolver import Address, Resolver
from tests.support.servers import (
    GENEROUS,
    BlackHole,
    Conversation,
    FixedTrust,
    Server,
    always,
    answer,
    by_path,
    certificate,
    once,
    probing,
    refusing,
    resolver_of,
    server_context,
    target,
)
from tests.support.waiting import until

BY_NAME = TRACE_EVENTS
PLAIN_BY_NAME = tuple(event for event in TRACE_EVENTS if not event.startswith("tls"))
PLAIN_BY_ADDRESS = tuple(event for event in PLAIN_BY_NAME if not event.startswith("dns"))


def assert_in_order(result: CheckResult, events: Sequence[str], *, redirected: bool = False) -> None:
    """Assert that just these events were reached, one after the other, and that the last is the duration.

    Of a redirected check that is longer: it is the whole chain's.
    """
    assert result.state == "ok"
    assert set(result.trace) == set(events)
    moments = [result.trace[event] for event in events]
    assert all(0 <= earlier <= later for earlier, later in itertools.pairwise(moments))
    assert result.duration == moments[-1] > 0 or (redirected and result.duration > moments[-1] > 0)


def test_phases_of_a_plain_check_by_name_come_in_order() -> None:
    """Each phase of a plain request is noted once, in the order they happen."""
    with Server(always(answer())) as server, probing() as prober:
        result = prober.check(target(server.url(host="localhost")))
    assert_in_order(result, PLAIN_BY_NAME)
    assert (result.type, result.event, result.status_code, result.not_after) == ("test", "", 200, None)
    assert result.remote == server.host


def test_phases_of_a_tls_check_by_name_come_in_order() -> None:
    """Over TLS the handshake is noted too, and when the certificate shown ends."""
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
    """A neighbour is asked for the path by GET, by a client that says who it is and that it wants no more."""
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
    """What stands before the @ of a URL goes into the Authorization header (RFC 7617), unescaped."""
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
    """The first byte's moment is the kernel's and not when the body, which takes its time, has been read."""
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
    """A path that loses packets shows although the check is ok: here a full backlog swallowed the SYN once or more."""
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
    """A name's first addresses may refuse or swallow connections as long as another one works."""
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
    """Without verification an expired certificate of somebody unknown, for another name, is no failure, and is told."""
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
    """An answer is ok however HTTP frames it, over TLS without its goodbye too."""
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


def test_connections_are_new_every_time() -> None:
    """Unless asked otherwise every check connects anew, even to a server that would keep the connection."""
    with Server(always(answer())) as server, probing() as prober:
        assert prober.check(target(server.url())).ok
        assert prober.check(target(server.url())).ok
    assert server.connections == 2


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_is_kept(tls: bool) -> None:
    """With reuse the next check has its connection at once, and the same facts of it; the body of the first is read."""
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
    """A server that says so, an old one, and a body left unread end the connection."""
    with Server(always(data)) as server, probing(reuse_connections=True) as prober:
        for _ in range(2):
            assert prober.check(target(server.url())).state == "ok"
    assert server.connections == 2


def test_a_connection_with_an_answer_left_on_it_is_not_kept() -> None:
    """The rest of a long body, which may come at any time, is not taken for the next answer."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(answer(body=b"x" * (MOST_BODY_BYTES + 10))[:-10])
        conversation.wait_for_the_end()

    with Server(handle) as server, probing(reuse_connections=True) as prober:
        for _ in range(2):
            assert prober.check(target(server.url())).state == "ok"
    assert server.connections == 2


def test_a_kept_connection_that_the_server_ended() -> None:
    """A connection that ended while it was kept is replaced, and its phases are those of the new one."""
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
    """When the server ends a kept connection at the next request the check asks again on a new one."""

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


def test_a_redirect_to_the_same_host_is_followed() -> None:
    """Where redirects are allowed one to the same host leads to the answer; what is told is of the last request."""

    def handle(conversation: Conversation) -> None:
        pages = {
            "/": answer("302 Found", "Location: /login/../next?a=b", body=b"moved"),
            "/next?a=b": answer("308 Permanent Redirect", f"Location: HTTP://LOCALHOST.:{server.port}/last"),
            "/last": answer(),
        }
        conversation.send(pages[conversation.read_head().split(b" ")[1].decode()])

    with Server(handle) as server, probing(resolver=resolver_of(server.address)) as prober:
        result = prober.check(target(server.url(host="localhost"), follow_redirects=True))
    assert_in_order(result, PLAIN_BY_NAME, redirected=True)
    assert [head.split(b" ")[1] for head in server.received] == [b"/", b"/next?a=b", b"/last"]


def test_a_redirect_is_in_the_duration_and_not_in_the_phases() -> None:
    """The duration is that of the whole chain; the phases are the last request's, counted from its own start."""
    slow = 0.3

    def handle(conversation: Conversation) -> None:
        if conversation.read_head().startswith(b"GET /last "):
            conversation.send(answer())
        else:
            threading.Event().wait(slow)
            conversation.send(answer("302 Found", "Location: /last"))

    with Server(handle) as server, probing() as prober:
        result = prober.check(target(server.url(), follow_redirects=True))
    assert result.state == "ok"
    assert result.duration - result.trace["got_first_resp_byte"] >= slow


def test_interim_answers_are_not_the_answer() -> None:
    """What a server says before its answer (RFC 9110, section 15.2) is read over; another protocol is a failure."""
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    with Server(always(early + answer(body=b"whole"))) as server, probing(reuse_connections=True) as prober:
        for _ in range(2):
            result = prober.check(target(server.url()))
            assert (result.state, result.status_code) == ("ok", 200)
        assert server.connections == 1
    with Server(always(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")) as server, probing() as prober:
        assert prober.check(target(server.url())).state == "101 Switching Protocols"


def test_as_many_redirects_as_are_followed() -> None:
    """A chain of the most redirects that are followed still ends well, on one connection where those are kept."""
    pages = {f"/{n}": answer("307 Temporary Redirect", f"Location: /{n + 1}") for n in range(MOST_REDIRECTS)}
    pages[f"/{MOST_REDIRECTS}"] = answer()
    with Server(by_path(pages)) as server, probing(reuse_connections=True) as prober:
        assert prober.check(target(server.url("/0"), follow_redirects=True)).state == "ok"
    assert (server.connections, len(server.received)) == (1, MOST_REDIRECTS + 1)


@pytest.mark.parametrize(
    ("ca", "state", "status"),
    [("known", "ok", 200), ("stranger", "tls: unable to get local issuer certificate", None)],
)
def test_a_redirect_from_plain_to_tls_is_verified(ca: str, state: str, status: int | None) -> None:
    """An ingress that sends plain requests to its TLS port is followed there, and its certificate is verified."""
    context = server_context(certificate("127.0.0.1", ca=ca))
    with (
        Server(always(answer()), context=context) as secure,
        Server(always(answer("308 Permanent Redirect", f"Location: {secure.url()}"))) as plain,
        probing() as prober,
    ):
        result = prober.check(target(plain.url(), follow_redirects=True))
    assert (result.state, result.status_code) == (state, status)
    assert len(secure.received) == (1 if status else 0)


def test_checks_at_once_share_nothing() -> None:
    """Many checks at once each get their own answer and their own moments."""
    with Server(always(answer()), context=server_context()) as good, Server(always(answer("404 Not Found"))) as bad:
        urls = [good.url(), bad.url()] * 10
        with probing(reuse_connections=True) as prober, ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda n: prober.check(target(urls[n], type=f"t{n}")), range(20)))
    assert [result.state for result in results] == ["ok", "404 Not Found"] * 10
    assert all(("tls_handshake_done" in result.trace) == (n % 2 == 0) for n, result in enumerate(results))
