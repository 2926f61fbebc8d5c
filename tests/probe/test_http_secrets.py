"""The API server's token goes to the API server, over verified TLS, and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from checks.config.proxies import Proxies
from checks.kube.credentials import ServiceAccount
from tests.support.servers import (
    Conversation,
    FixedCredentials,
    FixedTrust,
    Handler,
    Server,
    always,
    answer,
    authority,
    certificate,
    once,
    probing,
    refusing,
    resolver_of,
    server_context,
    target,
)

TOKEN = "very-secret-token"
BEARER = f"Bearer {TOKEN}"


@pytest.fixture(autouse=True)
def never_told(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No test leaves its token in a log or in an output."""
    caplog.set_level(logging.DEBUG)
    yield
    out, err = capfd.readouterr()
    assert "secret" not in caplog.text + out + err
    assert not any("secret" in repr(vars(record)) for record in caplog.records)


def test_the_token_goes_to_the_api_server() -> None:
    """The API server gets the token, also on a kept connection, and the result does not contain it."""
    with (
        Server(always(answer()), context=server_context()) as server,
        probing(credentials=FixedCredentials(TOKEN), reuse_connections=True) as prober,
    ):
        for request in range(2):
            result = prober.check(target(server.url("/version"), to_api_server=True))
            assert result.state == "ok"
            assert server.header("Authorization", request) == BEARER
            assert "secret" not in repr(result)


def test_the_token_goes_to_no_other_target() -> None:
    """Any other target, even with the same URL, gets no token."""
    with (
        Server(always(answer()), context=server_context()) as server,
        probing(credentials=FixedCredentials(TOKEN)) as prober,
    ):
        for facts in ({}, {"use_proxy": True, "follow_redirects": True}, {"origin": "me"}):
            assert prober.check(target(server.url("/version"), **facts)).ok
    assert [server.header("Authorization", request) for request in range(3)] == [None] * 3


def test_the_token_goes_nowhere_without_tls() -> None:
    """An API server's URL without TLS is refused before a connection is opened."""
    with Server(always(answer())) as server, probing(credentials=FixedCredentials(TOKEN)) as prober:
        result = prober.check(target(server.url(), to_api_server=True))
    assert result.state == "setup: the credentials go to the API server by https only"
    assert (result.event, server.connections) == ("round_trip_error", 0)


@pytest.mark.parametrize("insecure", [False, True])
@pytest.mark.parametrize(
    ("ca", "name", "days", "state"),
    [
        ("stranger", "127.0.0.1", 1, "tls: unable to get local issuer certificate"),
        ("known", "other.test", 1, "tls: IP address mismatch, certificate is not valid for '127.0.0.1'"),
        ("known", "127.0.0.1", -1, "tls: certificate has expired"),
    ],
)
def test_the_token_goes_to_verified_servers_only(insecure: bool, ca: str, name: str, days: int, state: str) -> None:
    """The API server is always verified, also where other endpoints are not; otherwise no request is sent."""
    context = server_context(certificate(name, ca=ca, days=days))
    with Server(always(answer()), context=context) as server:
        trust, credentials = FixedTrust(verify=not insecure), FixedCredentials(TOKEN)
        with probing(trust=trust, credentials=credentials) as prober:
            result = prober.check(target(server.url(), to_api_server=True))
            assert prober.check(target(server.url(), type="other")).ok == insecure
    assert result.state == state
    assert [server.header("Authorization", request) for request in range(len(server.received))] == [None] * insecure


def test_what_others_trust_is_not_trusted_with_the_token() -> None:
    """An authority that is trusted for other endpoints is not trusted for the API server."""
    stranger = FixedTrust(verify=False)
    stranger.context().load_verify_locations(cadata=authority("stranger").cert_pem.bytes().decode())
    context = server_context(certificate("127.0.0.1", ca="stranger"))
    with (
        Server(always(answer()), context=context) as server,
        probing(trust=stranger, credentials=FixedCredentials(TOKEN)) as prober,
    ):
        assert prober.check(target(server.url())).ok
        assert not prober.check(target(server.url(), to_api_server=True)).ok
    assert len(server.received) == 1


