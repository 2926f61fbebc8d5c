"""What ends the agent: a signal, or the death of one of its servers."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections import deque
from collections.abc import Iterable
from types import FrameType

_REPORTED = 0  # the number of no signal


class Endings:
    """Waits for what is to end the process; to be made, and waited on, in the main thread.

    A signal comes as its number through a socket, sent by the part of Python's handler that the kernel calls, in
    whichever thread (``signal.set_wakeup_fd``). The other part, a Python function, runs in the main thread once that
    executes Python again. Blocked in a lock, it does not when the signal was another thread's or came a moment before:
    then a SIGTERM would be lost.
    """

    def __init__(self, signals: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> None:
        self._reported: deque[str] = deque()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        # Were it full, nobody would be waiting.
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, _taken)

    def report(self, why: str) -> None:
        """Say in words what else ends the process; from any thread."""
        self._reported.append(why)
        with contextlib.suppress(BlockingIOError):
            self._writer.send(bytes([_REPORTED]))

    def wait(self, timeout: float | None = None) -> str:
        """Return the next signal's name or what was reported; empty when nothing came in ``timeout`` seconds."""
        self._reader.settimeout(timeout)
        try:
            (number,) = self._reader.recv(1)
        except (TimeoutError, BlockingIOError):  # the second for a timeout of 0
            return ""
        return signal.Signals(number).name if number != _REPORTED else self._reported.popleft()

    def close(self) -> None:
        """Wait no more. Signals that still come do nothing: a process that ends well shall not end by one."""
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()


def _taken(_number: int, _frame: FrameType | None) -> None:
    """Take the place of what the signal does by default."""
