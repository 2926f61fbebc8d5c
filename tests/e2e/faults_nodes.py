"""Faults of nodes: maintenance, lost packets and clocks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from sandbox.objects import make_node
from tests.e2e.cluster import Cluster
from tests.e2e.faults import HOLD, Fault, others
from tests.e2e.faults_network import rules
from tests.e2e.network import INTERFACE
from tests.e2e.nodes import Node
from tests.e2e.requirements import faketime_library
from tests.e2e.watcher import Seen
from tests.support.waiting import until

TARGET = "node-5"
LOSSY = "node-2"
LOSS = 0.2
# Time for the kernel to send a segment several times: after 1, 2, 4 s for those that open a connection.
PATIENT = {"KUBENURSE_CHECK_TIMEOUT": "10s"}
HOUR = 3600.0
# Seconds. Series end within a minute; a part of it has passed when the search begins.
SERIES_GONE_WITHIN = 57.0
# What a check takes here, even when its agent has to wait for the CPU: the kernel stamps when the answer came.
PLAUSIBLE_SECONDS = 0.5

NOT_CHECKED = tuple((name, f"path_{TARGET}") for name in others(TARGET))


@contextlib.contextmanager
def _with_environ(cluster: Cluster, node: Node, environ: dict[str, str]) -> Iterator[None]:
    """Run a node's agent with additional variables, and wait until the cluster is calm."""
    node.extra_environ = environ
    node.replace_pod()
    cluster.wait_calm()
    try:
        yield
    finally:
        node.extra_environ = {}
        node.replace_pod()


@contextlib.contextmanager
def _cordoned(cluster: Cluster) -> Iterator[None]:
    node = cluster.by_name[TARGET]
    node.cordon()
    try:
        yield
    finally:
        node.uncordon()


@contextlib.contextmanager
def _drained(cluster: Cluster) -> Iterator[None]:
    node = cluster.by_name[TARGET]
    node.cordon()
    node.delete_pod()
    try:
        yield
    finally:
        node.uncordon()
        node.create_pod()
        node.become_ready()


@contextlib.contextmanager
def _deleted(cluster: Cluster) -> Iterator[None]:
    node = cluster.by_name[TARGET]
    with _drained(cluster):
        cluster.api.delete("nodes", TARGET)
        try:
            yield
        finally:
            cluster.api.put("nodes", make_node(TARGET, ip=node.member.host.v4))


def _not_ready(cluster: Cluster, seen: Sequence[Seen]) -> str:
    """The agent on the cordoned node is not ready and goes on checking."""
    assert cluster.by_name[TARGET].ask("/ready")[0] == 503
    assert any(it.node == TARGET for it in seen)
    return f"{TARGET}: /ready 503, checks ok; others: path_{TARGET} no longer made"


def _went_in_peace(_: Cluster, seen: Sequence[Seen]) -> str:
    """The Pod ended without a failure on any agent."""
    assert {it.node for it in seen} >= set(others(TARGET))
    return f"others: ok, path_{TARGET} no longer made"


def _series_gone(cluster: Cluster, _: Sequence[Seen]) -> str:
    """Within a minute the other agents have no series of the node."""
    began = time.monotonic()

    def gone() -> bool:
        return not any(f'"path_{TARGET}"' in cluster.by_name[name].metrics() for name in others(TARGET))

    until(gone, timeout=SERIES_GONE_WITHIN, every=1.0)
    return f"others: path_{TARGET} no longer made, its series gone {time.monotonic() - began + HOLD:.0f} s later"


@contextlib.contextmanager
def _lossy(cluster: Cluster) -> Iterator[None]:
    """Lose one in five packets that answer a node's own requests, and no other packets."""
    node = cluster.by_name[LOSSY]
    replies = f"INPUT -i {INTERFACE} -p tcp -m conntrack --ctdir REPLY"
    line = f"{replies} -m statistic --mode random --probability {LOSS} -j DROP"
    with _with_environ(cluster, node, PATIENT), rules(node.member, line):
        yield


def _retransmitted(cluster: Cluster, seen: Sequence[Seen]) -> str:
    """Checks are ok, and the kernel's figures show the loss."""
    facts = [it.facts["tcp"] for it in seen if it.node == LOSSY and "tcp" in it.facts]
    retransmits = sum(each["retransmits"] for each in facts)
    slowest = max(each["rtt_seconds"] for each in facts)
    assert retransmits >= 3, facts
    others_retransmits = sum(it.facts["tcp"]["retransmits"] for it in seen if it.node != LOSSY and "tcp" in it.facts)
    assert others_retransmits <= retransmits / 3, others_retransmits
    counted = cluster.by_name[LOSSY].metric("kubenurse_tcp_retransmits_total")
    assert counted >= retransmits / 2, (counted, retransmits)
    return f"{LOSSY}: ok, {retransmits} retransmits in {len(facts)} checks, RTT up to {1000 * slowest:.1f} ms"


def _stepped(seconds: float) -> Callable[[Cluster], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def inject(cluster: Cluster) -> Iterator[None]:
        node = cluster.by_name[TARGET]
        library = faketime_library()
        assert library is not None
        offset = node.member.namespace.directory / "clock"
        offset.write_text("+0\n", encoding="ascii")
        with _with_environ(cluster, node, _faked(library, offset)):
            node.clock_offset = seconds
            offset.write_text(f"{seconds:+.0f}\n", encoding="ascii")
            try:
                yield
            finally:
                offset.write_text("+0\n", encoding="ascii")
                cluster.wait_calm()
        node.clock_offset = 0.0

    return inject


def _faked(library: Path, offset: Path) -> dict[str, str]:
    """Step the time of day only, as NTP does. Monotonic clocks go on (faketime(1))."""
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def _durations_stay(cluster: Cluster, seen: Sequence[Seen]) -> str:
    """The clock was stepped, and no duration shows it."""
    node = cluster.by_name[TARGET]
    shown = [check["started_at"] for check in node.state()["checks"].values()]
    real = [it.started_at for it in seen if it.node == TARGET]
    assert abs(max(shown) - max(real) - node.clock_offset) < 60, (shown, real)
    longest = max(it.facts["duration"] for it in seen if it.node == TARGET and "duration" in it.facts)
    assert 0 < longest < PLAUSIBLE_SECONDS, longest
    assert 0 <= node.metric("kubenurse_discovery_age_seconds") < 120
    summed = node.metric("kubenurse_httpclient_request_duration_seconds_sum")
    assert 0 < summed < 60, summed
    return f"{TARGET}: ok, no duration over {1000 * longest:.0f} ms"


FAULTS = (
    Fault("Node cordoned", _cordoned, gone=NOT_CHECKED, proof=_not_ready),
    Fault("Node drained (Pod terminating, then gone)", _drained, gone=NOT_CHECKED, proof=_went_in_peace),
    Fault("Node deleted", _deleted, gone=NOT_CHECKED, proof=_series_gone),
    Fault(f"{LOSS:.0%} of the packets to a node lost", _lossy, proof=_retransmitted, hold=12.0),
    Fault("Clock stepped an hour forward", _stepped(HOUR), proof=_durations_stay),
    Fault("Clock stepped an hour back", _stepped(-HOUR), proof=_durations_stay),
)
