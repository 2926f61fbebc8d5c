"""What the log says of checks: when one starts failing, when the reason changes and when it recovers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from checks.model import CheckResult

log = logging.getLogger("kubenurse.checks")


class Transitions:
    """Remembers each failing check's reason and logs changes only: a check that goes on failing writes one line.

    It remembers at most one reason a check of the current round.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failing: dict[str, tuple[str, float]] = {}

    def take(self, result: CheckResult) -> None:
        """Log a result if it differs from the check's last one."""
        with self._lock:
            reason, since = self._failing.get(result.type, ("", result.finished))
            if result.ok:
                self._failing.pop(result.type, None)
            else:
                self._failing[result.type] = (result.state, since)
        if result.ok and reason:
            down = round(max(0.0, result.finished - since), 1)
            log.info("check recovered", extra={"facts": {"type": result.type, "seconds": down, "was": reason}})
        elif not result.ok and result.state != reason:
            facts = {"type": result.type, "state": result.state, "error_event": result.event, "remote": result.remote}
            if reason:
                facts["was"] = reason
            log.warning("check reason changed" if reason else "check failing", extra={"facts": facts})

    def retain(self, types: Collection[str]) -> None:
        """Forget the checks that are no longer made."""
        with self._lock:
            for kind in self._failing.keys() - set(types):
                del self._failing[kind]
