"""Neighbours that are the Go kubenurse v1.15: they answer /alwayshappy with an empty 200 and no header of their own."""

from __future__ import annotations

import http.client
from functools import partial

from tests.e2e.cluster import GO_NODE, INTERVAL, Cluster
from tests.e2e.nodes import PORT
from tests.support.waiting import until

# The headers of Go's net/http, and the header that v1.15 adds.
ORIGIN = "KUBENURSE-NEIGHBOUR-ORIGIN"
GO_HEADERS = {
    "User-Agent": "Go-http-client/1.1",
    "Accept-Encoding": "gzip",
}


def test_a_go_neighbour_is_checked_like_any_other(cluster: Cluster) -> None:
    """All agents check the Go neighbour, find it ok, and count it."""
    cluster.wait_calm()
    latest = cluster.timeline.latest()
    for node in cluster.nodes:
        assert latest[node.name, f"path_{GO_NODE}"].ok
        assert node.metric("kubenurse_neighbours") >= len(cluster.nodes)


def test_a_check_by_a_go_neighbour_counts(cluster: Cluster) -> None:
    """A Go neighbour's check is answered with an empty 200 and counted as one incoming neighbour."""
    node = cluster.nodes[0]
    name = "kubenurse_neighbourhood_incoming_checks"
    own_kind = len(cluster.nodes) - 1
    # These are the callers of the last minute, replaced agents included.
    until(lambda: node.metric(name) >= own_kind, timeout=10 * INTERVAL)

    def ask(origin: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(node.addresses.v4, PORT, timeout=5)
        try:
            connection.request("GET", "/alwayshappy", headers=GO_HEADERS | {ORIGIN: origin})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def counts(origin: str) -> bool:
        before = node.metric(name)
        assert cluster.go.namespace.call(partial(ask, origin)) == (200, b"")
        return node.metric(name) == before + 1

    # A caller may expire at that moment, but not each time.
    assert any(counts(f"kubenurse-go-{number}") for number in range(3))
