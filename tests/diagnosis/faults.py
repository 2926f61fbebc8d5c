"""What can be broken in a World, and what a person who knows it would say is broken."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.diagnosis.generator import NOW, place
from tests.diagnosis.world import API, LATE, World

Verdict = tuple[str, tuple[tuple[str, Any], ...]]
DAY = 86_400.0
LOST = f"connect: {LATE}"
NO_DNS = ("dns: no usable answer from the name servers", f"dns: {LATE}", "dns: name not known")


@dataclass(slots=True)
class Truth:
    """What is broken: the nodes used, so that two faults do not meet, and the verdicts to be expected."""

    world: World
    rng: random.Random
    verdicts: set[Verdict] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    def say(self, cause: str, **where: Any) -> None:
        """Expect a verdict."""
        self.verdicts.add(verdict(cause, where))

    def node(self) -> str:
        """Take a node that has no other fault."""
        free = [each.name for each in self.world.nodes if each.name not in self.used]
        found = self.rng.choice(free)
        self.used.add(found)
        return found


def verdict(cause: str, where: dict[str, Any]) -> Verdict:
    """Return a verdict in a form that can be compared."""
    return cause, tuple(sorted(where.items()))


Fault = Callable[[Truth], None]


def dns(truth: Truth) -> None:
    """No name server answers."""
    truth.world.dns = truth.rng.choice(NO_DNS)
    truth.say("dns")


def dns_on_node(truth: Truth) -> None:
    """One node gets no answer from name servers."""
    node = truth.node()
    truth.world.dns_on[node] = truth.rng.choice(NO_DNS)
    truth.say("dns", node=node)


def dns_server(truth: Truth) -> None:
    """One of two name servers is dead."""
    truth.world.servers = ["10.96.0.10", "10.96.0.11"]
    truth.world.rotates = truth.rng.random() < 0.6
    server = truth.rng.choice(truth.world.servers)
    truth.world.dead_servers = {server}
    truth.say("dns", server=server)


def dns_slow(truth: Truth) -> None:
    """Names take long everywhere."""
    delay = truth.rng.uniform(0.2, 2.5)
    truth.world.dns_delay = {each.name: delay for each in truth.world.nodes}
    truth.say("dns_slow")


def dns_slow_on_node(truth: Truth) -> None:
    """Names take long on one node."""
    node = truth.node()
    truth.world.dns_delay[node] = truth.rng.uniform(0.2, 2.5)
    truth.say("dns_slow", node=node)


def api_server(truth: Truth) -> None:
    """The API server is down, overloaded or refuses the token."""
    states = ("connect: connection refused", LOST, "429 Too Many Requests", "500 Internal Server Error")
    truth.world.api = truth.rng.choice((*states, "401 Unauthorized", f"response: {LATE}"))
    if "refused" in truth.world.api or truth.world.api.startswith("4"):
        for each in truth.world.nodes:
            truth.world.discovery[each.name] = "pods: connection: connection refused"
    truth.say("api_server")


def api_server_on_node(truth: Truth) -> None:
    """One node does not reach the API server, by one or both of its addresses."""
    node = truth.node()
    kinds = API if truth.rng.random() < 0.7 else API[:1]
    state = truth.rng.choice((LOST, "connect: connection refused", "401 Unauthorized"))
    truth.world.api_on[node] = dict.fromkeys(kinds, state)
    truth.say("api_server", node=node)


def api_server_slow(truth: Truth) -> None:
    """The API server answers late to all."""
    delay = truth.rng.uniform(0.3, 3.0)
    truth.world.api_delay = {each.name: delay for each in truth.world.nodes}
    truth.say("api_server_slow")


def api_server_slow_on_node(truth: Truth) -> None:
    """The API server answers late to one node."""
    node = truth.node()
    truth.world.api_delay[node] = truth.rng.uniform(0.3, 3.0)
    truth.say("api_server_slow", node=node)


def routing(truth: Truth) -> None:
    """Cluster IPs work nowhere."""
    truth.world.routing = {each.name for each in truth.world.nodes}
    truth.say("service_routing")


def routing_on_node(truth: Truth) -> None:
    """kube-proxy's rules are missing on one node."""
    node = truth.node()
    truth.world.routing.add(node)
    truth.say("service_routing", node=node)


