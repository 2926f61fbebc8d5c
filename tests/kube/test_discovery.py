"""Who the neighbours are, found from a real API server, and what is said while it fails."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from checks.kube.discovery import NAMES_LOGGED, SECONDS_BETWEEN_LOGS, Discovery
from checks.model import NOT_SYNCED, OK, Neighbour, Neighbourhood
from sandbox.objects import NAMESPACE, UNSCHEDULABLE_TAINT, make_node, make_pod
from tests.support.kube import PODS, Kube, document_answer, stream_answer
from tests.support.servers import Conversation, Server
from tests.support.waiting import until

NODES = "/api/v1/nodes"
# How long a stop may take, in seconds.
PROMPT = 5.0


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster of three agents on three nodes; the first is the own one."""
    kube = Kube(tmp_path, bookmark_seconds=0.1)
    kube.put_pods("pod-0", "pod-1", "pod-2")
    kube.server.put("nodes", *(make_node(f"node-{number}") for number in range(3)))
    with kube.server:
        yield kube


@contextlib.contextmanager
def discovering(kube: Kube, **options: Any) -> Iterator[Discovery]:
    """Discover within the ``with`` block, as pod-0."""
    defaults = {"namespace": NAMESPACE, "label_selector": "app=kubenurse", "own_pod": "pod-0", "random": lambda: 0.0}
    # At no pause between tries, a second or so of a failure is hundreds of requests: enough for any test.
    found = Discovery(kube.client(request_timeout=60.0), **{**defaults, **options})
    found.start()
    try:
        yield found
    finally:
        before = time.monotonic()
        found.stop()
        assert time.monotonic() - before < PROMPT


def names(picture: Neighbourhood) -> list[str]:
    """Return the names of the neighbours."""
    return [neighbour.pod_name for neighbour in picture.neighbours]


def synced(discovery: Discovery) -> Neighbourhood:
    """Return the first picture."""
    assert discovery.wait_synced(20.0)
    return discovery.snapshot()


def wait_for_names(discovery: Discovery, *expected: str) -> Neighbourhood:
    """Wait until these are the neighbours."""
    until(lambda: names(discovery.snapshot()) == list(expected))
    return discovery.snapshot()


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


def test_a_known_failure_settles_the_wait(kube: Kube) -> None:
    """Whoever waits for the first picture is told as soon as it is known to fail, not at the timeout."""
    kube.server.faults.answer(PODS, 403, message="pods is forbidden")
    with discovering(kube) as discovery:
        before = time.monotonic()
        assert not discovery.wait_synced(60.0)
        assert time.monotonic() - before < 30.0
        assert discovery.snapshot().state == "pods: 403 Forbidden: pods is forbidden"
        assert discovery.snapshot().synced_at is None
        kube.server.faults.clear()
        until(lambda: discovery.snapshot().state == OK)
        assert discovery.wait_synced(0.0)


def test_an_api_server_that_is_away_leaves_the_last_picture(kube: Kube) -> None:
    """While the API server is away the state says why and the neighbours stay, growing older; then it recovers."""
    errors: list[str] = []
    with discovering(kube, on_error=errors.append) as discovery:
        before = synced(discovery)
        kube.server.stop()
        # The very first to fail may be a request that was under way.
        refused = "pods: connection: connection refused; nodes: connection: connection refused"
        until(lambda: discovery.snapshot().state == refused)
        failing = discovery.snapshot()
        assert failing.neighbours is before.neighbours
        assert failing.synced_at is not None
        until(lambda: len(errors) > 10)
        assert discovery.snapshot().synced_at == failing.synced_at
        assert set(errors) == {"connection"}
        kube.put_pods("pod-3")
        kube.server.start()
        after = wait_for_names(discovery, "pod-1", "pod-2", "pod-3")
        until(lambda: discovery.snapshot().state == OK)
        assert after.synced_at is not None
        assert after.synced_at > failing.synced_at


