"""When checks run: a round every interval, its starts spread out, and at once on demand.

Two ways lead to a check. The timer never asks whether a result is still fresh; ``fresh`` runs only the checks without a
fresh result. Both go through ``Rounds._start``, which joins a check that is under way.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from checks.model import CheckResult, Target
from checks.schedule.cache import TTLCache

log = logging.getLogger("kubenurse.rounds")

# A check that waits for its timeout holds a thread; the pool makes a new one only when none is idle. With more checks
# hanging than this, the others take turns and are checked less often.
MOST_WORKERS = 64
# The part of an interval over which a round's starts are spread; the rest is for the last checks to end in.
SPREAD = 0.9
# Checks run on demand start this far apart, in seconds: many at once would measure each other.
BURST_SPACING = 0.005
# All of them have started after this many seconds, however many there are.
LONGEST_BURST = 0.5
# A caller waits for a result this much longer than a check's timeout: the check may wait for a worker.
GRACE = 1.0
# How long close() waits for each of the timer's thread and the checks under way, in seconds.
CLOSE_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _UnderWay:
    """One check from its start to its end. ``claimed``: a worker runs it, or it was given up (under the lock)."""

    claimed: bool = False
    done: threading.Event = field(default_factory=threading.Event)


class Rounds:
    """Runs the checks of ``targets()`` through a pool and keeps the latest result of each.

    Args:
        targets: what to check, asked at the start of each round; types are unique in it.
        wants: tells whether a target is still to be checked, asked before and after each check of a round; fast.
        check: runs one check, within ``timeout`` seconds.
        take: called with each new result, in the thread that ran the check.
        begin: called at the start of each round, so that departed checks are forgotten.
        interval: seconds from one round's start to the next one's.
        timeout: seconds that one check may take.
        ttl: seconds for which a result answers ``fresh``.
        note: told when a round or a check was planned and when it started, in monotonic seconds; fast.
        on_death: called with a part's name and the error when memory or the interpreter fails it: time to end.
        phase: where in the interval this agent's rounds start, 0 to 1; random, so that a fleet that starts at the same
            time does not check at the same time.
    """

    def __init__(
        self,
        *,
        targets: Callable[[], Sequence[Target]],
        wants: Callable[[Target], bool],
        check: Callable[[Target], CheckResult],
        take: Callable[[CheckResult], None],
        begin: Callable[[], None],
        interval: float,
        timeout: float,
        ttl: float,
        note: Callable[[float, float], None] = lambda _planned, _started: None,
        on_death: Callable[[str, BaseException], None] = lambda _name, _error: None,
        phase: float | None = None,
    ) -> None:
        self._targets = targets
        self._wants = wants
        self._check = check
        self._take = take
        self._begin = begin
        self._interval = interval
        self._timeout = timeout
        self._note = note
        self._on_death = on_death
        # S311: this chooses a moment, not a secret.
        self._phase = random.random() if phase is None else phase  # noqa: S311
        # Both by target, not by type: a Pod that took another Pod's place on its node has another address, and the
        # results of the old address say nothing about the new one.
        self._cache: TTLCache[Target, CheckResult] = TTLCache(ttl)
        self._under_way: dict[Target, _UnderWay] = {}
        self._pool = ThreadPoolExecutor(MOST_WORKERS, thread_name_prefix="check")
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._abandoned = False
        self._timer: threading.Timer | None = None
        self._last_lived = time.monotonic()

    def start(self) -> None:
        """Start the timer.

        Raises:
            RuntimeError: when the system has no thread to give.
        """
        self._schedule(time.monotonic() + self._phase * self._interval)

    def stop(self) -> None:
        """Start no check any more; the checks under way go on."""
        self._stopping.set()
        with self._lock:
            timer = self._timer
        if timer is not None:
            timer.cancel()

    def abandon(self) -> None:
        """Drop failures from here on: the agent breaks off its checks, and that says nothing about the network."""
        self._abandoned = True

    def close(self) -> None:
        """Wait for the checks under way, which the prober has broken off, for a bounded time."""
        self.stop()
        with self._lock:
            timer, under_way = self._timer, list(self._under_way.values())
        if timer is not None and timer.is_alive():
            timer.join(CLOSE_SECONDS)
        self._pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + CLOSE_SECONDS
        for check in under_way:
            check.done.wait(max(0.0, deadline - time.monotonic()))

    def last_lived(self) -> float:
        """Return when the timer's thread was last seen at work, in monotonic seconds; at least once an interval."""
        return self._last_lived

    def latest(self) -> dict[str, CheckResult]:
        """Return the latest result of each current target that has one, and run nothing."""
        return self._results(self._targets())

    def fresh(self) -> dict[str, CheckResult]:
        """Return a result younger than the TTL for each current target, running the checks that have none.

        Callers at the same time share the checks under way. It takes as long as the slowest check, at most
        LONGEST_BURST + timeout + GRACE seconds; a check without a new result by then answers with its last one, and a
        check that never had a result is absent.
        """
        targets = self._targets()
        self._begin_round(targets)
        stale = [target for target in targets if self._cache.fresh(target) is None]
        spacing = min(BURST_SPACING, LONGEST_BURST / max(1, len(stale)))
        begun = time.monotonic()
        started = []
        for position, target in enumerate(stale):
            if self._stopping.wait(max(0.0, begun + position * spacing - time.monotonic())):
                break
            started.append(self._start(target, unless_fresh=True))
        deadline = time.monotonic() + self._timeout + GRACE
        for check in started:
            if check is not None:
                check.done.wait(max(0.0, deadline - time.monotonic()))
        return self._results(targets)

    def _results(self, targets: Sequence[Target]) -> dict[str, CheckResult]:
        latest = ((target.type, self._cache.latest(target)) for target in targets)
        return {kind: result for kind, result in latest if result is not None}

    def _schedule(self, when: float) -> None:
        """Set the timer for a moment on the monotonic clock.

        Raises:
            RuntimeError: when the system has no thread to give.
        """
        timer = threading.Timer(max(0.0, when - time.monotonic()), self._round, args=(when,))
        timer.name = "round"
        timer.daemon = True
        # Outside the lock: the start of a thread can hang while memory is short.
        timer.start()
        with self._lock:
            self._timer = timer
        if self._stopping.is_set():
            timer.cancel()

    def _round(self, planned: float) -> None:
        """Start a round's checks, spread over the interval, and set the timer for the next round."""
        try:
            self._start_spread(planned)
            self._schedule_next(planned)
        except BaseException as error:
            # Nothing above raises but a shortage of memory or the end of the interpreter: without rounds the agent
            # would answer with old results for good.
            self._on_death("rounds", error)

    def _schedule_next(self, planned: float) -> None:
        complained = False
        while not self._stopping.is_set():
            try:
                self._schedule(next_round(planned, time.monotonic(), self._interval))
                break
            except RuntimeError as error:
                # Once, not at each try: the shortage may last.
                if not complained:
                    log.warning("scheduling a round failed, trying again", extra={"facts": {"why": str(error)}})
                complained = True
                self._stopping.wait(self._interval)

    def _start_spread(self, planned: float) -> None:
        try:
            targets = self._targets()
            self._begin_round(targets)
        except MemoryError:
            raise
        except Exception:
            log.exception("starting a round failed")
            return
        begun = max(planned, time.monotonic())
        self._note(planned, begun)
        for position, target in enumerate(targets):
            due = begun + position * self._interval * SPREAD / len(targets)
            self._last_lived = time.monotonic()
            if self._stopping.wait(max(0.0, due - time.monotonic())):
                return
            self._note(due, time.monotonic())
            # A neighbour may have left while the round was spread out: to check it now would be a false alarm.
            if self._wants(target):
                self._start(target)

    def _begin_round(self, targets: Sequence[Target]) -> None:
        self._last_lived = time.monotonic()
        self._cache.retain(targets)
        try:
            self._begin()
        except Exception:
            log.exception("pruning departed checks failed")

    def _start(self, target: Target, *, unless_fresh: bool = False) -> _UnderWay | None:
        """Start a check, or join it when it is under way; None when it cannot, or need not, be started now."""
        with self._lock:
            check = self._under_way.get(target)
            if check is not None or self._stopping.is_set():
                return check
            # A result is stored before its check ceases to be under way, so no caller misses both.
            if unless_fresh and self._cache.fresh(target) is not None:
                return None
            check = self._under_way[target] = _UnderWay()
        # Outside the lock: the pool may start a thread, and that can hang while memory is short.
        try:
            self._pool.submit(self._run, target, check)
        except RuntimeError as error:
            # The system has no thread to give. The pool may have queued the check all the same: then it takes no time
            # when its turn comes, unless a worker is at it already.
            if self._claim(check):
                self._finish(target, check)
                if not self._stopping.is_set():
                    log.warning("starting a check failed", extra={"facts": {"type": target.type, "why": str(error)}})
                return None
        return check

    def _claim(self, check: _UnderWay) -> bool:
        """Take a check for oneself; False when it is taken already."""
        with self._lock:
            claimed, check.claimed = check.claimed, True
        return not claimed

    def _finish(self, target: Target, check: _UnderWay) -> None:
        with self._lock:
            del self._under_way[target]
        check.done.set()

    def _run(self, target: Target, check: _UnderWay) -> None:
        if not self._claim(check):
            return
        try:
            if not self._stopping.is_set():
                result = self._check(target)
                if self._wants(target) and (result.ok or not self._abandoned):
                    self._cache.put(target, result)
                    self._take(result)
        except MemoryError as error:
            self._on_death("checks", error)
        except Exception:
            log.exception("running a check failed", extra={"facts": {"type": target.type}})
        finally:
            self._finish(target, check)


def next_round(planned: float, now: float, interval: float) -> float:
    """Return when the round after the one planned for ``planned`` starts; all are seconds of one clock.

    It is counted from the plan and not from now, so that rounds do not drift. Rounds missed in a stall or a suspend are
    left out, not made up for.
    """
    missed = max(0, int((now - planned) / interval))
    return planned + (missed + 1) * interval