@pytest.mark.parametrize("to_itself", [False, True])
def test_the_token_follows_no_redirect(to_itself: bool) -> None:
    """A redirect of the API server is never followed: its status is the failure."""
    with Server(always(answer()), context=server_context()) as other:
        place = "/login" if to_itself else other.url()
        redirect = always(answer("302 Found", f"Location: {place}"))
        with (
            Server(redirect, context=server_context()) as server,
            probing(credentials=FixedCredentials(TOKEN)) as prober,
        ):
            result = prober.check(target(server.url(), to_api_server=True, follow_redirects=True))
    assert (result.state, result.event) == ("302 Found", "status_code_302")
    assert (len(server.received), other.connections) == (1, 0)


def test_a_redirect_to_the_api_server_gets_no_token() -> None:
    """A check that is redirected to the API server arrives there without the token."""
    with (
        Server(always(answer("401 Unauthorized")), context=server_context()) as server,
        Server(always(answer("302 Found", f"Location: {server.url()}"))) as ingress,
        probing(credentials=FixedCredentials(TOKEN)) as prober,
    ):
        result = prober.check(target(ingress.url(), follow_redirects=True))
    assert (result.state, server.header("Authorization")) == ("401 Unauthorized", None)


def test_the_password_of_a_url_stays_with_it() -> None:
    """User and password of a URL go along to another path, but not to an absolute redirect."""
    with Server(always(answer())) as other:
        pages = [answer("302 Found", "Location: /next"), answer("302 Found", f"Location: {other.url()}")]
        with Server(lambda conversation: once(pages.pop(0))(conversation)) as server, probing() as prober:
            url = f"http://user:secret@127.0.0.1:{server.port}/?secret"
            assert prober.check(target(url, follow_redirects=True)).ok
    assert [server.header("Authorization", request) for request in range(2)] == ["Basic dXNlcjpzZWNyZXQ="] * 2
    assert other.header("Authorization") is None


# Ways to repeat what a client sent: {0} is its credential.
ECHOES = [
    "HTTP/1.1 401 No {0}\r\nContent-Length: 0\r\n\r\n",
    "{0}\r\n\r\n",
    "HTTP/{0} 200 OK\r\n\r\n",
    "HTTP/1.1 {0}\r\n\r\n",
    "HTTP/1.1 200 OK\r\nKUBENURSE-POD: {0}\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 302 {0}\r\nLocation: http://{0}.test/{0}\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 302 Found\r\nLocation: /{0}\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{0}\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: {0}\r\n\r\n",
]
SECRETS = (TOKEN, "dXNlcjpzZWNyZXQ=", "secret")


def echoing(data: str) -> Handler:
    """Return a handler that repeats the credential of each request in its answer."""

    def handle(conversation: Conversation) -> None:
        while head := conversation.read_head():
            lines = [line for line in head.decode().split("\r\n") if "uthorization: " in line]
            sent = lines[-1].partition(": ")[2] if lines else head.decode().split(" ")[1].partition("?")[2]
            conversation.send(data.format(sent.rpartition(" ")[2]).encode())
            if "Content-Length: 0" not in data:
                return

    return handle


@pytest.mark.parametrize("data", ECHOES)
def test_a_server_that_repeats_a_credential(data: str) -> None:
    """A token, password or query that a server repeats in any part of its answer is in no result and in no log."""
    with Server(echoing(data), context=server_context()) as api, Server(echoing(data)) as web:
        proxies = Proxies(https=f"http://user:secret@{web.host}:{web.port}")
        with probing(credentials=FixedCredentials(TOKEN), proxies=proxies) as prober:
            results = [
                prober.check(target(api.url(), to_api_server=True)),
                prober.check(target(f"http://user:secret@{web.host}:{web.port}/", follow_redirects=True)),
                prober.check(target(web.url("/?secret"), follow_redirects=True)),
                prober.check(target("https://a.test/", use_proxy=True)),
            ]
    for result in results:
        assert not any(secret in repr(result) for secret in SECRETS)


