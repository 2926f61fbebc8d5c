"""Faults of the name server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from checks.model import API_SERVER_DNS
from tests.e2e.cluster import API_IP, Cluster
from tests.e2e.faults import ALL, IN_TIME, NAMED, Expected, Fault
from tests.e2e.faults_network import rules
from tests.e2e.watcher import Seen

# Delay of one answer. With ndots:5, the resolver asks for a relative name several times, one after another.
DELAY = 0.06
LONG_DELAY = 2.0
QUESTIONS_FOR_THE_API_SERVER = 2


@contextlib.contextmanager
def _down(cluster: Cluster) -> Iterator[None]:
    """No DNS Pod exists, and kube-proxy rejects connections to its Service."""
    cluster.dns.stop()
    cluster.install_services(kube_dns=())
    try:
        yield
    finally:
        cluster.dns.start()
        cluster.install_services()


@contextlib.contextmanager
def _silent(cluster: Cluster) -> Iterator[None]:
    with rules(cluster.dns_member, "INPUT -p udp --dport 53 -j DROP"):
        yield


@contextlib.contextmanager
def _names_unknown(cluster: Cluster) -> Iterator[None]:
    cluster.dns.publish({})
    try:
        yield
    finally:
        cluster.dns.publish()


@contextlib.contextmanager
def _only_ipv4(cluster: Cluster) -> Iterator[None]:
    cluster.dns.publish(families=(4,))
    try:
        yield
    finally:
        cluster.dns.publish()


@contextlib.contextmanager
def _slow(cluster: Cluster) -> Iterator[None]:
    with cluster.dns.slowed(DELAY):
        yield


@contextlib.contextmanager
def _too_slow(cluster: Cluster) -> Iterator[None]:
    with cluster.dns.slowed(LONG_DELAY):
        yield


def _shows_in_phase(_: Cluster, seen: Sequence[Seen]) -> str:
    """The delay appears in the phase of name resolution."""
    traces = [it.facts["trace"] for it in seen if it.type == API_SERVER_DNS]
    resolving = [trace["dns_done"] - trace["dns_start"] for trace in traces]
    assert min(resolving) >= QUESTIONS_FOR_THE_API_SERVER * DELAY, resolving
    connecting = sorted(trace["connect_done"] - trace["connect_start"] for trace in traces)
    assert connecting[len(connecting) // 2] < DELAY, connecting
    return f"{API_SERVER_DNS} ok, its dns phase {min(resolving):.2f} s or longer"


def _went_by_ipv4(_: Cluster, seen: Sequence[Seen]) -> str:
    """Every agent uses the remaining address family."""
    remotes = {it.facts["remote"] for it in seen if it.type == API_SERVER_DNS}
    assert remotes == {API_IP.v4}, remotes
    return f"{API_SERVER_DNS} ok by {API_IP.v4}"


FAULTS = (
    Fault(
        "DNS server down (no endpoint is left)",
        _down,
        (Expected(ALL, NAMED, "dns: no usable answer from the name servers", "dns_done"),),
    ),
    Fault("DNS server silent (packets dropped)", _silent, (Expected(ALL, NAMED, f"dns: {IN_TIME}", "timeout"),)),
    Fault(f"DNS answers {LONG_DELAY:g} s late", _too_slow, (Expected(ALL, NAMED, f"dns: {IN_TIME}", "timeout"),)),
    Fault(f"DNS answers {1000 * DELAY:g} ms late", _slow, proof=_shows_in_phase),
    Fault("DNS knows no name (NXDOMAIN)", _names_unknown, (Expected(ALL, NAMED, "dns: name not known", "dns_done"),)),
    Fault("DNS answers only with IPv4 addresses", _only_ipv4, proof=_went_by_ipv4),
)
