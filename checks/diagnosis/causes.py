"""Causes: which of them can explain which failure, and what speaks against each. Pure.

A failure lists only the causes that explain its phase. Name resolution that fails exonerates what the name stands for;
a refused connection proves that a host answered. The idea of components that share a risk is from SCORE (Kompella et
al., NSDI 2005); that the phase of a failure makes causes identifiable is the point of deTector (Peng et al., ATC 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from checks.diagnosis.evidence import Failure
from checks.diagnosis.observations import certificate_of
from checks.diagnosis.scene import Scene, large_only
from checks.diagnosis.states import (
    API_TYPES,
    CERTIFICATE,
    CONNECT,
    DNS,
    ME_INGRESS,
    ME_SERVICE,
    REFUSED,
    TIMEOUT,
    TLS,
    UNREACHABLE,
    is_backend_failure,
)

# A node that is reached by nobody: whether the node or only its agent is dead is told from the manner of the failures.
GONE = "gone"
UNANSWERED = (TIMEOUT, UNREACHABLE)


class Cause(NamedTuple):
    """A cause and where it is, as pairs of key and value."""

    name: str
    where: tuple[tuple[str, str], ...] = ()

    @property
    def node(self) -> str:
        """The node that the cause is at, empty when it is at none."""
        return dict(self.where).get("node", "")


def at(name: str, **where: str) -> Cause:
    """Return a cause at a place."""
    return Cause(name, tuple(where.items()))


def isolated(node: str, direction: str) -> Cause:
    """Return the cause of a node that is cut off in a direction."""
    return Cause("isolated", (("node", node), ("direction", direction)))


def path(node: str, target: str) -> Cause:
    """Return the cause of one pair, in one direction."""
    return Cause("path", (("from", node), ("to", target)))


def explanations(failure: Failure, scene: Scene) -> Iterator[Cause]:
    """Return every cause that can explain a failure."""
    if failure.manner == CERTIFICATE:
        yield at("certificate", of=certificate_of(failure.kind, failure.target))
    elif failure.is_path:
        yield from _of_path(failure, scene)
    elif failure.phase == DNS:
        yield from _of_name(failure, scene)
    else:
        yield from _of_target(failure)


def _of_path(failure: Failure, scene: Scene) -> Iterator[Cause]:
    node, target = failure.node, failure.target
    if large_only(failure, scene):
        yield at("mtu", node=node)
        yield at("mtu", node=target)
        first, second = sorted((node, target))
        yield Cause("mtu", (("from", first), ("to", second)))
        return
    if failure.explored and failure.manner == TIMEOUT and failure.phase != CONNECT:
        yield at("mtu", node=node)
        yield at("mtu", node=target)
    if target not in scene.alive:
        yield at(GONE, node=target)
    elif failure.phase == CONNECT:
        yield isolated(target, "in")
    else:
        yield at("agent", node=target)
    yield isolated(node, "out")
    yield path(node, target)
    here, there = scene.evidence.zone(node), scene.evidence.zone(target)
    if here and there and here != there and failure.manner in UNANSWERED:
        first, second = sorted((here, there))
        yield at("zones", zone=first, zone_to=second)


def _of_name(failure: Failure, scene: Scene) -> Iterator[Cause]:
    node, kind = failure.node, failure.kind
    if (node, kind) not in scene.lone_names:
        yield at("dns")
        yield at("dns", node=node)
    for server in dead_servers(failure):
        yield at("dns", server=server)
    if failure.manner in UNANSWERED or "no usable answer" in failure.state:
        yield isolated(node, "out")
        if node not in scene.routing_works:
            yield at("service_routing")
            yield at("service_routing", node=node)
    if kind == ME_INGRESS:
        yield at("ingress")
        yield at("ingress", node=node)
    elif kind == ME_SERVICE:
        yield at("service_backends")
    elif kind not in API_TYPES:
        yield at("extra", check=kind)


def _of_target(failure: Failure) -> Iterator[Cause]:
    node, kind = failure.node, failure.kind
    unanswered = failure.manner in UNANSWERED
    if kind in API_TYPES:
        yield at("api_server")
        yield at("api_server", node=node)
    elif kind == ME_SERVICE:
        yield at("service_backends")
    elif kind == ME_INGRESS:
        yield at("ingress")
        yield at("ingress", node=node)
        if is_backend_failure(failure.state, failure.phase):
            yield at("service_backends")
    else:
        yield at("extra", check=kind)
    if unanswered:
        yield isolated(node, "out")
        if failure.phase == TLS:
            yield at("mtu", node=node)
    if failure.phase == CONNECT and (unanswered or (kind == ME_SERVICE and failure.manner == REFUSED)):
        yield at("service_routing")
        yield at("service_routing", node=node)


def dead_servers(failure: Failure) -> list[str]:
    """Return the name servers that gave no answer while another one did, as a failure's witnesses say."""
    answered: dict[str, bool] = {}
    for each in failure.witnesses:
        if each.kind in ("dns_udp", "dns_tcp") and each.target:
            answered[each.target] = answered.get(each.target, True) and each.ok
    if all(answered.values()) or not any(answered.values()):
        return []
    return [server for server, ok in answered.items() if not ok]
