"""Costly work whose result serves everybody: callers that ask while it is done share its result."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class BusyError(Exception):
    """There was no room to wait for the result, or waiting took too long; it may be there when asked again."""


class SharedWork(Generic[Result]):
    """Does work of one kind for many callers: callers with the same key share the result of the work under way.

    A result is as old as the work under way when its caller came, never older: nothing is kept afterwards.

    Bounded are the callers that wait, with the caller that does the work: ``most`` in all and ``most_of_address`` from
    one client address, so that one client cannot fill the room. A caller that finds none, or waits ``seconds`` for
    another one's work, gets a BusyError.
    """

    def __init__(self, *, most: int, most_of_address: int, seconds: float) -> None:
        self._most = most
        self._most_of_address = most_of_address
        self._seconds = seconds
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, _Work[Result]] = {}
        self._waiting: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """How many callers wait now, those that do the work included."""
        with self._lock:
            return self._waiting.total()

    @property
    def under_way(self) -> int:
        """How many works of different keys are under way, those that wait for a turn included."""
        with self._lock:
            return len(self._under_way)

    def result(self, key: Hashable, address: str, do: Callable[[], Result]) -> Result:
        """Return the result of the work under way for ``key``, or do it.

        Raises:
            BusyError: see above; also when another caller's work failed with it.
            SharedWorkError: when another caller's work failed otherwise. The own work's error passes unchanged.
        """
        with self._lock:
            if self._waiting.total() >= self._most or self._waiting[address] >= self._most_of_address:
                raise BusyError("too many callers wait")
            work = self._under_way.get(key)
            does_it = work is None
            if work is None:
                work = self._under_way[key] = _Work()
            self._waiting[address] += 1
        try:
            return self._do(key, work, do) if does_it else work.wait(self._seconds)
        finally:
            with self._lock:
                self._waiting[address] -= 1
                if not self._waiting[address]:
                    del self._waiting[address]

    def _do(self, key: Hashable, work: _Work[Result], do: Callable[[], Result]) -> Result:
        try:
            result = do()
        except BaseException as error:
            work.error = error
            raise
        else:
            work.results.append(result)
            return result
        finally:
            with self._lock:
                del self._under_way[key]
            work.done.set()


class SharedWorkError(Exception):
    """The work that another caller did failed; the message says how."""


class _Work(Generic[Result]):
    """One piece of work: its result (a list, which also tells that there is none), or why it failed."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.results: list[Result] = []
        self.error: BaseException | None = None

    def wait(self, seconds: float) -> Result:
        if not self.done.wait(seconds):
            raise BusyError(f"no result within {seconds:g} s")
        if self.results:
            return self.results[0]
        if isinstance(self.error, BusyError):
            raise BusyError(str(self.error))
        raise SharedWorkError(repr(self.error))


class Turn:
    """Lets one thread at a time do something, the others wait at most ``seconds`` for their turn."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._free = threading.Semaphore()
        self._ended = 0.0

    def take(self, do: Callable[[], Result], rest: Callable[[], float] = lambda: 0.0) -> Result:
        """Do it when it is this thread's turn, and ``rest()`` seconds have passed since the last turn ended.

        Raises:
            BusyError: when that did not come in time.
        """
        if not self._free.acquire(timeout=self._seconds):
            raise BusyError(f"no turn within {self._seconds:g} s")
        try:
            pause = self._ended + min(rest(), self._seconds) - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            return do()
        finally:
            self._ended = time.monotonic()
            self._free.release()
