"""The writer of lines: real pipes, read late, never, or no longer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from checks.report.writer import BEAT_SECONDS, MOST_BYTES, LineWriter
from tests.support.pipes import pipe
from tests.support.waiting import until

DEADLINE = 5.0


def gap(count: int) -> bytes:
    """The line that tells of lines dropped."""
    return b"gap %d\n" % count


@contextmanager
def writing_to(descriptor: int, **bounds: int) -> Iterator[LineWriter]:
    """A writer to a descriptor."""
    with open(descriptor, "w", closefd=False) as stream:
        writer = LineWriter(stream, gap, **bounds)
        try:
            yield writer
        finally:
            writer.stop(0)


def read(descriptor: int, size: int) -> bytes:
    """Read so many bytes."""
    data = b""
    while len(data) < size:
        data += os.read(descriptor, size - len(data))
    return data


def put_all(writer: LineWriter, lines: list[bytes]) -> None:
    """Put one line after the other."""
    for line in lines:
        writer.put(line)


def lives_after(writer: LineWriter, moment: float) -> bool:
    """Tell whether the thread showed that it lives after a moment."""
    return writer.last_lived > moment


def test_lines_come_in_order_however_long_they_are() -> None:
    """Lines from several threads arrive whole, each thread's in its order, also those longer than the pipe."""
    long_line = b"x" * 200_000 + b"\n"
    with pipe() as (reader, descriptor), writing_to(descriptor) as writer:
        threads = [
            threading.Thread(target=put_all, args=(writer, [b"%s %d\n" % (name, n) for n in range(100)]))
            for name in (b"a", b"b")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        writer.put(long_line)
        expected = sorted(b"%s %d\n" % (name, n) for name in (b"a", b"b") for n in range(100))
        lines = read(reader, sum(map(len, expected)) + len(long_line)).splitlines(keepends=True)
        assert lines[-1] == long_line
        assert sorted(lines[:-1]) == expected
        assert [line for line in lines if line.startswith(b"a")] == [b"a %d\n" % n for n in range(100)]
        assert writer.flush(DEADLINE)
        assert writer.dropped == 0


def test_a_full_pipe_drops_lines_and_counts_them() -> None:
    """Nobody waits: beyond the bound lines are dropped; read again, the log says where and how many."""
    with pipe(full=True) as (reader, descriptor), writing_to(descriptor, most_lines=3) as writer:
        writer.put(b"first\n")
        until(lambda: writer.waiting == 0, DEADLINE)
        begun = time.monotonic()
        for number in range(1000):
            writer.put(b"line %d\n" % number)
        assert time.monotonic() - begun < DEADLINE
        # The thread holds the first line, three wait.
        dropped = 997
        assert writer.dropped == dropped
        assert not writer.flush(0)
        expected = b"first\nline 0\nline 1\nline 2\n"
        data = b""
        while not data.endswith(expected):
            data += os.read(reader, 65536)
        assert data.lstrip(b"\0") == expected
        assert writer.flush(DEADLINE)
        writer.put(b"last\n")
        told = gap(dropped) + b"last\n"
        assert read(reader, len(told)) == told
        assert writer.dropped == dropped


def test_waiting_bytes_are_bounded() -> None:
    """However large the lines are, those that wait take at most MOST_BYTES."""
    with pipe(full=True) as (_, descriptor), writing_to(descriptor) as writer:
        line = b"x" * (MOST_BYTES // 4) + b"\n"
        for _ in range(20):
            writer.put(line)
        assert writer.dropped >= 20 - 4 - 1


def test_the_writer_shows_that_it_lives() -> None:
    """Idle and in front of a full pipe the thread shows again and again that it lives; ended, it no longer does."""
    with ExitStack() as stack:
        for full in (False, True):
            _, descriptor = stack.enter_context(pipe(full=full))
            writer = stack.enter_context(writing_to(descriptor))
            if full:
                writer.put(b"nobody reads this\n")
            until(partial(lives_after, writer, writer.last_lived), BEAT_SECONDS + DEADLINE)
        writer.stop(0)
        until(lambda: time.monotonic() - writer.last_lived > 1.5 * BEAT_SECONDS, DEADLINE)


def test_stopping_takes_no_longer_than_it_is_given() -> None:
    """What the reader takes in that time is written; with a full pipe the time is up and the thread ends."""
    with pipe() as (reader, descriptor), writing_to(descriptor) as writer:
        for number in range(100):
            writer.put(b"%d\n" % number)
        writer.stop(DEADLINE)
        assert os.read(reader, 65536).endswith(b"\n99\n")
        writer.put(b"too late\n")
        assert writer.dropped == 1
    with pipe(full=True) as (_, descriptor), writing_to(descriptor) as writer:
        writer.put(b"nobody reads this\n")
        begun = time.monotonic()
        writer.stop(0.1)
        assert 0.1 <= time.monotonic() - begun < DEADLINE


def test_a_reader_that_is_gone_is_no_error() -> None:
    """Lines to a closed pipe are dropped and counted, and the thread lives on."""
    reader, descriptor = os.pipe()
    os.close(reader)
    with writing_to(descriptor) as writer:
        put_all(writer, [b"%d\n" % number for number in range(3)])
        until(lambda: writer.dropped == 3, DEADLINE)
        put_all(writer, [b"another\n"])
        until(lambda: writer.dropped == 4, DEADLINE)
    os.close(descriptor)


@pytest.mark.parametrize("bounds", [{"most_lines": 0}, {"most_bytes": 0}])
def test_without_room_everything_is_dropped(bounds: dict[str, int]) -> None:
    """A writer without any room drops each line at once."""
    with pipe() as (_, descriptor), writing_to(descriptor, **bounds) as writer:
        writer.put(b"line\n")
        assert writer.dropped == 1
