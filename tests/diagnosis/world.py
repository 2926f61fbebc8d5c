"""A cluster in which requests are simulated one by one, with what is broken in it. It knows nothing of the solver.

States are in the words that agents use (``checks/failures.py``), and what breaks with what was measured on real faults
(``docs/faults.md``): a request to the Service meets a random endpoint, a name is asked for before an address is used,
and a packet that is lost is sent again after 1, 2 and 4 s while a connection opens, after 0.2 s later.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

TIMEOUT = 5.0
LATE = "timed out after 5s"
EVENTS = {"dns": "dns_done", "connect": "connect_done", "tls": "tls_handshake_done"}
API = ("api_server_direct", "api_server_dns")
# A segment that opens a connection is sent again after 1 and 3 s; the next time would be too late.
MOST_SYNS = 3
MOST_SEGMENTS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one request gave. ``seconds`` is its duration, ``resolving`` the part of it that the name took."""

    state: str = "ok"
    seconds: float = 0.001
    resolving: float = 0.0002
    again: int = 0

    @property
    def phase(self) -> str:
        """The phase that failed."""
        if self.state == "ok":
            return ""
        if self.state[:3].isdigit():
            return "status"
        return self.state.partition(":")[0].partition(" ")[0]

    @property
    def event(self) -> str:
        """The label of kubenurse_errors_total."""
        if self.state == "ok":
            return ""
        if self.phase == "status":
            return f"status_code_{self.state[:3]}"
        if "timed out" in self.state:
            return "timeout"
        return EVENTS.get(self.phase, self.phase)


GOOD = Outcome()


def failed(state: str, *, again: int = 0) -> Outcome:
    """Return the outcome of a request that failed at once or when its time was up."""
    return Outcome(state, TIMEOUT if "timed out" in state else 0.001, again=again)


@dataclass(slots=True)
class Node:
    """A node with its agent's Pod."""

    name: str
    zone: str
    pod_ip: str
    host_ip: str

    @property
    def pod(self) -> str:
        """The agent's Pod."""
        return f"kubenurse-{self.name}"


