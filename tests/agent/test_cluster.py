"""Real agents that check each other: their reports when one dies, hangs, leaves or has its node cordoned."""

from __future__ import annotations

import gzip
import json
import signal
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from checks.model import BUILT_IN_TYPES, TRACE_EVENTS
from sandbox.cluster import Cluster
from tests.support.seen import (
    ENVIRON,
    TIMEOUT,
    Log,
    checks,
    failing,
    is_one_failure,
    states,
    value,
    wait_for_rounds,
    wait_for_state,
    wait_until_well,
)
from tests.support.waiting import until

PATHS = {1: ("path_node-2", "path_node-3"), 2: ("path_node-1", "path_node-3"), 3: ("path_node-1", "path_node-2")}


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """Three agents, each of which checks both others."""
    with Cluster(3, environ=ENVIRON) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """The cluster in a healthy state. It is repaired after the test."""
    for number, agent in enumerate(shared.agents, start=1):
        wait_until_well(agent, *PATHS[number])
    yield shared
    for agent in shared.agents:
        agent.signal(signal.SIGCONT)
        if agent.pid is None:
            agent.restart()


def test_alive_of_a_healthy_agent(cluster: Cluster) -> None:
    """/alive is 200 with v1.4's keys, every check ok, and the other agents as neighbours."""
    agent = cluster.agents[0]
    answer = agent.get("/alive", headers={"User-Agent": "curl/8", "Authorization": "Bearer secret"})
    alive = answer.json()
    assert answer.status == 200
    assert answer.body.startswith(b'{\n "api_server_direct": "ok",\n')
    assert [alive[name] for name in BUILT_IN_TYPES] == ["ok"] * 4
    assert set(alive["last_check_result"]) == {*BUILT_IN_TYPES, *PATHS[1]}
    assert (alive["hostname"], alive["neighbourhood_state"]) == ("kubenurse-1", "ok")
    assert (alive["user_agent"], alive["request_uri"]) == ("curl/8", "/alive")
    assert alive["remote_addr"].startswith("127.0.0.1:")
    assert alive["headers"]["Authorization"] == ["[redacted]"]
    assert b"secret" not in answer.body
    assert alive["neighbourhood"] == [
        {
            "PodName": f"kubenurse-{number}",
            "PodIP": f"127.0.1.{number}",
            "HostIP": f"127.0.1.{number}",
            "NodeName": f"node-{number}",
            "Phase": "Running",
            "NodeSchedulable": "Schedulable",
        }
        for number in (2, 3)
    ]


def test_state_of_a_healthy_agent(cluster: Cluster) -> None:
    """/state is compact JSON: the agent, its start, each check with its phases in order, and the checked neighbours."""
    answer = cluster.agents[0].get("/state")
    document = answer.json()
    assert b'": ' not in answer.body
    assert (document["pod_name"], document["node_name"], document["not_ready"]) == ("kubenurse-1", "node-1", "")
    assert (document["about"]["interval"], document["about"]["neighbour_limit"]) == (0.2, 10)
    assert document["started_at"] <= document["finished_at"]
    for kind, found in document["checks"].items():
        moments = [found["trace"][event] for event in TRACE_EVENTS if event in found["trace"]]
        assert moments == sorted(moments), kind
        assert found["duration"] == found["trace"]["got_first_resp_byte"]
        assert found["tcp"]["rtt_seconds"] > 0
        assert (found["status_code"], found["event"]) == (200, "")
    by_name = document["checks"]["me_ingress"]
    assert {"dns_done", "tls_handshake_done"} <= by_name["trace"].keys()
    assert by_name["not_after"] > document["finished_at"]
    neighbourhood = document["neighbourhood"]
    assert (neighbourhood["known"], neighbourhood["cordoned"], neighbourhood["own_node_cordoned"]) == (2, 0, False)
    assert {one["pod_name"] for one in neighbourhood["checked"]} == {"kubenurse-2", "kubenurse-3"}


FAMILIES = {
    "kubenurse_build_info": "gauge",
    "kubenurse_check_success": "gauge",
    "kubenurse_check_timestamp_seconds": "gauge",
    "kubenurse_discovery_age_seconds": "gauge",
    "kubenurse_discovery_errors": "counter",
    "kubenurse_errors": "counter",
    "kubenurse_httpclient_request_duration_seconds": "histogram",
    "kubenurse_httpclient_requests": "counter",
    "kubenurse_log_dropped": "counter",
    "kubenurse_agent_lateness_seconds": "gauge",
    "kubenurse_agent_starved": "gauge",
    "kubenurse_httpclient_trace_request_duration_seconds": "histogram",
    "kubenurse_neighbourhood_incoming_checks": "gauge",
    "kubenurse_neighbours": "gauge",
    "kubenurse_request_duration": "summary",
    "kubenurse_tcp_path_mtu_bytes": "gauge",
    "kubenurse_tcp_retransmits": "counter",
    "kubenurse_tcp_rtt_seconds": "gauge",
    "kubenurse_tls_not_after_timestamp_seconds": "gauge",
}


