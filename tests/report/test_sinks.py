"""Each sink gets every result and learns which checks are still made."""

from __future__ import annotations

from collections.abc import Collection

from checks.model import OK, CheckResult
from checks.report.sinks import Sinks


class Noting:
    """Notes what it is told; ``fails`` makes it raise."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.taken: list[CheckResult] = []
        self.retained: list[frozenset[str]] = []

    def take(self, result: CheckResult) -> None:
        """Note a result."""
        if self.fails:
            raise ValueError("as told")
        self.taken.append(result)

    def retain(self, types: Collection[str]) -> None:
        """Note the types."""
        self.retained.append(frozenset(types))


def test_a_sink_that_fails_keeps_no_result_from_the_others() -> None:
    """The sinks after a failing sink get the result too."""
    before, after = Noting(), Noting()
    result = CheckResult("me_service", OK)
    Sinks((before, Noting(fails=True), after), lambda: ()).take(result)
    assert before.taken == after.taken == [result]


def test_pruning_tells_every_sink_the_types_of_now() -> None:
    """The types are asked for at each pruning."""
    types = ["me_service", "path_a"]
    first, second = Noting(), Noting()
    sinks = Sinks((first, second), lambda: types)
    sinks.prune()
    types.pop()
    sinks.prune()
    assert first.retained == second.retained == [{"me_service", "path_a"}, {"me_service"}]
