"""Tells discovery that the API server is back, as soon as a check of it says so."""

from __future__ import annotations

from collections.abc import Callable, Collection

from checks.model import API_SERVER_DIRECT, API_SERVER_DNS, CheckResult


class Recovery:
    """A sink of results that calls ``answered`` when a check of the API server is ok after it failed.

    It keeps the type of each API server check that fails, two at most. ``answered`` returns at once.
    """

    def __init__(self, answered: Callable[[], None]) -> None:
        self._answered = answered
        self._failing: set[str] = set()

    def take(self, result: CheckResult) -> None:
        """Take in one finished check."""
        if result.type not in (API_SERVER_DIRECT, API_SERVER_DNS):
            return
        if not result.ok:
            self._failing.add(result.type)
        elif result.type in self._failing:
            self._failing.discard(result.type)
            self._answered()

    def retain(self, types: Collection[str]) -> None:
        """Forget the checks that are no longer made."""
        self._failing.intersection_update(types)
