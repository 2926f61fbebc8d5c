"""Who the neighbours are, found from a real API server, and what is said while it fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from checks.model import NOT_SYNCED, OK, Neighbour, Neighbourhood
from sandbox.objects import make_node, make_pod
from tests.support.discovering import NODES, discovering, names, serving_agents, synced, wait_for_names
from tests.support.kube import PODS, Kube
from tests.support.waiting import until


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster of three agents on three nodes; the first is the own one."""
    with serving_agents(tmp_path) as kube:
        yield kube


def test_the_neighbours_are_the_other_pods(kube: Kube) -> None:
    """A neighbour is another running Pod of the selection, shown with all that is known of it."""
    kube.put_pods("pod-3", labels={"app": "other"})
    kube.put_pods("pod-4", namespace="elsewhere")
    with discovering(kube) as discovery:
        picture = synced(discovery)
        assert picture.neighbours == (
            Neighbour("pod-1", "10.0.0.1", "10.0.0.1", "node-1", "Running", schedulable=True),
            Neighbour("pod-2", "10.0.0.2", "10.0.0.2", "node-2", "Running", schedulable=True),
        )
        assert (picture.state, picture.known, picture.cordoned, picture.own_node) == (OK, 2, 0, "node-0")
        assert not picture.own_node_cordoned


def test_nothing_is_said_before_the_first_sync(kube: Kube) -> None:
    """Until Pods and nodes are listed the state is "not synced yet", without neighbours; then it is ok."""
    kube.server.faults.hang(PODS)
    kube.server.faults.hang(NODES)
    with discovering(kube) as discovery:
        assert kube.server.wait_for_request(lambda request: request.path == PODS)
        assert discovery.snapshot() == Neighbourhood(NOT_SYNCED)
        assert not discovery.wait_synced(0.05)


def test_pods_wait_for_nodes(kube: Kube) -> None:
    """Pods alone are no picture: nobody is checked before it is known who is cordoned."""
    kube.server.faults.hang(NODES)
    with discovering(kube) as discovery:
        until(lambda: discovery.snapshot().known == 2)
        assert discovery.snapshot().state == NOT_SYNCED
        assert discovery.snapshot().neighbours == ()
        assert discovery.snapshot().synced_at is None


def test_a_cluster_without_neighbours_is_ok(kube: Kube) -> None:
    """No neighbours is a picture like any other, not a missing one."""
    with discovering(kube, label_selector="app=nobody") as discovery:
        picture = synced(discovery)
        assert (picture.state, picture.neighbours, picture.known) == (OK, (), 0)


@pytest.mark.parametrize(
    "fields",
    [{"phase": "Pending"}, {"phase": "Failed"}, {"phase": "Succeeded"}, {"terminating": True}],
    ids=lambda fields: str(fields),
)
def test_pods_that_are_not_running_are_no_neighbours(kube: Kube, fields: Mapping[str, Any]) -> None:
    """A Pod that is pending, ended or terminating is known, not checked, and checked once it runs."""
    kube.put_pods("pod-1", **fields)
    with discovering(kube) as discovery:
        picture = synced(discovery)
        assert names(picture) == ["pod-2"]
        assert picture.known == 2
        kube.put_pods("pod-1")
        wait_for_names(discovery, "pod-1", "pod-2")
        kube.put_pods("pod-1", **fields)
        wait_for_names(discovery, "pod-2")


def test_a_pod_without_an_address_is_no_neighbour(kube: Kube) -> None:
    """A running Pod that has no IP yet cannot be checked, and is once it has one."""
    kube.server.put("pods", make_pod("pod-1", "node-1", ""))
    with discovering(kube) as discovery:
        assert names(synced(discovery)) == ["pod-2"]
        kube.put_pods("pod-1")
        wait_for_names(discovery, "pod-1", "pod-2")


