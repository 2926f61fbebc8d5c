"""The cluster's network: members on one bridge, Pod ranges routed to their nodes, IPv4 and IPv6.

It is what flannel's host-gw backend makes: every node has a range of Pod addresses, every other one a route to it, and
nobody asks by ARP who is where, so that a member that is cut off is silence and not an error of the nearest router.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.namespaces import Namespace

HOSTS_V4 = "192.168.100"
HOSTS_V6 = "fd00:100"
PODS_V4 = "10.244"
PODS_V6 = "fd00:10:244"
BRIDGE = "bridge"
INTERFACE = "eth0"


@dataclass(frozen=True, slots=True)
class Addresses:
    """An IPv4 and an IPv6 address of the same thing."""

    v4: str
    v6: str

    def of_family(self, version: int) -> str:
        """Return the one of IP version 4 or 6."""
        return self.v4 if version == 4 else self.v6


def bracketed(address: str) -> str:
    """Write an address as a URL has it."""
    return f"[{address}]" if ":" in address else address


def family(address: str) -> int:
    """Return an address's IP version, 4 or 6."""
    return ipaddress.ip_address(address).version


class Member:
    """A host of the network, by its number from 1 to 250: a namespace with one interface and two addresses."""

    def __init__(self, name: str, number: int, directory: Path) -> None:
        self.name = name
        self.number = number
        self.namespace = Namespace(name, directory)
        self.host = Addresses(f"{HOSTS_V4}.{number}", f"{HOSTS_V6}::{number:x}")
        self.mac = f"02:00:00:00:00:{number:02x}"
        self.pod: Addresses | None = None
        self.others: list[Member] = []

    def pod_addresses(self, generation: int) -> Addresses:
        """Return the addresses of the node's Pod of a generation, counted from 1."""
        return Addresses(f"{PODS_V4}.{self.number}.{generation}", f"{PODS_V6}:{self.number:x}::{generation:x}")

    def move_pod(self, to: Addresses | None) -> None:
        """Take the Pod's addresses off the node and put others there; what leaves the node then comes from those."""
        before, self.pod = self.pod, to
        lines = []
        if to is not None:
            lines += [f"addr add {to.v4}/32 dev {INTERFACE}", f"addr add {to.v6}/128 dev {INTERFACE} nodad"]
        ways = [("0.0.0.0/0", "::/0", GATEWAY)] if self.number != GATEWAY_NUMBER else []
        ways += [(f"{PODS_V4}.{it.number}.0/24", f"{PODS_V6}:{it.number:x}::/64", it.host) for it in self.others]
        source = to or self.host
        for v4, v6, via in ways:
            lines += [
                f"route replace {v4} via {via.v4} dev {INTERFACE} src {source.v4}",
                f"route replace {v6} via {via.v6} dev {INTERFACE} src {source.v6}",
            ]
        if before is not None:
            lines += [f"addr del {before.v4}/32 dev {INTERFACE}", f"addr del {before.v6}/128 dev {INTERFACE}"]
        self.namespace.ip(*lines)


# The default gateway of all members. It forwards nothing, as there is no outside.
GATEWAY_NUMBER = 250
GATEWAY = Addresses(f"{HOSTS_V4}.{GATEWAY_NUMBER}", f"{HOSTS_V6}::{GATEWAY_NUMBER:x}")


class Network:
    """A bridge in a namespace of its own, and the members on it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.switch = Namespace("switch", directory)
        self.switch.ip(f"link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        self.switch.ip(f"link set {BRIDGE} up")
        self.members: list[Member] = []

    def join(self, name: str, number: int) -> Member:
        """Add a member."""
        member = Member(name, number, self._directory)
        self.switch.ip(
            f"link add {name} type veth peer name {INTERFACE} address {member.mac} netns {member.namespace.full_name}",
            f"link set {name} master {BRIDGE} up",
        )
        member.namespace.ip(
            f"addr add {member.host.v4}/24 dev {INTERFACE}",
            f"addr add {member.host.v6}/64 dev {INTERFACE} nodad",
            f"link set {INTERFACE} up",
        )
        for other in self.members:
            _introduce(member, other)
            _introduce(other, member)
        self.members.append(member)
        return member

    def finish(self) -> None:
        """Set the routes between all members and to the outside, after all have joined."""
        for member in self.members:
            member.others = [other for other in self.members if other is not member]
            member.move_pod(None)

    def unplug(self, member: Member) -> None:
        """Disconnect a member from the bridge."""
        self.switch.ip(f"link set {member.name} down")

    def plug_in(self, member: Member) -> None:
        """Connect a member to the bridge again."""
        self.switch.ip(f"link set {member.name} up")


def _introduce(member: Member, other: Member) -> None:
    """Set a member's routes to another member and its Pods."""
    member.namespace.ip(
        f"neigh replace {other.host.v4} lladdr {other.mac} dev {INTERFACE} nud permanent",
        f"neigh replace {other.host.v6} lladdr {other.mac} dev {INTERFACE} nud permanent",
    )
