"""A check's last minute in figures: /state shows them beside the latest result, since one result may be a hiccup."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from checks.model import CheckResult

WINDOW_SECONDS = 60.0
# Results kept of one check: four a second. A check that is made more often has a shorter window, and says so.
MOST_RESULTS = 240
# Different states told apart in one window; the rest counts as OTHER.
MOST_STATES = 8
OTHER = "other"


class _Made(NamedTuple):
    """One result: when it ended (monotonic seconds), its state, empty for ok, its seconds and its retransmits."""

    finished: float
    failure: str
    seconds: float
    retransmits: int


class _Course:
    """The results of one check in the window, oldest first, and the streak. Its owner locks."""

    __slots__ = ("made", "streak")

    def __init__(self) -> None:
        self.made: deque[_Made] = deque(maxlen=MOST_RESULTS)
        self.streak = 0


class Windows:
    """A sink that keeps each check's results of the last WINDOW_SECONDS. Every method may be called from any thread.

    Bounds: MOST_RESULTS results for each of the checks that ``retain`` keeps; with the default interval they are 12.
    ``clock`` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._courses: dict[str, _Course] = {}

    def take(self, result: CheckResult) -> None:
        """Add a result."""
        made = _Made(
            result.finished,
            "" if result.ok else result.state,
            result.duration,
            result.tcp.retransmits if result.tcp is not None else 0,
        )
        with self._lock:
            course = self._courses.get(result.type)
            if course is None:
                course = self._courses[result.type] = _Course()
            course.made.append(made)
            step = 1 if result.ok else -1
            course.streak = course.streak + step if course.streak * step > 0 else step

    def retain(self, types: Collection[str]) -> None:
        """Forget all checks but those of ``types``."""
        kept = set(types)
        with self._lock:
            for kind in self._courses.keys() - kept:
                del self._courses[kind]

    def window(self, kind: str) -> dict[str, object]:
        """Return the figures of one check type, as ``window`` in /state has them.

        ``seconds`` is how far back the figures reach, ``made`` the number of results, ``failed`` their failures by
        state, ``streak`` the number of results of the latest kind in a row, negative for failures and not limited to
        the window, ``retransmits`` the segments sent again. ``median_seconds`` and ``slowest_seconds`` are those of the
        results that were ok, or of the failures when none was: a timeout says nothing of how fast the answers are.
        They are None without a result.
        """
        now = self._clock()
        with self._lock:
            course = self._courses.get(kind)
            kept = list(course.made) if course is not None else []
            streak = course.streak if course is not None else 0
        made = [each for each in kept if now - each.finished < WINDOW_SECONDS]
        full = len(made) == MOST_RESULTS
        answered = [each.seconds for each in made if not each.failure]
        seconds = answered or [each.seconds for each in made]
        return {
            "seconds": round(now - made[0].finished, 3) if full else WINDOW_SECONDS,
            "made": len(made),
            "failed": _by_state(each.failure for each in made if each.failure),
            "streak": streak,
            "retransmits": sum(each.retransmits for each in made),
            "median_seconds": round(statistics.median(seconds), 6) if seconds else None,
            "slowest_seconds": round(max(seconds), 6) if seconds else None,
        }


def _by_state(failures: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for state in failures:
        key = state if state in counts or len(counts) < MOST_STATES else OTHER
        counts[key] = counts.get(key, 0) + 1
    return counts
