"""Hostile servers on real connections: they hold a request, fill the memory or echo the token."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from checks.kube.answer import LARGEST_ERROR
from checks.kube.client import LARGEST_HEAD, KubeApi
from checks.kube.credentials import ServiceAccount
from checks.kube.decode import CHUNK, LONGEST_OBJECT
from checks.kube.errors import (
    CONNECTION,
    FORBIDDEN,
    LONGEST_SHARED,
    PROTOCOL,
    SERVER_ERROR,
    TIMEOUT,
    ApiError,
    redacted,
)
from checks.kube.listing import MOST_ITEMS, MOST_PAGES
from tests.support.kube import TOKEN, Kube, Scripted, document_answer, failure, pages, stream_answer, watched
from tests.support.servers import Conversation, Handler, Server, answer

LATE = "the answer took longer than 0.3 s"
NOTHING_NEW = "a list goes on without anything new"
OTHER_ENCODING = "a Content-Encoding other than gzip"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GZIP = "Content-Encoding: gzip"
# A token as the kubelet's: three parts of base64url.
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ." + 40 * "YWJjZGVm" + "." + 20 * "c2lnbmF0dXJl"


@contextmanager
def served(tmp_path: Path, handle: Handler, **options: Any) -> Iterator[KubeApi]:
    """Serve a handler as the API server and yield its client. Requests take at most 0.3 s by default."""
    kube = Kube(tmp_path)
    with Server(handle, context=kube.server.context) as server:
        yield KubeApi(
            ServiceAccount("127.0.0.1", server.port, kube.account.path),
            **{"request_timeout": 0.3, "list_timeout": 0.3, **options},
        )


def flooding(begin: bytes, more: bytes) -> Handler:
    """Return a handler that begins an answer and then repeats the same bytes without end."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(begin)
        conversation.send_forever(more)

    return handle


