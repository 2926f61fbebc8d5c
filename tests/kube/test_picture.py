"""The picture of the neighbours: updated one object at a time, equal to one made anew."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.kube.objects import NOT_READY, TERMINATING
from checks.kube.picture import Picture
from checks.kube.starting import START_GRACE
from checks.model import RUNNING, Neighbour

OWN = "pod-0"
NAMES = [f"pod-{number}" for number in range(6)]
NODES = [f"node-{number}" for number in range(4)]

pods = st.builds(
    lambda name, node, ip, phase: Neighbour(name, ip, "", node, phase),
    st.sampled_from(NAMES),
    st.sampled_from(NODES),
    st.sampled_from(["10.0.0.1", "10.0.0.2", ""]),
    # NOT_READY depends on what was before: the tests of ``Starting`` are about that.
    st.sampled_from([RUNNING, "Pending", TERMINATING]),
)
steps = st.one_of(
    st.tuples(st.just("pod"), pods),
    st.tuples(st.just("gone"), st.sampled_from(NAMES)),
    st.tuples(st.just("pods"), st.dictionaries(st.sampled_from(NAMES), pods)),
    st.tuples(st.just("cordon"), st.sampled_from(NODES)),
    st.tuples(st.just("uncordon"), st.sampled_from(NODES)),
    st.tuples(st.just("nodes"), st.dictionaries(st.sampled_from(NODES), st.just(True))),
)


class Naive:
    """The same facts without any cleverness."""

    def __init__(self) -> None:
        self.pods: dict[str, Neighbour] = {}
        self.nodes: set[str] = set()

    def reachable(self) -> list[Neighbour]:
        """Return the Pods that can be checked, on cordoned nodes too."""
        found = sorted(self.pods.items())
        return [pod for name, pod in found if name != OWN and pod.phase == RUNNING and pod.pod_ip]

    def names(self) -> list[str]:
        """Return the names of the neighbours."""
        return [pod.pod_name for pod in self.reachable() if pod.node_name not in self.nodes]


def apply(picture: Picture, naive: Naive, step: tuple[str, object]) -> None:
    """Make a step in both."""
    kind, value = step
    if isinstance(value, Neighbour):
        naive.pods[value.pod_name] = value
        assert picture.put_pod(value.pod_name, value) == len(naive.pods)
    elif isinstance(value, dict) and kind == "pods":
        naive.pods = {name: Neighbour(name, pod.pod_ip, "", pod.node_name, pod.phase) for name, pod in value.items()}
        picture.replace_pods(naive.pods)
    elif isinstance(value, dict):
        naive.nodes = set(value)
        picture.replace_nodes(value)
    elif kind == "gone":
        naive.pods.pop(str(value), None)
        picture.put_pod(str(value), None)
    else:
        (naive.nodes.add if kind == "cordon" else naive.nodes.discard)(str(value))
        assert picture.put_node(str(value), kind == "cordon" or None) == len(naive.nodes)


@given(st.lists(steps, max_size=30))
def test_a_picture_of_many_changes_equals_one_made_anew(changes: list[tuple[str, object]]) -> None:
    """Whatever changes in whatever order: neighbours and counts are those of the objects at the end."""
    picture, naive = Picture(OWN, lambda: 0.0, schedulable=True), Naive()
    for step in changes:
        before = picture.neighbours()
        apply(picture, naive, step)
        after = picture.neighbours()
        assert [pod.pod_name for pod in after] == naive.names()
        assert all(pod.schedulable for pod in after)
        assert (after is before) == (after == before)
        counts = picture.counts()
        assert counts.known == len(naive.pods.keys() - {OWN})
        assert counts.cordoned == sum(pod.node_name in naive.nodes for pod in naive.reachable())
        assert picture.has_pod(OWN) == (OWN in naive.pods)
        # Nothing is kept of nodes without Pods.
        assert picture._by_node.keys() == {pod.node_name for pod in naive.reachable()}


def test_a_change_that_is_undone_in_between_leaves_the_tuple() -> None:
    """A Pod that left and came back since the last picture changes nothing: the tuple is the same."""
    picture = Picture(OWN, lambda: 0.0, schedulable=True)
    pod = Neighbour("pod-1", "10.0.0.1", "", "node-1", RUNNING)
    picture.put_pod("pod-1", pod)
    before = picture.neighbours()
    picture.put_pod("pod-1", None)
    picture.put_pod("pod-1", pod)
    assert picture.neighbours() is before


def test_what_is_said_of_nodes_can_change() -> None:
    """While nodes are not known, ``schedulable`` is None; then it is True for old and new neighbours."""
    picture = Picture(OWN, lambda: 0.0, schedulable=None)
    for number in (1, 2):
        picture.put_pod(f"pod-{number}", Neighbour(f"pod-{number}", f"10.0.0.{number}", "", "node-1", RUNNING))
        assert {pod.schedulable for pod in picture.neighbours()} == {None if number == 1 else True}
        picture.mark_schedulable(True)
        assert {pod.schedulable for pod in picture.neighbours()} == {True}


@pytest.mark.parametrize("phase", ["Pending", "Succeeded", "Failed", "Unknown", TERMINATING])
def test_a_pod_that_does_not_run_is_no_neighbour(phase: str) -> None:
    """Such a Pod is known and not checked."""
    picture = Picture(OWN, lambda: 0.0, schedulable=True)
    picture.put_pod("pod-1", Neighbour("pod-1", "10.0.0.1", "", "node-1", phase))
    assert picture.neighbours() == ()
    assert picture.counts().known == 1


def test_a_start_ends_by_time_alone() -> None:
    """A Pod that does not become ready is a neighbour once its time to start has ended, as a running Pod."""
    now = [100.0]
    picture = Picture(OWN, lambda: now[0], schedulable=True)
    picture.put_pod("pod-1", Neighbour("pod-1", "10.0.0.1", "", "node-1", NOT_READY))
    assert (picture.neighbours(), picture.next_end()) == ((), 100.0 + START_GRACE)
    now[0] += START_GRACE
    picture.end_starts()
    assert [(pod.pod_name, pod.phase) for pod in picture.neighbours()] == [("pod-1", RUNNING)]
    assert picture.next_end() == float("inf")


def test_nodes_and_pods_are_found_by_name() -> None:
    """The node of a Pod that is not there is empty."""
    picture = Picture(OWN, lambda: 0.0, schedulable=True)
    picture.put_pod(OWN, Neighbour(OWN, "10.0.0.1", "", "node-7", RUNNING))
    picture.put_node("node-7", True)
    assert (picture.node_of(OWN), picture.node_of("pod-1")) == ("node-7", "")
    assert (picture.is_cordoned("node-7"), picture.is_cordoned("node-1")) == (True, False)
