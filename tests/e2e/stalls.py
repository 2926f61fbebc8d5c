"""Stalls of the machine. Measurements during a stall do not describe the agents."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, Self

P = ParamSpec("P")

TICK = 0.05
# Seconds. A shorter stall is far from a check's timeout, and within the slack of the limits.
STALL = 0.3
ATTEMPTS = 3


class Pulse:
    """Sleeps for ``TICK`` again and again; ``longest`` is by how many seconds it woke too late, at most."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        before = time.monotonic()
        stopping = False
        while not stopping:
            stopping = self._stopping.wait(TICK)
            now = time.monotonic()
            self.longest = max(self.longest, now - before - TICK)
            before = now


def again_after_a_stall(test: Callable[P, None]) -> Callable[P, None]:
    """Repeat a failed test if the machine stalled during it, at most ``ATTEMPTS`` times in all."""

    @functools.wraps(test)
    def attempts(*args: P.args, **kwargs: P.kwargs) -> None:
        for left in reversed(range(ATTEMPTS)):
            with Pulse() as pulse:
                try:
                    return test(*args, **kwargs)
                except AssertionError as error:
                    if pulse.longest < STALL or not left:
                        raise
                    failure = error
            # pytest shows this with the test's output.
            print(f"tried again, as the machine stood still for {pulse.longest:.2f} s: {failure}")  # noqa: T201
        return None

    return attempts
