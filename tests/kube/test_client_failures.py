"""Each failure of a request to the API server, produced on real connections, with its kind and its reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checks.kube.answer import LARGEST_ERROR
from checks.kube.client import KubeApi
from checks.kube.credentials import ServiceAccount
from checks.kube.decode import LONGEST_OBJECT
from checks.kube.errors import (
    CONNECTION,
    FORBIDDEN,
    GONE,
    LONGEST_REASON,
    LONGEST_WISH,
    PROTOCOL,
    SERVER_ERROR,
    THROTTLED,
    TIMEOUT,
    TLS,
    UNAUTHORIZED,
)
from tests.support.kube import (
    PODS,
    TOKEN,
    Kube,
    Read,
    Scripted,
    document_answer,
    failure,
    pages,
    stream_answer,
    watched,
)
from tests.support.servers import BlackHole, Conversation, Server, always, answer, refusing, silent

EMPTY_LIST: dict[str, object] = {"metadata": {"resourceVersion": "7"}, "items": []}


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster."""
    kube = Kube(tmp_path, bookmark_seconds=0.1)
    with kube.server:
        yield kube


def client_of(tmp_path: Path, port: int, **options: Any) -> KubeApi:
    """Return a client for a port. Its service account trusts another server's CA."""
    kube = Kube(tmp_path)
    return KubeApi(ServiceAccount("127.0.0.1", port, kube.account.path), **options)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, UNAUTHORIZED, "401 Unauthorized"),
        (403, FORBIDDEN, "403 Forbidden"),
        (404, PROTOCOL, "404 Not Found"),
        (410, GONE, "410 Gone"),
        (429, THROTTLED, "429 Too Many Requests"),
        (500, SERVER_ERROR, "500 Internal Server Error"),
        (503, SERVER_ERROR, "503 Service Unavailable"),
    ],
)
@pytest.mark.parametrize("verb", ["list", "watch"])
def test_refusals_have_a_kind_and_the_servers_words(kube: Kube, verb: str, status: int, kind: str, words: str) -> None:
    """The error of an answer other than 200 has the kind of its status, the status and the message."""
    kube.server.faults.answer(PODS, status, verb=verb, message="no way")
    api = kube.client()
    error = failure(lambda: pages(api) if verb == "list" else watched(api))
    assert (error.kind, str(error), error.retry_after) == (kind, f"{words}: no way", None)


def test_retry_after_comes_from_the_header_or_the_status_object(tmp_path: Path) -> None:
    """Retry-After in seconds has precedence over the Status object. A date in the header is ignored."""
    details = {"kind": "Status", "code": 429, "details": {"retryAfterSeconds": 3}}
    many = "429 Too Many Requests"
    scripted = Scripted(
        tmp_path,
        document_answer(details, "Retry-After: 7", status=many),
        document_answer(details, status=many),
        document_answer(details, "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT", status=many),
        answer(many, body=b"slow down"),
    )
    with scripted.server:
        api = scripted.client()
        assert [failure(lambda: pages(api)).retry_after for _ in range(4)] == [7.0, 3.0, 3.0, None]


@pytest.mark.parametrize("wish", [-5, 0, 10**400, 1.5, "7", True, None])
def test_an_invalid_pause_is_ignored(tmp_path: Path, wish: object) -> None:
    """An invalid retryAfterSeconds leaves the kind of the refusal, and the pause stays bounded."""
    status = {"kind": "Status", "code": 429, "details": {"retryAfterSeconds": wish}}
    scripted = Scripted(tmp_path, document_answer(status, status="429 Too Many Requests"))
    with scripted.server:
        error = failure(lambda: pages(scripted.client()))
    assert error.kind == THROTTLED
    assert error.retry_after is None or 0 < error.retry_after <= LONGEST_WISH


