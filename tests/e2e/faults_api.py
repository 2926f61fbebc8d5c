"""Faults of the API server, and the credentials for it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from functools import partial

from checks.kube.health import HEALTHY_WATCH
from sandbox.certificates import CertificateAuthority
from sandbox.faults import Request
from tests.e2e.cluster import API_IP, API_NAMES, Cluster
from tests.e2e.faults import ALL, API, Expected, Fault, sometimes
from tests.e2e.watcher import DISCOVERY, Seen
from tests.support.waiting import until

# Discovery asks again after pauses that grow, so that a fleet does not come back as a stampede.
DISCOVERY_DETECTED = 10.0
DISCOVERY_RECOVERED = 35.0
NODES = "/api/v1/nodes"


def _discovery_says(words: str, *resources: str) -> Expected:
    """Discovery of one or all resources fails with these words, on each agent when its watch ends."""
    one = f"({'|'.join(resources)}): {re.escape(words)}"
    return Expected(
        ALL,
        (DISCOVERY,),
        re.compile(f"{one}[^;]*(; {one}[^;]*)?"),
        detected=DISCOVERY_DETECTED,
        recovered=DISCOVERY_RECOVERED,
    )


def _let_watches_grow_old(cluster: Cluster) -> None:
    """Wait until every agent has two watches that count as healthy.

    A watch that ends early counts as a failure, and pauses after failures grow. That is not tested here.
    """
    until(lambda: cluster.api.open_watches == 2 * len(cluster.nodes), timeout=DISCOVERY_RECOVERED)
    time.sleep(HEALTHY_WATCH)
    cluster.wait_calm()


@contextlib.contextmanager
def _down(cluster: Cluster) -> Iterator[None]:
    cluster.api.stop()
    try:
        yield
    finally:
        cluster.start_api_server()


@contextlib.contextmanager
def _silent_watches(cluster: Cluster) -> Iterator[None]:
    cluster.api.silence_watches()
    try:
        yield
    finally:
        cluster.api.cut_watches()


@contextlib.contextmanager
def _answering(cluster: Cluster, path: str, status: int, retry_after: int | None = None) -> Iterator[None]:
    """Answer the requests for a path with an error status, also those of the watches open now."""
    cluster.api.faults.answer(path, status, retry_after=retry_after)
    cluster.api.drop_watches()
    try:
        yield
    finally:
        cluster.api.faults.clear()


@contextlib.contextmanager
def _expired_versions(cluster: Cluster) -> Iterator[None]:
    cluster.api.requests.clear()
    cluster.api.compact()
    cluster.api.drop_watches()
    yield


@contextlib.contextmanager
def _token_refused(cluster: Cluster) -> Iterator[None]:
    cluster.api.tokens.clear()
    try:
        yield
    finally:
        cluster.api.tokens.add(cluster.token)


@contextlib.contextmanager
def _rotated(cluster: Cluster) -> Iterator[None]:
    """A new token, authority and certificate are accepted beside the old ones first, then alone."""
    successor = CertificateAuthority(cluster.directory / "next-pki")
    certificate = successor.issue("api-server", *API_NAMES, API_IP.v4, API_IP.v6)
    token, cluster.token = cluster.token, "the-next-token"
    cluster.api.tokens.add(cluster.token)
    for node in cluster.nodes:
        node.account.rotate(token=cluster.token, ca=cluster.authority.pem + successor.pem)
    cluster.wait_calm()
    cluster.api.tokens.discard(token)
    before, cluster.api.context = cluster.api.context, certificate.server_context()
    for node in cluster.nodes:
        node.account.rotate(ca=successor.pem)
    try:
        yield
    finally:
        for node in cluster.nodes:
            node.account.rotate(ca=cluster.authority.pem + successor.pem)
        cluster.api.context = before


def _age_grows(cluster: Cluster, _: Sequence[Seen]) -> str:
    """The age of the picture grows, and the metric shows it."""
    ages = [node.metric("kubenurse_discovery_age_seconds") for node in cluster.nodes]
    assert min(ages) >= 3, ages
    return f"all: ok, kubenurse_discovery_age_seconds grows ({min(ages):.0f} s and more)"


def _listed_again(cluster: Cluster, _: Sequence[Seen]) -> str:
    """Every agent lists Pods and nodes once more and watches again."""

    def lists(request: Request) -> bool:
        return request.verb == "list"

    count = 2 * len(cluster.nodes)
    assert cluster.api.wait_for_request(lists, count=count), list(cluster.api.requests)
    found = sum(map(lists, cluster.api.requests))
    assert found == count, f"{found} lists"
    return f"all: ok, {count} lists by {len(cluster.nodes)} agents"


FAULTS = (
    Fault(
        "API server down",
        _down,
        prepare=_let_watches_grow_old,
        expected=(
            Expected(ALL, API, "connect: connection refused", "connect_done"),
            _discovery_says("connection: connection refused", "pods", "nodes"),
        ),
    ),
    Fault("API server hangs in the middle of its watches", _silent_watches, proof=_age_grows, hold=6.0),
    Fault(
        "API server answers 429",
        partial(_answering, path="*", status=429, retry_after=1),
        prepare=_let_watches_grow_old,
        expected=(
            Expected(ALL, API, "429 Too Many Requests", "status_code_429"),
            _discovery_says("429 Too Many Requests", "pods", "nodes"),
        ),
    ),
    Fault(
        "API server forbids nodes (403)",
        partial(_answering, path=NODES, status=403),
        prepare=_let_watches_grow_old,
        expected=(_discovery_says("403 Forbidden", "nodes"),),
    ),
    Fault(
        "API server has forgotten the watched versions (410)",
        _expired_versions,
        prepare=_let_watches_grow_old,
        proof=_listed_again,
    ),
    Fault(
        "API server refuses the token (401)",
        _token_refused,
        (
            Expected(ALL, API, "401 Unauthorized", "status_code_401"),
            # Only of watches that end meanwhile: those that are open go on.
            sometimes(ALL, (DISCOVERY,), re.compile("(pods|nodes): 401 Unauthorized.*"), ""),
        ),
    ),
    Fault("Token, CA and certificate of the API server rotated", _rotated),
)
