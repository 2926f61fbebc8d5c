"""When checks run: a round every interval, its starts spread out, and at once what somebody asks for.

Two ways lead to a check, and both meet in ``Rounds._start``, where a check that is under way is joined instead of
started again: the timer, which never asks whether a result is still fresh, and ``fresh``, which runs only what is not.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from checks.model import CheckResult, Target
from checks.schedule.cache import TTLCache

log = logging.getLogger("kubenurse.rounds")

# Checks that wait for their timeouts hold a thread each; the pool makes one only when none is idle. With more checks
# hanging than this, the others take turns and are checked less often.
MOST_WORKERS = 64
# The part of an interval over which a round's starts are spread; what is left is for the last ones to end in.
SPREAD = 0.9
# Checks run on demand start this far apart, in seconds: many at once would measure each other.
BURST_SPACING = 0.005
# All of them have started after this many seconds, however many there are.
LONGEST_BURST = 0.5
# How much longer than a check's timeout somebody waits for its result: the time it may wait for a worker.
GRACE = 1.0


class Rounds:
    """Runs the checks of ``targets()`` through a pool and keeps each one's latest result.

    Args:
        targets: what to check, asked at the start of each round; types are unique in it.
        check: runs one check, within ``timeout`` seconds.
        on_result: called with each new result, in the thread that ran the check.
        on_round: called with a round's types when it starts, so that others can forget what is gone.
        interval: seconds from one round's start to the next one's.
        timeout: seconds that one check may take.
        ttl: seconds for which a result answers ``fresh``.
        phase: where in the interval this agent's rounds start, 0 to 1; random, so that a fleet that was started at once
            does not check at once.
        is_wanted: whether a target is still to be checked, asked before and after each check of a round; fast.
    """

    def __init__(
        self,
        *,
        targets: Callable[[], Sequence[Target]],
        check: Callable[[Target], CheckResult],
        on_result: Callable[[CheckResult], None],
        on_round: Callable[[frozenset[str]], None],
        interval: float,
        timeout: float,
        ttl: float,
        phase: float | None = None,
        is_wanted: Callable[[Target], bool] = lambda _: True,
    ) -> None:
        self._targets = targets
        self._is_wanted = is_wanted
        self._check = check
        self._on_result = on_result
        self._on_round = on_round
        self._interval = interval
        self._timeout = timeout
        # S311: this chooses a moment, not a secret.
        self._phase = random.random() if phase is None else phase  # noqa: S311
        # Both by target, not by type: a Pod that took another's place on its node has another address, and what was
        # found of that other one, or is being found, says nothing of it.
        self._cache: TTLCache[Target, CheckResult] = TTLCache(ttl)
        self._pool = ThreadPoolExecutor(MOST_WORKERS, thread_name_prefix="check")
        self._lock = threading.Lock()
        self._under_way: dict[Target, Future[None]] = {}
        self._stopping = threading.Event()
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        """Start the timer."""
        self._schedule(time.monotonic() + self._phase * self._interval)

    def stop(self) -> None:
        """Start no check any more; those under way go on."""
        with self._lock:
            self._stopping.set()
            if self._timer is not None:
                self._timer.cancel()

    def close(self) -> None:
        """Wait for the checks under way, which whoever runs them has made end soon."""
        self.stop()
        if self._timer is not None:
            self._timer.join()
        self._pool.shutdown(wait=True)

    def latest(self) -> dict[str, CheckResult]:
        """Return the latest result of each current target that has one, and run nothing."""
        return self._results(self._targets())

    def fresh(self) -> dict[str, CheckResult]:
        """Return a result younger than the TTL for each current target, running those checks that have none.

        Those who ask at the same time share the checks under way. It takes as long as the slowest check, at most
        LONGEST_BURST + timeout + GRACE seconds; a check without a new result by then answers with its last one, and one
        that never had any is absent.
        """
        targets = self._targets()
        self._begin_round(targets)
        stale = [target for target in targets if self._cache.fresh(target) is None]
        spacing = min(BURST_SPACING, LONGEST_BURST / max(1, len(stale)))
        begun = time.monotonic()
        futures = []
        for position, target in enumerate(stale):
            if self._stopping.wait(max(0.0, begun + position * spacing - time.monotonic())):
                break
            futures.append(self._start(target, unless_fresh=True))
        wait([future for future in futures if future is not None], timeout=self._timeout + GRACE)
        return self._results(targets)

    def _results(self, targets: Sequence[Target]) -> dict[str, CheckResult]:
        latest = ((target.type, self._cache.latest(target)) for target in targets)
        return {kind: result for kind, result in latest if result is not None}

    def _schedule(self, when: float) -> None:
        """Set the timer for a moment on the monotonic clock.

        Raises:
            RuntimeError: when the system has no thread to give.
        """
        with self._lock:
            if self._stopping.is_set():
                return
            timer = threading.Timer(max(0.0, when - time.monotonic()), self._round, args=(when,))
            timer.name = "round"
            timer.daemon = True
            timer.start()
            self._timer = timer

    def _round(self, planned: float) -> None:
        """Start a round's checks, spread over the interval, and set the timer for the next round."""
        try:
            self._start_spread(planned)
        except Exception:
            log.exception("round failed")
        while not self._stopping.is_set():
            try:
                self._schedule(next_round(planned, time.monotonic(), self._interval))
                break
            except RuntimeError as error:
                log.warning("round not scheduled, trying again", extra={"facts": {"why": str(error)}})
                self._stopping.wait(self._interval)

    def _start_spread(self, planned: float) -> None:
        targets = self._targets()
        self._begin_round(targets)
        begun = max(planned, time.monotonic())
        for position, target in enumerate(targets):
            due = begun + position * self._interval * SPREAD / len(targets)
            if self._stopping.wait(max(0.0, due - time.monotonic())):
                return
            # While a round was spread out a neighbour may have left: to check it now would be a false alarm.
            if self._is_wanted(target):
                self._start(target)

    def _begin_round(self, targets: Sequence[Target]) -> None:
        self._cache.keep_only(targets)
        try:
            self._on_round(frozenset(target.type for target in targets))
        except Exception:
            log.exception("what is gone not forgotten")

    def _start(self, target: Target, *, unless_fresh: bool = False) -> Future[None] | None:
        """Start a check, or join it when it is under way; None when it cannot, or need not, be started now."""
        with self._lock:
            future = self._under_way.get(target)
            if future is not None or self._stopping.is_set():
                return future
            # Its result was stored before it ceased to be under way, so here nobody misses both.
            if unless_fresh and self._cache.fresh(target) is not None:
                return None
            future = self._under_way[target] = Future()
            try:
                self._pool.submit(self._run, target, future)
            except RuntimeError as error:
                # The system has no thread to give. The pool may have queued the check all the same: a worker may be at
                # it already; if not, cancelled, it takes no time when its turn comes.
                if not future.cancel():
                    return future
                del self._under_way[target]
                log.warning("check not started", extra={"facts": {"type": target.type, "why": str(error)}})
                return None
        return future

    def _run(self, target: Target, done: Future[None]) -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            if not self._stopping.is_set():
                result = self._check(target)
                # Who leaves on purpose breaks off what is under way; that is no failure of the path.
                if self._is_wanted(target):
                    self._cache.put(target, result)
                    self._on_result(result)
        except Exception:
            log.exception("check failed", extra={"facts": {"type": target.type}})
        finally:
            with self._lock:
                del self._under_way[target]
            done.set_result(None)


def next_round(planned: float, now: float, interval: float) -> float:
    """Return when the round after the one planned for ``planned`` starts; all are seconds of one clock.

    Counted from the plan and not from now, so that rounds do not drift by what each one takes. Those missed in a stall
    or a suspend are left out, not made up for.
    """
    missed = max(0, int((now - planned) / interval))
    return planned + (missed + 1) * interval
