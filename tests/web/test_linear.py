"""The time that text from clients costs grows no faster than its size, whatever stands in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from checks.web.http1 import (
    LARGEST_HEAD_BYTES,
    HeadBuffer,
    RefusedRequestError,
    Request,
    Response,
    encode_response,
    parse_head,
)
from checks.web.redaction import shown_headers, shown_target

GROWTH = 8
# Linear work costs GROWTH times as much, quadratic work 64 times as much.
MOST_TIMES_THE_COST = 3 * GROWTH
LARGE = 64_000
HOSTILE = [
    " ",
    "\t ",
    "-eyJ",
    "eyJ.",
    "a.",
    "://",
    "@",
    "a@",
    "?",
    "?a",
    "&",
    "&a=",
    "=",
    ";",
    "; ",
    ",",
    " ,",
    "a",
    "a-",
    "%",
    "#",
]


def parse_as_value(text: str) -> None:
    """A header's value that the parser looks at, between two letters that keep blanks."""
    parse_head(f"GET / HTTP/1.1\r\nConnection: a{text}b\r\nContent-Length: 0\r\n\r\n".encode())


def parse_as_target(text: str) -> None:
    """A request's target, where a blank ends it."""
    target = "/" + text.replace(" ", "_").replace("\t", "_")
    head = parse_head(f"GET {target} HTTP/1.1\r\n\r\n".encode())
    request = Request(head.method, head.target, head.headers)
    assert request.path
    request.parameters("a")


def parse_as_many_headers(text: str) -> None:
    """As many headers as there are characters."""
    lines = "".join(f"a: {char}\r\n" for char in text)
    head = parse_head(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())
    Request(head.method, head.target, head.headers).header("b")
    shown_headers(head.headers)


def show_as_target(text: str) -> None:
    """What /alive shows of a target."""
    shown_target("/alive?" + text)
    shown_target("http://" + text)


def show_as_header(text: str) -> None:
    """What /alive shows of a header, and of its name."""
    shown_headers([("Accept", text), (text, "a"), ("X-A", text)])


def answer_with(text: str) -> None:
    """An answer's header and body."""
    encode_response(Response(200, (("X-A", text),), text.encode()), head_only=False, close=True)


def cost(work: Callable[[str], None], text: str) -> float:
    """The least processor time, in seconds, of some tries."""
    tries = []
    for _ in range(3):
        begun = time.thread_time()
        work(text)
        tries.append(time.thread_time() - begun)
    return min(tries)


@pytest.mark.parametrize("pattern", HOSTILE)
@pytest.mark.parametrize("work", [parse_as_value, parse_as_target, show_as_target, show_as_header, answer_with])
def test_work_grows_with_the_size_of_the_text(work: Callable[[str], None], pattern: str) -> None:
    """Eight times the text costs about eight times the processor time."""
    large = (pattern * LARGE)[:LARGE]
    small = large[: LARGE // GROWTH]
    # A tenth of a millisecond is what the clock and the machine add.
    assert cost(work, large) < MOST_TIMES_THE_COST * (cost(work, small) + 1e-4)


def test_many_headers_cost_by_their_number() -> None:
    """Eight times the headers cost about eight times the processor time."""
    many = "a" * 8_000
    small = cost(parse_as_many_headers, many[: len(many) // GROWTH])
    assert cost(parse_as_many_headers, many) < MOST_TIMES_THE_COST * (small + 1e-4)


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nA: "])
@pytest.mark.parametrize("pattern", [b"a", b"\r", b"\r\n", b"\n", b"\n\r", b" "])
def test_a_head_in_single_bytes_costs_by_its_size(start: bytes, pattern: bytes) -> None:
    """A head that comes byte by byte is not searched again from its start with each of them."""

    def feed(text: str) -> None:
        buffer = HeadBuffer()
        buffer.feed(start)
        for number in range(len(text)):
            buffer.feed(text[number : number + 1].encode())
            with suppress(RefusedRequestError):
                buffer.cut()

    large = (pattern * LARGEST_HEAD_BYTES).decode()[: LARGEST_HEAD_BYTES - 100]
    assert cost(feed, large) < MOST_TIMES_THE_COST * (cost(feed, large[: len(large) // GROWTH]) + 1e-4)