def backends(truth: Truth) -> None:
    """The Service has no endpoint, or some are dead."""
    if truth.rng.random() < 0.5:
        truth.world.no_endpoints = True
    else:
        truth.world.dead_endpoints = truth.rng.choice((0.3, 0.5))
    truth.say("service_backends")


def ingress(truth: Truth) -> None:
    """The ingress is broken in one of many ways."""
    states = ("502 Bad Gateway", "503 Service Unavailable", "404 Not Found", LOST, "connect: connection refused")
    login = "redirect to another host: https://login.example/start"
    truth.world.ingress = truth.rng.choice((*states, login, f"response: {LATE}"))
    truth.say("ingress")


def ingress_on_node(truth: Truth) -> None:
    """One node does not reach the ingress."""
    node = truth.node()
    truth.world.ingress_on[node] = truth.rng.choice((LOST, "connect: connection refused"))
    truth.say("ingress", node=node)


def certificate(truth: Truth) -> None:
    """A certificate is not accepted."""
    of = truth.rng.choice(["ingress", "api_server", "neighbour", *truth.world.extras])
    words = ("certificate has expired", "self-signed certificate", "unable to get local issuer certificate")
    name = "hostname mismatch, certificate is not valid for 'kubenurse.example'"
    truth.world.certificates[of] = f"tls: {truth.rng.choice((*words, name))}"
    if of == "api_server":
        for each in truth.world.nodes:
            truth.world.discovery[each.name] = "pods: tls: certificate has expired"
    truth.say("certificate", of=of)


def certificate_ends(truth: Truth) -> None:
    """A certificate ends within 14 days."""
    of = truth.rng.choice(["ingress", "api_server", "neighbour", *truth.world.extras])
    truth.world.ends = {of: NOW + truth.rng.uniform(0.1, 13.9) * DAY}
    truth.say("certificate", of=of)


def extra(truth: Truth) -> None:
    """The target of an extra check fails for all."""
    if not truth.world.extras:
        truth.world.extras.append("db")
    name = truth.rng.choice(truth.world.extras)
    states = ("connect: connection refused", LOST, "500 Internal Server Error", "dns: name not known")
    truth.world.broken_extras[name] = truth.rng.choice(states)
    truth.say("extra", check=name)


def node_down(truth: Truth) -> None:
    """A node is dead."""
    node = truth.node()
    truth.world.down.add(node)
    truth.say("node", node=node)


def agent_dead(truth: Truth) -> None:
    """A node's agent is dead or hangs."""
    node = truth.node()
    (truth.world.killed if truth.rng.random() < 0.6 else truth.world.hung).add(node)
    truth.say("agent", node=node)


def isolated_in(truth: Truth) -> None:
    """Nobody reaches a node's Pods, and its agent works."""
    node = truth.node()
    truth.world.closed_in[node] = truth.rng.choice((LOST, LOST, "connect: connection refused"))
    truth.say("isolated", node=node, direction="in")


def isolated_out(truth: Truth) -> None:
    """A node's Pods reach nobody: nothing at all, or no other Pod."""
    node = truth.node()
    truth.world.closed_out[node] = truth.rng.choice(("all", "pods"))
    truth.say("isolated", node=node, direction="out")


def isolated_both(truth: Truth) -> None:
    """A node is cut off, and its state came another way."""
    node = truth.node()
    truth.world.closed_in[node] = LOST
    truth.world.closed_out[node] = "all"
    truth.say("isolated", node=node, direction="both")


def _tested_pair(truth: Truth) -> tuple[str, str]:
    """Return two nodes of which the second is among those that the first always checks."""
    first = truth.node()
    around = sorted(
        (each.name for each in truth.world.nodes if each.name != first),
        key=lambda name: (place(name) - place(first)) % 2**64,
    )[: truth.world.limit or None]
    free = [each for each in around if each not in truth.used] or around
    second = truth.rng.choice(free)
    truth.used.add(second)
    return first, second


def _seen_from(truth: Truth, first: str, second: str) -> tuple[str, str]:
    """Return a pair in the order in which a person names it: from the one that checks the other, if only one does."""
    limit, names = truth.world.limit, [each.name for each in truth.world.nodes]
    around = sorted(names, key=lambda name: (place(name) - place(second)) % 2**64)[1:]
    both = first in (around[:limit] if limit else around)
    low, high = sorted((first, second))
    return (low, high) if both else (first, second)


