"""Requests and responses on the wire, without a socket."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.web.http1 import (
    LARGEST_HEAD_BYTES,
    HeadBuffer,
    RefusedRequestError,
    Request,
    parse_head,
)


def test_a_head_is_parsed() -> None:
    """Method, target and headers come out of the bytes, values without the blanks around them."""
    head = parse_head(b"GET /alive?a=\xff HTTP/1.1\r\nHost: a:8080\r\nX-Empty:\r\nx-b: \t1 2\t \r\n\r\n")
    assert (head.method, head.target) == ("GET", "/alive?a=\xff")
    assert head.headers == (("Host", "a:8080"), ("X-Empty", ""), ("x-b", "1 2"))
    assert (head.has_body, head.last) == (False, False)


@pytest.mark.parametrize(
    ("rest", "has_body", "last"),
    [
        (b"1.1\r\nContent-Length: 0\r\n\r\n", False, False),
        (b"1.1\r\nContent-Length: 10\r\n\r\n", True, True),
        (b"1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", True, True),
        (b"1.1\r\nConnection: keep-alive, Close\r\n\r\n", False, True),
        (b"1.1\r\nConnection: keep-alive\r\n\r\n", False, False),
        (b"1.0\r\nConnection: keep-alive\r\n\r\n", False, True),
        (b"1.1\n\n", False, False),
        (b"1.9\r\n\r\n", False, False),
    ],
)
def test_what_follows_a_request(rest: bytes, has_body: bool, last: bool) -> None:
    """A body, HTTP/1.0 and ``Connection: close`` each end the connection."""
    head = parse_head(b"GET / HTTP/" + rest)
    assert (head.has_body, head.last) == (has_body, last)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\n\r\n", 400),
        (b"GET / http/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n: no name\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nName : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: x\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: x\rContent-Length: 5\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 400),
    ],
)
def test_malformed_heads_are_refused(head: bytes, status: int) -> None:
    """What RFC 9112 forbids is refused, not guessed at."""
    with pytest.raises(RefusedRequestError) as refused:
        parse_head(head)
    assert refused.value.status == status


def buffer_of(data: bytes) -> HeadBuffer:
    """A buffer that was fed this in one piece."""
    buffer = HeadBuffer()
    buffer.feed(data)
    return buffer


def test_heads_are_cut_one_after_the_other() -> None:
    """Pipelined requests come off the buffer one by one, blank lines between them ignored."""
    buffer = buffer_of(b"\r\n\nGET /a HTTP/1.1\r\n\r\n\r\nGET /b HTTP/1.1\n\n\r\n")
    assert buffer.cut() == b"GET /a HTTP/1.1\r\n\r\n"
    assert buffer.cut() == b"GET /b HTTP/1.1\n\n"
    assert not buffer.begun
    assert buffer.cut() is None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /alive\r\n", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET / HTTP/3.0\r\n", 505),
        (b"G" * (LARGEST_HEAD_BYTES + 1), 431),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * LARGEST_HEAD_BYTES + b"\r\n\r\n", 431),
    ],
)
def test_hopeless_beginnings_are_refused_at_once(data: bytes, status: int) -> None:
    """HTTP/0.9, TLS on the plain port, other versions and too large heads are refused before they are complete."""
    with pytest.raises(RefusedRequestError) as refused:
        buffer_of(data).cut()
    assert refused.value.status == status


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
@pytest.mark.parametrize("piece", [1, 2, 3, 1000])
def test_a_head_is_complete_whatever_pieces_it_comes_in(end: bytes, piece: int) -> None:
    """A request that may still become one is waited for; its end is found wherever it was cut."""
    head = b"GET / HTTP/1.1\r\nHost: a" + end
    buffer = HeadBuffer()
    for start in range(0, len(head), piece):
        assert buffer.cut() is None
        buffer.feed(head[start : start + piece])
    assert buffer.cut() == head


@given(data=st.binary() | st.binary().map(lambda tail: b"GET / HTTP/1.1\r\n" + tail + b"\r\n\r\n"))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    """Reading bytes ends in a request, in a refusal, or in waiting for more; never in another error."""
    with suppress(RefusedRequestError):
        head = buffer_of(data).cut()
        if head is not None:
            parsed = parse_head(head)
            assert Request(parsed.method, parsed.target, parsed.headers).path
