"""Pipes for a process's standard error: with room, or full."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pipe(*, full: bool = False) -> Iterator[tuple[int, int]]:
    """The reading and the writing end of a pipe; a ``full`` one takes no further byte, and a write to it blocks."""
    reader, writer = os.pipe()
    if full:
        os.set_blocking(writer, False)
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, bytes(size))
        os.set_blocking(writer, True)
    try:
        yield reader, writer
    finally:
        os.close(writer)
        os.close(reader)
