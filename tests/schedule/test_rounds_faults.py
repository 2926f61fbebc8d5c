"""Bounds and faults: hanging checks, a system without threads, checks and sinks that raise."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from checks.schedule.rounds import GRACE, LONGEST_BURST, MOST_WORKERS
from tests.schedule.world import PATIENCE, Make, World, fail, names, no_thread_to_be_had
from tests.support.waiting import until


def test_more_hanging_checks_than_workers(make: Make) -> None:
    """With every worker hanging, a caller is answered in bounded time, and the waiting checks run later."""
    timeout, world = 0.2, World("quick", *names(MOST_WORKERS + 10))
    world.hold(*names(MOST_WORKERS + 10))
    rounds = make(world, timeout=timeout)
    begun = time.monotonic()
    found = rounds.fresh()
    assert time.monotonic() - begun < LONGEST_BURST + timeout + GRACE + PATIENCE / 3
    assert list(found) == ["quick"]
    world.wait_for(lambda: world.running.total() == MOST_WORKERS)
    world.release()
    world.wait_for(lambda: len(world.results) == MOST_WORKERS + 11)
    assert world.most_running == MOST_WORKERS
    assert list(rounds.latest()) == world.kinds
    assert set(Counter(kind for kind, _ in world.started).values()) == {1}


def test_check_that_hangs_answers_with_its_last_result(make: Make) -> None:
    """While a check takes longer than its timeout, a caller gets its last result."""
    world = World("me_service")
    rounds = make(world, timeout=0.05, ttl=0.0)
    before = rounds.fresh()
    world.hold("me_service")
    assert rounds.fresh() == before
    assert world.running["me_service"] == 1


def test_without_a_thread_to_be_had_checks_wait_for_better_times(make: Make, logged: pytest.LogCaptureFixture) -> None:
    """When the system refuses a thread, a caller gets the known results; later the check runs once."""
    world = World("me_service")
    rounds = make(world)
    with no_thread_to_be_had():
        assert rounds.fresh() == {}
        assert rounds.fresh() == {}
    assert logged.messages.count("starting a check failed") >= 2
    assert rounds.fresh()["me_service"].ok
    rounds.close()
    assert world.count("me_service") == 1


def test_timer_survives_a_system_without_threads(make: Make, logged: pytest.LogCaptureFixture) -> None:
    """When the system refuses the timer's next thread, rounds go on as soon as a thread can be had."""
    world = World("me_service")
    make(world, interval=0.05).start()
    world.wait_started("me_service")
    with no_thread_to_be_had():
        until(lambda: "scheduling a round failed, trying again" in logged.messages)
    known = len(world.rounds)
    world.wait_for(lambda: len(world.rounds) >= known + 3)


def test_check_that_raises_loses_nothing_else(make: Make, logged: pytest.LogCaptureFixture) -> None:
    """A check that raises has no result; the others have theirs, and it is tried again in the next round."""
    world = World("raises", "me_service")
    world.doing["raises"] = fail
    rounds = make(world, interval=0.05, ttl=0.0)
    assert list(rounds.fresh()) == ["me_service"]
    assert "running a check failed" in logged.messages
    rounds.start()
    world.wait_started("raises", 4)
    world.doing.clear()
    world.wait_for(lambda: any(result.type == "raises" for result in world.results))


def test_a_sink_that_raises_loses_no_result(make: Make, logged: pytest.LogCaptureFixture) -> None:
    """A sink may raise: each result is kept, and rounds go on."""
    world = World("me_service", "path_a")
    world.doing["take"] = fail
    rounds = make(world, interval=0.05)
    assert list(rounds.fresh()) == world.kinds
    assert "running a check failed" in logged.messages
    rounds.start()
    world.wait_for(lambda: len(world.results) >= 6)


def test_pruning_that_raises_loses_no_check(make: Make, logged: pytest.LogCaptureFixture) -> None:
    """Pruning may raise: the checks of the round are made, on time and on demand."""
    world = World("me_service", "path_a")
    world.doing["prune"] = fail
    rounds = make(world, interval=0.05)
    assert list(rounds.fresh()) == world.kinds
    assert "pruning departed checks failed" in logged.messages
    rounds.start()
    world.wait_started("path_a", 3)


def test_targets_that_raise_do_not_end_the_timer(make: Make, logged: pytest.LogCaptureFixture) -> None:
    """A round whose targets raise is left out; the timer goes on, and a caller gets the error."""
    world = World("me_service")
    world.doing["targets"] = fail
    rounds = make(world, interval=0.05)
    rounds.start()
    until(lambda: logged.messages.count("starting a round failed") >= 3)
    with pytest.raises(ValueError, match="as told"):
        rounds.fresh()
    world.doing.clear()
    world.wait_started("me_service", 2)
