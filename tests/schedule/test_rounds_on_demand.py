"""Checks on demand: each check runs once at a time, and its callers share the result."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from checks.schedule.rounds import BURST_SPACING, LONGEST_BURST
from tests.schedule.world import LONG, PATIENCE, Make, World, names


def test_fresh_runs_checks_without_a_result(make: Make) -> None:
    """The first caller gets a result of every target, in the order of the targets."""
    world = World("me_service", "api_server_direct", "path_a")
    found = make(world).fresh()
    assert list(found) == world.kinds
    assert all(result.ok for result in found.values())
    assert {result.type for result in world.results} == set(world.kinds)


def test_fresh_runs_only_stale_checks(make: Make) -> None:
    """A result within the TTL is returned as it is; the other checks run."""
    world = World("me_service")
    rounds = make(world, ttl=LONG)
    before = rounds.fresh()["me_service"]
    world.kinds.append("path_a")
    found = rounds.fresh()
    assert found["me_service"] is before
    assert [kind for kind, _ in world.started] == ["me_service", "path_a"]


def test_young_results_are_returned_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only checks that run are spread over a burst: a caller that needs none waits for nothing."""
    world = World(*names(20))
    rounds = make(world, ttl=LONG)
    rounds.fresh()
    monkeypatch.setattr("checks.schedule.rounds.BURST_SPACING", 1.0)
    monkeypatch.setattr("checks.schedule.rounds.LONGEST_BURST", 20.0)
    begun = time.monotonic()
    assert len(rounds.fresh()) == 20
    assert time.monotonic() - begun < PATIENCE


def test_ttl_of_zero_checks_for_every_caller(make: Make) -> None:
    """With a TTL of 0 each caller gets new results."""
    world = World("me_service", "path_a")
    rounds = make(world, ttl=0.0)
    for times in (1, 2, 3):
        rounds.fresh()
        assert (world.count("me_service"), world.count("path_a")) == (times, times)


def test_callers_at_the_same_time_share_one_run(make: Make) -> None:
    """Each check runs once, and all callers get its result."""
    askers, world = 8, World("me_service")
    world.hold("me_service")
    rounds = make(world)
    with ThreadPoolExecutor(askers) as pool:
        asked = [pool.submit(rounds.fresh) for _ in range(askers)]
        world.wait_for(lambda: len(world.rounds) == askers)
        world.wait_started("me_service")
        world.release()
        found = [each.result(PATIENCE)["me_service"] for each in asked]
    assert world.count("me_service") == 1
    assert all(result is found[0] for result in found)


def test_a_caller_just_after_a_check_takes_its_result(make: Make) -> None:
    """A caller that found no result, but then a check that has just ended, takes its result: each check runs once."""
    askers = 8
    together = threading.Barrier(askers)
    world = World(*(f"path_{number}" for number in range(20)))
    # All have looked for results before the first check starts, and the spacing lets the first ones end.
    world.doing["prune"] = lambda: together.wait(PATIENCE) and None
    rounds = make(world)
    with ThreadPoolExecutor(askers) as pool:
        for asked in [pool.submit(rounds.fresh) for _ in range(askers)]:
            assert len(asked.result(PATIENCE)) == 20
    assert {kind: world.count(kind) for kind in world.kinds} == dict.fromkeys(world.kinds, 1)


def test_fresh_joins_the_timers_check(make: Make) -> None:
    """A caller waits for the check that the timer has started."""
    world = World("me_service")
    world.hold("me_service")
    rounds = make(world, ttl=0.0)
    rounds.start()
    world.wait_started("me_service")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(rounds.fresh)
        world.wait_for(lambda: len(world.rounds) == 2)
        assert not asked.done()
        assert world.count("me_service") == 1
        world.release()
        assert asked.result(PATIENCE)["me_service"].ok
    assert world.most_running_of_one == 1


def test_a_pod_that_replaced_another_is_checked_for_itself(make: Make) -> None:
    """A Pod that replaced another on its node has its own check and result, also while the old check hangs."""
    world = World("path_node")
    world.hold("path_node")
    rounds = make(world)
    with ThreadPoolExecutor(1) as pool:
        of_the_old = pool.submit(rounds.fresh)
        world.wait_started("path_node")
        hanging = world.let_go_on("path_node")
        world.urls["path_node"] = "http://127.0.0.2/"
        assert rounds.latest() == {}
        found = rounds.fresh()
        assert world.count("path_node") == 2
        hanging.set()
        of_the_old.result(PATIENCE)
    assert rounds.latest() == found
    world.urls["path_node"] = "http://127.0.0.3/"
    assert rounds.latest() == {}


def test_a_check_that_runs_although_no_thread_came_is_joined(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may take a check just when the system refuses another: it runs once, and callers wait for it."""
    world = World("me_service")
    world.hold("me_service")
    rounds = make(world, ttl=0.0)
    submit, refused = rounds._pool.submit, threading.Event()

    def refuse(*job: Any) -> None:
        """Do what the pool does in that case, at a moment that the test chooses."""
        submit(*job)
        world.wait_started("me_service")
        refused.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(rounds._pool, "submit", refuse)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(rounds.fresh) for _ in range(2)]
        assert refused.wait(PATIENCE)
        world.wait_for(lambda: len(world.rounds) == 2)
        world.release()
        assert [list(each.result(PATIENCE)) for each in asked] == [["me_service"]] * 2
    assert world.most_running_of_one == 1


def test_on_demand_checks_do_not_start_all_at_once(make: Make) -> None:
    """Checks on demand start a little apart, so that they do not measure each other."""
    count, world = 20, World(*names(20))
    begun = time.monotonic()
    make(world).fresh()
    assert max(moment for _, moment in world.started) - begun >= (count - 1) * BURST_SPACING


def test_burst_of_many_checks_is_short(make: Make) -> None:
    """All checks on demand have started after LONGEST_BURST, however many there are."""
    count, world = 2000, World(*names(2000))
    begun = time.monotonic()
    assert len(make(world).fresh()) == count
    assert time.monotonic() - begun < count * BURST_SPACING - 10 * LONGEST_BURST


def test_latest_runs_nothing(make: Make) -> None:
    """``latest`` returns the known results, however old, and runs no check."""
    world = World("me_service", "path_a")
    rounds = make(world, ttl=0.0)
    assert rounds.latest() == {}
    found = rounds.fresh()
    assert rounds.latest() == found
    assert len(world.started) == 2
    assert len(world.rounds) == 1