@dataclass(slots=True)
class World:
    """The cluster and what is broken in it; empty means that all is well. Shares and chances are 0 to 1."""

    rng: random.Random
    nodes: list[Node]
    extras: list[str]
    servers: list[str]
    noise: float
    limit: int = 10
    dns_by_cluster_ip: bool = True
    traced: bool = True
    down: set[str] = field(default_factory=set)
    killed: set[str] = field(default_factory=set)
    hung: set[str] = field(default_factory=set)
    closed_in: dict[str, str] = field(default_factory=dict)
    closed_out: dict[str, str] = field(default_factory=dict)
    blocked: dict[tuple[str, str], str] = field(default_factory=dict)
    split: set[frozenset[str]] = field(default_factory=set)
    lossy: dict[frozenset[str], float] = field(default_factory=dict)
    narrow: set[str] = field(default_factory=set)
    narrow_pairs: set[frozenset[str]] = field(default_factory=set)
    dns: str = ""
    dns_on: dict[str, str] = field(default_factory=dict)
    dead_servers: set[str] = field(default_factory=set)
    rotates: bool = True
    dns_delay: dict[str, float] = field(default_factory=dict)
    api: str = ""
    api_on: dict[str, dict[str, str]] = field(default_factory=dict)
    api_delay: dict[str, float] = field(default_factory=dict)
    routing: set[str] = field(default_factory=set)
    no_endpoints: bool = False
    dead_endpoints: float = 0.0
    ingress: str = ""
    ingress_on: dict[str, str] = field(default_factory=dict)
    certificates: dict[str, str] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    broken_extras: dict[str, str] = field(default_factory=dict)
    starved: set[str] = field(default_factory=set)
    discovery: dict[str, str] = field(default_factory=dict)
    cordoned: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    leaving: set[str] = field(default_factory=set)
    flapping: float = 1.0
    padded: bool = False

    def zone(self, name: str) -> str:
        """Return a node's zone."""
        return next(each.zone for each in self.nodes if each.name == name)

    def request(self, node: Node, kind: str, target: Node | None = None, *, large: bool = False) -> Outcome:
        """Make one request."""
        if node.name in self.starved and self.rng.random() < 0.6:
            return failed(self.rng.choice((f"response: {LATE}", f"connect: {LATE}", f"dns: {LATE}")))
        if target is not None:
            return self._to_pod(node, target, large=large)
        if kind in API:
            return self._to_api(node, kind)
        if kind == "me_service":
            return self._to_service(node)
        return self._to_ingress(node) if kind == "me_ingress" else self._to_extra(node, kind)

    def _cut(self, node: Node) -> bool:
        return self.closed_out.get(node.name) == "all"

    def _lost(self, *places: str) -> tuple[str, int]:
        """Return how a request dies of lost packets, empty when it does not, and the segments sent again."""
        names = set(places)
        chance = 1.0
        for lossy, share in self.lossy.items():
            if (len(lossy) == 1 and lossy & names) or (len(lossy) == 2 and lossy <= names):
                chance *= 1.0 - share
        if chance == 1.0:
            return "", 0
        again = 0
        for step, most in ((f"connect: {LATE}", MOST_SYNS), ("", MOST_SEGMENTS), (f"response: {LATE}", MOST_SEGMENTS)):
            for attempt in range(most):
                if self.rng.random() < chance:
                    break
                again += 1
                if attempt == most - 1:
                    return step or f"request: {LATE}", again
        return "", again

    def _to_pod(self, node: Node, target: Node, *, large: bool = False) -> Outcome:
        names = frozenset((node.name, target.name))
        zones = frozenset((node.zone, target.zone))
        if node.name in self.closed_out or target.name in self.down or zones in self.split:
            return failed(f"connect: {LATE}")
        if target.name in self.killed:
            return failed("connect: connection refused")
        manner = self.blocked.get((node.name, target.name)) or self.closed_in.get(target.name)
        if manner and self.rng.random() < self.flapping:
            return failed(manner)
        if target.name in self.hung or (target.name in self.starved and self.rng.random() < 0.3):
            return failed(f"response: {LATE}")
        if large and (names & self.narrow or names in self.narrow_pairs):
            return failed(f"response: {LATE}", again=4)
        if "neighbour" in self.certificates:
            return failed(self.certificates["neighbour"])
        death, again = self._lost(node.name, target.name, *(f"zone:{each}" for each in zones if len(zones) > 1))
        return failed(death, again=again) if death else Outcome(again=again)

    def resolve(self, node: Node) -> Outcome:
        """Ask for a name."""
        if self._cut(node) or (self.dns_by_cluster_ip and node.name in self.routing):
            return failed(f"dns: {LATE}")
        broken = self.dns or self.dns_on.get(node.name, "")
        if broken and self.rng.random() < self.flapping:
            return failed(broken)
        if self.dead_servers and (not self.rotates or self.rng.choice(self.servers) in self.dead_servers):
            return failed(f"dns: {LATE}")
        delay = self.dns_delay.get(node.name, 0.0)
        if not delay:
            return GOOD
        return Outcome(resolving=delay * self.rng.uniform(0.8, 1.3))

    def _to_api(self, node: Node, kind: str, *, by_address: bool = False) -> Outcome:
        if self._cut(node) and (kind == API[0] or by_address):
            return failed(f"connect: {LATE}")
        resolved = GOOD
        if kind == API[1] and not by_address:
            resolved = self.resolve(node)
            if resolved.state != "ok":
                return resolved
        if node.name in self.routing:
            return failed(f"connect: {LATE}")
        broken = self.api or self.api_on.get(node.name, {}).get(kind, "")
        if broken and self.rng.random() < self.flapping:
            return failed(broken)
        if node.name in self.narrow:
            return failed(f"tls: {LATE}", again=3)
        if "api_server" in self.certificates:
            return failed(self.certificates["api_server"])
        death, again = self._lost(node.name)
        if death:
            return failed(death, again=again)
        delay = self.api_delay.get(node.name, 0.0) * self.rng.uniform(0.8, 1.3)
        return Outcome(seconds=0.002 + delay, resolving=resolved.resolving, again=again)

    def _to_service(self, node: Node, *, by_address: bool = False) -> Outcome:
        resolved = GOOD if by_address else self.resolve(node)
        if resolved.state != "ok":
            return resolved
        if node.name in self.routing or self._cut(node):
            return failed(f"connect: {LATE}")
        if self.no_endpoints:
            return failed("connect: connection refused")
        if self.rng.random() < self.dead_endpoints:
            return failed(f"connect: {LATE}")
        found = self._to_pod(node, self._backend())
        return Outcome(found.state, found.seconds, resolved.resolving, found.again)

    def _backend(self) -> Node:
        gone = self.leaving | self.deleted
        return self.rng.choice([each for each in self.nodes if each.name not in gone] or self.nodes)

    def _to_ingress(self, node: Node, *, by_address: bool = False) -> Outcome:
        if self._cut(node) and by_address:
            return failed(f"connect: {LATE}")
        resolved = GOOD if by_address else self.resolve(node)
        if resolved.state != "ok":
            return resolved
        broken = self.ingress or self.ingress_on.get(node.name, "") or self.certificates.get("ingress", "")
        if broken and self.rng.random() < self.flapping:
            return failed(broken)
        if node.name in self.narrow:
            return failed(f"tls: {LATE}", again=3)
        if self.no_endpoints:
            return failed("502 Bad Gateway")
        if self.rng.random() < self.dead_endpoints:
            return failed(f"response: {LATE}")
        death, again = self._lost(node.name)
        if death:
            return failed(death, again=again)
        return self._behind_ingress(self._backend(), resolved.resolving, again)

    def _behind_ingress(self, backend: Node, resolving: float, again: int) -> Outcome:
        """Let the ingress, which stands beside the nodes, ask a backend."""
        if backend.name in self.down | self.hung or "timed out" in self.closed_in.get(backend.name, ""):
            return failed(f"response: {LATE}")
        if backend.name in self.killed or backend.name in self.closed_in:
            return failed("502 Bad Gateway")
        return Outcome(resolving=resolving, again=again)

    def _to_extra(self, node: Node, kind: str, *, by_address: bool = False) -> Outcome:
        if self._cut(node) and by_address:
            return failed(f"connect: {LATE}")
        broken = self.broken_extras.get(kind, "") or self.certificates.get(kind, "")
        resolved = GOOD if by_address else self.resolve(node)
        if resolved.state != "ok":
            return resolved
        if broken and self.rng.random() < self.flapping:
            return failed(broken)
        if node.name in self.narrow and kind == self.extras[0]:
            return failed(f"tls: {LATE}", again=3)
        death, again = self._lost(node.name)
        return failed(death, again=again) if death else Outcome(resolving=resolved.resolving, again=again)

    def by_last_address(self, node: Node, kind: str) -> Outcome:
        """Make a check at the address that worked last."""
        if kind in API:
            return self._to_api(node, kind, by_address=True)
        if kind == "me_service":
            return self._to_service(node, by_address=True)
        if kind == "me_ingress":
            return self._to_ingress(node, by_address=True)
        return self._to_extra(node, kind, by_address=True)
