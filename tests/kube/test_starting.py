"""A neighbour that is just starting: not checked until it had the time to listen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.kube import starting
from checks.kube.discovery import Discovery
from checks.kube.objects import NOT_READY
from checks.kube.starting import START_GRACE, Starting
from checks.model import RUNNING, Neighbour
from sandbox.objects import Object, make_pod
from tests.support.discovering import SOON, Clock, discovering, names, serving_agents, synced, wait_for_names
from tests.support.kube import Kube
from tests.support.waiting import until

LONG_AGO = "2026-01-02T03:04:05Z"


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster of two agents on two nodes; the first is the own one."""
    with serving_agents(tmp_path, 2) as kube:
        yield kube


def pod(name: str, *, ready: bool, started: str = "") -> Object:
    """Return a running Pod that is ready or not, started now or at a time of its own."""
    number = name.rpartition("-")[2]
    made = make_pod(name, f"node-{number}", f"10.0.0.{number}", started=started)
    for condition in made["status"]["conditions"]:
        if condition["type"] in ("Ready", "ContainersReady"):
            condition["status"] = str(ready)
    return made


def crash_looping(name: str) -> Object:
    """Return a Pod whose container waits for its next start, as it does most of the time."""
    made = pod(name, ready=False, started=LONG_AGO)
    made["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
    return made


def wait_until_known(discovery: Discovery, how_many: int) -> None:
    """Wait until so many other Pods are known."""
    until(lambda: discovery.snapshot().known == how_many, SOON)


def test_a_pod_is_checked_from_when_it_was_first_ready(kube: Kube) -> None:
    """A running Pod that was never ready is known but not checked; once ready it is, like any other running Pod."""
    with discovering(kube) as discovery:
        wait_for_names(discovery, "pod-1")
        kube.server.put("pods", pod("pod-2", ready=False))
        wait_until_known(discovery, 2)
        assert names(discovery.snapshot()) == ["pod-1"]
        kube.server.put("pods", pod("pod-2", ready=True))
        found = wait_for_names(discovery, "pod-1", "pod-2").neighbours[1]
        assert found == Neighbour("pod-2", "10.0.0.2", "10.0.0.2", "node-2", "Running", schedulable=True)


def test_a_pod_that_is_no_longer_ready_stays_checked(kube: Kube) -> None:
    """A Pod that was ready once is checked without a break when it is not ready any more, whatever its age says."""
    seen: list[list[str]] = []
    # By the Pod's age it could still be starting: its container has just been started.
    kube.server.put("pods", pod("pod-1", ready=True))
    with discovering(kube, on_change=lambda picture: seen.append(names(picture))) as discovery:
        wait_for_names(discovery, "pod-1")
        kube.server.put("pods", pod("pod-1", ready=False))
        # Events come in order: once the second one is visible, the first one has been taken.
        kube.server.put("pods", pod("pod-2", ready=True))
        picture = wait_for_names(discovery, "pod-1", "pod-2")
        assert [each.phase for each in picture.neighbours] == ["Running", "Running"]
        # A grace would be under way now, and end with the clock alone.
        assert discovery._picture.next_end() == float("inf")
    assert [] not in seen[seen.index(["pod-1"]) :]


def test_a_pod_that_does_not_become_ready_is_checked_in_the_end(kube: Kube) -> None:
    """A start that takes longer than its grace is a failure like any other."""
    clock = Clock()
    with discovering(kube, clock=clock) as discovery:
        kube.server.put("pods", pod("pod-2", ready=False))
        wait_until_known(discovery, 2)
        wait_for_names(discovery, "pod-1")
        clock.ahead = START_GRACE + 1
        wait_for_names(discovery, "pod-1", "pod-2")


def test_the_end_of_a_start_needs_no_event(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing else happens, and no bookmark comes, a Pod's grace ends all the same."""
    monkeypatch.setattr(starting, "START_GRACE", 1.0)
    kube.server.bookmark_seconds = 3600.0
    with discovering(kube) as discovery:
        wait_for_names(discovery, "pod-1")
        kube.server.put("pods", pod("pod-2", ready=False))
        wait_until_known(discovery, 2)
        wait_for_names(discovery, "pod-1", "pod-2")


def test_an_agent_that_starts_gives_grace_by_the_pods_age(kube: Kube) -> None:
    """A restarted agent checks an old Pod that is not ready at once, also one that crash-loops, and a new Pod later."""
    kube.server.put("pods", pod("pod-2", ready=False, started=LONG_AGO), pod("pod-3", ready=False))
    kube.server.put("pods", crash_looping("pod-4"))
    with discovering(kube) as discovery:
        assert synced(discovery).known == 4
        assert names(discovery.snapshot()) == ["pod-1", "pod-2", "pod-4"]


def test_a_successor_of_the_same_name_starts_anew(kube: Kube) -> None:
    """A Pod that is gone is forgotten: the next one of its name has its own grace."""
    with discovering(kube) as discovery:
        wait_for_names(discovery, "pod-1")
        kube.server.delete("pods", "pod-1")
        wait_for_names(discovery)
        kube.server.put("pods", pod("pod-1", ready=False), pod("pod-2", ready=True))
        assert wait_for_names(discovery, "pod-2").known == 2


@pytest.mark.parametrize("conditions", [None, [], "none", [None, 3], [{"type": "Initialized", "status": "True"}]])
def test_a_pod_that_says_nothing_of_readiness_is_checked(kube: Kube, conditions: object) -> None:
    """Where the API server tells no readiness, running is enough."""
    unsaid = pod("pod-2", ready=True)
    unsaid["status"]["conditions"] = conditions
    kube.server.put("pods", unsaid)
    with discovering(kube) as discovery:
        wait_for_names(discovery, "pod-1", "pod-2")


def neighbour(phase: str, ip: str = "10.0.0.1", started_at: float | None = None) -> Neighbour:
    """Return a Pod of one name."""
    return Neighbour("pod", ip, "", "node", phase, started_at=started_at)


@pytest.mark.parametrize(("age", "checked_after"), [(None, 30), (-3600, 30), (0, 30), (10, 20), (3600, 0)])
def test_the_grace_is_counted_from_the_start(age: float | None, checked_after: float) -> None:
    """A Pod has what is left of its grace when it is first seen; one from the future, by its clock, has all of it."""
    now = [100.0]
    pod = neighbour(NOT_READY, started_at=None if age is None else 1e9 - age)
    kept = Starting(clock=lambda: now[0], time_of_day=lambda: 1e9)
    assert kept.is_starting(pod) == (checked_after > 0)
    assert kept.next_end() == (100 + checked_after if checked_after else float("inf"))
    now[0] = 100 + checked_after - 0.1
    assert kept.ended() == []
    now[0] = 100 + checked_after
    assert kept.ended() == (["pod"] if checked_after else [])
    assert not kept.is_starting(pod)
    assert (kept.next_end(), kept.ended()) == (float("inf"), [])


def test_a_pod_that_was_ready_never_starts_again_at_its_address() -> None:
    """Ready, then not ready, terminating or unknown: no grace; the same name at another address has its own."""
    kept = Starting(clock=lambda: 100.0)
    for phase in (RUNNING, NOT_READY, "Unknown", NOT_READY):
        assert not kept.is_starting(neighbour(phase))
    assert kept.is_starting(neighbour(NOT_READY, "10.0.0.2"))
    kept.forget("pod")
    assert kept.next_end() == float("inf")
    assert kept.is_starting(neighbour(NOT_READY))


def test_a_grace_goes_on_while_the_pod_changes() -> None:
    """News of a starting Pod do not prolong its grace; once it is ready nothing is waited for."""
    now = [100.0]
    kept = Starting(clock=lambda: now[0])
    assert kept.is_starting(neighbour(NOT_READY))
    now[0] += 10
    assert kept.is_starting(neighbour(NOT_READY))
    assert kept.next_end() == 100 + START_GRACE
    assert not kept.is_starting(neighbour("Terminating"))
    assert kept.next_end() == float("inf")
    assert kept.is_starting(neighbour(NOT_READY))
    assert not kept.is_starting(neighbour(RUNNING))
    assert kept.next_end() == float("inf")