def test_the_age_is_that_of_the_older_half(kube: Kube) -> None:
    """A picture is as old as what was confirmed longest ago, Pods or nodes; bookmarks keep it young."""
    moment = [100.0]
    with discovering(kube, clock=lambda: moment[0]) as discovery:
        assert synced(discovery).synced_at == 100.0
        moment[0] = 200.0
        until(lambda: discovery.snapshot().synced_at == 200.0)
        kube.server.faults.answer(NODES, 500)
        kube.server.drop_watches()
        until(lambda: discovery.snapshot().state.startswith("nodes: 500"))
        moment[0] = 300.0
        kube.put_pods("pod-3")
        assert wait_for_names(discovery, "pod-1", "pod-2", "pod-3").synced_at == 200.0
        kube.server.faults.clear()
        until(lambda: discovery.snapshot().state == OK)
        until(lambda: discovery.snapshot().synced_at == 300.0)


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


def test_a_node_is_cordoned_by_field_or_by_taint(tmp_path: Path) -> None:
    """Of what the server lists, a node is cordoned that has spec.unschedulable or the taint, and no other."""
    nodes = [
        {"metadata": {"name": "node-1"}, "spec": {"unschedulable": True}},
        {"metadata": {"name": "node-2"}, "spec": {"taints": [{"key": UNSCHEDULABLE_TAINT, "effect": "NoExecute"}]}},
        {"metadata": {"name": "node-3"}, "spec": {"taints": [{"key": "example.com/dedicated"}, "odd"]}},
        {"metadata": {"name": "node-4"}, "spec": {"unschedulable": False, "taints": None}},
    ]
    pods = [make_pod(f"pod-{number}", f"node-{number}", f"10.0.0.{number}") for number in range(5)]

    def answer_all(conversation: Conversation) -> None:
        asked = conversation.read_head()
        if b"watch=true" in asked:
            conversation.send(stream_answer(end=False))
            conversation.wait_for_the_end()
        items = nodes if NODES.encode() in asked else pods
        conversation.send(document_answer({"metadata": {"resourceVersion": "7"}, "items": items}))

    kube = Kube(tmp_path)
    with Server(answer_all, context=kube.server.context) as server:
        kube.server.port = server.port
        with discovering(kube) as discovery:
            picture = synced(discovery)
            assert names(picture) == ["pod-3", "pod-4"]
            assert picture.cordoned == 2


def test_forbidden_nodes_are_said_and_nobody_is_lost(kube: Kube) -> None:
    """Where nodes must not be read, the state says the remedy, and all neighbours are checked all the same."""
    kube.server.faults.answer(NODES, 403, message="nodes is forbidden: User system:serviceaccount cannot list")
    with discovering(kube) as discovery:
        picture = wait_for_names(discovery, "pod-1", "pod-2")
        assert picture.state == (
            "nodes: 403 Forbidden (grant list and watch on nodes, or set KUBENURSE_ALLOW_UNSCHEDULABLE=true)"
        )
        assert [neighbour.schedulable for neighbour in picture.neighbours] == [None, None]
        until(lambda: discovery.snapshot().synced_at is not None)
        kube.server.faults.clear()
        until(lambda: discovery.snapshot().state == OK)
        assert [neighbour.schedulable for neighbour in discovery.snapshot().neighbours] == [True, True]


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


def test_the_own_node_is_found_where_the_filter_leaves_the_own_pod_out(kube: Kube) -> None:
    """The filter is about neighbours: the own Pod may have other labels, and its node is found all the same."""
    kube.server.put("pods", make_pod("own", "node-7", "10.0.0.7", labels={"app": "other"}))
    with discovering(kube, own_pod="own") as discovery:
        picture = synced(discovery)
        assert (picture.own_node, picture.known) == ("node-7", 3)
        assert names(picture) == ["pod-0", "pod-1", "pod-2"]


def test_the_own_node_is_asked_for_until_there_is_an_answer(kube: Kube) -> None:
    """A request for the own Pod that fails is counted and made again; the neighbours are known meanwhile."""
    kube.server.put("pods", make_pod("own", "node-7", "10.0.0.7", labels={"app": "other"}))
    kube.server.faults.answer(PODS, 429, field_selector="metadata.name=own")
    errors: list[str] = []
    with discovering(kube, own_pod="own", on_error=errors.append) as discovery:
        picture = synced(discovery)
        assert (picture.own_node, picture.state, picture.known) == ("", OK, 3)
        until(lambda: len(errors) >= 2)
        kube.server.faults.clear()
        until(lambda: discovery.snapshot().own_node == "node-7")
    assert set(errors) == {"throttled"}


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


