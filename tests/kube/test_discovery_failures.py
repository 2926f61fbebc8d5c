"""What discovery says while the API server fails, and how it comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.kube.health import STEADY
from checks.model import OK
from sandbox.objects import make_node, make_pod
from tests.support.discovering import (
    NODES,
    SOON,
    Clock,
    discovering,
    names,
    serving_agents,
    synced,
    wait_for_names,
    wait_for_state,
)
from tests.support.kube import PODS, Kube
from tests.support.waiting import until


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster of three agents on three nodes; the first is the own one."""
    with serving_agents(tmp_path) as kube:
        yield kube


def test_a_known_failure_settles_the_wait(kube: Kube) -> None:
    """A caller that waits for the first picture is told as soon as it is known to fail, not at the timeout."""
    kube.server.faults.answer(PODS, 403, message="pods is forbidden")
    with discovering(kube) as discovery:
        before = time.monotonic()
        assert not discovery.wait_synced(60.0)
        assert time.monotonic() - before < 30.0
        assert discovery.snapshot().state == "pods: 403 Forbidden (grant list and watch on pods)"
        assert discovery.snapshot().synced_at is None
        kube.server.faults.clear()
        wait_for_state(discovery, OK)
        assert discovery.wait_synced(0.0)


def test_an_api_server_that_is_away_leaves_the_last_picture(kube: Kube) -> None:
    """While the API server is away the state says why and the neighbours stay, growing older; then it recovers."""
    errors: list[str] = []
    with discovering(kube, on_error=errors.append) as discovery:
        before = synced(discovery)
        kube.server.stop()
        # The very first to fail may be a request that was under way.
        refused = "pods: connection: connection refused; nodes: connection: connection refused"
        failing = wait_for_state(discovery, refused)
        assert failing.neighbours is before.neighbours
        assert failing.synced_at is not None
        until(lambda: len(errors) > 10, SOON)
        assert discovery.snapshot().synced_at == failing.synced_at
        assert set(errors) == {"connection"}
        kube.put_pods("pod-3")
        kube.server.start()
        wait_for_names(discovery, "pod-1", "pod-2", "pod-3")
        after = wait_for_state(discovery, OK)
        assert after.synced_at is not None
        assert after.synced_at > failing.synced_at


def test_the_age_is_that_of_the_older_half(kube: Kube) -> None:
    """A picture is as old as the half that was confirmed longest ago, Pods or nodes; bookmarks keep it young."""
    moment = [100.0]
    with discovering(kube, clock=lambda: moment[0]) as discovery:
        assert synced(discovery).synced_at == 100.0
        moment[0] = 200.0
        until(lambda: discovery.snapshot().synced_at == 200.0, SOON)
        kube.server.faults.answer(NODES, 500)
        kube.server.drop_watches()
        wait_for_state(discovery, "nodes: 500")
        moment[0] = 300.0
        kube.put_pods("pod-3")
        assert wait_for_names(discovery, "pod-1", "pod-2", "pod-3").synced_at == 200.0
        kube.server.faults.clear()

        def recovered() -> bool:
            moment[0] += STEADY
            return discovery.snapshot().state == OK

        until(recovered, SOON)
        until(lambda: discovery.snapshot().synced_at == moment[0], SOON)


def test_forbidden_nodes_are_said_and_no_neighbour_is_lost(kube: Kube) -> None:
    """Where nodes must not be read, the state names the remedy, and all neighbours are checked all the same."""
    kube.server.faults.answer(NODES, 403, message="nodes is forbidden: User system:serviceaccount cannot list")
    with discovering(kube) as discovery:
        picture = wait_for_names(discovery, "pod-1", "pod-2")
        assert picture.state == (
            "nodes: 403 Forbidden (grant list and watch on nodes, or set KUBENURSE_ALLOW_UNSCHEDULABLE=true)"
        )
        assert [neighbour.schedulable for neighbour in picture.neighbours] == [None, None]
        until(lambda: discovery.snapshot().synced_at is not None, SOON)
        kube.server.faults.clear()
        assert [each.schedulable for each in wait_for_state(discovery, OK).neighbours] == [True, True]


def test_a_forbidden_watch_shows_in_state_and_age_and_lists_go_on(kube: Kube) -> None:
    """List allowed, watch not: the state names the remedy, and what changes is seen by the next list."""
    kube.server.faults.answer(PODS, 403, verb="watch")
    with discovering(kube) as discovery:
        wait_for_state(discovery, "pods: 403 Forbidden (grant list and watch on pods)")
        kube.server.delete("pods", "pod-1")
        assert wait_for_names(discovery, "pod-2").state.startswith("pods: 403 Forbidden")


def test_a_reflector_that_pauses_is_woken_by_the_news_that_the_server_answers(kube: Kube) -> None:
    """After an outage the pauses are long; an answer to anybody ends them all within a moment."""
    clock = Clock()
    with discovering(kube, random=lambda: 1.0, clock=clock) as discovery:
        synced(discovery)
        kube.server.stop()
        wait_for_state(discovery, "pods: connection: connection refused; nodes: connection: connection refused")
        # From here the pauses are of 2, 4, 8, 16 and 30 s: let them grow beyond what this test waits for.
        until(lambda: all(each._backoff.failures > 2 for each in discovery._reflectors), 15.0)
        kube.server.start()
        kube.put_pods("pod-3")
        discovery.api_server_answered()
        wait_for_names(discovery, "pod-1", "pod-2", "pod-3")
        wait_for_state(discovery, OK)


