"""Pods and Nodes read into facts: what is odd is refused, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.kube.client import Object
from checks.kube.objects import NOT_READY, OddObjectError, epoch_seconds, is_cordoned, read_pod
from checks.model import Neighbour
from sandbox.objects import UNSCHEDULABLE_TAINT, make_node, make_pod

ZONE = "topology.kubernetes.io/zone"


def pod(**changes: Any) -> Object:
    """Return a Pod; ``changes`` are by path, with ``__`` for the dots."""
    made = make_pod("pod-1", "node-1", "10.0.0.1")
    for path, value in changes.items():
        *way, last = path.split("__")
        place = made
        for step in way:
            place = place[step]
        place[last] = value
    return made


def test_a_pod_is_read_with_all_that_is_used() -> None:
    """Name, addresses, node, phase and zone are those of the Pod; its start is its container's."""
    found = read_pod(pod(metadata__labels={ZONE: "zone-a"}, status__hostIP="192.0.2.1"))
    assert found.unusable == ""
    assert found.neighbour == Neighbour("pod-1", "10.0.0.1", "192.0.2.1", "node-1", "Running", zone="zone-a")


@pytest.mark.parametrize("labels", [None, 5, {}, {ZONE: 5}, {ZONE: "no zone\x1b"}, {ZONE: "x" * 64}])
def test_a_zone_that_is_no_label_value_is_unknown(labels: object) -> None:
    """The zone is empty where the label is missing or no label value."""
    assert read_pod(pod(metadata__labels=labels)).neighbour.zone == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"spec__nodeName": "node-\ud800"}, r"spec.nodeName 'node-\ud800' is no DNS-1123 name"),
        ({"spec__nodeName": 5}, "spec.nodeName 'int' is no DNS-1123 name"),
        ({"spec__nodeName": "a/b"}, "spec.nodeName 'a/b' is no DNS-1123 name"),
        ({"metadata__name": None}, "metadata.name 'NoneType' is no DNS-1123 name"),
        ({"metadata__name": ""}, "metadata.name '' is no DNS-1123 name"),
        ({"metadata__name": "x" * 1000}, f"metadata.name '{'x' * 60}...' is no DNS-1123 name"),
        ({"status__podIP": "127.0.0.1#"}, "status.podIP '127.0.0.1#' is no IP address"),
        ({"status__podIP": "10.0.0.1:99"}, "status.podIP '10.0.0.1:99' is no IP address"),
        ({"status__podIP": "010.0.0.1"}, "status.podIP '010.0.0.1' is no IP address"),
        ({"status__podIP": "fd00::1%eth0"}, "status.podIP 'fd00::1%eth0' is no IP address"),
        ({"status__podIP": 5}, "status.podIP 'int' is no IP address"),
        ({"status__hostIP": "localhost"}, "status.hostIP 'localhost' is no IP address"),
    ],
)
def test_an_odd_pod_is_refused_with_the_reason(changes: dict[str, Any], why: str) -> None:
    """The reason names the field and shows its value, bounded and in ASCII."""
    with pytest.raises(OddObjectError) as caught:
        read_pod(pod(**changes))
    assert str(caught.value) == why
    assert str(caught.value).isascii()


def test_addresses_are_in_canonical_text() -> None:
    """One address has one text, so that it has one URL; a Pod may have none yet."""
    assert read_pod(pod(status__podIP="FD00:0::0001")).neighbour.pod_ip == "fd00::1"
    assert read_pod(pod(status__podIP="")).neighbour.pod_ip == ""
    assert read_pod(pod(spec__nodeName=None)).neighbour.node_name == ""


