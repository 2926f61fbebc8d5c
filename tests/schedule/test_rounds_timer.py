"""The timer starts round after round on time, whatever the checks do."""

from __future__ import annotations

import itertools
import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.schedule.rounds import SPREAD, next_round
from tests.schedule.world import LONG, Make, World, names


def test_all_targets_are_checked_round_after_round(make: Make) -> None:
    """Each round checks each target once, after it has pruned departed checks."""
    world = World("api_server_direct", "me_service")
    make(world, interval=0.05).start()
    world.wait_for(lambda: len(world.rounds) >= 4)
    world.wait_started("me_service", 3)
    assert {types for types, _ in world.rounds} == {frozenset(world.kinds)}
    assert abs(world.count("api_server_direct") - world.count("me_service")) <= 1


def test_timer_does_not_ask_for_freshness(make: Make) -> None:
    """The timer checks anew although the result is still fresh."""
    world = World("me_service")
    rounds = make(world, interval=0.05, ttl=LONG)
    rounds.fresh()
    rounds.start()
    world.wait_started("me_service", 4)


@given(
    planned=st.floats(0, 1e7),
    interval=st.floats(0.1, 86400),
    elapsed=st.floats(0, 1e6),
)
def test_next_round_is_on_the_grid_of_the_plan(planned: float, interval: float, elapsed: float) -> None:
    """The next round is a whole number of intervals after the plan, and the first such moment in the future."""
    now = planned + elapsed
    following = next_round(planned, now, interval)
    whole = (following - planned) / interval
    rounding = 1e-6
    assert math.isclose(whole, round(whole), rel_tol=0, abs_tol=rounding)
    assert round(whole) >= 1
    assert following >= now - rounding
    assert following <= now + interval + rounding


@pytest.mark.parametrize(
    ("now", "following"),
    [(100.0, 105.0), (104.9, 105.0), (99.0, 105.0), (105.1, 110.0), (123.0, 125.0)],
    ids=["on time", "slow round", "too early", "one missed", "four missed"],
)
def test_next_round(now: float, following: float) -> None:
    """A slow round does not shift the next round; missed rounds are left out."""
    assert next_round(100.0, now, 5.0) == following


def test_slow_rounds_do_not_add_up(make: Make) -> None:
    """Rounds that take most of their interval start as often as quick rounds."""
    interval, took = 0.2, 0.15
    world = World("me_service")
    world.doing["targets"] = lambda: threading.Event().wait(took)
    make(world, interval=interval).start()

    def in_time() -> int:
        """Count the rounds that began sooner after the one before than an interval that starts at its end allows."""
        starts = [start for _, start in world.rounds]
        return sum(later - earlier < took + interval for earlier, later in itertools.pairwise(starts))

    # A busy machine may hold up some of them, which then are left out, but not all.
    world.wait_for(lambda: in_time() >= 5)


def test_hanging_check_holds_up_nothing_else(make: Make) -> None:
    """While one check hangs the others go on round after round, and the hanging one is not started again."""
    world = World("hangs", "me_service")
    world.hold("hangs")
    make(world, interval=0.05).start()
    world.wait_started("me_service", 4)
    assert world.count("hangs") == 1
    world.release()
    world.wait_started("hangs", 3)
    assert world.most_running_of_one == 1


def test_starts_are_spread_over_the_interval(make: Make) -> None:
    """The checks of a round start one after the other over the interval."""
    interval, world = 0.5, World(*names(5))
    begun = time.monotonic()
    make(world, interval=interval).start()
    world.wait_started("path_4")
    first_round = dict(reversed(world.started))
    for position, kind in enumerate(names(5)):
        assert first_round[kind] - begun >= position / 5 * interval * SPREAD


def test_first_round_waits_for_its_phase(make: Make) -> None:
    """The first round starts at the agent's phase in the interval."""
    world = World("me_service")
    begun = time.monotonic()
    make(world, interval=0.2, phase=0.9).start()
    world.wait_started("me_service")
    assert world.started[0][1] - begun >= 0.9 * 0.2


def test_phase_is_random(make: Make) -> None:
    """Agents that start together have their first rounds at different moments of the interval."""
    # A cancelled timer of an earlier test may still be ending.
    earlier = threading.enumerate()
    for _ in range(5):
        make(World("me_service"), interval=LONG, phase=None).start()
    timers = [
        thread for thread in threading.enumerate() if isinstance(thread, threading.Timer) and thread not in earlier
    ]
    waits = sorted(timer.interval for timer in timers if timer.name == "round")
    assert len(waits) == 5
    assert waits[-1] <= LONG
    assert waits[-1] - waits[0] > 1.0


def test_no_targets_no_checks(make: Make) -> None:
    """Rounds without targets go on, and check a target that is added later."""
    world = World()
    rounds = make(world, interval=0.05)
    rounds.start()
    world.wait_for(lambda: len(world.rounds) >= 3)
    assert rounds.fresh() == rounds.latest() == {}
    world.kinds = ["me_service"]
    world.wait_started("me_service")


def test_targets_may_change_between_rounds(make: Make) -> None:
    """A new target is checked from the next round on, and a departed target no longer."""
    world = World("path_a", "path_b")
    rounds = make(world, interval=0.05)
    rounds.start()
    world.wait_started("path_b", 2)
    world.kinds = ["path_b", "path_c"]
    world.wait_for(lambda: world.rounds[-1][0] == {"path_b", "path_c"})
    gone, known = world.count("path_a"), len(world.rounds)
    world.wait_started("path_c", 3)
    world.wait_for(lambda: len(world.rounds) >= known + 3)
    assert world.count("path_a") == gone
    assert list(rounds.latest()) == ["path_b", "path_c"]


def test_results_of_gone_targets_are_forgotten(make: Make) -> None:
    """A target that left and came back is checked anew: its result was dropped."""
    world = World("path_a", "path_b")
    rounds = make(world, ttl=LONG)
    rounds.fresh()
    world.kinds = ["path_b"]
    assert list(rounds.latest()) == ["path_b"]
    rounds.fresh()
    world.kinds = ["path_a", "path_b"]
    assert list(rounds.latest()) == ["path_b"]
    rounds.fresh()
    assert (world.count("path_a"), world.count("path_b")) == (2, 1)
