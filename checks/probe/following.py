"""The sink that has failures followed by witnesses."""

from __future__ import annotations

from collections.abc import Callable, Collection

from checks.model import CheckResult, Target
from checks.probe.witnesses import Witnesses


class Following:
    """Hands each result, with its target, to the witnesses; ``target_of`` returns the target of a type, at once."""

    def __init__(self, witnesses: Witnesses, target_of: Callable[[str], Target | None]) -> None:
        self._witnesses = witnesses
        self._target_of = target_of

    def take(self, result: CheckResult) -> None:
        """Take in one finished check."""
        target = self._target_of(result.type)
        if target is not None:
            self._witnesses.note(target, result)

    def retain(self, types: Collection[str]) -> None:
        """Forget the checks that are no longer made."""
        self._witnesses.retain(types)