@pytest.mark.parametrize(
    ("address", "listen", "why"),
    [
        ("127.0.0.2", "", "loopback"),
        ("127.0.0.2", "10.0.0.1", "loopback"),
        ("127.0.0.2", "127.0.0.1", ""),
        ("127.0.0.2", "::1", ""),
        ("::1", "", "loopback"),
        ("::ffff:127.0.0.1", "", "loopback"),
        ("169.254.169.254", "", "link-local"),
        ("169.254.169.254", "127.0.0.1", "link-local"),
        ("169.254.0.7", "169.254.0.1", ""),
        ("fe80::1", "", "link-local"),
        ("224.0.0.1", "", "multicast"),
        ("224.0.0.1", "224.0.0.1", "multicast"),
        ("ff02::1", "", "multicast"),
        ("0.0.0.0", "0.0.0.0", "unspecified"),
        ("::", "", "unspecified"),
        ("255.255.255.255", "", "broadcast"),
        ("10.0.0.1", "127.0.0.1", ""),
        ("fd00::1", "", ""),
    ],
)
def test_an_address_that_no_other_pod_can_have_is_not_used(address: str, listen: str, why: str) -> None:
    """Loopback and link-local addresses are used only where the agents listen on such; the others never."""
    found = read_pod(pod(status__podIP=address), listen_address=listen)
    assert found.neighbour.pod_ip == ("" if why else address)
    assert bool(found.unusable) == bool(why)
    assert found.unusable.endswith(why)
    host = read_pod(pod(status__hostIP=address), listen_address=listen).neighbour.host_ip
    assert host == ("" if why else address)


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        ({"startTime": "1970-01-01T00:00:05Z"}, 5.0),
        ({"startTime": "1970-01-01T00:00:05Z", "containerStatuses": []}, 5.0),
        ({"startTime": "1970-01-01T00:00:05Z", "containerStatuses": [{"state": {"waiting": {}}}]}, 5.0),
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
def test_a_pod_is_as_old_as_its_last_container(status: Object, seconds: float | None) -> None:
    """The start of the last running container counts; the Pod's own where none runs, as in a crash loop."""
    assert read_pod({"metadata": {"name": "pod-1"}, "status": status}).neighbour.started_at == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1970-01-01T00:00:01Z", 1.0), ("1970-01-01T01:00:01+01:00", 1.0), ("", None), ("1970-01-01T00:00:01", None)],
)
def test_times_of_objects(text: str, seconds: float | None) -> None:
    """Times carry their zone; any other text is no time."""
    assert epoch_seconds(text) == seconds


@pytest.mark.parametrize(
    ("phase", "conditions", "read"),
    [
        ("Running", [{"type": "Ready", "status": "False"}], NOT_READY),
        ("Running", [{"type": "Ready", "status": "True"}], "Running"),
        ("Running", [{"type": "Initialized", "status": "False"}], "Running"),
        ("Running", [None, 3, {"type": "Ready", "status": "False"}], NOT_READY),
        ("Running", 5, "Running"),
        ("Pending", [{"type": "Ready", "status": "False"}], "Pending"),
        ("Running\n", [], "Unknown"),
        (5, [], "Unknown"),
    ],
)
def test_phases_are_a_closed_set(phase: object, conditions: object, read: str) -> None:
    """A running Pod that is not ready has a phase of its own; a phase that Kubernetes does not have is Unknown."""
    assert read_pod(pod(status__phase=phase, status__conditions=conditions)).neighbour.phase == read


@pytest.mark.parametrize(
    ("spec", "cordoned"),
    [
        ({"unschedulable": True}, True),
        ({"taints": [{"key": UNSCHEDULABLE_TAINT, "effect": "NoExecute"}]}, True),
        ({"taints": [{"key": "example.com/dedicated"}, "odd"]}, False),
        ({"unschedulable": False, "taints": None}, False),
        ({"unschedulable": "true", "taints": 5}, False),
        ({"taints": {"key": UNSCHEDULABLE_TAINT}}, False),
        (5, False),
    ],
)
def test_a_node_is_cordoned_by_field_or_by_taint(spec: object, cordoned: bool) -> None:
    """The field or the taint makes a node cordoned; a field of another type says nothing."""
    assert is_cordoned({"metadata": {"name": "node-1"}, "spec": spec}) is cordoned


def test_an_odd_node_is_refused() -> None:
    """A node whose name is no name is not used."""
    with pytest.raises(OddObjectError, match=r"metadata\.name"):
        is_cordoned(make_node("node\n1"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["name", "labels", "deletionTimestamp"]), JSON) | JSON,
    st.dictionaries(
        st.sampled_from(["podIP", "hostIP", "phase", "conditions", "containerStatuses", "startTime"]), JSON
    ),
    st.dictionaries(st.sampled_from(["nodeName", "unschedulable", "taints"]), JSON) | JSON,
)
def test_whatever_comes_is_read_or_refused(metadata: object, status: Object, spec: object) -> None:
    """Of any JSON, a Pod and a Node are read or refused as odd, in bounded ASCII; no other error is raised."""
    for read in (read_pod, is_cordoned):
        why = ""
        try:
            read({"metadata": metadata, "spec": spec, "status": status})
        except OddObjectError as error:
            why = str(error)
        assert why.isascii()
        assert len(why) < 200
