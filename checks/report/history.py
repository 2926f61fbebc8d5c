"""What this agent remembers: each check's last minutes in arrays, and the last failures with their evidence."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from checks.model import CheckResult
from checks.report.recorder import Recorder
from checks.report.ring import Ring

# The resolution, unless the time remembered would need more slots than this.
SLOT_SECONDS = 5.0
MOST_SLOTS = 720
# What the rings of all checks may take. With the recorder it makes 1 MB at the most: ``python -m bench.history``.
MOST_BYTES = 400_000


class History:
    """A sink that remembers each check for ``seconds`` and the last failures. Any thread may call every method.

    A check's time is cut into slots of SLOT_SECONDS, longer ones when ``seconds`` would need more than MOST_SLOTS.
    A check that is no longer made stays until its last slot ages out. Bounds: MOST_BYTES for the rings, so a number of
    checks; one more takes the place of the one that departed first, and without any it is not remembered and counted
    in ``left_out``. The failures are bounded by Recorder. ``seconds`` 0 remembers nothing.

    ``starved`` tells whether this agent waits for its CPU, asked at each result; ``clock`` returns monotonic seconds,
    ``wall`` epoch seconds.
    """

    def __init__(
        self,
        seconds: float,
        *,
        starved: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._seconds = seconds
        self._starved = starved
        self._clock = clock
        self._wall = wall
        self._slot_seconds = max(SLOT_SECONDS, seconds / MOST_SLOTS)
        self._slots = math.ceil(seconds / self._slot_seconds)
        self._most_checks = MOST_BYTES // Ring.bytes_of(self._slots)
        self._lock = threading.Lock()
        self._rings: dict[str, Ring] = {}
        # Checks that are no longer made, in the order in which they departed.
        self._departed: dict[str, None] = {}
        self._left_out: set[str] = set()
        self._recorder = Recorder()

    def take(self, result: CheckResult) -> None:
        """Remember a result."""
        if not self._slots:
            return
        starved = self._starved()
        with self._lock:
            if not result.ok:
                self._recorder.take(result, starved=starved)
            ring = self._ring(result.type)
            if ring is not None:
                ring.add(self._slot_of(result.finished), result, starved=starved)

    def retain(self, types: Collection[str]) -> None:
        """Say which checks are made now; the history of the others stays until it ages out."""
        kept = set(types)
        with self._lock:
            self._left_out &= kept
            for kind in self._rings:
                if kind in kept:
                    self._departed.pop(kind, None)
                else:
                    self._departed.setdefault(kind)
            oldest = self._slot_of(self._clock()) - self._slots
            for kind in [kind for kind in self._departed if self._rings[kind].newest <= oldest]:
                self._forget(kind)

    def witnessed(self, kind: str, witnesses: Sequence[Mapping[str, Any]]) -> None:
        """Add witnesses (JSON objects) to the latest failure of a check type; without a failure they are dropped."""
        with self._lock:
            for witness in witnesses:
                self._recorder.witnessed(kind, witness)

    def document(self) -> dict[str, Any]:
        """Return what /history shows; times are epoch seconds.

        ``checks`` maps a type to arrays of one value a slot, oldest first, from the slot that begins at ``from`` on:
        ``made`` and ``failed`` results, ``seconds`` the slowest (None without any), ``retransmits``, ``state`` an index
        into ``states``, whose first is "ok", and ``starved`` 0 or 1. ``departed`` tells that the check is no longer
        made. ``failures`` are described in Recorder.
        """
        now, wall = self._clock(), self._wall()
        current = self._slot_of(now)
        with self._lock:
            checks = {
                kind: {"departed": kind in self._departed, **ring.document(current)}
                for kind, ring in self._rings.items()
                if ring.newest > current - self._slots
            }
            failures = self._recorder.document()
            left_out = len(self._left_out)
        return {
            "seconds": self._seconds,
            "slot_seconds": self._slot_seconds,
            "from": round(wall - (now - (current - self._slots + 1) * self._slot_seconds), 3),
            "checks": checks,
            "left_out": left_out,
            "failures": failures,
        }

    def _ring(self, kind: str) -> Ring | None:
        ring = self._rings.get(kind)
        if ring is None:
            if len(self._rings) >= self._most_checks:
                departed = next(iter(self._departed), None)
                if departed is None:
                    # Bounded by the checks made: ``retain`` takes the others out.
                    self._left_out.add(kind)
                    return None
                self._forget(departed)
            ring = self._rings[kind] = Ring(self._slots)
        return ring

    def _forget(self, kind: str) -> None:
        del self._departed[kind]
        del self._rings[kind]

    def _slot_of(self, moment: float) -> int:
        return int(moment // self._slot_seconds)
