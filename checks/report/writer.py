"""Writes lines from a thread of its own, so that no thread of the agent waits for the reader of the log.

Sources: pipe(7) for ``PIPE_BUF`` and for what poll(2) promises of a pipe; PEP 475 for interrupted writes.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

# Lines that wait for the reader, and their bytes: more are dropped. A healthy agent has none waiting.
MOST_LINES = 1_000
MOST_BYTES = 1_000_000
# Seconds after which an idle or blocked writer shows again that it lives.
BEAT_SECONDS = 1.0
# What poll(2) promises that a writable pipe takes without blocking (POSIX's PIPE_BUF on Linux).
_PIECE = select.PIPE_BUF


class LineWriter:
    """A bounded queue of lines and the daemon thread that writes them to ``stream``.

    ``put`` never blocks: a line for which there is no room is dropped and counted. The first line put after a gap is
    preceded by the line that ``tell_gap`` makes of the number of lines dropped. Lines that cannot be written count as
    dropped too. ``stream`` None drops everything.

    Bounds: ``most_lines`` and ``most_bytes`` of waiting lines. The lock is held for list operations only.

    Raises:
        RuntimeError: when the system has no thread to give.
    """

    def __init__(
        self,
        stream: TextIO | None,
        tell_gap: Callable[[int], bytes],
        *,
        most_lines: int = MOST_LINES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._stream = stream
        self._descriptor = descriptor_of(stream)
        self._tell_gap = tell_gap
        self._most_lines, self._most_bytes = most_lines, most_bytes
        # A condition's lock is re-entrant: a finalizer that logs inside ``put`` does not deadlock.
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._busy = self._stopping = self._abandoned = False
        self._dropped = self._untold = 0
        self._in_write = False
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines nobody got, since the start."""
        return self._dropped

    @property
    def waiting(self) -> int:
        """How many lines the thread has not begun to write."""
        return len(self._lines)

    @property
    def last_lived(self) -> float:
        """When the thread last showed that it lives, in monotonic seconds.

        It shows that at least every BEAT_SECONDS, with nothing to write and also while the reader takes nothing: a
        full pipe is the reader's failure, its lines are dropped and counted, and the agent goes on. A write that the
        kernel blocks counts as life for the same reason. So an old value says one thing: the thread has ended, or it
        gets no processor, and lines are lost for good.
        """
        return time.monotonic() if self._in_write and self._thread.is_alive() else self._beat

    def put(self, line: bytes) -> None:
        """Queue a line, which ends in a newline, or drop it."""
        with self._changed:
            gap = self._tell_gap(self._untold) if self._untold else b""
            size = len(line) + len(gap)
            full = len(self._lines) >= self._most_lines or self._bytes + size > self._most_bytes
            if full or self._stopping:
                self.count_dropped()
                return
            self._untold = 0
            self._lines.append(gap + line)
            self._bytes += size
            self._changed.notify_all()

    def count_dropped(self) -> None:
        """Count a line that was lost on its way."""
        with self._changed:
            self._dropped += 1
            self._untold += 1

    def flush(self, seconds: float) -> bool:
        """Wait until all lines are written, at most ``seconds``; return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._busy, seconds)

    def stop(self, seconds: float) -> None:
        """Take no more lines, wait at most ``seconds`` until those queued are written, and let the thread end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self.flush(seconds)
        self._abandoned = True

    def _run(self) -> None:
        while (line := self._next()) is not None:
            if not self._written(line):
                self.count_dropped()

    def _next(self) -> bytes | None:
        """Wait for a line; None when the thread shall end."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            while not self._lines or self._abandoned:
                self._beat = time.monotonic()
                if self._stopping:
                    return None
                self._changed.wait(BEAT_SECONDS)
            line = self._lines.popleft()
            self._bytes -= len(line)
            self._busy = True
            return line

    def _written(self, line: bytes) -> bool:
        try:
            if self._descriptor is not None:
                return self._write_pieces(self._descriptor, line)
            if self._stream is None:
                return False
            self._stream.write(line.decode("ascii"))
            self._stream.flush()
        # A stream may raise anything (a closed one: ValueError). The line is lost and counted; the next is tried.
        except Exception:
            return False
        return True

    def _write_pieces(self, descriptor: int, line: bytes) -> bool:
        rest = memoryview(line)
        while rest:
            self._beat = time.monotonic()
            if self._abandoned:
                return False
            if not writable(descriptor, BEAT_SECONDS):
                continue
            self._in_write = True
            try:
                # Not the process's other writers to the same pipe: then write(2) may block, in this thread alone.
                with suppress(BlockingIOError):
                    rest = rest[os.write(descriptor, rest[:_PIECE]) :]
            finally:
                self._in_write = False
        return True


def descriptor_of(stream: TextIO | None) -> int | None:
    """Return the file descriptor under a stream, None when it has none."""
    if stream is None:
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # io.UnsupportedOperation is both of the first two
        return None


def writable(descriptor: int, seconds: float) -> bool:
    """Wait at most ``seconds`` until a piece can be written, or writing fails at once; return whether that is so."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


def write_at_once(descriptor: int, data: bytes, seconds: float) -> bool:
    """Write at most one piece of ``data`` without blocking, after waiting at most ``seconds`` for room.

    The descriptor is non-blocking for that moment: another thread may fill the pipe between the wait and the write.
    """
    try:
        if not writable(descriptor, seconds):
            return False
        before = os.get_blocking(descriptor)
        os.set_blocking(descriptor, False)
        try:
            os.write(descriptor, data[:_PIECE])
        finally:
            os.set_blocking(descriptor, before)
    except OSError:
        return False
    return True