def path_one_way(truth: Truth) -> None:
    """One node does not reach another one."""
    first, second = _tested_pair(truth)
    truth.world.blocked[first, second] = truth.rng.choice((LOST, LOST, "connect: connection refused"))
    truth.say("path", **{"from": first, "to": second})


def path_both_ways(truth: Truth) -> None:
    """Two nodes do not reach each other. Where the second does not check the first, one direction is known."""
    first, second = _tested_pair(truth)
    truth.world.blocked[first, second] = truth.world.blocked[second, first] = LOST
    if 0 < truth.world.limit < len(truth.world.nodes) - 1:
        del truth.world.blocked[second, first]
        truth.say("path", **{"from": first, "to": second})
        return
    low, high = sorted((first, second))
    truth.say("path", **{"from": low, "to": high, "both": True})


def _two_zones(truth: Truth) -> tuple[str, str]:
    zones = sorted({each.zone for each in truth.world.nodes})
    first, second = sorted(truth.rng.sample(zones, 2))
    return first, second


def zones(truth: Truth) -> None:
    """Two zones do not reach each other."""
    first, second = _two_zones(truth)
    truth.world.split.add(frozenset((first, second)))
    truth.say("zones", zone=first, zone_to=second)


def loss_at_node(truth: Truth) -> None:
    """A node loses packets."""
    node = truth.node()
    truth.world.lossy[frozenset((node,))] = truth.rng.uniform(0.1, 0.25)
    truth.say("loss", node=node)


def loss_of_pair(truth: Truth) -> None:
    """A pair loses packets."""
    first, second = _seen_from(truth, *_tested_pair(truth))
    truth.world.lossy[frozenset((first, second))] = truth.rng.uniform(0.15, 0.3)
    truth.say("loss", **{"from": first, "to": second})


def loss_between_zones(truth: Truth) -> None:
    """Two zones lose packets between them."""
    first, second = _two_zones(truth)
    truth.world.lossy[frozenset((f"zone:{first}", f"zone:{second}"))] = truth.rng.uniform(0.1, 0.25)
    truth.say("loss", zone=first, zone_to=second)


def mtu_at_node(truth: Truth) -> None:
    """A node loses large packets."""
    node = truth.node()
    truth.world.narrow.add(node)
    truth.world.padded = truth.rng.random() < 0.3
    truth.say("mtu", node=node)


def mtu_of_pair(truth: Truth) -> None:
    """A pair loses large packets."""
    first, second = _seen_from(truth, *_tested_pair(truth))
    truth.world.padded = True
    truth.world.narrow_pairs.add(frozenset((first, second)))
    truth.say("mtu", **{"from": first, "to": second})


def starved(truth: Truth) -> None:
    """An agent lacks CPU time."""
    node = truth.node()
    truth.world.starved.add(node)
    truth.say("starved", node=node)


def discovery(truth: Truth) -> None:
    """The agents must not list nodes."""
    for each in truth.world.nodes:
        truth.world.discovery[each.name] = "nodes: 403 Forbidden (grant list and watch on nodes)"
    truth.say("discovery")


def discovery_on_node(truth: Truth) -> None:
    """One agent must not list Pods."""
    node = truth.node()
    truth.world.discovery[node] = "pods: 403 Forbidden"
    truth.say("discovery", node=node)


def cordoned(truth: Truth) -> None:
    """A node is cordoned."""
    node = truth.node()
    truth.world.cordoned.add(node)
    truth.say("maintenance", node=node)


def drained(truth: Truth) -> None:
    """A node is drained: its agent is leaving."""
    node = truth.node()
    truth.world.cordoned.add(node)
    truth.world.leaving.add(node)
    truth.world.killed.add(node)
    truth.say("maintenance", node=node)


def deleted(truth: Truth) -> None:
    """A node was deleted."""
    node = truth.node()
    truth.world.deleted.add(node)
    truth.world.down.add(node)
    truth.say("maintenance", node=node)


def rolled(truth: Truth) -> None:
    """An agent is replaced."""
    node = truth.node()
    truth.world.leaving.add(node)
    truth.say("maintenance", node=node)
