"""The cluster without a fault: all checks are ok, over both address families."""

from __future__ import annotations

import json

from tests.e2e.cluster import Cluster


def test_every_agent_finds_everything_well(cluster: Cluster) -> None:
    """Each agent answers /alive with 200 and has checked the API server, ingress, Service and all its neighbours."""
    for node in cluster.nodes:
        status, body = node.ask("/alive")
        document = json.loads(body)
        assert status == 200, document
        assert document["neighbourhood_state"] == "ok"
        assert set(document["last_check_result"].values()) == {"ok"}
