"""What ends the agent: a signal, the death of a part or the watchdog; and how it ends, in bounded time."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable
from types import FrameType
from typing import NoReturn

_REPORTED = 0  # the number of no signal
# Signals that end the agent with exit code 0.
ORDERLY = (signal.SIGTERM, signal.SIGINT)
# How long the interpreter may take to end its threads after main has returned, in seconds.
LEAVE_SECONDS = 1.0


class Exits:
    """Waits for an event that is to end the process; to be made, and waited on, in the main thread.

    A signal comes as its number through a socket. The part of Python's handler that the kernel calls sends it, in any
    thread (``signal.set_wakeup_fd``). The other part, a Python function, runs in the main thread once that executes
    Python again. A main thread that is blocked in a lock would lose the SIGTERM that another thread was given.
    """

    def __init__(self, signals: Iterable[signal.Signals] = ORDERLY) -> None:
        self._reported: deque[str] = deque()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        # A full socket holds the reason to end already.
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, _taken)

    def report(self, why: str) -> None:
        """Say in words what else ends the process; from any thread."""
        self._reported.append(why)
        with contextlib.suppress(OSError):
            self._writer.send(bytes([_REPORTED]))

    def wait(self, timeout: float | None = None) -> str:
        """Return the next signal's name or the next report; empty when nothing came in ``timeout`` seconds."""
        self._reader.settimeout(timeout)
        try:
            (number,) = self._reader.recv(1)
        except (TimeoutError, BlockingIOError):  # the second for a timeout of 0
            return ""
        return signal.Signals(number).name if number != _REPORTED else self._reported.popleft()

    def close(self) -> None:
        """Wait no more. Signals that still come do nothing: the process ends with its own exit code."""
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()


class LastResort:
    """Ends the process at a moment that is set later, even while every other thread waits.

    Its thread starts with the agent: while memory is short, no thread can be started to end a process.
    """

    def __init__(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: when the system has no thread to give.
        """
        self._armed = threading.Event()
        self._seconds, self._code = 0.0, 0
        threading.Thread(target=self._wait, name="last-resort", daemon=True).start()

    def arm(self, seconds: float, code: int) -> None:
        """End the process with ``code`` after ``seconds``, unless it has ended by then."""
        self._seconds, self._code = seconds, code
        self._armed.set()

    def _wait(self) -> None:
        self._armed.wait()
        time.sleep(self._seconds)
        os._exit(self._code)


def leave(code: int, seconds: float = LEAVE_SECONDS) -> NoReturn:
    """End the process with ``code``, after the threads that end within ``seconds`` and after Python's exit functions.

    A thread that hangs in a read, say of a file on a dead network mount, cannot be ended, and Python would wait for it.
    Python's own end also unwinds its daemon threads, which aborts the process while memory is short.
    """
    deadline = time.monotonic() + seconds
    # Whatever these raise, the process ends with its code.
    with contextlib.suppress(BaseException):
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join(max(0.0, deadline - time.monotonic()))
        atexit._run_exitfuncs()  # the one way to run them before os._exit
    os._exit(code)


def _taken(_number: int, _frame: FrameType | None) -> None:
    """Replace the default action of the signal; the number arrives by the socket."""
