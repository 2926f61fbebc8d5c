"""Logs changes of checks: a check starts failing, its reason changes, it recovers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass, field

from checks.model import CheckResult
from checks.report.limits import Bucket, Limit

log = logging.getLogger("kubenurse.checks")

# A change of reason is said once in so many seconds for each check.
REASON_SECONDS = 60.0
# Lines about failing and recovering of one check: a burst of fifteen outages, then one line in so many seconds.
MOST_TURNS = 30
TURN_SECONDS = 15.0


@dataclass(slots=True)
class _Course:
    """What the log last said of a check, and what is the case. A reason is empty while the check is ok.

    ``since`` is when the current outage began, ``said_since`` when the outage began that the log last spoke of; both
    monotonic seconds.
    """

    said: str = ""
    said_since: float = 0.0
    reason: str = ""
    since: float = 0.0
    unsaid: int = 0
    turns: Bucket = field(default_factory=lambda: Bucket(MOST_TURNS, TURN_SECONDS))
    reasons: Limit = field(default_factory=lambda: Limit(1, REASON_SECONDS))


class Transitions:
    """A sink of results that logs changes only: a check that keeps failing for one reason writes one line.

    A check writes a line about a change of reason at most once in REASON_SECONDS. About failing and recovering it
    writes a burst of MOST_TURNS lines, so that outages are told one by one, and then one in TURN_SECONDS. A change
    beyond that is held back and counted; the next line has the count as ``held_back``. Once there is room, the log
    says what is the case then: the last line of a check is wrong for at most REASON_SECONDS and one interval.

    Time is that of the results (``CheckResult.finished``). Memory: one entry for each check that has failed, of those
    that ``retain`` keeps.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._courses: dict[str, _Course] = {}

    def take(self, result: CheckResult) -> None:
        """Log a result when it differs from what the log last said of the check."""
        with self._lock:
            line = self._line(result)
        if line is not None:
            level, event, facts = line
            log.log(level, event, extra={"facts": facts})

    def retain(self, types: Collection[str]) -> None:
        """Forget all checks but those of ``types``."""
        kept = set(types)
        with self._lock:
            for kind in self._courses.keys() - kept:
                del self._courses[kind]

    def _line(self, result: CheckResult) -> tuple[int, str, dict[str, object]] | None:
        reason = "" if result.ok else result.state
        course = self._courses.get(result.type)
        if course is None:
            if not reason:
                return None
            course = self._courses[result.type] = _Course()
        if reason != course.reason:
            course.unsaid += 1
            if not course.reason:
                course.since = result.finished
            course.reason = reason
        if reason == course.said:
            return None
        limit = course.reasons if reason and course.said else course.turns
        if not limit.lets_through(result.finished):
            return None
        return self._say(course, result)

    @staticmethod
    def _say(course: _Course, result: CheckResult) -> tuple[int, str, dict[str, object]]:
        was, held_back = course.said, course.unsaid - 1
        course.said, course.unsaid = course.reason, 0
        facts: dict[str, object] = {"type": result.type}
        if result.ok:
            level, event = logging.INFO, "check recovered"
            facts["seconds"] = round(max(0.0, result.finished - course.said_since), 1)
        else:
            level, event = logging.WARNING, "check reason changed" if was else "check failing"
            facts |= {"state": result.state, "error_event": result.event, "remote": result.remote}
            if not was:
                course.said_since = course.since
        if was:
            facts["was"] = was
        if held_back > 0:
            facts["held_back"] = held_back
        return level, event, facts
