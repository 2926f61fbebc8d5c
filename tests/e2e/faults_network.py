"""Faults of the network between two Pods, or between a node and all others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from checks.model import API_SERVER_DIRECT, API_SERVER_DNS, ME_INGRESS, ME_SERVICE
from tests.e2e.cluster import API_IP, Cluster
from tests.e2e.faults import ALL, API, IN_TIME, NAMED, Expected, Fault, others, paths_from, sometimes
from tests.e2e.network import INTERFACE, Addresses, Member
from tests.e2e.nodes import PORT
from tests.e2e.watcher import Seen

# Larger than a plain answer, smaller than a server's certificate.
SMALL_BYTES = 512


@contextlib.contextmanager
def rules(member: Member, *lines: str, versions: Sequence[int] = (4, 6)) -> Iterator[None]:
    """Insert iptables rules (chain first) at the head of a member's filter table."""
    done: list[list[str]] = []
    try:
        for version in versions:
            command = "iptables" if version == 4 else "ip6tables"
            for line in lines:
                member.namespace.run(command, "-w", "-I", *line.split())
                done.append([command, "-w", "-D", *line.split()])
        yield
    finally:
        for undo in done:
            member.namespace.run(*undo)


@contextlib.contextmanager
def _killed(cluster: Cluster) -> Iterator[None]:
    node = cluster.by_name["node-2"]
    node.kill()
    try:
        yield
    finally:
        node.start_process()
        node.become_ready()


@contextlib.contextmanager
def _cut_off(cluster: Cluster) -> Iterator[None]:
    member = cluster.by_name["node-3"].member
    cluster.network.unplug(member)
    try:
        yield
    finally:
        cluster.network.plug_in(member)


def _to(addresses: Addresses, version: int) -> str:
    return f"-d {addresses.of_family(version)}"


@contextlib.contextmanager
def _one_way(cluster: Cluster) -> Iterator[None]:
    """Packets from node-1 to node-2's Pod are lost. Packets in the other direction arrive."""
    target = cluster.by_name["node-2"].addresses
    with contextlib.ExitStack() as stack:
        for version in (4, 6):
            line = f"OUTPUT -o {INTERFACE} {_to(target, version)} -j DROP"
            stack.enter_context(rules(cluster.by_name["node-1"].member, line, versions=(version,)))
        yield


@contextlib.contextmanager
def _rejected(cluster: Cluster) -> Iterator[None]:
    line = f"INPUT -i {INTERFACE} -p tcp --dport {PORT} -j REJECT"
    with rules(cluster.by_name["node-2"].member, line):
        yield


@contextlib.contextmanager
def _prohibited(cluster: Cluster) -> Iterator[None]:
    member = cluster.by_name["node-2"].member
    line = f"INPUT -i {INTERFACE} -p tcp --dport {PORT} -j REJECT --reject-with"
    with rules(member, f"{line} icmp-host-prohibited", versions=(4,)):
        yield


@contextlib.contextmanager
def _large_segments_lost(cluster: Cluster) -> Iterator[None]:
    line = f"INPUT -i {INTERFACE} -p tcp -m length --length {SMALL_BYTES}:65535 -j DROP"
    with rules(cluster.by_name["node-5"].member, line):
        yield


@contextlib.contextmanager
def _one_family_lost(cluster: Cluster) -> Iterator[None]:
    """IPv4 to the control plane is lost on node-1; IPv6 works."""
    line = f"OUTPUT -o {INTERFACE} -p tcp -d {cluster.plane.host.v4} -j DROP"
    with rules(cluster.by_name["node-1"].member, line, versions=(4,)):
        yield


def _went_by_ipv6(_: Cluster, seen: Sequence[Seen]) -> str:
    """The API server's name has two addresses. The loss of one of them is no failure."""
    remotes = {it.facts["remote"] for it in seen if (it.node, it.type) == ("node-1", API_SERVER_DNS)}
    assert remotes == {API_IP.v6}, remotes
    return f"node-1: {API_SERVER_DNS} ok by {API_IP.v6}"


_SILENT_BACKEND = (
    (ME_SERVICE,),
    f"connect: {IN_TIME}",
    "timeout",
)
_SILENT_INGRESS = (
    (ME_INGRESS,),
    f"response: {IN_TIME}",
    "timeout",
)
_TARGET = "node-2"
# The kernel limits how many ICMP messages it sends to one host (icmp(7)): what comes beyond that meets silence. Checks
# by a Service's name try its other family then, and wait for that one too.
_UNHEARD = (sometimes(others(_TARGET), *_SILENT_BACKEND), sometimes(ALL, *_SILENT_INGRESS))

FAULTS = (
    Fault(
        "Pod killed, not yet restarted",
        _killed,
        (Expected(others(_TARGET), (f"path_{_TARGET}",), "connect: connection refused", "connect_done"),),
    ),
    Fault(
        "Node cut off (veth down)",
        _cut_off,
        (
            Expected(("node-3",), (API_SERVER_DIRECT, *paths_from("node-3")), f"connect: {IN_TIME}", "timeout"),
            Expected(("node-3",), NAMED, f"dns: {IN_TIME}", "timeout"),
            Expected(others("node-3"), ("path_node-3",), f"connect: {IN_TIME}", "timeout"),
            sometimes(others("node-3"), *_SILENT_BACKEND),
            sometimes(others("node-3"), *_SILENT_INGRESS),
        ),
    ),
    Fault(
        "One direction dropped between two Pods",
        _one_way,
        (
            Expected(("node-1",), ("path_node-2",), f"connect: {IN_TIME}", "timeout"),
            Expected(("node-2",), ("path_node-1",), f"connect: {IN_TIME}", "timeout"),
            sometimes(("node-1", "node-2"), *_SILENT_BACKEND),
        ),
    ),
    Fault(
        "Port rejected by a firewall (REJECT)",
        _rejected,
        (
            Expected(others(_TARGET), (f"path_{_TARGET}",), "connect: connection refused", "connect_done"),
            sometimes(others(_TARGET), (ME_SERVICE,), "connect: connection refused", "connect_done"),
            sometimes(ALL, (ME_INGRESS,), "502 Bad Gateway", "status_code_502"),
            *_UNHEARD,
        ),
    ),
    Fault(
        "Host prohibited by a firewall (REJECT, icmp-host-prohibited)",
        _prohibited,
        (
            Expected(others(_TARGET), (f"path_{_TARGET}",), "connect: no route to host", "connect_done"),
            sometimes(others(_TARGET), (ME_SERVICE,), "connect: no route to host", "connect_done"),
            sometimes(ALL, (ME_INGRESS,), "502 Bad Gateway", "status_code_502"),
            *_UNHEARD,
        ),
    ),
    Fault(
        "MTU black hole: large segments to a node dropped",
        _large_segments_lost,
        (Expected(("node-5",), (*API, ME_INGRESS), f"tls: {IN_TIME}", "timeout"),),
    ),
    Fault(
        "API server's IPv4 address lost, IPv6 works",
        _one_family_lost,
        (Expected(("node-1",), (API_SERVER_DIRECT,), f"connect: {IN_TIME}", "timeout"),),
        proof=_went_by_ipv6,
    ),
)