def test_metrics_of_a_healthy_agent(cluster: Cluster) -> None:
    """/metrics has every family of the contract in both formats, compressed if asked, with a series for each check."""
    agent = cluster.agents[0]
    until(lambda: value(agent, "kubenurse_neighbourhood_incoming_checks") == 2)
    plain = list(text_format(agent.metrics()))
    accepted = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
    answer = agent.get("/metrics", headers=accepted)
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    modern = list(openmetrics(gzip.decompress(answer.body).decode()))  # type: ignore[no-untyped-call] # not typed there
    for families in (plain, modern):
        ours = {family.name: family.type for family in families if family.name.startswith("kubenurse_")}
        assert ours == FAMILIES
        others = {family.name for family in families if not family.name.startswith("kubenurse_")}
        assert {"process_cpu_seconds", "process_resident_memory_bytes", "python_info"} <= others
        samples = [sample for family in families for sample in family.samples]
        assert not [sample.name for sample in samples if sample.name.endswith("_created")]
        made = {sample.labels["type"]: sample.value for sample in samples if sample.name == "kubenurse_check_success"}
        assert made == dict.fromkeys([*BUILT_IN_TYPES, *PATHS[1]], 1.0)
    assert value(agent, "kubenurse_neighbours", state="checked") == 2
    assert value(agent, "kubenurse_httpclient_requests_total", type="me_service", code="200", method="get") > 0


def test_a_killed_agent_is_missed_and_welcomed_back(cluster: Cluster) -> None:
    """All others report a refused connection in state, event, metric and one log line, until the agent is back."""
    *others, victim = cluster.agents
    logs = [Log(agent) for agent in others]
    victim.kill()
    for agent in others:
        found = wait_for_state(agent, "path_node-3", "connect: connection refused")
        assert found["event"] == "connect_done"
        assert "connect_done" not in found["trace"]
        # A check of the Service or the ingress that was under way may have reached the dead agent too.
        until(lambda agent=agent: failing(agent) == {"path_node-3": "connect: connection refused"})  # type: ignore[misc]
        wait_for_rounds(agent, "path_node-3")
        assert value(agent, "kubenurse_errors_total", type="path_node-3", event="connect_done") >= 2
        assert agent.get("/alive").status == 500
    victim.restart()
    for agent, log in zip(others, logs, strict=True):
        wait_until_well(agent, *PATHS[cluster.agents.index(agent) + 1])
        assert agent.get("/alive").status == 200
        told = log.events("path_node-3")
        assert is_one_failure([line["event"] for line in told])
        assert "connect_done" in [line.get("error_event") for line in told]


def test_an_agent_that_hangs_is_a_timeout(cluster: Cluster) -> None:
    """The kernel accepts connections for a stopped process. The check reports the response phase and the timeout."""
    watching, _, victim = cluster.agents
    victim.signal(signal.SIGSTOP)
    found = wait_for_state(watching, "path_node-3", f"response: timed out after {TIMEOUT}")
    assert found["event"] == "timeout"
    assert 4.9 < found["duration"] < 10
    assert {"connect_done", "wrote_request"} <= found["trace"].keys()
    victim.signal(signal.SIGCONT)
    wait_for_state(watching, "path_node-3", "ok")


def test_a_cordoned_node_is_left_alone(cluster: Cluster) -> None:
    """Agents do not check an agent on a cordoned node. That agent is not ready and goes on checking the others."""
    *others, cordoned = cluster.agents
    logs = [Log(agent) for agent in others]
    assert cordoned.get("/ready").status == 200
    cluster.cordon("node-3")
    try:
        for agent in others:
            until(lambda agent=agent: "path_node-3" not in states(agent))  # type: ignore[misc]
            assert failing(agent) == {}
            assert agent.get("/alive").status == 200
            assert value(agent, "kubenurse_neighbours", state="cordoned") == 1
            assert value(agent, "kubenurse_neighbours", state="checked") == 1
        until(lambda: cordoned.get("/ready").status == 503)
        assert cordoned.get("/ready").body == b"the node is cordoned\n"
        assert cordoned.state()["neighbourhood"]["own_node_cordoned"] is True
        assert failing(cordoned) == {}
        assert states(cordoned).keys() >= {"path_node-1", "path_node-2"}
    finally:
        cluster.uncordon("node-3")
    until(lambda: cordoned.get("/ready").status == 200)
    for agent, log in zip(others, logs, strict=True):
        wait_until_well(agent, *PATHS[cluster.agents.index(agent) + 1])
        assert [line for line in log.events() if line["event"].startswith("check")] == []


def test_a_pod_that_is_deleted_is_no_error(cluster: Cluster) -> None:
    """An agent that ends as Pods do is no longer checked, without an error. Its successor is found."""
    *others, leaving = cluster.agents
    leaving.environ["KUBENURSE_SHUTDOWN_DURATION"] = "2s"  # a busy machine needs time to tell the others
    leaving.restart()
    for number, agent in enumerate(cluster.agents, start=1):
        wait_until_well(agent, *PATHS[number])
    logs = [Log(agent) for agent in others]
    leaving.stop()
    assert leaving.exit_code == 0
    for agent in others:
        until(lambda agent=agent: agent.state()["neighbourhood"]["known"] == 1)  # type: ignore[misc]
        assert "path_node-3" not in states(agent)
        assert failing(agent) == {}
    assert [log.events("path_node-3") for log in logs] == [[], []]
    leaving.environ["KUBENURSE_SHUTDOWN_DURATION"] = ENVIRON["KUBENURSE_SHUTDOWN_DURATION"]
    leaving.restart()
    for agent in others:
        wait_for_state(agent, "path_node-3", "ok")


