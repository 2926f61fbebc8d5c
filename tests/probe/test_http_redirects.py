"""Redirects that a check follows."""

from __future__ import annotations

import threading

import pytest

from checks.probe.http import MOST_REDIRECTS
from tests.support.phases import PLAIN_BY_NAME, assert_in_order
from tests.support.servers import (
    Conversation,
    Server,
    always,
    answer,
    by_path,
    certificate,
    probing,
    resolver_of,
    server_context,
    target,
)


def test_a_redirect_to_the_same_host_is_followed() -> None:
    """A redirect to the same host is followed where allowed; the events are those of the last request."""

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
    """The duration covers the whole chain; the events count from the start of the last request."""
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


def test_as_many_redirects_as_are_followed() -> None:
    """A chain of exactly the most redirects allowed is ok, and uses one connection where connections are kept."""
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
    """A redirect from http to https on the same host is followed, and the certificate is verified."""
    context = server_context(certificate("127.0.0.1", ca=ca))
    with (
        Server(always(answer()), context=context) as secure,
        Server(always(answer("308 Permanent Redirect", f"Location: {secure.url()}"))) as plain,
        probing() as prober,
    ):
        result = prober.check(target(plain.url(), follow_redirects=True))
    assert (result.state, result.status_code) == (state, status)
    assert len(secure.received) == (1 if status else 0)
