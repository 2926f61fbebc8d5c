"""Pods that are just starting: they have an address before their process listens on it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from checks.model import RUNNING, Neighbour

# A running Pod that is not ready. One that never was is starting, and is not checked for so many seconds.
NOT_READY = "NotReady"
START_GRACE = 30.0


class Starting:
    """Knows which Pods are just starting; for one thread at a time.

    ``clock`` counts seconds, ``time_of_day`` is in epoch seconds, as are the Pods' ``started_at``. It keeps a number
    for each Pod of the latest picture.
    """

    def __init__(self, clock: Callable[[], float], time_of_day: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._time_of_day = time_of_day
        self._looked_at = -math.inf
        # Until when a Pod may be starting (on the clock), in the past for one that was ready; by name and address, as a
        # StatefulSet's Pods have their predecessors' names.
        self._until: dict[tuple[str, str], float] = {}

    def started(self, pods: Mapping[str, Neighbour]) -> dict[str, Neighbour]:
        """Return the Pods that are not just starting; those that are not ready for another reason are running Pods."""
        now = self._looked_at = self._clock()
        keys = {name: (name, pod.pod_ip) for name, pod in pods.items()}
        self._until = {key: self._until[key] for key in keys.values() if key in self._until}
        started = {}
        for name, pod in pods.items():
            key = keys[name]
            if pod.phase != NOT_READY:
                started[name] = pod
                if pod.phase == RUNNING:
                    self._until[key] = -math.inf
                continue
            if key not in self._until:
                self._until[key] = now + START_GRACE - self._age(pod)
            if self._until[key] <= now:
                started[name] = dataclasses.replace(pod, phase=RUNNING)
        return started

    def next_end(self) -> float:
        """Return when the next of the starting ones no longer is, on the clock; infinity without any."""
        return min((until for until in self._until.values() if until > self._looked_at), default=math.inf)

    def _age(self, pod: Neighbour) -> float:
        """Return for how many seconds it runs. Who does not say, or says so in the future, has just begun."""
        return 0.0 if pod.started_at is None else max(0.0, self._time_of_day() - pod.started_at)


def epoch_seconds(text: str) -> float | None:
    """Return the moment of an RFC 3339 time as in Kubernetes' objects, None for what is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None
