"""Checks run on time and on demand, each once at a time, whatever the checks and their listeners do."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.model import OK, CheckResult, Target
from checks.schedule.rounds import BURST_SPACING, GRACE, LONGEST_BURST, MOST_WORKERS, SPREAD, Rounds, log, next_round
from tests.support.waiting import until

PATIENCE = 30.0
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
    """Raise an exception that nobody expects."""
    raise ValueError("as told")


Make = Callable[..., Rounds]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make rounds in a world: without settings they never start by themselves, and their results last."""
    made: list[tuple[World, Rounds]] = []

    def make_rounds(
        world: World, *, interval: float = LONG, timeout: float = PATIENCE, ttl: float = LONG, phase: float | None = 0.0
    ) -> Rounds:
        rounds = Rounds(
            targets=world.targets,
            check=world.check,
            wants=lambda _: True,
            take=world.take,
            prune=world.prune,
            interval=interval,
            timeout=timeout,
            ttl=ttl,
            phase=phase,
        )
        made.append((world, rounds))
        return rounds

    yield make_rounds
    for world, rounds in made:
        rounds.stop()
        world.release()
        rounds.close()


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the rounds log, whatever other tests did to the loggers above theirs."""
    caplog.set_level(logging.INFO, logger=log.name)
    log.addHandler(caplog.handler)
    yield caplog
    log.removeHandler(caplog.handler)


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


# The timer.


def test_all_targets_are_checked_round_after_round(make: Make) -> None:
    """Each round checks each target once and tells what it is about to check."""
    world = World("api_server_direct", "me_service")
    make(world, interval=0.05).start()
    world.wait_for(lambda: len(world.rounds) >= 4)
    world.wait_started("me_service", 3)
    assert {types for types, _ in world.rounds} == {frozenset(world.kinds)}
    assert abs(world.count("api_server_direct") - world.count("me_service")) <= 1


def test_timer_does_not_ask_for_freshness(make: Make) -> None:
    """A result that is young enough for others does not keep the timer from checking anew."""
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
    """The next round is a whole number of intervals after the plan, the first of these that is not past."""
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
    """A slow round does not shift the next; rounds missed are left out and not made up for."""
    assert next_round(100.0, now, 5.0) == following


def test_slow_rounds_do_not_add_up(make: Make) -> None:
    """Rounds that take most of their interval start as often as those that take none of it."""
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
    """The checks of a round start one after the other over the interval, no two at once."""
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
    """Agents that are started at once have their first rounds at different moments of the interval."""
    for _ in range(5):
        make(World("me_service"), interval=LONG, phase=None).start()
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    waits = sorted(timer.interval for timer in timers if timer.name == "round")
    assert len(waits) == 5
    assert waits[-1] <= LONG
    assert waits[-1] - waits[0] > 1.0


def test_no_targets_no_checks(make: Make) -> None:
    """Rounds without targets go on, and check what comes later."""
    world = World()
    rounds = make(world, interval=0.05)
    rounds.start()
    world.wait_for(lambda: len(world.rounds) >= 3)
    assert rounds.fresh() == rounds.latest() == {}
    world.kinds = ["me_service"]
    world.wait_started("me_service")


# On demand.


def test_fresh_runs_what_was_never_checked(make: Make) -> None:
    """The first who asks gets a result of every target, in the targets' order."""
    world = World("me_service", "api_server_direct", "path_a")
    found = make(world).fresh()
    assert list(found) == world.kinds
    assert all(result.ok for result in found.values())
    assert {result.type for result in world.results} == set(world.kinds)


def test_fresh_runs_only_what_is_stale(make: Make) -> None:
    """What was checked within the TTL is answered as it is; only the rest is checked."""
    world = World("me_service")
    rounds = make(world, ttl=LONG)
    before = rounds.fresh()["me_service"]
    world.kinds.append("path_a")
    found = rounds.fresh()
    assert found["me_service"] is before
    assert [kind for kind, _ in world.started] == ["me_service", "path_a"]


def test_ttl_of_zero_checks_for_everybody(make: Make) -> None:
    """With a TTL of 0 whoever asks gets results made for him."""
    world = World("me_service", "path_a")
    rounds = make(world, ttl=0.0)
    for times in (1, 2, 3):
        rounds.fresh()
        assert (world.count("me_service"), world.count("path_a")) == (times, times)


def test_who_ask_at_once_share_one_run(make: Make) -> None:
    """However many ask at the same time, each check runs once and all get its result."""
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


def test_who_comes_late_does_not_check_again(make: Make) -> None:
    """Whoever found no result, and then a check that has just ended, takes its result: each type is checked once."""
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
    """A check that the timer has started is waited for and not started again."""
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


def test_what_took_another_ones_place_is_checked_for_itself(make: Make) -> None:
    """A Pod that replaced another on its node has a check and a result of its own, also while the other's hangs."""
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