def test_an_error_inside_a_watch_is_a_refusal(tmp_path: Path) -> None:
    """An ERROR event ends the watch with the error of its Status object."""
    status = {"kind": "Status", "code": 500, "message": "etcd is unhappy", "details": {"retryAfterSeconds": 2}}
    scripted = Scripted(tmp_path, stream_answer({"type": "ERROR", "object": status}))
    with scripted.server:
        error = failure(lambda: watched(scripted.client()))
    assert (error.kind, str(error)) == (SERVER_ERROR, "500 Internal Server Error: etcd is unhappy")
    assert error.retry_after == 2.0


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(answer(body=b"<html>"), id="not JSON"),
        pytest.param(answer(body=b"[]"), id="not an object"),
        pytest.param(answer(body=b"[" * 200_000), id="too deep"),
        pytest.param(answer(body=b'{"items":[' + b"9" * 10_000 + b"]}"), id="a number too long"),
        pytest.param(answer("302 Found", "Location: https://elsewhere.example/"), id="redirect"),
    ],
)
def test_an_answer_of_another_server_is_a_protocol_error(tmp_path: Path, said: bytes) -> None:
    """An answer that no API server gives is an ApiError with a reason."""
    scripted = Scripted(tmp_path, said)
    with scripted.server:
        assert failure(lambda: pages(scripted.client())).kind == PROTOCOL


@pytest.mark.parametrize(
    "event", [{"type": "ADDED"}, {"type": "ADDED", "object": []}, [], "x", {"type": "ERROR", "object": {}}]
)
def test_an_invalid_event_is_a_protocol_error(tmp_path: Path, event: object) -> None:
    """A line that is no event ends the watch with an error."""
    scripted = Scripted(tmp_path, stream_answer(event))
    with scripted.server:
        assert failure(lambda: watched(scripted.client())).kind == PROTOCOL


def test_fields_of_another_type_count_as_missing(tmp_path: Path) -> None:
    """Items, metadata and versions of another type count as missing."""
    odd: dict[str, object] = {
        "metadata": {"resourceVersion": 7, "continue": None},
        "items": ["x", None, {"metadata": []}],
    }
    scripted = Scripted(tmp_path, document_answer(odd), document_answer({"metadata": [], "items": None}))
    with scripted.server:
        api = scripted.client()
        assert pages(api) == [Read([{"metadata": []}], "", first=True)]
        assert pages(api) == [Read([], "", first=True)]


def test_a_truncated_answer_is_a_connection_error(tmp_path: Path) -> None:
    """A body that is shorter than its Content-Length is an error."""
    scripted = Scripted(tmp_path, document_answer(EMPTY_LIST)[:-3])
    with scripted.server:
        assert failure(lambda: pages(scripted.client())).kind == CONNECTION


