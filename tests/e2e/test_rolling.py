"""Orderly maintenance causes no failures."""

from __future__ import annotations

import time

from tests.e2e.cluster import INTERVAL, Cluster
from tests.e2e.stalls import again_after_a_stall
from tests.e2e.trial import Errors, errors
from tests.e2e.watcher import DISCOVERY


@again_after_a_stall
def test_a_rolling_restart_is_no_error_to_anybody(cluster: Cluster) -> None:
    """While all agents are replaced, one after another, with new names and addresses, no check fails."""
    cluster.wait_calm()
    began = time.time()
    pods = {node.pod for node in cluster.nodes}
    counted = errors(cluster)
    for node in cluster.nodes:
        node.replace_pod()
        # Seconds: the minimum between two nodes in the rollout of a DaemonSet (minReadySeconds: 1).
        time.sleep(INTERVAL)
        # The counters of a new agent start at 0.
        counted = {key: count for key, count in counted.items() if key[0] != node.name}
        assert more(errors(cluster), counted) == {}
    cluster.wait_calm()
    assert more(errors(cluster), {}) == {}
    assert not pods & {node.pod for node in cluster.nodes}
    seen = cluster.timeline.since(began)
    assert [it for it in seen if not it.ok and it.type != DISCOVERY] == []
    assert {it.pod for it in seen} >= {node.pod for node in cluster.nodes}


def more(now: Errors, before: Errors) -> Errors:
    """Return what was counted since."""
    return {key: count for key, count in now.items() if count > before.get(key, 0.0)}
