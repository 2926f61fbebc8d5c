"""A neighbour that is just starting: not blamed until it had the time to listen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.discovery import START_GRACE, Discovery
from checks.model import Neighbour
from sandbox.objects import NAMESPACE, Object, make_node, make_pod
from tests.kube import Kube
from tests.waiting import until


class Clock:
    """Monotonic seconds that a test can put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        """Return now."""
        return time.monotonic() + self.ahead


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster of two agents on two nodes; the first is the own one."""
    kube = Kube(tmp_path, bookmark_seconds=0.1)
    kube.put_pods("pod-0", "pod-1")
    kube.server.put("nodes", *(make_node(f"node-{number}") for number in range(3)))
    with kube.server:
        yield kube


@contextlib.contextmanager
def discovering(kube: Kube, clock: Clock | None = None) -> Iterator[Discovery]:
    """Discover within the ``with`` block, as pod-0."""
    discovery = Discovery(
        kube.client(request_timeout=60.0),
        namespace=NAMESPACE,
        label_selector="app=kubenurse",
        own_pod="pod-0",
        random=lambda: 0.0,
        clock=clock or Clock(),
    )
    discovery.start()
    try:
        yield discovery
    finally:
        discovery.stop()


def pod(name: str, *, ready: bool) -> Object:
    """Return a running Pod that is ready or not."""
    number = name.rpartition("-")[2]
    made = make_pod(name, f"node-{number}", f"10.0.0.{number}")
    for condition in made["status"]["conditions"]:
        if condition["type"] in ("Ready", "ContainersReady"):
            condition["status"] = str(ready)
    return made


def neighbours(discovery: Discovery) -> list[Neighbour]:
    """Return the neighbours that may be checked now."""
    return list(discovery.snapshot().neighbours)


def test_a_pod_is_checked_from_when_it_was_first_ready(kube: Kube) -> None:
    """A running Pod that was never ready is known but not checked; once ready it is, as any other running Pod."""
    with discovering(kube) as discovery:
        until(lambda: len(neighbours(discovery)) == 1)
        kube.server.put("pods", pod("pod-2", ready=False))
        until(lambda: discovery.snapshot().known == 2)
        assert [each.pod_name for each in neighbours(discovery)] == ["pod-1"]
        kube.server.put("pods", pod("pod-2", ready=True))
        until(lambda: len(neighbours(discovery)) == 2)
        assert neighbours(discovery)[1] == Neighbour(
            "pod-2", "10.0.0.2", "10.0.0.2", "node-2", "Running", schedulable=True
        )


def test_a_pod_that_is_no_longer_ready_stays_checked(kube: Kube) -> None:
    """What was ready once and is not now is what this agent is there to tell of."""
    with discovering(kube) as discovery:
        until(lambda: len(neighbours(discovery)) == 1)
        kube.server.put("pods", pod("pod-1", ready=False))
        # Events come in order: when the second is seen, the first has been.
        kube.server.put("pods", pod("pod-2", ready=True))
        until(lambda: len(neighbours(discovery)) == 2)
        assert [each.phase for each in neighbours(discovery)] == ["Running", "Running"]


def test_a_pod_that_does_not_become_ready_is_checked_in_the_end(kube: Kube) -> None:
    """A start that takes longer than the time given to it is a failure like any other."""
    clock = Clock()
    with discovering(kube, clock) as discovery:
        kube.server.put("pods", pod("pod-2", ready=False))
        until(lambda: discovery.snapshot().known == 2)
        until(lambda: [each.pod_name for each in neighbours(discovery)] == ["pod-1"])
        clock.ahead = START_GRACE + 1
        until(lambda: [each.pod_name for each in neighbours(discovery)] == ["pod-1", "pod-2"])


def test_a_successor_of_the_same_name_starts_anew(kube: Kube) -> None:
    """A Pod that is gone is forgotten: the next one of its name has its own time to start."""
    with discovering(kube) as discovery:
        until(lambda: len(neighbours(discovery)) == 1)
        kube.server.delete("pods", "pod-1")
        until(lambda: not neighbours(discovery))
        kube.server.put("pods", pod("pod-1", ready=False), pod("pod-2", ready=True))
        until(lambda: len(neighbours(discovery)) == 1)
        assert neighbours(discovery)[0].pod_name == "pod-2"
        assert discovery.snapshot().known == 2


@pytest.mark.parametrize("conditions", [None, [], "none", [None, 3], [{"type": "Initialized", "status": "True"}]])
def test_a_pod_that_says_nothing_of_readiness_is_checked(kube: Kube, conditions: object) -> None:
    """Where the API server tells no readiness, running is enough."""
    unsaid = pod("pod-2", ready=True)
    unsaid["status"]["conditions"] = conditions
    kube.server.put("pods", unsaid)
    with discovering(kube) as discovery:
        until(lambda: [each.pod_name for each in neighbours(discovery)] == ["pod-1", "pod-2"])
