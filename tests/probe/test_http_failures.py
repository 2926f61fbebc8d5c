"""Each way a check fails, on real sockets, with the words of its state, its event and its phase."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from checks.model import PHASES
from checks.probe.http import MOST_REDIRECTS
from checks.probe.prober import Prober
from checks.probe.resolver import Address, Resolver
from checks.probe.trust import TrustStore
from sandbox.certificates import CertificateAuthority
from tests.support.servers import (
    EVENTS,
    GENEROUS,
    LARGE,
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


def failure(prober: Prober, url: str, **facts: bool | str) -> tuple[str, str]:
    """Check a URL and return how it fails: state and event. The phase is the one that the state begins with."""
    result = prober.check(target(url, **facts))
    assert EVENTS.fullmatch(result.event)
    word = result.state.split(":")[0].split(" ")[0]
    assert result.phase == (word if word in PHASES else "redirect" if result.event == "redirect" else "status")
    assert not result.ok
    assert 0 <= result.duration < GENEROUS
    return result.state, result.event


def test_name_unknown() -> None:
    """A name that the resolver does not know fails the dns phase."""

    # The system's own resolver, without a question to the network.
    def numeric_only(host: str, port: int) -> list[Address]:
        socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)
        raise AssertionError("a name is no number")

    with probing(resolver=Resolver(numeric_only)) as prober:
        result = prober.check(target("http://kubenurse.test/"))
        assert (result.state, result.event) == ("dns: name not known", "dns_done")
        assert (set(result.trace), result.remote, result.tcp) == ({"dns_start"}, "", None)


def test_no_host_name() -> None:
    """A label longer than 63 characters is an unknown name."""
    with probing() as prober:
        assert failure(prober, f"http://{'x' * 64}/") == ("dns: name not known", "dns_done")


def test_connection_refused() -> None:
    """A port without a listener fails the connect phase, by address and by name."""
    expected = "connect: connection refused", "connect_done"
    with refusing() as address, probing(resolver=resolver_of(address, address)) as prober:
        assert failure(prober, f"http://127.0.0.1:{address[1][1]}/") == expected
        assert failure(prober, "https://all-refuse.test/") == expected


def test_certificate_expired() -> None:
    """A certificate that has ended fails the tls phase; the handshake is noted as begun, not as done."""
    context = server_context(certificate("127.0.0.1", days=-1))
    with Server(always(answer()), context=context) as server, probing() as prober:
        result = prober.check(target(server.url()))
    assert (result.state, result.event) == ("tls: certificate has expired", "tls_handshake_done")
    assert set(result.trace) == {"connect_start", "connect_done", "tls_handshake_start"}
    assert (result.remote, server.received) == ("127.0.0.1", [])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kubenurse.test", "hostname mismatch, certificate is not valid for 'kubenurse.test'"),
        ("127.0.0.1", "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
)
def test_certificate_for_another_name(name: str, words: str) -> None:
    """A certificate must name the host or address of the URL."""
    context = server_context(certificate("other.test"))
    with Server(always(answer()), context=context) as server, probing(resolver=resolver_of(server.address)) as prober:
        assert failure(prober, server.url(host=name)) == (f"tls: {words}", "tls_handshake_done")


def test_certificate_of_somebody_unknown() -> None:
    """A certificate must come from a trusted authority."""
    context = server_context(certificate("127.0.0.1", ca="stranger"))
    with Server(always(answer()), context=context) as server, probing() as prober:
        expected = "tls: unable to get local issuer certificate", "tls_handshake_done"
        assert failure(prober, server.url()) == expected


def test_certificate_self_signed(tmp_path: Path) -> None:
    """A self-signed certificate fails the check, and the state says so."""
    authority = CertificateAuthority(tmp_path)
    context = authority.issue_self_signed("self").server_context()
    trust = TrustStore([authority.file], system=False)
    with Server(always(answer()), context=context) as server, probing(trust=trust) as prober:
        assert failure(prober, server.url()) == ("tls: self-signed certificate", "tls_handshake_done")


def test_trusted_certificates_unreadable(tmp_path: Path) -> None:
    """A CA file that is no PEM fails the check before anything is opened."""
    file = tmp_path / "ca.crt"
    file.write_text("nonsense")
    trust = TrustStore([file], system=False)
    with Server(always(answer()), context=server_context()) as server, probing(trust=trust) as prober:
        state, event = failure(prober, server.url())
    assert state.startswith(f"setup: CA or client certificate file: no usable certificate in {tmp_path}"[:100])
    assert (event, server.connections) == ("round_trip_error", 0)


def test_url_that_is_none() -> None:
    """A URL that cannot be used fails before anything is opened, and is not quoted."""
    with probing() as prober:
        assert failure(prober, "ftp://secret/") == ("setup: not an http or https URL", "round_trip_error")


@pytest.mark.parametrize(
    ("data", "state"),
    [
        (answer("400 Bad Request"), "tls: the server does not speak TLS here"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "tls: the server does not speak TLS here"),
        (b"", "tls: connection closed during the handshake"),
    ],
    ids=["http", "ssh", "nothing"],
)
def test_tls_to_a_port_that_has_none(data: bytes, state: str) -> None:
    """TLS with a server that speaks something else, or hangs up, fails the tls phase."""

    def handle(conversation: Conversation) -> None:
        conversation.send(data)
        conversation.sock.shutdown(socket.SHUT_WR)
        conversation.wait_for_the_end()

    with Server(handle) as server, probing() as prober:
        assert failure(prober, server.url().replace("http:", "https:")) == (state, "tls_handshake_done")


def test_tls_versions_that_do_not_meet() -> None:
    """The state has the server's reason when it aborts the handshake."""
    context, trust = server_context(), FixedTrust()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    trust.context().minimum_version = ssl.TLSVersion.TLSv1_3
    with Server(always(answer()), context=context) as server, probing(trust=trust) as prober:
        expected = "tls: tlsv1 alert protocol version", "tls_handshake_done"
        assert failure(prober, server.url()) == expected


