"""kube-proxy's rules: cluster IPs translated to one of a Service's endpoints, at random, in each namespace.

Source: kube-proxy's iptables mode, ``pkg/proxy/iptables/proxier.go`` of Kubernetes: the first of n endpoints is taken
with probability 1/n, the next of those left with 1/(n-1), the last always; a Service without endpoints rejects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tests.e2e.namespaces import Namespace
from tests.e2e.network import Addresses, bracketed

SYN_SENT_SECONDS = "4"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and port behind a Service."""

    addresses: Addresses
    port: int


@dataclass(frozen=True, slots=True)
class Service:
    """A Service: cluster IPs, one port, and its ready endpoints."""

    name: str
    cluster_ip: Addresses
    port: int
    protocols: tuple[str, ...] = ("tcp",)
    endpoints: tuple[Endpoint, ...] = ()

    def with_endpoints(self, endpoints: Iterable[Endpoint]) -> Service:
        """Return the Service with other endpoints."""
        return replace(self, endpoints=tuple(endpoints))


def prepare(namespace: Namespace) -> None:
    """Let packets come by the rules that reject; those that translate bring their own way in."""
    for command in ("iptables", "ip6tables"):
        namespace.run(command, "-N", "KUBE-REJECT")
        for chain in ("INPUT", "OUTPUT", "FORWARD"):
            namespace.run(command, "-A", chain, "-j", "KUBE-REJECT")
        # The kernel follows connections only as long as a rule asks for it. Without, it would forget how those that are
        # open are translated whenever all translations are taken away.
        namespace.run(command, *["-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "ACCEPT"])
    # What was sent to a dead endpoint goes on being sent there as long as the kernel remembers it: here not for the two
    # minutes in which a later connection may be given the same port and so the same dead endpoint.
    namespace.set_kernel("net.netfilter.nf_conntrack_tcp_timeout_syn_sent", SYN_SENT_SECONDS)


def install(namespace: Namespace, services: Sequence[Service]) -> None:
    """Replace the rules of a namespace that was prepared, in one step a family."""
    for version, command in ((4, "iptables-restore"), (6, "ip6tables-restore")):
        namespace.run(command, "--noflush", stdin=_rules(services, version))


def remove(namespace: Namespace) -> None:
    """Take all rules away, as when kube-proxy has never run on this node."""
    install(namespace, ())


def _rules(services: Sequence[Service], version: int) -> str:
    # Naming a chain empties it, and a table is committed at once.
    nat = ["*nat", ":KUBE-SERVICES - [0:0]", ":OUTPUT ACCEPT [0:0]", ":PREROUTING ACCEPT [0:0]"]
    nat += ["-A OUTPUT -j KUBE-SERVICES", "-A PREROUTING -j KUBE-SERVICES"]
    filtering = ["*filter", ":KUBE-REJECT - [0:0]"]
    for service in services:
        for protocol in service.protocols:
            where = f"-d {service.cluster_ip.of_family(version)} -p {protocol} --dport {service.port}"
            if not service.endpoints:
                # Not by ICMP, as kube-proxy does on a Pod's packets: here client and rule are in one namespace, where
                # the kernel is still inside connect() when the ICMP message comes and only takes note of it.
                reject = "tcp-reset" if protocol == "tcp" else f"icmp{'' if version == 4 else '6'}-port-unreachable"
                filtering.append(f"-A KUBE-REJECT {where} -j REJECT --reject-with {reject}")
            for position, endpoint in enumerate(service.endpoints):
                left = len(service.endpoints) - position
                chance = f"-m statistic --mode random --probability {1 / left:.8f} " if left > 1 else ""
                to = f"{bracketed(endpoint.addresses.of_family(version))}:{endpoint.port}"
                nat.append(f"-A KUBE-SERVICES {where} {chance}-j DNAT --to-destination {to}")
    nat.append("COMMIT")
    filtering.append("COMMIT")
    # Each table is committed by itself: what is to be rejected is so before it is no longer translated.
    rejects = len(filtering) > 3
    return "\n".join([*filtering, *nat, ""] if rejects else [*nat, *filtering, ""])