def test_a_check_that_runs_although_no_thread_came_is_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may take a check up just when the system refuses another thread for it: it runs, and it runs once."""
    world = World("me_service")
    world.hold("me_service")
    rounds = make(world, ttl=0.0)
    submit, refused = rounds._pool.submit, threading.Event()

    def refuse(*job: Any) -> None:
        """Do what the pool does then, at a moment that no test can choose otherwise."""
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
    """Checks that somebody asked for start a little apart, so that they do not measure each other."""
    count, world = 20, World(*names(20))
    begun = time.monotonic()
    make(world).fresh()
    assert max(moment for _, moment in world.started) - begun >= (count - 1) * BURST_SPACING


def test_burst_of_many_checks_is_short(make: Make) -> None:
    """However many checks there are, on demand they have all started after LONGEST_BURST."""
    count, world = 2000, World(*names(2000))
    begun = time.monotonic()
    assert len(make(world).fresh()) == count
    assert time.monotonic() - begun < count * BURST_SPACING - 10 * LONGEST_BURST


def test_latest_runs_nothing(make: Make) -> None:
    """The latest results are those there are, however old, and asking for them checks nothing."""
    world = World("me_service", "path_a")
    rounds = make(world, ttl=0.0)
    assert rounds.latest() == {}
    found = rounds.fresh()
    assert rounds.latest() == found
    assert len(world.started) == 2
    assert len(world.rounds) == 1


# Bounds.


def test_more_hanging_checks_than_workers(make: Make) -> None:
    """With every worker hanging, who asks is answered in bounded time, and what waits has its turn later."""
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
    """Who asks while a check takes longer than it may gets what it found before."""
    world = World("me_service")
    rounds = make(world, timeout=0.05, ttl=0.0)
    before = rounds.fresh()
    world.hold("me_service")
    assert rounds.fresh() == before
    assert world.running["me_service"] == 1


def test_without_a_thread_to_be_had_checks_wait_for_better_times(make: Make, logged: pytest.LogCaptureFixture) -> None:
    """When the system refuses a thread, who asks gets what is known; later the check runs, and only once."""
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
    """When the system refuses the timer's next thread, rounds go on as soon as it has one again."""
    world = World("me_service")
    make(world, interval=0.05).start()
    world.wait_started("me_service")
    with no_thread_to_be_had():
        until(lambda: "scheduling a round failed, trying again" in logged.messages)
    known = len(world.rounds)
    world.wait_for(lambda: len(world.rounds) >= known + 3)


# Faults of those around.


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


def test_listener_that_raises_loses_no_result(make: Make, logged: pytest.LogCaptureFixture) -> None:
    """What hears of results may raise: each result is kept, and rounds go on."""
    world = World("me_service", "path_a")
    world.doing["take"] = fail
    rounds = make(world, interval=0.05)
    assert list(rounds.fresh()) == world.kinds
    assert "running a check failed" in logged.messages
    rounds.start()
    world.wait_for(lambda: len(world.results) >= 6)


def test_listener_of_rounds_that_raises_loses_no_check(make: Make, logged: pytest.LogCaptureFixture) -> None:
    """What hears of rounds may raise: the round's checks are made, on time and on demand."""
    world = World("me_service", "path_a")
    world.doing["prune"] = fail
    rounds = make(world, interval=0.05)
    assert list(rounds.fresh()) == world.kinds
    assert "pruning departed checks failed" in logged.messages
    rounds.start()
    world.wait_started("path_a", 3)


def test_targets_that_raise_do_not_end_the_timer(make: Make, logged: pytest.LogCaptureFixture) -> None:
    """A round whose targets cannot be told is left out; the timer goes on, and who asks hears of it."""
    world = World("me_service")
    world.doing["targets"] = fail
    rounds = make(world, interval=0.05)
    rounds.start()
    until(lambda: logged.messages.count("starting a round failed") >= 3)
    with pytest.raises(ValueError, match="as told"):
        rounds.fresh()
    world.doing.clear()
    world.wait_started("me_service", 2)


# Targets that come and go.


def test_targets_may_change_between_rounds(make: Make) -> None:
    """A target that comes is checked from the next round on, one that goes no longer."""
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
    """A target that went and came back is checked anew: nothing of it was kept."""
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


# The end.


def test_stop_starts_no_check_any_more(make: Make) -> None:
    """After stop() neither the timer nor anybody who asks starts a check; what is known is still told."""
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
    """A check under way at stop() brings its result, also to who asks after it."""
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
    """Who asks while the agent ends is answered with what is known, at once."""
    world = World(*names(20))
    rounds = make(world)
    world.doing["prune"] = rounds.stop
    assert rounds.fresh() == {}
    assert world.started == []


def test_checks_still_waiting_at_the_end_are_not_made(make: Make) -> None:
    """Checks without a worker at stop() are never made, and who waits for them is answered when the others end."""
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