def test_an_endless_page_ends_at_a_bound(tmp_path: Path) -> None:
    """The client stops reading an endless page at a bound of bytes."""
    kube = Kube(tmp_path)

    def endless(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(b"HTTP/1.1 200 OK\r\n\r\n{")
        conversation.send_forever(b" " * 1_000_000)

    with Server(endless, context=kube.server.context) as server:
        api = KubeApi(ServiceAccount("127.0.0.1", server.port, kube.account.path), largest_list=3_000_000)
        error = failure(lambda: pages(api))
    assert (error.kind, str(error)) == (PROTOCOL, "an answer of more than 3000000 bytes")


def test_an_endless_event_ends_at_a_bound(tmp_path: Path) -> None:
    """The client stops reading an event that is larger than the bound of an object."""
    long = b"%x\r\n%b\r\n" % (LONGEST_OBJECT + 1, b" " * (LONGEST_OBJECT + 1))
    scripted = Scripted(tmp_path, stream_answer(end=False) + long)
    with scripted.server:
        error = failure(lambda: watched(scripted.client()))
    assert (error.kind, "watch event of more than" in str(error)) == (PROTOCOL, True)


def test_a_long_refusal_keeps_its_kind(tmp_path: Path) -> None:
    """A refusal with a huge body keeps its kind, and its reason is one bounded line."""
    message = "a\nb\x1b[31m" * 100
    scripted = Scripted(
        tmp_path,
        answer("403 Forbidden", body=b" " * (LARGEST_ERROR + 1)),
        document_answer({"message": message}, status="403 Forbidden"),
    )
    with scripted.server:
        api = scripted.client()
        assert str(failure(lambda: pages(api))) == "403 Forbidden"
        error = failure(lambda: pages(api))
    assert error.kind == FORBIDDEN
    assert len(str(error)) == LONGEST_REASON
    assert str(error).isprintable()


def test_a_refused_connection_says_so(tmp_path: Path) -> None:
    """A refused connection is a connection error in the system's words."""
    with refusing() as (_, address):
        error = failure(lambda: pages(client_of(tmp_path, address[1])))
    assert (error.kind, str(error)) == (CONNECTION, "connection: connection refused")


def test_an_unknown_name_says_so(tmp_path: Path) -> None:
    """A host without an address is a connection error of name resolution."""
    api = KubeApi(ServiceAccount("no-such-host.invalid", 443, Kube(tmp_path).account.path))
    error = failure(lambda: pages(api))
    assert error.kind == CONNECTION
    assert str(error).startswith("dns: ")


def test_a_black_hole_times_out(tmp_path: Path) -> None:
    """Connecting to an address that drops packets ends at the connect timeout."""
    with BlackHole() as hole:
        error = failure(lambda: pages(client_of(tmp_path, hole.port, connect_timeout=0.2)))
    assert (error.kind, str(error)) == (TIMEOUT, "timed out")


def test_a_server_that_never_shakes_hands_times_out(tmp_path: Path) -> None:
    """The connect timeout includes the TLS handshake."""
    with Server(silent) as server:
        error = failure(lambda: pages(client_of(tmp_path, server.port, connect_timeout=0.2)))
    assert error.kind == TIMEOUT


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_request_that_hangs_times_out(kube: Kube, verb: str) -> None:
    """A list and a watch that get no answer end at the request timeout."""
    kube.server.faults.hang(PODS)
    api = kube.client(request_timeout=0.2)
    error = failure(lambda: pages(api) if verb == "list" else watched(api))
    assert (error.kind, str(error)) == (TIMEOUT, "the answer took longer than 0.2 s")


def test_a_page_that_dribbles_times_out(tmp_path: Path) -> None:
    """A page that arrives too slowly ends at the list timeout."""
    kube = Kube(tmp_path)

    def dribbling(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(b"HTTP/1.1 200 OK\r\n\r\n")
        conversation.dribble(b" " * 10_000, pause=0.01)

    with Server(dribbling, context=kube.server.context) as server:
        api = KubeApi(ServiceAccount("127.0.0.1", server.port, kube.account.path), list_timeout=0.2)
        error = failure(lambda: pages(api))
    assert (error.kind, str(error)) == (TIMEOUT, "the answer took longer than 0.2 s")


def test_a_server_that_speaks_no_tls_is_a_tls_error(tmp_path: Path) -> None:
    """A server without TLS gets no request and no token."""
    heard: list[bytes] = []

    def speak_first(conversation: Conversation) -> None:
        heard.append(conversation.sock.recv(65536))
        conversation.send(answer(body=b"{}"))

    with Server(speak_first) as server:
        error = failure(lambda: pages(client_of(tmp_path, server.port)))
    assert error.kind == TLS
    assert TOKEN.encode() not in heard[0]


@pytest.mark.parametrize(("directory", "identity"), [("other", "127.0.0.1"), ("same", "api.example")])
def test_an_unverified_server_gets_no_token(tmp_path: Path, directory: str, identity: str) -> None:
    """A certificate of another CA or for another name ends the connection before the request."""
    stranger = Kube(tmp_path / "other")
    kube = Kube(tmp_path / "same")
    authority = {"other": stranger, "same": kube}[directory].authority
    with Server(always(answer()), context=authority.issue("x", identity).server_context()) as server:
        api = KubeApi(ServiceAccount("127.0.0.1", server.port, kube.account.path))
        error = failure(lambda: pages(api))
        assert server.received == []
    assert error.kind == TLS
    assert "verif" in str(error) or "mismatch" in str(error) or "issuer" in str(error)


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """The token goes to no other server that an answer redirects to."""
    kube = Kube(tmp_path / "elsewhere")
    with kube.server:
        scripted = Scripted(tmp_path, answer("307 Temporary Redirect", f"Location: {kube.server.url}{PODS}"))
        with scripted.server:
            error = failure(lambda: pages(scripted.client()))
    assert str(error) == "307 Temporary Redirect"
    assert not kube.server.requests
