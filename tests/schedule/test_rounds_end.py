"""The end of rounds: nothing starts any more, and nothing is left behind."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from checks.schedule.rounds import MOST_WORKERS
from tests.schedule.world import LONG, PATIENCE, Make, World, names
from tests.support.waiting import until


def test_stop_starts_no_check_any_more(make: Make) -> None:
    """After stop() neither the timer nor a caller starts a check; known results are still returned."""
    world = World("me_service")
    rounds = make(world, interval=0.05, ttl=0.0)
    rounds.start()
    world.wait_started("me_service", 2)
    rounds.stop()
    rounds.close()
    count = len(world.started)
    assert list(rounds.fresh()) == ["me_service"]
    rounds.start()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "round"])
    assert len(world.started) == count


def test_stop_lets_checks_under_way_go_on(make: Make) -> None:
    """A check under way at stop() brings its result to the caller that waits for it."""
    world = World("me_service")
    world.hold("me_service")
    rounds = make(world)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(rounds.fresh)
        world.wait_started("me_service")
        rounds.stop()
        assert not asked.done()
        world.release()
        assert list(asked.result(PATIENCE)) == ["me_service"]


def test_stop_in_the_middle_of_a_round(make: Make) -> None:
    """A round that is spread over a long interval ends at once, without its later checks."""
    world = World("first", "second")
    rounds = make(world, interval=LONG)
    rounds.start()
    world.wait_started("first")
    begun = time.monotonic()
    rounds.close()
    assert time.monotonic() - begun < PATIENCE
    assert world.count("second") == 0


def test_stop_in_the_middle_of_a_burst(make: Make) -> None:
    """While the agent ends, a caller gets the known results at once."""
    world = World(*names(20))
    rounds = make(world)
    world.doing["prune"] = rounds.stop
    assert rounds.fresh() == {}
    assert world.started == []


def test_checks_still_waiting_at_the_end_are_not_made(make: Make) -> None:
    """Checks without a worker at stop() are never made; their caller is answered when the other checks end."""
    world = World(*names(MOST_WORKERS + 10))
    world.hold(*world.kinds)
    rounds = make(world)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(rounds.fresh)
        world.wait_for(lambda: len(world.started) == MOST_WORKERS)
        rounds.stop()
        world.release()
        assert len(asked.result(PATIENCE)) == MOST_WORKERS
    rounds.close()
    assert len(world.started) == MOST_WORKERS


def test_no_thread_is_left_after_close(make: Make) -> None:
    """After close() the timer's thread and all workers have ended, however often it is called."""
    before = set(threading.enumerate())
    world = World(*names(10))
    rounds = make(world, interval=0.05)
    rounds.start()
    world.wait_started("path_9", 2)
    rounds.close()
    rounds.close()
    # The thread that set the last timer may have its last instruction to do.
    until(lambda: set(threading.enumerate()) <= before)


def test_close_waits_a_bounded_time_for_checks_that_hang(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks that do not end share one deadline: however many hang, the agent's end takes no longer."""
    monkeypatch.setattr("checks.schedule.rounds.CLOSE_SECONDS", 0.1)
    world = World(*names(10))
    world.hold(*world.kinds)
    rounds = make(world)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(rounds.fresh)
        world.wait_started("path_9")
        closed = pool.submit(rounds.close)
        try:
            closed.result(PATIENCE / 2)
        finally:
            world.release()


def test_close_without_start(make: Make) -> None:
    """Rounds that were never started are closed at once."""
    make(World("me_service")).close()


def test_threads_have_names(make: Make) -> None:
    """The timer's thread and the workers say in a stack dump what they are."""
    world = World("me_service")
    world.hold("me_service")
    make(world).start()
    world.wait_started("me_service")
    kinds = {thread.name.partition("_")[0] for thread in threading.enumerate()}
    assert {"round", "check"} <= kinds