def test_failures_do_not_tell_secrets() -> None:
    """No failure of a check contains a token, a password or a query."""
    with refusing() as address, probing(credentials=FixedCredentials(TOKEN), resolver=resolver_of(address)) as prober:
        assert "secret" not in repr(prober.check(target("https://api.test/", to_api_server=True)))
    loop = always(answer("302 Found", "Location: http://user:secret@127.0.0.1/?secret#secret"))
    with Server(loop) as server, probing(resolver=resolver_of(server.address)) as prober:
        result = prober.check(target(server.url("/?secret", host="a.test"), follow_redirects=True))
        assert result.state == "redirect to another host"
    with Server(loop) as server, probing(resolver=resolver_of(server.address)) as prober:
        result = prober.check(target(server.url(host="a.test"), follow_redirects=True))
        assert result.state == "redirect to another host: http://127.0.0.1/"
    with Server(always(answer("302 Found", "Location: //user:secret@[/"))) as server, probing() as prober:
        result = prober.check(target(server.url(), follow_redirects=True))
        assert result.state == "redirect to a place that is not an http or https URL"
    with probing() as prober:
        assert prober.check(target("http://user:secret@[/")).state == "setup: not a URL"


@pytest.mark.parametrize("token", [f"{TOKEN}\r\nX-More: yes", f"{TOKEN}é", f"{TOKEN}\x00"])
def test_a_token_that_no_header_can_hold(token: str) -> None:
    """A token with line ends or other bytes that HTTP does not allow is not sent and not quoted."""
    with (
        Server(always(answer()), context=server_context()) as server,
        probing(credentials=FixedCredentials(token)) as prober,
    ):
        result = prober.check(target(server.url(), to_api_server=True))
    assert result.state == "request: Authorization holds a character that HTTP does not allow"
    assert (result.event, server.received) == ("round_trip_error", [])


def test_the_name_to_verify_may_be_another() -> None:
    """With a server_name in the credentials, the certificate must be valid for that name."""
    for server_name, state in (
        ("kubernetes", "ok"),
        ("other", "tls: hostname mismatch, certificate is not valid for 'other'"),
    ):
        with (
            Server(always(answer()), context=server_context(certificate("kubernetes"))) as server,
            probing(credentials=FixedCredentials(TOKEN, server_name)) as prober,
        ):
            assert prober.check(target(server.url(), to_api_server=True)).state == state


class Rotating(FixedCredentials):
    """Credentials with a new token each time."""

    def __init__(self) -> None:
        super().__init__(TOKEN)
        self.number = 0

    def headers(self) -> dict[str, str]:
        """Return the header of the next token."""
        self.number += 1
        return {"Authorization": f"{BEARER}-{self.number}"}


def test_the_token_is_asked_for_each_time() -> None:
    """A new token is used from the next check on, also on a kept connection."""
    with (
        Server(always(answer()), context=server_context()) as server,
        probing(credentials=Rotating(), reuse_connections=True) as prober,
    ):
        for _ in range(2):
            assert prober.check(target(server.url(), to_api_server=True)).ok
    assert [server.header("Authorization", request) for request in range(2)] == [f"{BEARER}-1", f"{BEARER}-2"]


def test_credentials_that_are_not_there(tmp_path: Path) -> None:
    """Without a token the check fails, names the missing file and opens no connection."""
    (tmp_path / "ca.crt").write_bytes(authority("known").cert_pem.bytes())
    with Server(always(answer()), context=server_context()) as server:
        account = ServiceAccount(server.host, server.port, tmp_path)
        with probing(credentials=account) as prober:
            api = target(f"{account.base_url}/version", to_api_server=True)
            missing = prober.check(api)
            assert server.connections == 0
            (tmp_path / "token").write_text(TOKEN)
            assert prober.check(api).ok
    assert missing.state.startswith("setup: token file /")
    assert missing.event == "round_trip_error"
    assert server.header("Authorization") == BEARER


def test_no_credentials_at_all() -> None:
    """A target of the API server fails when there are no credentials; no request without a token is sent."""
    with probing() as prober:
        result = prober.check(target("https://127.0.0.1/", to_api_server=True))
    assert (result.state, result.event) == ("setup: no credentials for the API server", "round_trip_error")


def headers_of(received: bytes) -> Mapping[str, str]:
    """The headers of a request."""
    lines = received.decode("ascii").split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if line)


def test_the_api_server_is_told_no_more_than_that() -> None:
    """A request to the API server has the common headers and the token, nothing more."""
    with (
        Server(always(answer()), context=server_context()) as server,
        probing(credentials=FixedCredentials(TOKEN)) as prober,
    ):
        assert prober.check(target(server.url(), to_api_server=True)).ok
    assert set(headers_of(server.received[0])) == {
        "Host",
        "User-Agent",
        "Accept",
        "Accept-Encoding",
        "Connection",
        "Authorization",
    }