def dribbling(begin: bytes, more: bytes) -> Handler:
    """Return a handler that begins an answer and then sends one byte every 20 ms."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(begin)
        conversation.dribble(1000 * more, pause=0.02)

    return handle


DRIBBLES = [
    pytest.param(dribbling(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="100 Continue"),
    pytest.param(dribbling(b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n"), id="header lines"),
    pytest.param(dribbling(b"HTTP/1.1 200 OK\r\nX: ", b"x"), id="one header"),
]


@pytest.mark.parametrize("handle", DRIBBLES)
@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_slow_head_ends_at_the_deadline(tmp_path: Path, handle: Handler, verb: str) -> None:
    """The head of an answer has one deadline, with all its lines and 100 Continue answers."""
    with served(tmp_path, handle) as api:
        error = failure(lambda: pages(api) if verb == "list" else watched(api))
    assert (error.kind, str(error)) == (TIMEOUT, LATE)


@pytest.mark.parametrize(
    "handle",
    [
        pytest.param(dribbling(CHUNKED, b"00000000"), id="a chunk size"),
        pytest.param(dribbling(CHUNKED, b"1\r\n \r\n"), id="chunks of a byte"),
        pytest.param(dribbling(CHUNKED + b"0\r\n", b"X-Trailer: x\r\n"), id="trailers"),
        pytest.param(dribbling(b"HTTP/1.1 503 Busy\r\n\r\n", b" "), id="a refusal"),
        pytest.param(flooding(CHUNKED, b"1\r\n \r\n"), id="a flood of chunks of a byte"),
        pytest.param(
            flooding(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10], b"\0\0\0\xff\xff"),
            id="gzip blocks with nothing in them",
        ),
    ],
)
def test_an_endless_body_ends_at_the_deadline(tmp_path: Path, handle: Handler) -> None:
    """The head and body of a list have one deadline, at any speed of the server."""
    with served(tmp_path, handle) as api:
        error = failure(lambda: pages(api))
    assert (error.kind, str(error)) in [(TIMEOUT, LATE), (SERVER_ERROR, "503 Service Unavailable")]


@pytest.mark.parametrize("header", [b"", b"X: " + 1000 * b"x" + b"\r\n"])
@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_flood_of_heads_ends_at_a_bound(tmp_path: Path, header: bytes, verb: str) -> None:
    """A flood of 100 Continue answers ends at a bound of bytes, long before the deadline."""
    handle = flooding(b"", b"HTTP/1.1 100 Continue\r\n" + header + b"\r\n")
    with served(tmp_path, handle, request_timeout=60.0, list_timeout=60.0) as api:
        error = failure(lambda: pages(api) if verb == "list" else watched(api))
    assert (error.kind, str(error)) == (PROTOCOL, f"more than {LARGEST_HEAD} bytes on the wire")


def test_the_pages_of_a_list_share_a_deadline(tmp_path: Path) -> None:
    """A list ends at its deadline even if each of its pages is in time."""
    numbers = itertools.count()

    def handle(conversation: Conversation) -> None:
        while conversation.read_head():
            number = next(numbers)
            metadata = {"continue": f"token-{number}"}
            body = json.dumps({"metadata": metadata, "items": [{"metadata": {"name": f"pod-{number}"}}]}).encode()
            conversation.dribble(answer(body=body), pause=0.0005)

    with served(tmp_path, handle, list_timeout=0.5, request_timeout=0.4) as api:
        assert failure(lambda: pages(api)).kind == TIMEOUT
    assert next(numbers) > 1


def listing(number: int, token: str, name: str | None = None) -> bytes:
    """Return an answer with one page of a list, which has one Pod."""
    items = [{"metadata": {"name": name or f"pod-{number}"}}]
    return document_answer({"metadata": {"resourceVersion": "7", "continue": token}, "items": items})


@pytest.mark.parametrize(
    ("page", "reason", "requests"),
    [
        pytest.param(lambda n: listing(n, "same"), NOTHING_NEW, 2, id="the same token"),
        pytest.param(lambda n: listing(n, f"t{n}", "a"), NOTHING_NEW, 2, id="the same object"),
        pytest.param(
            lambda n: document_answer({"metadata": {"continue": f"t{n}"}, "items": []}),
            NOTHING_NEW,
            1,
            id="no objects",
        ),
        pytest.param(
            lambda n: listing(n, f"t{n}"), f"a list of more than {MOST_PAGES} pages", MOST_PAGES, id="endless"
        ),
        pytest.param(lambda n: listing(n, 5000 * "t"), "a list's continue token is not a token", 1, id="a long token"),
        pytest.param(
            lambda n: document_answer({"metadata": {"continue": [n]}, "items": [{}]}),
            "a list's continue token is not a token",
            1,
            id="another type",
        ),
    ],
)
def test_an_endless_list_ends_with_an_error(
    tmp_path: Path, page: Callable[[int], bytes], reason: str, requests: int
) -> None:
    """A list ends with an error if its pages bring nothing new, and otherwise at a bound of pages."""
    numbers = itertools.count()

    def handle(conversation: Conversation) -> None:
        while conversation.read_head():
            conversation.send(page(next(numbers)))

    with served(tmp_path, handle, request_timeout=20.0, list_timeout=20.0) as api:
        error = failure(lambda: pages(api))
    assert (error.kind, str(error)) == (PROTOCOL, reason)
    assert next(numbers) == requests


def packed(*parts: bytes) -> bytes:
    """Return an answer whose body is packed. The parts between the first and the last are repeated 1000 times."""
    packer = zlib.compressobj(wbits=31)
    first, *repeated, last = parts
    body = packer.compress(first) + b"".join(packer.compress(part) for part in repeated * 1000)
    return answer("200 OK", GZIP, body=body + packer.compress(last) + packer.flush())


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        pytest.param(
            packed(b'{"items":[', 450 * b"{},", b"{}]}"), f"a list of more than {MOST_ITEMS} objects", id="tiny objects"
        ),
        pytest.param(
            packed(b'{"items":[{"name":"', 100_000 * b"x", b'"}]}'),
            f"no end of an object within {LONGEST_OBJECT} characters",
            id="one object",
        ),
        pytest.param(packed(b"{", 100_000 * b" ", b"}"), "an answer of more than 50000000 bytes", id="white space"),
        pytest.param(
            answer("200 OK", "Content-Encoding: gzip, gzip", body=gzip.compress(gzip.compress(b'{"items":[]}'))),
            OTHER_ENCODING,
            id="packed twice",
        ),
        pytest.param(
            answer("200 OK", GZIP, body=gzip.compress(gzip.compress(b"{}"))), "not JSON: not UTF-8", id="gzip of gzip"
        ),
        pytest.param(answer("200 OK", GZIP, body=b"{}"), "not gzip", id="not packed"),
        pytest.param(
            answer("200 OK", GZIP, body=2 * gzip.compress(b'{"items":[]}')),
            "data behind the end of gzip data",
            id="two members",
        ),
    ],
)
def test_a_bomb_ends_at_a_bound(tmp_path: Path, said: bytes, reason: str) -> None:
    """An answer that grows when it is unpacked or parsed ends at a bound with a reason. bench/ measures the memory."""
    scripted = Scripted(tmp_path, said)
    with scripted.server:
        error = failure(lambda: pages(scripted.client(largest_list=50_000_000)))
    assert (error.kind, str(error)) == (PROTOCOL, reason)


def test_gzip_that_is_cut_off_is_a_connection_error(tmp_path: Path) -> None:
    """A packed answer without its end is an error, even if the missing part is only the checksum."""
    whole = gzip.compress(b'{"items":[],"metadata":{}}')
    scripted = Scripted(tmp_path, answer("200 OK", GZIP, body=whole[:-4]))
    with scripted.server:
        error = failure(lambda: pages(scripted.client()))
    assert (error.kind, str(error)) == (CONNECTION, "gzip data without an end")


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("size", [0, 1, CHUNK - 30, CHUNK, 5 * CHUNK + 1])
def test_a_packed_list_of_any_size_is_unpacked(tmp_path: Path, level: int, size: int) -> None:
    """Packed lists of sizes around the size of an unpacked piece are read to the end."""
    body = json.dumps({"items": [{"kind": "a"}], "other": size * "x", "metadata": {"resourceVersion": "7"}}).encode()
    scripted = Scripted(tmp_path, answer("200 OK", GZIP, body=gzip.compress(body, level)))
    with scripted.server:
        (page,) = pages(scripted.client())
    assert (page.items, page.resource_version) == ([{"kind": "a"}], "7")


def test_an_endless_event_ends_at_the_bound_of_silence(tmp_path: Path) -> None:
    """Single bytes of an event do not extend the silence, which begins with the last complete event."""
    with served(tmp_path, dribbling(CHUNKED, b"1\r\n{\r\n"), silence=0.3) as api:
        error = failure(lambda: watched(api))
    assert (error.kind, str(error)) == (TIMEOUT, "no end of a watch event within 0.3 s")


def test_a_watch_has_a_lifetime(tmp_path: Path) -> None:
    """The client ends a watch without an error if the server has not ended it in time."""
    event = json.dumps({"type": "ADDED", "object": {}}).encode() + b"\n"
    handle = flooding(CHUNKED, b"%x\r\n%b\r\n" % (len(event), event))
    with served(tmp_path, handle, watch_seconds=(1.0, 1.0), watch_grace=-0.5) as api:
        assert all(event.type == "ADDED" for event in watched(api))


def test_a_watch_that_ends_inside_an_event_says_so(tmp_path: Path) -> None:
    """A watch whose body ends correctly but inside a line is an error."""
    half = b'9\r\n{"type":"\r\n0\r\n\r\n'
    scripted = Scripted(tmp_path, CHUNKED + half)
    with scripted.server:
        error = failure(lambda: watched(scripted.client()))
    assert (error.kind, str(error)) == (CONNECTION, "the watch ended in the middle of an event")


def test_a_watch_of_an_unknown_encoding_is_an_error(tmp_path: Path) -> None:
    """A watch with an unknown Content-Encoding is an error."""
    scripted = Scripted(tmp_path, answer("200 OK", "Content-Encoding: br", body=b"x"))
    with scripted.server:
        assert str(failure(lambda: watched(scripted.client()))) == OTHER_ENCODING


ECHOES = [
    pytest.param(lambda said: answer(f"403 {said}", body=b"{}"), id="reason phrase"),
    pytest.param(lambda said: document_answer({"message": said}, status="403 Forbidden"), id="message"),
    pytest.param(
        lambda said: document_answer({"message": 300 * "x" + said}, status="403 Forbidden"), id="late message"
    ),
    pytest.param(lambda said: document_answer({"message": said[10:80]}, status="403 Forbidden"), id="a piece"),
    pytest.param(lambda said: f"{said}\r\n\r\n".encode(), id="no HTTP"),
    pytest.param(lambda said: f"HTTP/1.1 200 {said}\r\n{said}\r\n\r\n".encode(), id="a header without a colon"),
    pytest.param(lambda said: answer("200 OK", f"Content-Encoding: {said}", body=b"{}"), id="encoding"),
    pytest.param(lambda said: answer(body=said.encode()), id="body"),
    pytest.param(lambda said: document_answer({said: [], "items": said}), id="list"),
    pytest.param(lambda said: stream_answer({"type": "ERROR", "object": {"code": 403, "message": said}}), id="event"),
]


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("verb", ["list", "watch"])
def test_no_error_or_log_line_has_the_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, verb: str, echo: Callable[[str], bytes]
) -> None:
    """No error and no log line has a part of the token, wherever the server echoes the Authorization header."""
    scripted = Scripted(tmp_path, echo(f"bad Authorization: Bearer {JWT} (sent)"))
    scripted.account.rotate(token=JWT)
    with caplog.at_level(logging.DEBUG), scripted.server:
        api = scripted.client(silence=0.2)
        seen = ""
        try:
            _ = pages(api) if verb == "list" else watched(api)
        except ApiError as error:
            seen = f"{''.join(traceback.format_exception(error))}"
    seen += caplog.text
    assert not [at for at in range(len(JWT) - LONGEST_SHARED) if JWT[at : at + LONGEST_SHARED] in seen]


def test_the_words_around_the_token_stay(tmp_path: Path) -> None:
    """Redaction removes the token from a message and keeps the other words."""
    scripted = Scripted(tmp_path, document_answer({"message": f"user {TOKEN}: no way"}, status="403 Forbidden"))
    with scripted.server:
        error = failure(lambda: pages(scripted.client()))
    assert (error.kind, str(error)) == (FORBIDDEN, "403 Forbidden: user [redacted]: no way")


@pytest.mark.parametrize("text", [lambda n: n * "ab", lambda n: n * "abcdefghijklmnopqrst-", lambda n: n * JWT])
def test_redaction_is_bounded(text: Callable[[int], str]) -> None:
    """Redaction cuts a long message, and an empty secret changes nothing."""
    assert len(redacted(text(100_000), JWT)) <= 64 * 1024
    assert redacted("short", "") == "short"


def test_a_refusal_that_is_packed_has_its_reason(tmp_path: Path) -> None:
    """The Status object of a refusal may be packed. A huge one leaves the kind of the refusal."""
    small = gzip.compress(json.dumps({"message": "no way"}).encode())
    large = gzip.compress(b" " * (LARGEST_ERROR + 1))
    scripted = Scripted(tmp_path, *(answer("403 Forbidden", GZIP, body=body) for body in (small, large)))
    with scripted.server:
        api = scripted.client()
        assert [str(failure(lambda: pages(api))) for _ in range(2)] == ["403 Forbidden: no way", "403 Forbidden"]
