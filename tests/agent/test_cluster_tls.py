"""Real agents that check each other by https while certificates are renewed and expire."""

from __future__ import annotations

import contextlib
import datetime
import http.client
from collections.abc import Iterator

import pytest

from checks.probe.trust import TrustStore
from sandbox.agent import Agent
from sandbox.cluster import Cluster
from tests.support.seen import (
    ENVIRON,
    Log,
    checks,
    failing,
    is_one_failure,
    value,
    wait_for_rounds,
    wait_for_state,
    wait_until_well,
)
from tests.support.waiting import until

# Clusters that run in parallel have different ports; the TLS port follows: 8443 for 8080.
TLS_PORT_OFFSET = 363


def tls_port(cluster: Cluster) -> int:
    """Where the agents serve HTTPS."""
    return cluster.port + TLS_PORT_OFFSET


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """Two agents that serve HTTPS and check each other by it."""
    with Cluster(2, environ=ENVIRON) as cluster:
        for agent in cluster.agents:
            certificate = cluster.authority.issue(agent.pod, agent.address[0])
            agent.environ |= {
                "KUBENURSE_USE_TLS": "true",
                "KUBENURSE_TLS_PORT": str(tls_port(cluster)),
                "KUBENURSE_CERT_FILE": str(certificate.chain),
                "KUBENURSE_CERT_KEY": str(certificate.key),
            }
            agent.restart()
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """The cluster in a healthy state. It is repaired after the test."""
    watching, watched = shared.agents
    wait_until_well(watching, "path_node-2")
    wait_until_well(watched, "path_node-1")
    yield shared
    shared.authority.issue(watched.pod, watched.address[0])


def trusting(cluster: Cluster, agent: Agent) -> http.client.HTTPSConnection:
    """A connection to an agent by https, opened with its first request."""
    context = TrustStore([cluster.authority.file], system=False).context()
    return http.client.HTTPSConnection(agent.address[0], tls_port(cluster), timeout=20, context=context)


def happy(connection: http.client.HTTPSConnection) -> bool:
    """Whether the agent answers on it."""
    connection.request("GET", "/alwayshappy")
    answer = connection.getresponse()
    return (answer.status, answer.read()) == (200, b"")


def test_neighbours_are_checked_by_https(cluster: Cluster) -> None:
    """The check of a path makes a handshake and reads the certificate. Both ports serve the endpoints."""
    watching, watched = cluster.agents
    found = checks(watching)["path_node-2"]
    assert found["trace"]["connect_done"] <= found["trace"]["tls_handshake_done"] <= found["trace"]["wrote_request"]
    assert found["not_after"] > found["started_at"]
    assert value(watching, "kubenurse_tls_not_after_timestamp_seconds", type="path_node-2") == found["not_after"]
    assert watched.get("/alwayshappy").status == 200
    with contextlib.closing(trusting(cluster, watched)) as connection:
        assert happy(connection)


def test_a_renewed_certificate_is_served_and_connections_are_kept(cluster: Cluster) -> None:
    """After the files change, new connections get the new certificate. Open connections go on. No check fails."""
    watching, watched = cluster.agents
    log, served_log = Log(watching), Log(watched)
    end = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=7)
    with contextlib.closing(trusting(cluster, watched)) as connection:
        assert happy(connection)
        opened = connection.sock
        cluster.authority.issue(watched.pod, watched.address[0], not_after=end)
        until(lambda: checks(watching)["path_node-2"]["not_after"] == end.timestamp())
        assert happy(connection)
        assert connection.sock is opened
    wait_for_rounds(watching, "path_node-2")
    assert value(watching, "kubenurse_tls_not_after_timestamp_seconds", type="path_node-2") == end.timestamp()
    assert log.events() == []
    assert "certificate reloaded" in {line["event"] for line in served_log.events()}
    assert failing(watched) == {}


def test_an_expired_certificate_is_told(cluster: Cluster) -> None:
    """Checks of an agent with an expired certificate fail in the TLS phase until it serves a valid one."""
    watching, watched = cluster.agents
    log = Log(watching)
    cluster.authority.issue_expired(watched.pod, watched.address[0])
    found = wait_for_state(watching, "path_node-2", "tls: certificate has expired")
    assert found["event"] == "tls_handshake_done"
    # Python does not return a certificate that it refused. The date of the previous one would be wrong.
    assert value(watching, "kubenurse_tls_not_after_timestamp_seconds", type="path_node-2") == 0
    assert value(watching, "kubenurse_errors_total", type="path_node-2", event="tls_handshake_done") > 0
    assert failing(watching) == {"path_node-2": "tls: certificate has expired"}
    cluster.authority.issue(watched.pod, watched.address[0])
    wait_for_state(watching, "path_node-2", "ok")
    until(lambda: [line["event"] for line in log.events("path_node-2")][-1:] == ["check recovered"])
    assert is_one_failure([line["event"] for line in log.events("path_node-2")])
