"""Faults of an agent's own process: it gets too little CPU time, or it stands still."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Iterator, Sequence

import pytest

from checks.model import ME_INGRESS, ME_SERVICE
from tests.e2e import cgroups
from tests.e2e.cluster import FIXED_TYPES, Cluster
from tests.e2e.faults import IN_TIME, Expected, Fault, others, paths_from, sometimes
from tests.e2e.watcher import DISCOVERY, Seen

TARGET = "node-5"
# An agent needs about 3% of a CPU here. In a period of 20 ms it gets 1 ms: enough in all, and too little for any check
# without a wait for the next period.
CPU_SHARE = 0.05
CPU_PERIOD = 0.02
LEAST_PERIODS_THROTTLED = 20
STOPPED_SECONDS = 3.0
OWN_CHECKS = tuple(kind for kind in (*FIXED_TYPES, *paths_from(TARGET)) if kind != DISCOVERY)


@contextlib.contextmanager
def _throttled(cluster: Cluster) -> Iterator[None]:
    if cgroups.controller() is None:
        pytest.skip("no control group here limits CPU time")
    with cgroups.throttled(cluster.by_name[TARGET].process.pid, CPU_SHARE, CPU_PERIOD):
        yield


def _limit_bites(_: Cluster, seen: Sequence[Seen]) -> str:
    """The limit was felt, and no check failed because of it; how long checks take then is no promise."""
    durations = sorted(it.facts["duration"] for it in seen if it.node == TARGET and "duration" in it.facts)
    median = durations[len(durations) // 2]
    controller = cgroups.controller()
    assert controller is not None
    waits = cgroups.times_throttled(cgroups.group(controller))
    assert waits >= LEAST_PERIODS_THROTTLED, waits
    return f"{TARGET}: ok, median {1000 * median:.1f} ms, throttled in {waits} periods"


@contextlib.contextmanager
def _stopped(cluster: Cluster) -> Iterator[None]:
    process = cluster.by_name[TARGET].process
    process.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        yield
        time.sleep(max(0.0, stopped + STOPPED_SECONDS - time.monotonic()))
    finally:
        process.signal(signal.SIGCONT)


FAULTS = (
    Fault(
        f"Agent's CPU throttled to {CPU_SHARE:.0%}",
        _throttled,
        proof=_limit_bites,
        hold=6.0,
    ),
    Fault(
        f"Agent's process stopped for {STOPPED_SECONDS:g} s (SIGSTOP)",
        _stopped,
        (
            # The kernel accepts the connection, and nobody answers.
            Expected(others(TARGET), (f"path_{TARGET}",), f"response: {IN_TIME}", "timeout"),
            sometimes(others(TARGET), (ME_SERVICE,), f"response: {IN_TIME}", "timeout"),
            sometimes(others(TARGET), (ME_INGRESS,), f"response: {IN_TIME}", "timeout"),
            # What was under way when the process stopped has passed its deadline when it goes on.
            sometimes((TARGET,), OWN_CHECKS, re.compile(rf"[a-z]+: {IN_TIME}"), "timeout"),
        ),
        hold=0.0,
    ),
)