def test_sigterm_drains(cluster: Cluster) -> None:
    """After SIGTERM an agent answers its neighbours, /ready gives the reason, and the exit code is 0."""
    agent = cluster.agents[2]
    agent.environ["KUBENURSE_SHUTDOWN_DURATION"] = "1h"
    agent.restart()
    wait_until_well(agent, *PATHS[3])
    log = Log(agent)
    agent.signal(signal.SIGTERM)
    until(lambda: agent.get("/ready").status == 503)
    assert agent.get("/ready").body == b"shutting down\n"
    assert agent.get("/alwayshappy").status == 200
    assert agent.state()["not_ready"] == "shutting down"
    assert agent.get("/alive").status == 200
    agent.environ["KUBENURSE_SHUTDOWN_DURATION"] = ENVIRON["KUBENURSE_SHUTDOWN_DURATION"]
    agent.restart()  # stops it with a second SIGTERM
    assert [line["event"] for line in log.events() if line["level"] != "info"] == []
    ended = [line for line in log.events() if line["event"] in ("agent stopping", "agent stopped")]
    assert [line.get("why") for line in ended] == ["SIGTERM", None]


def test_without_the_api_server_the_neighbours_stay_checked(cluster: Cluster) -> None:
    """While the API server is away, agents check the last known neighbours and give the reason, until it returns."""
    agent = cluster.agents[0]
    log = Log(agent)
    cluster.api.stop()
    try:
        refused = "connect: connection refused"
        for kind in ("api_server_direct", "api_server_dns"):
            assert wait_for_state(agent, kind, refused)["event"] == "connect_done"
        # The first failure may be that of a request that was under way.
        until(lambda: failing(agent).get("neighbourhood", "").count("refused") == 2)
        wait_for_rounds(agent, "path_node-2")
        assert failing(agent).keys() == {"api_server_direct", "api_server_dns", "neighbourhood"}
        alive = agent.get("/alive")
        assert alive.status == 500
        assert "refused" in alive.json()["neighbourhood_state"]
        assert len(alive.json()["neighbourhood"]) == 2
        assert value(agent, "kubenurse_discovery_errors_total", reason="connection") > 0
        assert value(agent, "kubenurse_discovery_age_seconds") > 0
    finally:
        cluster.api.start()
    for number, each in enumerate(cluster.agents, start=1):
        wait_until_well(each, *PATHS[number])
    assert is_one_failure([line["event"] for line in log.events("api_server_direct")])
    discovery = [line["event"] for line in log.events() if line["event"].startswith("discovery")]
    assert sorted(set(discovery)) == ["discovery failing", "discovery recovered"]


def test_not_synced_yet_is_not_empty(cluster: Cluster) -> None:
    """Until the first list of Pods has arrived, the state of the neighbourhood is "not synced yet"."""
    agent = cluster.agents[0]
    cluster.api.faults.hang("/api/v1/namespaces/*/pods")
    try:
        agent.restart()
        assert agent.state()["neighbourhood"]["state"] == "not synced yet"
        answer = agent.get("/alive")
        assert answer.status == 500
        assert answer.json()["neighbourhood_state"] == "not synced yet"
        assert answer.json()["neighbourhood"] == []
        assert {answer.json()[kind] for kind in BUILT_IN_TYPES} == {"ok"}
    finally:
        cluster.api.faults.clear()
        agent.restart()


def test_unknown_paths_and_methods(cluster: Cluster) -> None:
    """The root redirects to /alive. An unknown path is 404."""
    agent = cluster.agents[0]
    assert (agent.get("/").status, agent.get("/").headers["Location"]) == (301, "/alive")
    assert agent.get("/api").status == 404


def test_alwayshappy_names_the_pod(cluster: Cluster) -> None:
    """/alwayshappy is empty and names the Pod in a header."""
    answer = cluster.agents[1].get("/alwayshappy")
    assert (answer.status, answer.body, answer.headers["KUBENURSE-POD"]) == (200, b"", "kubenurse-2")


def test_the_log_of_a_healthy_agent_is_short(cluster: Cluster) -> None:
    """A healthy agent logs its start and its neighbours, and nothing for each check."""
    agent = cluster.agents[0]
    agent.restart()
    wait_until_well(agent, *PATHS[1])
    log = Log(agent)
    wait_for_rounds(agent, "me_service", 3)
    assert log.events() == []
    assert checks(agent)["me_service"]["state"] == "ok"
    lines = [json.loads(line) for line in agent.stderr_file.read_text().splitlines()]
    start = max(number for number, line in enumerate(lines) if line["event"] == "agent started")
    assert {line["event"] for line in lines[start:]} == {"agent started", "neighbours changed"}
