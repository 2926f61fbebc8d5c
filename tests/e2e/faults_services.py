"""Faults of Services: kube-proxy's rules and their endpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from checks.model import API_SERVER_DIRECT, ME_INGRESS, ME_SERVICE
from tests.e2e import services
from tests.e2e.cluster import Cluster
from tests.e2e.faults import ALL, IN_TIME, NAMED, Expected, Fault, sometimes
from tests.e2e.network import Addresses
from tests.e2e.nodes import PORT
from tests.e2e.services import Endpoint

# An address of node-1's range that no Pod has: packets to it are lost.
NOBODY = Addresses("10.244.1.250", "fd00:10:244:1::fa")


@contextlib.contextmanager
def _rules_missing(cluster: Cluster) -> Iterator[None]:
    services.remove(cluster.by_name["node-3"].member.namespace)
    try:
        yield
    finally:
        cluster.install_services()


@contextlib.contextmanager
def _with_endpoints(cluster: Cluster, *addresses: Addresses) -> Iterator[None]:
    """Give the kubenurse Service these endpoints on all nodes and for the ingress."""
    cluster.install_services(kubenurse=tuple(Endpoint(each, PORT) for each in addresses))
    try:
        yield
    finally:
        cluster.install_services()


def _one_dead_of_three(cluster: Cluster) -> contextlib.AbstractContextManager[None]:
    alive = [cluster.by_name[name].addresses for name in ("node-1", "node-2")]
    return _with_endpoints(cluster, *alive, NOBODY)


def _none(cluster: Cluster) -> contextlib.AbstractContextManager[None]:
    return _with_endpoints(cluster)


FAULTS = (
    Fault(
        "kube-proxy's rules missing on one node",
        _rules_missing,
        (
            Expected(("node-3",), (API_SERVER_DIRECT,), f"connect: {IN_TIME}", "timeout"),
            Expected(("node-3",), NAMED, f"dns: {IN_TIME}", "timeout"),
        ),
    ),
    Fault(
        "Service with one dead backend of three",
        _one_dead_of_three,
        (
            # Seldom: the name has an IPv4 and an IPv6 address, and both have to meet the dead backend.
            sometimes(ALL, (ME_SERVICE,), f"connect: {IN_TIME}", "timeout", at_least=1),
            sometimes(ALL, (ME_INGRESS,), f"response: {IN_TIME}", "timeout", at_least=1),
        ),
    ),
    Fault(
        "Service without endpoints",
        _none,
        (
            Expected(ALL, (ME_SERVICE,), "connect: connection refused", "connect_done"),
            Expected(ALL, (ME_INGRESS,), "502 Bad Gateway", "status_code_502"),
        ),
    ),
)
