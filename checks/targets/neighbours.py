"""Which neighbours this agent checks, and the checks of them. Pure."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence

from checks.addresses import host_port
from checks.model import ALWAYS_HAPPY_PATH, PATH_PREFIX, Neighbour, Target

_CIRCLE = 2**64


def choose(neighbours: Iterable[Neighbour], own_node: str, limit: int) -> tuple[Neighbour, ...]:
    """Return the ``limit`` neighbours that follow the own node on a circle of hashed node names; 0 means all.

    With one Pod a node, every node is thereby chosen by exactly ``limit`` others. It is the choice that kubenurse 1.15
    makes: a node's place is the first 8 bytes of the SHA-256 of its name, as a big-endian unsigned integer. Pods on
    one node have one place; there, their names decide.
    """
    start = _place(own_node)
    ordered = sorted(neighbours, key=lambda pod: ((_place(pod.node_name) - start) % _CIRCLE, pod.pod_name))
    return tuple(ordered[:limit] if limit else ordered)


# Bounded well above the largest cluster that Kubernetes supports. Each change of the neighbours asks for all places.
@functools.lru_cache(maxsize=8192)
def _place(node_name: str) -> int:
    return int.from_bytes(hashlib.sha256(node_name.encode()).digest()[:8], "big")


def targets(chosen: Sequence[Neighbour], scheme: str, port: int, origin: str, server_name: str = "") -> list[Target]:
    """Return the check of each neighbour, in the order given, announcing ``origin``, the own Pod's name.

    ``server_name`` is the name to verify in the neighbours' certificates, empty for their addresses.

    The type is ``path_NODE``; where several are on one node that is the first by Pod name, and the others are
    ``path_NODE_POD``. No two are the same: the names of nodes and Pods have no underscore.
    """
    first = {}
    for pod in sorted(chosen, key=lambda pod: pod.pod_name, reverse=True):
        first[pod.node_name] = pod.pod_name
    return [
        Target(
            type=PATH_PREFIX
            + (pod.node_name if first[pod.node_name] == pod.pod_name else f"{pod.node_name}_{pod.pod_name}"),
            url=f"{scheme}://{host_port(pod.pod_ip, port)}{ALWAYS_HAPPY_PATH}",
            origin=origin,
            server_name=server_name,
            node=pod.node_name,
            node_address=pod.host_ip,
        )
        for pod in chosen
    ]
