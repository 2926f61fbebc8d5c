"""Each way a request to the API server can fail, produced for real, with its kind and its reason in words."""

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
    """Return a client for a port, with a service account that trusts somebody else."""
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
    """An answer other than 200 is an error of its kind, with the status and the Status object's message."""
    kube.server.faults.answer(PODS, status, verb=verb, message="no way")
    api = kube.client()
    error = failure(lambda: pages(api) if verb == "list" else watched(api))
    assert (error.kind, str(error), error.retry_after) == (kind, f"{words}: no way", None)


def test_retry_after_comes_from_the_header_or_the_status_object(tmp_path: Path) -> None:
    """The seconds to wait are those of the header; without one, or with a date in it, those of the Status object."""
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
def test_a_wish_that_is_no_number_of_seconds_is_none(tmp_path: Path, wish: object) -> None:
    """Whatever stands where the seconds to wait should be, the refusal is told as such, to be tried again in time."""
    status = {"kind": "Status", "code": 429, "details": {"retryAfterSeconds": wish}}
    scripted = Scripted(tmp_path, document_answer(status, status="429 Too Many Requests"))
    with scripted.server:
        error = failure(lambda: pages(scripted.client()))
    assert error.kind == THROTTLED
    assert error.retry_after is None or 0 < error.retry_after <= LONGEST_WISH


def test_an_error_inside_a_watch_is_a_refusal(tmp_path: Path) -> None:
    """An ERROR event ends the watch with what its Status object says."""
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
def test_what_is_no_api_is_a_protocol_error(tmp_path: Path, said: bytes) -> None:
    """An answer that no API server gives is an error in words, not an exception of a parser."""
    scripted = Scripted(tmp_path, said)
    with scripted.server:
        assert failure(lambda: pages(scripted.client())).kind == PROTOCOL


@pytest.mark.parametrize(
    "event", [{"type": "ADDED"}, {"type": "ADDED", "object": []}, [], "x", {"type": "ERROR", "object": {}}]
)
def test_events_that_are_none_are_protocol_errors(tmp_path: Path, event: object) -> None:
    """A line of a watch that is no event ends the watch with an error."""
    scripted = Scripted(tmp_path, stream_answer(event))
    with scripted.server:
        assert failure(lambda: watched(scripted.client())).kind == PROTOCOL


def test_fields_of_the_wrong_type_are_as_good_as_missing(tmp_path: Path) -> None:
    """Items, metadata and versions that are not what they should be are left out."""
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
    """A body shorter than announced is not taken for a whole one."""
    scripted = Scripted(tmp_path, document_answer(EMPTY_LIST)[:-3])
    with scripted.server:
        assert failure(lambda: pages(scripted.client())).kind == CONNECTION


def test_an_endless_page_is_left(tmp_path: Path) -> None:
    """A page that goes on and on is given up at a bound, not kept in memory."""
    kube = Kube(tmp_path)

    def endless(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(b"HTTP/1.1 200 OK\r\n\r\n{")
        conversation.send_forever(b" " * 1_000_000)

    with Server(endless, context=kube.server.context) as server:
        api = KubeApi(ServiceAccount("127.0.0.1", server.port, kube.account.path), largest_list=3_000_000)
        error = failure(lambda: pages(api))
    assert (error.kind, str(error)) == (PROTOCOL, "an answer of more than 3000000 bytes")


def test_an_endless_line_of_a_watch_is_left(tmp_path: Path) -> None:
    """An event larger than any object can be is given up."""
    long = b"%x\r\n%b\r\n" % (LONGEST_OBJECT + 1, b" " * (LONGEST_OBJECT + 1))
    scripted = Scripted(tmp_path, stream_answer(end=False) + long)
    with scripted.server:
        error = failure(lambda: watched(scripted.client()))
    assert (error.kind, "watch event of more than" in str(error)) == (PROTOCOL, True)


def test_a_long_refusal_keeps_its_kind(tmp_path: Path) -> None:
    """A refusal with a huge body is still that refusal, and its reason is a bounded line."""
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
    """Nobody listening is a connection error in the system's words."""
    with refusing() as (_, address):
        error = failure(lambda: pages(client_of(tmp_path, address[1])))
    assert (error.kind, str(error)) == (CONNECTION, "connection: connection refused")


def test_an_unknown_name_says_so(tmp_path: Path) -> None:
    """A host that has no address is a connection error of name resolution."""
    api = KubeApi(ServiceAccount("no-such-host.invalid", 443, Kube(tmp_path).account.path))
    error = failure(lambda: pages(api))
    assert error.kind == CONNECTION
    assert str(error).startswith("dns: ")


def test_a_black_hole_times_out(tmp_path: Path) -> None:
    """An address that swallows packets costs the connect timeout."""
    with BlackHole() as hole:
        error = failure(lambda: pages(client_of(tmp_path, hole.port, connect_timeout=0.2)))
    assert (error.kind, str(error)) == (TIMEOUT, "timed out")


def test_a_server_that_never_shakes_hands_times_out(tmp_path: Path) -> None:
    """The TLS handshake is under the connect timeout."""
    with Server(silent) as server:
        error = failure(lambda: pages(client_of(tmp_path, server.port, connect_timeout=0.2)))
    assert error.kind == TIMEOUT


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_request_that_hangs_times_out(kube: Kube, verb: str) -> None:
    """A request that is never answered costs the request timeout, a watch's begin too."""
    kube.server.faults.hang(PODS)
    api = kube.client(request_timeout=0.2)
    error = failure(lambda: pages(api) if verb == "list" else watched(api))
    assert (error.kind, str(error)) == (TIMEOUT, "the answer took longer than 0.2 s")


def test_a_page_that_dribbles_times_out(tmp_path: Path) -> None:
    """A page whose bytes keep coming, too slowly, is left after the list's timeout all the same."""
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
    """Plain HTTP where TLS should be gets no request, so no token."""
    heard: list[bytes] = []

    def speak_first(conversation: Conversation) -> None:
        heard.append(conversation.sock.recv(65536))
        conversation.send(answer(body=b"{}"))

    with Server(speak_first) as server:
        error = failure(lambda: pages(client_of(tmp_path, server.port)))
    assert error.kind == TLS
    assert TOKEN.encode() not in heard[0]


@pytest.mark.parametrize(("directory", "identity"), [("other", "127.0.0.1"), ("same", "api.example")])
def test_the_token_does_not_go_to_whom_it_cannot_verify(tmp_path: Path, directory: str, identity: str) -> None:
    """A certificate of another CA, or for another name, ends the connection before anything is said."""
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
    """The token does not travel to where an answer points."""
    kube = Kube(tmp_path / "elsewhere")
    with kube.server:
        scripted = Scripted(tmp_path, answer("307 Temporary Redirect", f"Location: {kube.server.url}{PODS}"))
        with scripted.server:
            error = failure(lambda: pages(scripted.client()))
    assert str(error) == "307 Temporary Redirect"
    assert not kube.server.requests
