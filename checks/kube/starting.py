"""Pods that are just starting: they have an address before their process listens on it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from checks.kube.objects import NOT_READY
from checks.model import RUNNING, Neighbour

# Seconds. A running Pod that was never ready is not checked for that long after its start.
START_GRACE = 30.0


class Starting:
    """Knows which Pods are just starting; for one thread at a time.

    ``clock`` counts seconds, ``time_of_day`` is in epoch seconds, as are the Pods' ``started_at``. It keeps one entry
    for each Pod that it was told of and not told to forget.
    """

    def __init__(self, clock: Callable[[], float], time_of_day: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._time_of_day = time_of_day
        # By name: the address, and the end of the grace on the clock. The end is in the past for a Pod that was ready.
        # A StatefulSet's Pod has its predecessor's name and another address.
        self._ends: dict[str, tuple[str, float]] = {}
        # The entries whose end was in the future when they were last looked at: a subset of ``_ends``.
        self._waiting: dict[str, float] = {}

    def is_starting(self, pod: Neighbour) -> bool:
        """Tell whether a Pod is just starting, in its newest version."""
        name = pod.pod_name
        address, end = self._ends.get(name, ("", math.nan))
        if pod.phase == RUNNING:
            end = -math.inf
        elif address != pod.pod_ip or math.isnan(end):
            if pod.phase != NOT_READY:
                self.forget(name)
                return False
            end = self._clock() + START_GRACE - self._age(pod)
        self._ends[name] = (pod.pod_ip, end)
        starting = pod.phase == NOT_READY and end > self._clock()
        if starting:
            self._waiting[name] = end
        else:
            self._waiting.pop(name, None)
        return starting

    def forget(self, name: str) -> None:
        """Forget a Pod that is gone."""
        self._ends.pop(name, None)
        self._waiting.pop(name, None)

    def ended(self) -> list[str]:
        """Return the names of the Pods whose grace has ended, each once."""
        now = self._clock()
        names = [name for name, end in self._waiting.items() if end <= now]
        for name in names:
            del self._waiting[name]
        return names

    def next_end(self) -> float:
        """Return when the next grace ends, on the clock; infinity when no Pod is starting."""
        return min(self._waiting.values(), default=math.inf)

    def _age(self, pod: Neighbour) -> float:
        """Return the Pod's age in seconds; 0 when its start is unknown or, by the node's clock, in the future."""
        return 0.0 if pod.started_at is None else max(0.0, self._time_of_day() - pod.started_at)
