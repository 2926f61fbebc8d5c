"""Is it me? This agent's own lateness and want of CPU, by which its figures are to be believed or set aside.

An agent that waits for its CPU reports that wait as the network's. Source: R-Pingmesh (SIGCOMM 2024), where 30 of 50
wrong verdicts came from such agents.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from checks.schedule.cpu import CpuCounters, Reader

WINDOW_SECONDS = 60.0
SLICES = 12
_SLICE_SECONDS = WINDOW_SECONDS / SLICES

# From here on the agent is starved: a timer so late (a tenth of a check's usual timeout), such a part of the periods
# throttled, such a part of the time with a thread that waits for a CPU.
LATE_SECONDS = 0.5
THROTTLED_RATIO = 0.25
WAITING_RATIO = 0.5


class Own:
    """How well this agent itself ran in the last minute. Every method may be called from any thread.

    Its timers call ``note`` with what was planned and what came of it; something that runs once in a while (a round)
    calls ``sample``, which reads the kernel's counters. Bounds: one number for each of SLICES slices of the minute, and
    as many samples and one. ``clock`` returns monotonic seconds.
    """

    def __init__(
        self, read: Callable[[], CpuCounters] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read if read is not None else Reader()
        self._clock = clock
        self._lock = threading.Lock()
        # The number of a slice, and how late the latest timer in it was.
        self._late: deque[tuple[int, float]] = deque(maxlen=SLICES)
        self._samples: deque[tuple[float, CpuCounters]] = deque(maxlen=SLICES + 1)

    def note(self, planned: float, started: float) -> None:
        """Say that what was planned for a moment started at another; both are monotonic seconds."""
        late = max(0.0, started - planned)
        number = int(started // _SLICE_SECONDS)
        with self._lock:
            if self._late and self._late[-1][0] >= number:
                number, worst = self._late.pop()
                late = max(late, worst)
            self._late.append((number, late))

    def sample(self) -> None:
        """Read the kernel's counters, unless that was done within the last five seconds."""
        now = self._clock()
        with self._lock:
            if self._samples and now - self._samples[-1][0] < _SLICE_SECONDS:
                return
        counters = self._read()
        with self._lock:
            if self._samples and self._samples[-1][1].group != counters.group:
                self._samples.clear()
            self._samples.append((now, counters))

    @property
    def lateness(self) -> float:
        """How many seconds the latest timer of the last minute was late; 0 without any."""
        oldest = int(self._clock() // _SLICE_SECONDS) - SLICES
        with self._lock:
            return max((late for number, late in self._late if number > oldest), default=0.0)

    @property
    def starved(self) -> bool:
        """True when the figures of the last minute are not to be believed."""
        return bool(self.document()["starved"])

    def document(self) -> dict[str, Any]:
        """Return ``own`` of /state: ratios are 0 to 1 of the last minute, None where the kernel does not tell.

        ``throttled_ratio`` is the part of the periods under a CPU limit in which the agent had to wait for the next,
        ``waiting_ratio`` the part of the time in which one of its threads waited for a CPU.
        """
        lateness = self.lateness
        throttled, waiting = self._ratios()
        return {
            "starved": lateness >= LATE_SECONDS
            or (throttled or 0.0) >= THROTTLED_RATIO
            or (waiting or 0.0) >= WAITING_RATIO,
            "lateness_seconds": round(lateness, 6),
            "throttled_ratio": throttled,
            "waiting_ratio": waiting,
        }

    def _ratios(self) -> tuple[float | None, float | None]:
        now = self._clock()
        with self._lock:
            samples = list(self._samples)
        if not samples:
            return None, None
        (ended, last) = samples[-1]
        # A minute back, or the sample before when samples are rarer than that.
        before = [each for each in samples[:-1] if now - each[0] <= WINDOW_SECONDS] or samples[-2:-1] or samples
        (began, first) = before[0]
        throttled = waiting = None
        if None not in (first.periods, first.throttled, last.periods, last.throttled):
            throttled = _ratio(_rise(first.throttled, last.throttled), _rise(first.periods, last.periods))
        if first.waited is not None and last.waited is not None:
            waiting = _ratio(_rise(first.waited, last.waited), ended - began)
        return throttled, waiting


def _rise(before: float | None, after: float | None) -> float:
    return (after or 0.0) - (before or 0.0)


def _ratio(part: float, whole: float) -> float:
    return round(min(1.0, max(0.0, part / whole)), 4) if whole > 0 else 0.0