def test_plain_to_a_tls_port() -> None:
    """A TLS alert, or the end of the connection, is no answer to a plain request."""
    with Server(once(b"\x15\x03\x01\x00\x02\x02\x46")) as server, probing() as prober:
        assert failure(prober, server.url()) == ("response: not HTTP but TLS", "round_trip_error")
    with Server(always(answer()), context=server_context()) as server, probing() as prober:
        expected = "response: connection reset by peer", "got_first_resp_byte"
        assert failure(prober, server.url().replace("https:", "http:")) == expected


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TOO_LONG = "got more than 65536 bytes"
NOWHERE = "redirect to a place that is not an http or https URL"
LONG_LINE = b"X-Long: " + b"x" * 60_000 + b"\r\n"


ANSWERS = [
    (b"", "response: connection closed before the answer", "got_first_resp_byte"),
    (b"SSH-2.0-x\r\n", "response: not HTTP: SSH-2.0-x", "round_trip_error"),
    (b"\x00\x1b[31m", "response: not HTTP:   [31m", "round_trip_error"),
    (b"\r\n\r\n", "response: not HTTP: an empty line", "round_trip_error"),
    (b"HTTP/1.1 abc\r\n\r\n", "response: not HTTP: HTTP/1.1 abc", "round_trip_error"),
    (b"HTTP/2.0 200 OK\r\n\r\n", "response: not HTTP/1.1 but HTTP/2.0", "round_trip_error"),
    (b"HTTP/1.1 200 OK\r\nContent-Len", "response: truncated", "round_trip_error"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", "response: truncated", "round_trip_error"),
    (answer(body=b"12345")[:-3], "response: truncated, 3 bytes are missing", "round_trip_error"),
    (CHUNKED + b"5\r\n12", "response: truncated", "round_trip_error"),
    (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101, "response: got more than 100 headers", "round_trip_error"),
    (b"HTTP/1.1 200 OK\r\n" + LONG_LINE * 5, "response: longer than 262144 bytes", "round_trip_error"),
    (b"HTTP/1.1 " + b"2" * 70_000, f"response: {TOO_LONG} when reading status line", "round_trip_error"),
    (answer("404 Not Found"), "404 Not Found", "status_code_404"),
    (answer("500 Out of \x1b[31mluck"), "500 Out of  [31mluck", "status_code_500"),
    (answer("503"), "503 Service Unavailable", "status_code_503"),
    (answer("599"), "599", "status_code_599"),
    (answer("204 No Content"), "204 No Content", "status_code_204"),
    (answer("304 Not Modified", "Location: /"), "304 Not Modified", "status_code_304"),
    (answer("302 Found"), "302 Found", "status_code_302"),
    (answer("302 Found", "Location: ftp://127.0.0.1/"), NOWHERE, "redirect"),
    (answer("302 Found", "Location: //127.0.0.1:99999/"), NOWHERE, "redirect"),
    (answer("302 Found", "Location: //["), NOWHERE, "redirect"),
]


@pytest.mark.parametrize(("data", "state", "event"), ANSWERS, ids=[ascii(state) for _, state, _ in ANSWERS])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_answers_that_are_not_ok(data: bytes, state: str, event: str, tls: bool) -> None:
    """Any answer but a whole 200 is a failure, with and without TLS."""
    with Server(once(data), context=server_context() if tls else None) as server, probing() as prober:
        assert failure(prober, server.url(), follow_redirects=True) == (state, event)


def test_the_status_of_a_failing_answer_is_told() -> None:
    """A failing or truncated answer has a status, and its duration ends at its first byte."""
    for data, status in ((answer("500 Oh"), 500), (answer(body=b"12345")[:-3], 200)):
        with Server(once(data)) as server, probing() as prober:
            result = prober.check(target(server.url()))
        assert (result.status_code, result.duration) == (status, result.trace["got_first_resp_byte"])


def test_reset_before_the_answer() -> None:
    """A connection reset before the answer fails the response phase."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.reset()

    with Server(handle) as server, probing() as prober:
        expected = "response: connection reset by peer", "got_first_resp_byte"
        assert failure(prober, server.url()) == expected


def test_reset_within_the_answer() -> None:
    """A connection reset within the answer counts as a round_trip_error."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12")
        conversation.reset()

    with Server(handle) as server, probing() as prober:
        assert failure(prober, server.url()) == ("response: connection reset by peer", "round_trip_error")


