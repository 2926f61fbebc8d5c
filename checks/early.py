"""The first thing that runs: signals that come while Python still imports the rest.

This module imports next to nothing, so that the time without handlers is short.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn


def heed_signals() -> None:
    """End with exit code 0 on SIGTERM and SIGINT, and ignore SIGHUP.

    The kernel drops a signal to process 1 of a container that has no handler (pid_namespaces(7)): the container would
    live on until its grace period is over. Files are read again as they change, so SIGHUP asks for nothing.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    # Nothing has begun: there is nothing to close, and an exception could be lost in a half-done import.
    os._exit(0)
