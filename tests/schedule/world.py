"""A world for rounds: targets, checks that hang when told to, and ears that note what they hear."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from checks.model import OK, CheckResult, Target
from checks.schedule.rounds import Rounds

PATIENCE = 10.0
LONG = 3600.0
# Larger than any address space, so that the system refuses it also where it promises more memory than it has
# (vm.overcommit_memory=1, which every kubelet sets).
NO_STACK_IS_THIS_LARGE = 1 << 56


class World:
    """What rounds work with: targets, checks that end at once unless they are held, and ears that note what they hear.

    ``doing`` says what happens besides in ``targets``, ``prune``, ``take`` or a check of a type.
    """

    def __init__(self, *kinds: str) -> None:
        self.kinds = list(kinds)
        self.urls: dict[str, str] = {}
        self.doing: dict[str, Callable[[], object]] = {}
        self.started: list[tuple[str, float]] = []
        self.results: list[CheckResult] = []
        self.rounds: list[tuple[frozenset[str], float]] = []
        self.running: Counter[str] = Counter()
        self.most_running = self.most_running_of_one = 0
        self._held: dict[str, threading.Event] = {}
        self._changed = threading.Condition()

    def targets(self) -> list[Target]:
        """Return what to check."""
        self._do("targets")
        return [Target(kind, self.urls.get(kind, "http://127.0.0.1/")) for kind in self.kinds]

    def check(self, target: Target) -> CheckResult:
        """Check a target, for as long as it is held."""
        with self._changed:
            self.started.append((target.type, time.monotonic()))
            self.running[target.type] += 1
            self.most_running = max(self.most_running, self.running.total())
            self.most_running_of_one = max(self.most_running_of_one, self.running[target.type])
            number = len(self.started)
            held = self._held.get(target.type)
            self._changed.notify_all()
        if held is not None:
            held.wait(PATIENCE)
        with self._changed:
            self.running[target.type] -= 1
        self._do(target.type)
        return CheckResult(target.type, OK, duration=float(number))

    def take(self, result: CheckResult) -> None:
        """Note a result."""
        with self._changed:
            self.results.append(result)
            self._changed.notify_all()
        self._do("take")

    def prune(self) -> None:
        """Note a round."""
        with self._changed:
            self.rounds.append((frozenset(self.kinds), time.monotonic()))
            self._changed.notify_all()
        self._do("prune")

    def hold(self, *kinds: str) -> None:
        """Make the checks of these types hang."""
        self._held.update({kind: threading.Event() for kind in kinds})

    def release(self) -> None:
        """Let all checks end, also those that hang."""
        held, self._held = self._held, {}
        for event in held.values():
            event.set()

    def let_go_on(self, kind: str) -> threading.Event:
        """Hold no more checks of a type; the one that is held ends with the event returned."""
        return self._held.pop(kind)

    def count(self, kind: str) -> int:
        """How often a check was started."""
        return sum(1 for started, _ in self.started if started == kind)

    def wait_for(self, truth: Callable[[], bool]) -> None:
        """Wait until something that checks, results and rounds bring about is true."""
        with self._changed:
            assert self._changed.wait_for(truth, PATIENCE), "it did not come true"

    def wait_started(self, kind: str, times: int = 1) -> None:
        """Wait until a check was started so many times."""
        self.wait_for(lambda: self.count(kind) >= times)

    def _do(self, what: str) -> None:
        self.doing.get(what, lambda: None)()


def fail() -> None:
    """Raise an unexpected exception."""
    raise ValueError("as told")


Make = Callable[..., Rounds]


def names(count: int) -> list[str]:
    """So many types of checks."""
    return [f"path_{number}" for number in range(count)]


@contextmanager
def no_thread_to_be_had() -> Iterator[None]:
    """Make the system refuse new threads, for want of memory for their stacks."""
    threading.stack_size(NO_STACK_IS_THIS_LARGE)
    try:
        yield
    finally:
        threading.stack_size(0)