def test_reset_within_the_answer_on_a_kept_connection() -> None:
    """A request is not sent again after its answer began, also on a kept connection."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(answer())
        conversation.read_head()
        conversation.send(b"HTTP/1.1 2")
        conversation.reset()

    with Server(handle) as server, probing(reuse_connections=True) as prober:
        assert prober.check(target(server.url())).state == "ok"
        assert failure(prober, server.url()) == ("response: connection reset by peer", "round_trip_error")
    assert (server.connections, len(server.received)) == (1, 2)


def test_reset_within_the_request() -> None:
    """A connection reset while the request is being sent fails the request phase."""

    def handle(conversation: Conversation) -> None:
        conversation.sock.recv(1)
        conversation.reset()

    with Server(handle) as server, probing() as prober:
        expected = "request: connection reset by peer", "wrote_request"
        assert failure(prober, server.url(), origin=LARGE) == expected


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_redirect_to_another_host(status: str) -> None:
    """A redirect to another host is an error that names the host without the query, and is not followed."""
    with Server(always(answer())) as login:
        place = f"Location: http://user:word@localhost:{login.port}/login?token=secret"
        with Server(always(answer(status, place))) as server, probing() as prober:
            result = prober.check(target(server.url(), follow_redirects=True))
    assert result.state == f"redirect to another host: http://localhost:{login.port}/login"
    assert (result.event, result.status_code) == ("redirect", int(status[:3]))
    assert login.connections == 0


def test_redirects_are_followed_where_allowed_only() -> None:
    """A target that follows no redirects fails with the status of the answer."""
    with Server(always(answer("302 Found", "Location: /there"))) as server, probing() as prober:
        assert failure(prober, server.url()) == ("302 Found", "status_code_302")
    assert len(server.received) == 1


def test_redirect_loop() -> None:
    """A loop of redirects ends after MOST_REDIRECTS."""
    with Server(always(answer("302 Found", "Location: /again"))) as server, probing() as prober:
        state, event = failure(prober, server.url(), follow_redirects=True)
    assert state == f"more than {MOST_REDIRECTS} redirects, the last to {server.url('/again')}"
    assert (event, len(server.received)) == ("redirect", MOST_REDIRECTS + 1)


def test_a_failure_after_a_redirect_is_of_the_last_request() -> None:
    """The result of a failure after a redirect has nothing of the first answer."""
    with refusing() as address:
        place = f"Location: http://127.0.0.1:{address[1][1]}/"
        with Server(always(answer("302 Found", place))) as server, probing() as prober:
            result = prober.check(target(server.url(), follow_redirects=True))
    assert (result.state, result.event) == ("connect: connection refused", "connect_done")
    assert (result.status_code, set(result.trace)) == (None, {"connect_start"})
