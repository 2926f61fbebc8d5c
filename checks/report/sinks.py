"""Where results go: a list of sinks, each told of every result and of the checks that are still made."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from typing import Protocol

from checks.model import CheckResult

log = logging.getLogger("kubenurse.checks")


class Sink(Protocol):
    """Takes results. Both methods return at once and may be called from any thread."""

    def take(self, result: CheckResult) -> None:
        """Take in one finished check."""

    def retain(self, types: Collection[str]) -> None:
        """Forget, now or in time, the checks of all other types: they are no longer made."""


class Sinks:
    """Hands each result to every sink; a sink that fails is logged and keeps no result from the others.

    ``types`` returns the types of the checks made now.
    """

    def __init__(self, sinks: Collection[Sink], types: Callable[[], Collection[str]]) -> None:
        self._sinks = tuple(sinks)
        self._types = types
        self._lock = threading.Lock()

    def take(self, result: CheckResult) -> None:
        """Hand a result to every sink."""
        for sink in self._sinks:
            try:
                sink.take(result)
            except Exception:
                log.exception("taking a result failed", extra={"facts": {"type": result.type}})

    def prune(self) -> None:
        """Let every sink forget the departed checks."""
        # The types are read within the lock, so that the newest ones come last.
        with self._lock:
            types = frozenset(self._types())
            for sink in self._sinks:
                sink.retain(types)
