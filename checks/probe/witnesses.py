"""When witnesses are made: after which failure which kinds, how often, and by whom.

They cost nothing while all is well: no thread runs and nothing is sent. They never hold up a check: a failure is only
noted and the witnesses are made by threads of their own.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping

from checks.model import (
    AGAIN,
    API_SERVER_DIRECT,
    API_SERVER_DNS,
    CONNECT,
    DNS,
    DNS_TCP,
    DNS_UDP,
    HOP,
    LARGE,
    LAST_ADDRESS,
    ME_SERVICE,
    NODE,
    NODE_OBJECT,
    OTHER_ADDRESS,
    REQUEST,
    RESPONSE,
    SMALL,
    TLS,
    CheckResult,
    Target,
    Witness,
)
from checks.probe.failures import TIMEOUT_EVENT
from checks.probe.witness import Failure, Make

log = logging.getLogger("kubenurse.witness")

# Witnesses that are made at the same time, each by a thread of its own.
MOST_AT_ONCE = 4
# Seconds between two failures of one check that are followed by witnesses.
SPACING = 30.0
# Seconds that the threads get to end at shutdown. They are daemons: a thread that hangs does not hold up the process.
LONGEST_END = 2.0

# A neighbour's address that nothing answers, whatever says so: our timeout, the kernel's, or a router.
_UNANSWERED = tuple(os.strerror(number).lower() for number in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT))


def follow_up(target: Target, result: CheckResult) -> tuple[str, ...]:
    """Return the kinds of witnesses that follow a check's result, in the order in which they are made. Pure."""
    if result.ok:
        return ()
    timed_out = result.event == TIMEOUT_EVENT
    if result.phase == DNS:
        return DNS_UDP, DNS_TCP, LAST_ADDRESS
    if target.node:
        return _of_path(result, timed_out=timed_out)
    if result.phase == CONNECT and target.type in (ME_SERVICE, API_SERVER_DIRECT, API_SERVER_DNS):
        return AGAIN, OTHER_ADDRESS
    if result.phase in (TLS, REQUEST, RESPONSE) and timed_out and target.type == ME_SERVICE:
        return SMALL, LARGE
    return ()


def _of_path(result: CheckResult, *, timed_out: bool) -> tuple[str, ...]:
    kinds: tuple[str, ...] = ()
    if result.phase == CONNECT and (timed_out or result.state.endswith(_UNANSWERED)):
        kinds = NODE, HOP
    elif result.phase in (TLS, REQUEST, RESPONSE) and timed_out:
        kinds = SMALL, LARGE
    return (*kinds, NODE_OBJECT)


class Witnesses:
    """Makes witnesses after failures, and keeps the latest ones of each check.

    ``make`` has a function for each kind that can be made; a kind without one is left out. ``on_made`` gets the check's
    type and its witnesses when they are made. ``clock`` is monotonic seconds.

    What bounds it: MOST_AT_ONCE threads, which end when nothing is left to do; at most one failure of each check waits
    or is being followed, and none within SPACING of the one before; each witness ends by its own deadline. One entry
    is kept for each check, until ``retain`` says that a check is gone.
    """

    def __init__(
        self,
        make: Mapping[str, Make],
        *,
        on_made: Callable[[str, tuple[Witness, ...]], None] = lambda _type, _made: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._on_made = on_made
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: deque[tuple[Failure, tuple[str, ...]]] = deque()
        self._busy: set[str] = set()
        self._threads: set[threading.Thread] = set()
        self._followed_at: dict[str, float] = {}
        self._last_address: dict[str, str] = {}
        self._made: dict[str, tuple[Witness, ...]] = {}
        self._closed = False

    def note(self, target: Target, result: CheckResult) -> None:
        """Take a result: remember the address of a good one, and have a failure followed. Does not wait or raise."""
        if result.ok:
            if result.remote and self._last_address.get(target.type) != result.remote:
                with self._lock:
                    self._last_address[target.type] = result.remote
            return
        kinds = tuple(kind for kind in follow_up(target, result) if kind in self._make)
        if kinds and (thread := self._enqueue(target, result, kinds)) is not None:
            self._start(thread)

    def of(self, kind: str) -> tuple[Witness, ...]:
        """Return the latest witnesses of a type of check."""
        with self._lock:
            return self._made.get(kind, ())

    def retain(self, types: Collection[str]) -> None:
        """Forget the checks of all other types: they are no longer made."""
        with self._lock:
            for kept in (self._followed_at, self._last_address, self._made):
                for gone in kept.keys() - set(types):
                    del kept[gone]

    def stop(self) -> None:
        """Begin no witness any more, and keep nothing of those under way: the agent is ending. Does not wait."""
        with self._lock:
            self._closed = True
            self._queue.clear()

    def close(self) -> None:
        """Stop, and wait up to LONGEST_END seconds for the threads.

        Before this, ``Prober.stop`` makes the witnesses under way end: they share its Abort.
        """
        self.stop()
        with self._lock:
            threads = tuple(self._threads)
        deadline = time.monotonic() + LONGEST_END
        for thread in threads:
            if thread.ident is not None:  # else it is just being started, and finds nothing to do
                thread.join(max(0.0, deadline - time.monotonic()))

    def _enqueue(self, target: Target, result: CheckResult, kinds: tuple[str, ...]) -> threading.Thread | None:
        """Queue a failure unless that is too soon; return a thread to start when one more may work on the queue."""
        now = self._clock()
        with self._lock:
            followed_at = self._followed_at.get(target.type)
            too_soon = followed_at is not None and now - followed_at < SPACING
            if self._closed or target.type in self._busy or too_soon:
                return None
            self._followed_at[target.type] = now
            self._busy.add(target.type)
            failure = Failure(target, result, self._last_address.get(target.type, ""))
            self._queue.append((failure, kinds))
            if len(self._threads) >= MOST_AT_ONCE:
                return None
            thread = threading.Thread(target=self._work, name="witness", daemon=True)
            self._threads.add(thread)
            return thread

    def _start(self, thread: threading.Thread) -> None:
        """Start a thread, outside the lock. Without a thread to be had the failures that wait are not followed."""
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            with self._lock:
                self._threads.discard(thread)
                if not self._threads:
                    self._queue.clear()
                    self._busy.clear()
            log.warning("witness not started", extra={"facts": {"why": str(error)}})

    def _work(self) -> None:
        while (next_one := self._next()) is not None:
            failure, kinds = next_one
            kind = failure.target.type
            try:
                self._follow(failure, kinds)
            except Exception:
                log.exception("witness failed", extra={"facts": {"type": kind}})
            finally:
                with self._lock:
                    self._busy.discard(kind)

    def _next(self) -> tuple[Failure, tuple[str, ...]] | None:
        """Return the next failure to follow; None ends the thread."""
        with self._lock:
            if self._queue and not self._closed:
                return self._queue.popleft()
            self._threads.discard(threading.current_thread())
            return None

    def _follow(self, failure: Failure, kinds: tuple[str, ...]) -> None:
        kind = failure.target.type
        made: tuple[Witness, ...] = ()
        for each in kinds:
            found = tuple(self._make[each](failure))
            with self._lock:
                # What the agent's end broke off says nothing about the network.
                if self._closed:
                    return
                made += found
                self._made[kind] = made
        self._on_made(kind, made)