class Log:
    """The lines about changed neighbours."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "kubenurse.discovery")
        self.caplog = caplog

    def changes(self) -> list[Mapping[str, Any]]:
        """Return the facts of each line."""
        return [
            record.__dict__["facts"] for record in self.caplog.records if record.getMessage() == "neighbours changed"
        ]


def test_changes_of_neighbours_are_logged_in_bounded_lines(kube: Kube, caplog: pytest.LogCaptureFixture) -> None:
    """A line says who came and who left, by name up to a bound; the next comes seconds later with all since then."""
    log = Log(caplog)
    moment = [0.0]
    kube.put_pods(*(f"pod-{number}" for number in range(100, 140)))
    with discovering(kube, clock=lambda: moment[0]) as discovery:
        until(log.changes)
        (line,) = log.changes()
        assert line["neighbours"] == 42
        assert line["added"].count("pod-") == NAMES_LOGGED
        assert line["added"].endswith(" and 32 more")
        assert line["removed"] == ""
        for number in range(100, 140):
            kube.server.delete("pods", f"pod-{number}")
        wait_for_names(discovery, "pod-1", "pod-2")
        assert len(log.changes()) == 1
        moment[0] = SECONDS_BETWEEN_LOGS
        until(lambda: len(log.changes()) == 2)
        assert log.changes()[1]["neighbours"] == 2
        assert log.changes()[1]["removed"].startswith("pod-100,pod-101,")
        moment[0] *= 10
        updated = discovery.snapshot().synced_at
        until(lambda: discovery.snapshot().synced_at != updated)
        assert len(log.changes()) == 2


def test_changes_held_back_are_logged_when_their_time_comes(
    kube: Kube, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of several changes is not left unsaid until something else happens."""
    monkeypatch.setattr("checks.kube.discovery.SECONDS_BETWEEN_LOGS", 1.0)
    kube.server.bookmark_seconds = 3600.0
    log = Log(caplog)
    with discovering(kube):
        until(log.changes)
        kube.put_pods("pod-3")
        until(lambda: len(log.changes()) == 2)
        assert log.changes()[1]["added"] == "pod-3"


def test_changes_held_back_are_logged_at_the_end(kube: Kube, caplog: pytest.LogCaptureFixture) -> None:
    """An agent that stops says what it knows of its neighbours before."""
    log = Log(caplog)
    with discovering(kube, clock=lambda: 0.0) as discovery:
        until(log.changes)
        kube.put_pods("pod-3")
        wait_for_names(discovery, "pod-1", "pod-2", "pod-3")
        assert len(log.changes()) == 1
    assert [line["added"] for line in log.changes()] == ["pod-1,pod-2", "pod-3"]


def test_many_pods_are_kept_by_what_is_used_of_them(kube: Kube) -> None:
    """Three thousand Pods of several pages are all found, in order of their names."""
    kube.put_pods(*(f"pod-{number}" for number in range(3, 3000)))
    with discovering(kube) as discovery:
        picture = synced(discovery)
        assert picture.known == 2999
        assert names(picture) == sorted(f"pod-{number}" for number in range(1, 3000))


@pytest.mark.parametrize("path", [PODS, NODES])
def test_stop_is_prompt_whatever_goes_on(kube: Kube, path: str) -> None:
    """A request that hangs does not hold up the end; nothing is asked after it."""
    kube.server.faults.hang(path)
    with discovering(kube):
        assert kube.server.wait_for_request(lambda request: request.path == path)
    asked = len(kube.server.requests)
    kube.server.drop_watches()
    assert len(kube.server.requests) == asked


def test_stop_without_start(kube: Kube) -> None:
    """What was never started can be stopped."""
    Discovery(kube.client(), namespace=NAMESPACE, label_selector="", own_pod="pod-0").stop()
