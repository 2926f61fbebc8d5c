"""Which neighbours are checked, and at which URL."""

from __future__ import annotations

import hashlib
from collections import Counter
from random import Random
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.model import Neighbour
from checks.targets.neighbours import choose, targets

FLEET = 1000


def neighbour(node: str, pod: str = "", ip: str = "10.0.0.1") -> Neighbour:
    """Return a Pod on a node."""
    return Neighbour(pod or f"kubenurse-{node}", ip, ip, node, "Running", schedulable=True)


def reference(neighbours: list[Neighbour], own_node: str, limit: int) -> set[str]:
    """Return the nodes to check, word for word as the contract says.

    SHA-256 of each node name, first 8 bytes as a big-endian unsigned integer, minus that of the own node modulo 2^64;
    the limit smallest.
    """

    def number(name: str) -> int:
        total = 0
        for byte in hashlib.sha256(name.encode()).digest()[:8]:
            total = total * 256 + byte
        return total

    distances = {pod.node_name: (number(pod.node_name) - number(own_node)) % 2**64 for pod in neighbours}
    nearest = sorted(distances, key=lambda name: distances[name])
    return set(nearest if limit == 0 else nearest[:limit])


node_names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=12)
fleets = st.lists(node_names, min_size=1, max_size=40, unique=True)


@pytest.mark.parametrize("limit", [1, 10])
def test_each_of_a_thousand_nodes_is_checked_by_exactly_limit_others(limit: int) -> None:
    """In a fleet of 1,000 nodes every node is chosen by LIMIT others, no more and no fewer."""
    fleet = [neighbour(f"node-{number}.example") for number in range(FLEET)]
    chosen: Counter[str] = Counter()
    for own in fleet:
        others = [pod for pod in fleet if pod is not own]
        chosen.update(pod.node_name for pod in choose(others, own.node_name, limit))
    assert chosen == {pod.node_name: limit for pod in fleet}


@given(fleets, st.integers(0, 12))
def test_any_fleet_is_checked_evenly(nodes: list[str], limit: int) -> None:
    """Whatever the nodes are called, every node is chosen by LIMIT others, or by all where there are fewer."""
    fleet = [neighbour(node) for node in nodes]
    chosen: Counter[str] = Counter()
    for own in fleet:
        chosen.update(pod.node_name for pod in choose((pod for pod in fleet if pod != own), own.node_name, limit))
    most = len(fleet) - 1
    each = min(limit, most) if limit else most
    assert chosen == (dict.fromkeys(nodes, each) if each else {})


@given(fleets, st.integers(0, 12), st.randoms(use_true_random=False))
def test_the_choice_is_the_contracts(nodes: list[str], limit: int, shuffler: Random) -> None:
    """The choice equals a reference written from the contract's words, in whatever order the Pods come."""
    own, *others = nodes
    pods = [neighbour(node) for node in others]
    shuffler.shuffle(pods)
    found = choose(pods, own, limit)
    assert {pod.node_name for pod in found} == reference(pods, own, limit)
    assert found == choose(sorted(pods, key=lambda pod: pod.pod_name), own, limit)


def test_a_known_choice_stays() -> None:
    """Around one node the order is this one, found with sha256sum, so that agents of different versions agree."""
    # In the order of the circle: c 092c, f 3f88, h 4f3f, e 4f91, a 6657, b 93ef, g ae48, d db81, and c again.
    pods = [neighbour(f"node-{letter}") for letter in "bcdefgh"]
    assert [pod.node_name[-1] for pod in choose(pods, "node-a", 5)] == ["b", "g", "d", "c", "f"]


def test_no_limit_is_all() -> None:
    """LIMIT=0 checks every neighbour there is, each once."""
    pods = [neighbour(f"node-{number}") for number in range(FLEET)]
    found = choose(pods, "node-own", 0)
    assert len(found) == FLEET
    assert set(found) == set(pods)