def test_an_api_server_that_comes_and_goes_wakes_rarely(kube: Kube) -> None:
    """News of an answer shorten a pause once in a while only, however often they come."""
    with discovering(kube, random=lambda: 1.0) as discovery:
        synced(discovery)
        kube.server.faults.answer(PODS, 503)
        kube.server.drop_watches()
        wait_for_state(discovery, "pods: 503")
        seen = len(kube.server.requests)
        for _ in range(100):
            discovery.api_server_answered()
        assert kube.server.wait_for_request(lambda request: request.path == PODS, count=4)
        for _ in range(100):
            discovery.api_server_answered()
        assert len(kube.server.requests) <= seen + 4


def test_the_own_node_is_found_or_told(kube: Kube) -> None:
    """The own node is that of the own Pod, unless it was told; it follows the Pod."""
    with discovering(kube) as discovery:
        assert synced(discovery).own_node == "node-0"
    with discovering(kube, node_name="node-9") as discovery:
        assert discovery.snapshot().own_node == "node-9"
        assert synced(discovery).own_node == "node-9"
    with discovering(kube, own_pod="somebody-else") as discovery:
        assert synced(discovery).own_node == ""
        assert names(discovery.snapshot()) == ["pod-0", "pod-1", "pod-2"]


def test_an_own_pod_that_the_filter_leaves_out_is_found_and_warned_of_once(
    kube: Kube, caplog: pytest.LogCaptureFixture
) -> None:
    """Its node is found all the same, the picture says that it is left out, and one line says why that matters."""
    kube.server.put("pods", make_pod("own", "node-7", "10.0.0.7", labels={"app": "other"}))
    with discovering(kube, own_pod="own") as discovery:
        picture = synced(discovery)
        assert (picture.own_node, picture.known, picture.state) == ("node-7", 3, OK)
        assert picture.own_pod_unselected
        assert names(picture) == ["pod-0", "pod-1", "pod-2"]
        kube.put_pods("pod-3")
        wait_for_names(discovery, "pod-0", "pod-1", "pod-2", "pod-3")
        kube.server.put("pods", make_pod("own", "node-7", "10.0.0.7"))
        until(lambda: not discovery.snapshot().own_pod_unselected, SOON)
    found = [record.__dict__["facts"] for record in caplog.records if "does not select" in record.getMessage()]
    assert [(facts["pod"], facts["KUBENURSE_NEIGHBOUR_FILTER"]) for facts in found] == [("own", "app=kubenurse")]


def test_the_own_node_is_asked_for_until_there_is_an_answer(kube: Kube) -> None:
    """A request for the own Pod that fails is counted and made again later; the neighbours are known meanwhile."""
    kube.server.put("pods", make_pod("own", "node-7", "10.0.0.7", labels={"app": "other"}))
    kube.server.faults.answer(PODS, 429, field_selector="metadata.name=own")
    errors: list[str] = []
    clock = Clock()
    with discovering(kube, own_pod="own", on_error=errors.append, clock=clock) as discovery:
        picture = synced(discovery)
        assert (picture.own_node, picture.state, picture.known) == ("", OK, 3)
        kube.put_pods("pod-3")
        wait_for_names(discovery, "pod-0", "pod-1", "pod-2", "pod-3")
        assert errors == ["throttled"]
        kube.server.faults.clear()
        clock.ahead = 60.0
        until(lambda: discovery.snapshot().own_node == "node-7", SOON)


def test_odd_objects_are_left_out_with_one_warning(kube: Kube, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a Pod or a node claims to be, the others are followed; one line a resource says what was left out."""
    kube.server.put("pods", make_pod("pod-3", "node\ud800", "10.0.0.3"), make_pod("pod-4", "node-4", "127.0.0.1#"))
    kube.server.put("pods", make_pod("pod-5", "node-5", "169.254.169.254"), make_pod("pod-6", "node-6", "127.0.0.6"))
    odd = make_node("node-2", unschedulable=True)
    odd["spec"]["taints"] = 5
    kube.server.put("nodes", odd, make_node("node_1", unschedulable=True))
    with discovering(kube) as discovery:
        picture = wait_for_names(discovery, "pod-1")
        assert (picture.state, picture.known, picture.cordoned) == (OK, 4, 1)
        kube.put_pods("pod-7")
        wait_for_names(discovery, "pod-1", "pod-7")
    found = [record.__dict__["facts"] for record in caplog.records if record.getMessage() == "object left out"]
    assert sorted(facts["resource"] for facts in found) == ["nodes", "pods"]


def test_pods_on_loopback_are_checked_where_the_agents_listen_there(kube: Kube) -> None:
    """The sandbox's agents listen on 127.x: their Pods are neighbours."""
    kube.server.put("pods", make_pod("pod-6", "node-6", "127.0.0.6"))
    with discovering(kube, listen_address="127.0.0.1") as discovery:
        wait_for_names(discovery, "pod-1", "pod-2", "pod-6")
