"""Targets that leave while a round is under way: neither checked any more nor blamed for anything."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from checks.model import OK, CheckResult, Target
from checks.schedule.rounds import Rounds

STAYS, LEAVES = Target("stays", "http://192.0.2.1/"), Target("path_leaves", "http://192.0.2.2/")
MOVED = Target("path_leaves", "http://192.0.2.3/")
TIMEOUT = 20.0


class Fleet:
    """What is to be checked and what was; ``left`` is what is to be checked once the first round has begun."""

    def __init__(self) -> None:
        self.targets: tuple[Target, ...] = (STAYS, LEAVES)
        self.left: tuple[Target, ...] = self.targets
        self.checked: list[Target] = []
        self.results: list[str] = []
        self.rounds_of_stays = threading.Semaphore(0)
        self.leaving_is_checked = threading.Event()
        self.go_on = threading.Event()

    def check(self, target: Target) -> CheckResult:
        """Note the check; that of what leaves takes until the test says."""
        self.checked.append(target)
        if target == LEAVES:
            self.leaving_is_checked.set()
            assert self.go_on.wait(TIMEOUT)
        return CheckResult(target.type, OK)

    def prune(self) -> None:
        """Let who leaves leave."""
        self.targets = self.left

    def take(self, result: CheckResult) -> None:
        """Note the result."""
        self.results.append(result.type)
        if result.type == STAYS.type:
            self.rounds_of_stays.release()

    def rounds(self, interval: float) -> Rounds:
        """Rounds over this fleet."""
        return Rounds(
            targets=lambda: self.targets,
            check=self.check,
            take=self.take,
            begin=self.prune,
            interval=interval,
            timeout=TIMEOUT,
            ttl=0.0,
            phase=0.0,
            wants=lambda target: target in self.targets,
        )


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A fleet whose checks end in any case."""
    made = Fleet()
    yield made
    made.go_on.set()


@pytest.mark.parametrize("left", [(STAYS,), (STAYS, MOVED)], ids=["gone", "moved"])
def test_what_left_since_the_round_began_is_not_checked(fleet: Fleet, left: tuple[Target, ...]) -> None:
    """Of a round that is spread out, a target whose turn comes after it left is passed over."""
    fleet.left = left
    with closing(fleet.rounds(interval=0.2)) as rounds:
        rounds.start()
        for _ in range(3):
            assert fleet.rounds_of_stays.acquire(timeout=TIMEOUT)
    assert LEAVES not in fleet.checked
    assert (MOVED in fleet.checked) == (MOVED in left)


@pytest.mark.parametrize("left", [(STAYS,), (STAYS, MOVED)], ids=["gone", "moved"])
def test_the_result_of_what_left_meanwhile_is_dropped(fleet: Fleet, left: tuple[Target, ...]) -> None:
    """A check that ends after its target left says nothing: who ends on purpose breaks off what is under way."""
    with closing(fleet.rounds(interval=3600.0)) as rounds:
        asking = threading.Thread(target=rounds.fresh)
        asking.start()
        assert fleet.leaving_is_checked.wait(TIMEOUT)
        fleet.targets = fleet.left = left
        fleet.go_on.set()
        asking.join(TIMEOUT)
        assert rounds.latest().keys() == {STAYS.type}
    assert fleet.results == [STAYS.type]
