"""The flight recorder: the last failures with their evidence."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from checks.model import CheckResult

MOST_FAILURES = 100
# Witnesses kept of one failure: three name servers, asked in two ways each, and two more.
MOST_WITNESSES = 8


@dataclass(slots=True)
class _Failure:
    """A failed result, its place in the order of all failures, and what was found out about it."""

    number: int
    result: CheckResult
    starved: bool
    witnesses: list[Mapping[str, Any]] = field(default_factory=list)


class Recorder:
    """The last MOST_FAILURES failures. Its owner locks.

    When it is full, the oldest failure leaves of that check type which has the most: so types share the places, and a
    noisy one does not push out the others. Failures do not age: after a quiet night the last ones are still there.
    """

    def __init__(self) -> None:
        self._failures: dict[str, deque[_Failure]] = {}
        self._count = 0
        self._number = 0

    def take(self, result: CheckResult, *, starved: bool) -> None:
        """Record a failed result."""
        self._number += 1
        self._failures.setdefault(result.type, deque()).append(_Failure(self._number, result, starved))
        self._count += 1
        if self._count > MOST_FAILURES:
            fullest = max(self._failures, key=lambda kind: len(self._failures[kind]))
            self._failures[fullest].popleft()
            self._count -= 1
            if not self._failures[fullest]:
                del self._failures[fullest]

    def witnessed(self, kind: str, witness: Mapping[str, Any]) -> None:
        """Add a witness to the latest failure of a type, at most MOST_WITNESSES; without a failure it is dropped."""
        failures = self._failures.get(kind)
        if failures and len(failures[-1].witnesses) < MOST_WITNESSES:
            failures[-1].witnesses.append(witness)

    def document(self) -> list[dict[str, Any]]:
        """Return the failures, oldest first, each with ``at`` in epoch seconds, and ``seconds`` to the failure."""
        failures = sorted((each for kept in self._failures.values() for each in kept), key=lambda each: each.number)
        return [_document(failure) for failure in failures]


def _document(failure: _Failure) -> dict[str, Any]:
    result = failure.result
    tcp = result.tcp
    return {
        "type": result.type,
        "at": round(result.started_at, 3),
        "state": result.state,
        "phase": result.phase,
        "event": result.event,
        "status_code": result.status_code,
        "seconds": round(result.duration, 6),
        "trace": {event: round(offset, 6) for event, offset in result.trace.items()},
        "remote": result.remote,
        "tcp": None
        if tcp is None
        else {
            "rtt_seconds": tcp.rtt_seconds,
            "path_mtu_bytes": tcp.path_mtu_bytes,
            "retransmits": tcp.retransmits,
        },
        "not_after": result.not_after,
        "starved": failure.starved,
        "witnesses": [dict(witness) for witness in failure.witnesses],
    }
