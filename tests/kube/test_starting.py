"""A neighbour that is just starting: not blamed until it had the time to listen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.kube import starting
from checks.kube.discovery import Discovery
from checks.kube.starting import NOT_READY, START_GRACE, Starting, epoch_seconds
from checks.model import RUNNING, Neighbour
from sandbox.objects import NAMESPACE, Object, make_node, make_pod
from tests.support.kube import Kube
from tests.support.waiting import until


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


def pod(name: str, *, ready: bool, started: str = "") -> Object:
    """Return a running Pod that is ready or not, started now or at a time of its own."""
    number = name.rpartition("-")[2]
    made = make_pod(name, f"node-{number}", f"10.0.0.{number}", started=started)
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


def test_the_end_of_a_start_is_not_waited_for_with_the_next_event(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing else happens, and no bookmark comes, a Pod's time to start ends all the same."""
    monkeypatch.setattr(starting, "START_GRACE", 2.0)
    kube.server.bookmark_seconds = 3600.0
    with discovering(kube) as discovery:
        until(lambda: len(neighbours(discovery)) == 1)
        kube.server.put("pods", pod("pod-2", ready=False))
        until(lambda: discovery.snapshot().known == 2)
        assert len(neighbours(discovery)) == 1
        until(lambda: len(neighbours(discovery)) == 2)


def test_a_pod_that_runs_for_long_is_not_starting(kube: Kube) -> None:
    """An agent that starts while a neighbour is not ready checks it at once, if that one had its time to start."""
    kube.server.put("pods", pod("pod-2", ready=False, started="2026-01-02T03:04:05Z"), pod("pod-3", ready=False))
    with discovering(kube) as discovery:
        assert discovery.wait_synced(20)
        assert discovery.snapshot().known == 3
        assert [each.pod_name for each in neighbours(discovery)] == ["pod-1", "pod-2"]


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        ({"startTime": "1970-01-01T00:00:05Z"}, 5.0),
        ({"startTime": "1970-01-01T00:00:05Z", "containerStatuses": []}, 5.0),
        ({"containerStatuses": [{"state": {"running": {"startedAt": "1970-01-01T00:01:00Z"}}}]}, 60.0),
        (
            {
                "startTime": "1970-01-01T00:00:05Z",
                "containerStatuses": [
                    {"state": {"running": {"startedAt": "1970-01-01T00:01:00Z"}}},
                    {"state": {"running": {"startedAt": "1970-01-01T00:02:00Z"}}},
                    {"state": {"waiting": {}}},
                ],
            },
            120.0,
        ),
        ({}, None),
        ({"startTime": "yesterday"}, None),
        ({"startTime": 5, "containerStatuses": [None, {"state": None}]}, None),
    ],
)
def test_a_pod_is_as_old_as_its_last_container(kube: Kube, status: Object, seconds: float | None) -> None:
    """Images may take long to come: what counts is when the last container was started."""
    told = pod("pod-2", ready=True)
    del told["status"]["startTime"], told["status"]["containerStatuses"]
    told["status"] |= status
    kube.server.put("pods", told)
    with discovering(kube) as discovery:
        until(lambda: len(neighbours(discovery)) == 2)
        assert neighbours(discovery)[1].started_at == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1970-01-01T00:00:01Z", 1.0), ("1970-01-01T01:00:01+01:00", 1.0), ("", None), ("1970-01-01T00:00:01", None)],
)
def test_times_of_objects(text: str, seconds: float | None) -> None:
    """Times carry their zone; what is none is no time."""
    assert epoch_seconds(text) == seconds


def test_a_start_that_ends_while_it_is_looked_at_is_not_forgotten() -> None:
    """What was still starting at the moment of looking has its end told, though that has passed since."""
    now = iter((100.0, 100.0 + START_GRACE + 1))
    kept = Starting(clock=lambda: next(now))
    pods = {"pod": Neighbour("pod", "10.0.0.1", "10.0.0.1", "node", NOT_READY)}
    assert kept.started(pods) == {}
    assert kept.next_end() == 100 + START_GRACE
    assert kept.started(pods).keys() == {"pod"}


def test_who_takes_over_a_name_has_its_own_time_to_start() -> None:
    """A StatefulSet's Pod is not taken for its predecessor, which was ready, though none saw that one go."""
    kept = Starting(clock=lambda: 100.0)
    assert kept.started({"pod-0": Neighbour("pod-0", "10.0.0.1", "", "node", RUNNING)})
    assert not kept.started({"pod-0": Neighbour("pod-0", "10.0.0.2", "", "node", NOT_READY)})


@pytest.mark.parametrize(("age", "checked_after"), [(None, 30), (-3600, 30), (0, 30), (10, 20), (3600, 0)])
def test_the_time_to_start_is_counted_from_the_start(age: float | None, checked_after: float) -> None:
    """A Pod has what is left of its time when it is first seen; one from the future, by its clock, has all of it."""
    now = [100.0]
    begun = None if age is None else 1e9 - age
    kept = Starting(clock=lambda: now[0], time_of_day=lambda: 1e9)
    pods = {"pod": Neighbour("pod", "10.0.0.1", "10.0.0.1", "node", NOT_READY, started_at=begun)}
    assert bool(kept.started(pods)) == (checked_after == 0)
    assert kept.next_end() == (100 + checked_after if checked_after else float("inf"))
    now[0] = 100 + checked_after
    assert [each.phase for each in kept.started(pods).values()] == [RUNNING]
    assert kept.next_end() == float("inf")


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
