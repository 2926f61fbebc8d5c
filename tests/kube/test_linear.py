"""The time to read an answer is linear in its length, for any content and any size of its pieces."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Callable, Iterator

import pytest

from checks.kube.answer import unpacked
from checks.kube.decode import CHUNK, ListDocument
from checks.kube.errors import ApiError, redacted
from checks.kube.watching import split_lines

SMALL = 100_000
TIMES = 8
# Time that grows with the square of the length would be eight times as much again.
MOST = 3 * TIMES


def cut(data: bytes, size: int) -> Iterator[bytes]:
    """Cut data into pieces of one size."""
    return (data[at : at + size] for at in range(0, len(data), size))


def decode(data: bytes, size: int = CHUNK) -> None:
    """Decode a list that comes in pieces of one size, as far as it goes."""
    with contextlib.suppress(ApiError):
        for _ in ListDocument(cut(data, size)).items():
            pass


def unpack(data: bytes, size: int) -> None:
    """Unpack gzip data that comes in pieces of one size, as far as it goes."""
    with contextlib.suppress(ApiError):
        for _ in unpacked(cut(data, size)):
            pass


def split(data: bytes, size: int) -> None:
    """Split a watch that comes in pieces of one size into lines."""
    with contextlib.suppress(ApiError):
        for _ in split_lines(cut(data, size), lambda: None):
            pass


INPUTS = {
    "one object": lambda n: decode(b'{"items":[{"spec":"' + n * b"x" + b'"}]}'),
    "one object in small pieces": lambda n: decode(b'{"items":[{"spec":"' + n * b"x" + b'"}]}', 10),
    "one object without an end": lambda n: decode(b'{"items":[{"spec":"' + n * b"x", 1000),
    "escapes": lambda n: decode(b'{"items":[{"spec":"' + n // 6 * b"\\ud800" + b'"}]}', 1000),
    "tiny objects": lambda n: decode(b'{"items":[' + n // 12 * b"{},"),
    "objects that don't fit": lambda n: decode(b'{"items":[' + n // 70_000 * (b'{"spec":"' + 70_000 * b"x" + b'"},')),
    "white space": lambda n: decode(b'{"items":[' + n * b" "),
    "white space in small pieces": lambda n: decode(b'{"items":[' + n * b" ", 10),
    "other fields": lambda n: decode(b"{" + n // 20 * b'"a":1, '),
    "one event in small pieces": lambda n: split(n * b"x", 10),
    "lines": lambda n: split(n // 12 * b"x\n", CHUNK),
    "a message": lambda n: redacted(n * "ab", 100 * "ab" + "c"),
    "gzip of nothing": lambda n: unpack(b"\x1f\x8b\x08" + 7 * b"\0" + n // 20 * b"\0\0\0\xff\xff", 10),
    "gzip of much": lambda n: unpack(zlib.compress(n * b"x", wbits=31), CHUNK),
}


@pytest.mark.parametrize("read", INPUTS.values(), ids=INPUTS)
def test_time_grows_with_the_length(read: Callable[[int], object]) -> None:
    """Eight times the length takes about eight times the time."""

    def seconds(length: int) -> float:
        begun = time.thread_time()
        read(length)
        return time.thread_time() - begun

    # The least of several, since other processes add to each.
    small = min(seconds(SMALL) for _ in range(5))
    large = min(seconds(TIMES * SMALL) for _ in range(3))
    assert large < MOST * max(small, 0.0005)