@pytest.mark.parametrize("limit", [0, 1, 10])
def test_no_neighbours_nothing_to_check(limit: int) -> None:
    """An agent alone in its cluster checks nobody."""
    assert choose([], "node-own", limit) == ()
    assert targets((), "http", 8080, "kubenurse-own") == []


def test_a_neighbour_less_changes_one_choice() -> None:
    """When a chosen neighbour leaves, the next one takes its place and the others stay."""
    pods = [neighbour(f"node-{number}") for number in range(50)]
    before = choose(pods, "node-own", 10)
    after = choose([pod for pod in pods if pod != before[3]], "node-own", 10)
    assert before[:3] + before[4:] == after[:-1]


def test_two_pods_on_one_node_do_not_lose_each_other() -> None:
    """An own node's other Pod comes first, and two Pods on another node have a check each, told apart by name."""
    pods = [neighbour("node-2", "b"), neighbour("node-2", "a"), neighbour("node-1", "c"), neighbour("node-3", "d")]
    chosen = choose(pods, "node-1", 0)
    assert chosen[0].pod_name == "c"
    assert [pod.pod_name for pod in chosen if pod.node_name == "node-2"] == ["a", "b"]
    assert sorted(target.type for target in targets(chosen, "http", 8080, "own")) == [
        "path_node-1",
        "path_node-2",
        "path_node-2_b",
        "path_node-3",
    ]


@given(st.lists(st.tuples(node_names, node_names), max_size=30, unique_by=lambda pair: pair[1]))
def test_types_are_unique_and_name_the_node(pairs: list[tuple[str, str]]) -> None:
    """Each Pod has a check of its own, whose type begins with its node; each node has one that is just its name."""
    pods = [neighbour(node, pod) for node, pod in pairs]
    found = targets(choose(pods, "own", 0), "http", 8080, "own")
    types = [target.type for target in found]
    assert len(set(types)) == len(pods)
    assert {kind for kind in types if "_" not in kind.removeprefix("path_")} == {f"path_{node}" for node, _ in pairs}


@pytest.mark.parametrize(
    ("ip", "scheme", "port", "url"),
    [
        ("10.1.2.3", "http", 8080, "http://10.1.2.3:8080/alwayshappy"),
        ("10.1.2.3", "https", 8443, "https://10.1.2.3:8443/alwayshappy"),
        ("fd00::1:2", "http", 8080, "http://[fd00::1:2]:8080/alwayshappy"),
    ],
)
def test_a_neighbour_is_checked_at_its_pods_address(ip: str, scheme: str, port: int, url: str) -> None:
    """The URL has the Pod's IP, in brackets for IPv6, and carries neither credentials, proxy nor redirects."""
    (target,) = targets([neighbour("node-1", ip=ip)], scheme, port, "kubenurse-own")
    assert (target.type, target.url, target.origin) == ("path_node-1", url, "kubenurse-own")
    assert (target.to_api_server, target.use_proxy, target.follow_redirects) == (False, False, False)
    assert urlsplit(target.url).hostname == ip


def test_host_network_pods_are_checked_at_their_nodes() -> None:
    """Under hostNetwork, where a Pod's IP is its node's, each node has its check at its own address."""
    pods = [neighbour(f"node-{number}", ip=f"192.0.2.{number}") for number in range(1, 4)]
    found = targets(choose(pods, "node-9", 0), "http", 8080, "node-9")
    assert {target.type: target.url for target in found} == {
        f"path_node-{number}": f"http://192.0.2.{number}:8080/alwayshappy" for number in range(1, 4)
    }


def test_a_path_check_knows_the_node_and_its_address() -> None:
    """The node's own address is the host's, not the Pod's; without a name to verify the address itself is verified."""
    pod = Neighbour("kubenurse-a", "10.1.2.3", "192.0.2.7", "node-1", "Running")
    (target,) = targets([pod], "https", 8443, "kubenurse-own")
    assert (target.node, target.node_address, target.server_name) == ("node-1", "192.0.2.7", "")