def test_a_departed_pod_leaves_at_once(kube: Kube) -> None:
    """A Pod that is deleted, or loses its label, is no neighbour from that moment, and whoever asked is told."""
    told: list[list[str]] = []
    with discovering(kube, on_change=lambda picture: told.append(names(picture))) as discovery:
        synced(discovery)
        kube.server.delete("pods", "pod-1")
        assert wait_for_names(discovery, "pod-2").known == 1
        kube.put_pods("pod-2", labels={"app": "other"})
        assert wait_for_names(discovery).known == 0
    assert told[-1] == []
    assert told.index(["pod-1", "pod-2"]) < told.index(["pod-2"])


def test_cordoned_nodes_are_left_out(kube: Kube) -> None:
    """A cordon takes a node's Pods away, counts them, and an uncordon gives them back."""
    with discovering(kube) as discovery:
        synced(discovery)
        kube.server.put("nodes", make_node("node-1", unschedulable=True))
        picture = wait_for_names(discovery, "pod-2")
        assert (picture.cordoned, picture.known, picture.own_node_cordoned) == (1, 2, False)
        kube.server.put("nodes", make_node("node-0", unschedulable=True))
        until(lambda: discovery.snapshot().own_node_cordoned)
        kube.server.put("nodes", make_node("node-0"), make_node("node-1"))
        until(lambda: not discovery.snapshot().own_node_cordoned)
        assert wait_for_names(discovery, "pod-1", "pod-2").cordoned == 0


def test_only_cordoned_nodes_are_asked_for(kube: Kube) -> None:
    """Of a cluster's nodes only those that are cordoned travel, by list and by watch."""
    with discovering(kube) as discovery:
        synced(discovery)
        assert kube.server.wait_for_request(lambda request: request.path == NODES and request.verb == "watch")
    asked = [request.query["fieldSelector"] for request in kube.server.requests if request.path == NODES]
    assert set(asked) == {"spec.unschedulable=true"}


def test_with_allow_unschedulable_nodes_are_neither_read_nor_watched(kube: Kube) -> None:
    """Then cordoned nodes' Pods are neighbours too, of which it is not known, and no request names nodes."""
    kube.server.put("nodes", make_node("node-0", unschedulable=True), make_node("node-1", unschedulable=True))
    with discovering(kube, allow_unschedulable=True) as discovery:
        picture = synced(discovery)
        assert names(picture) == ["pod-1", "pod-2"]
        assert {neighbour.schedulable for neighbour in picture.neighbours} == {None}
        assert (picture.state, picture.cordoned, picture.own_node_cordoned) == (OK, 0, False)
        assert kube.server.wait_for_request(lambda request: request.verb == "watch")
        kube.put_pods("pod-3")
        wait_for_names(discovery, "pod-1", "pod-2", "pod-3")
    assert {request.path for request in kube.server.requests} == {PODS}


def test_host_network_and_pods_on_the_own_node(kube: Kube) -> None:
    """A Pod that has its node's address, and one on the own node, are neighbours like any other."""
    kube.server.put("pods", make_pod("pod-1", "node-0", "192.0.2.1", host_ip="192.0.2.1"))
    with discovering(kube) as discovery:
        assert names(synced(discovery)) == ["pod-1", "pod-2"]


def test_the_same_neighbours_are_the_same_tuple(kube: Kube) -> None:
    """Bookmarks and changes elsewhere leave the tuple as it is, and nobody is told anything new."""
    told: list[Neighbourhood] = []
    with discovering(kube, on_change=told.append) as discovery:
        before = synced(discovery)
        until(lambda: told and told[-1].state == OK)
        until(lambda: discovery.snapshot().synced_at != before.synced_at)
        kube.server.put("nodes", make_node("node-7"))
        again = discovery.snapshot().synced_at
        until(lambda: discovery.snapshot().synced_at != again)
        assert discovery.snapshot().neighbours is before.neighbours
        assert told[-1].neighbours is before.neighbours
    assert [picture.state for picture in told].count(OK) == 1


def test_many_pods_are_kept_by_what_is_used_of_them(kube: Kube) -> None:
    """Three thousand Pods of several pages are all found, in order of their names."""
    kube.put_pods(*(f"pod-{number}" for number in range(3, 3000)))
    with discovering(kube) as discovery:
        picture = synced(discovery)
        assert picture.known == 2999
        assert names(picture) == sorted(f"pod-{number}" for number in range(1, 3000))
