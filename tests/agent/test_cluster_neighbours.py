"""One real agent among neighbours of every kind; the token goes to the API server only."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.agent import Agent
from sandbox.certificates import CertificateAuthority
from sandbox.cluster import Cluster
from sandbox.objects import make_node, make_pod
from tests.support.recorder import Recorder
from tests.support.seen import ENVIRON, failing, states, value, wait_for_rounds
from tests.support.waiting import until

OTHERS = ("api_server_direct", "api_server_dns", "by_proxy", "extra", "me_ingress", "me_service")
# Pod, node and the end of the address; two Pods share a node, and one is on a cordoned node.
PODS = {"go-1": ("node-7", 207), "twin-a": ("node-8", 208), "twin-b": ("node-8", 209), "late-1": ("node-9", 210)}
CORDONED = "node-9"
PATHS = ("path_node-7", "path_node-8", "path_node-8_twin-b", "path_node-9")


class Surroundings:
    """The agent's cluster, with recorders in the place of ingress, Service, proxy and neighbours."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        authority = CertificateAuthority(directory / "pki")
        context = authority.issue("ingress", "localhost").server_context()
        self.ingress = stack.enter_context(Recorder(context=context))
        self.service = stack.enter_context(Recorder())
        self.proxy = stack.enter_context(Recorder())
        self.extra = stack.enter_context(Recorder())
        environ = {
            **ENVIRON,
            "KUBENURSE_INGRESS_URL": f"https://localhost:{self.ingress.port}",
            "KUBENURSE_SERVICE_URL": f"http://127.0.0.1:{self.service.port}",
            "KUBENURSE_EXTRA_CA": str(authority.file),
            "KUBENURSE_EXTRA_CHECKS": f"extra:http://127.0.0.1:{self.extra.port}/version|"
            "by_proxy:http://somewhere.invalid/version",
            "HTTP_PROXY": f"http://127.0.0.1:{self.proxy.port}",
            "NO_PROXY": "127.0.0.1",
            "KUBENURSE_ALLOW_UNSCHEDULABLE": "true",
            "KUBENURSE_NEIGHBOUR_LIMIT": "0",
        }
        self.cluster = stack.enter_context(Cluster(1, environ=environ))
        self.cluster.api.put("nodes", make_node(CORDONED, unschedulable=True))
        self.neighbours = {
            pod: stack.enter_context(Recorder(f"127.0.1.{number}", self.cluster.port))
            for pod, (_, number) in PODS.items()
        }
        self.put_pods()

    @property
    def agent(self) -> Agent:
        """The one agent."""
        return self.cluster.agents[0]

    @property
    def recorders(self) -> list[Recorder]:
        """All servers but the API server."""
        return [self.ingress, self.service, self.proxy, self.extra, *self.neighbours.values()]

    def put_pods(self) -> None:
        """Create the neighbours' Pods."""
        for pod, (node, number) in PODS.items():
            self.cluster.api.put("pods", make_pod(pod, node, f"127.0.1.{number}"))

    def restart_with(self, **variables: str) -> None:
        """Restart the agent with changed variables."""
        self.agent.environ.update(variables)
        self.agent.restart()

    def wait_for_paths(self, *paths: str) -> None:
        """Wait until exactly these paths are checked, and all is well."""
        until(lambda: states(self.agent).keys() == {*OTHERS, *paths} and not failing(self.agent))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    """An agent that checks recorders."""
    with contextlib.ExitStack() as stack:
        yield Surroundings(tmp_path_factory.mktemp("surroundings"), stack)


@pytest.fixture
def surroundings(shared: Surroundings) -> Iterator[Surroundings]:
    """The agent while all neighbours are ok. It is reset after the test."""
    shared.wait_for_paths(*PATHS)
    environ = dict(shared.agent.environ)
    yield shared
    shared.put_pods()
    if shared.agent.environ != environ:
        shared.restart_with(**environ)


def test_neighbours_that_answer_as_the_go_agent_does(surroundings: Surroundings) -> None:
    """An empty 200 without further headers is enough from a neighbour. Path and origin header are those of v1.15."""
    neighbour = surroundings.neighbours["go-1"]
    assert neighbour.heads[-1].startswith("GET /alwayshappy HTTP/1.1\r\n")
    assert neighbour.header("KUBENURSE-NEIGHBOUR-ORIGIN") == "kubenurse-1"
    assert (neighbour.header("User-Agent") or "").startswith("kubenurse/")
    assert neighbour.header("Host") == f"127.0.1.207:{surroundings.cluster.port}"
    assert surroundings.agent.get("/alive").status == 200
    for recorder in (surroundings.service, surroundings.ingress, surroundings.extra):
        assert recorder.header("KUBENURSE-NEIGHBOUR-ORIGIN") is None


def test_two_pods_on_one_node_are_both_checked(surroundings: Surroundings) -> None:
    """Each of two Pods on one node has its own type, metric and state."""
    agent = surroundings.agent
    surroundings.cluster.api.put("pods", make_pod("twin-b", "node-8", "127.0.1.211"))  # nobody listens there
    until(lambda: failing(agent) == {"path_node-8_twin-b": "connect: connection refused"})
    assert value(agent, "kubenurse_check_success", type="path_node-8") == 1
    assert value(agent, "kubenurse_check_success", type="path_node-8_twin-b") == 0
    surroundings.put_pods()
    surroundings.wait_for_paths(*PATHS)


def test_unschedulable_neighbours_need_no_nodes(surroundings: Surroundings) -> None:
    """With ALLOW_UNSCHEDULABLE, agents on cordoned nodes are checked; nodes are neither listed nor watched."""
    requests = list(surroundings.cluster.api.requests)
    assert {request.verb for request in requests} >= {"list", "watch"}
    assert [request.path for request in requests if "nodes" in request.path] == []
    known = surroundings.agent.get("/alive").json()["neighbourhood"]
    assert [neighbour["PodName"] for neighbour in known] == sorted(PODS)
    assert {neighbour["NodeSchedulable"] for neighbour in known} == {"Unknown"}


def test_under_host_network_the_own_pod_is_known_by_name(surroundings: Surroundings) -> None:
    """With the node's address and hostname, an agent still recognises its own Pod and node."""
    cluster, agent = surroundings.cluster, surroundings.agent
    cluster.api.put("pods", make_pod("kubenurse-1", "node-1", "127.0.1.1", host_ip="127.0.1.1"))
    wait_for_rounds(agent, "me_service")
    assert "path_node-1" not in states(agent)
    assert agent.state()["node_name"] == "node-1"
    assert agent.state()["neighbourhood"]["known"] == len(PODS)


@pytest.mark.parametrize("limit", [1, 2])
def test_the_limit_chooses_by_hashed_node_names(surroundings: Surroundings, limit: int) -> None:
    """The agent checks the neighbours with the smallest distance on the ring of hashes, as v1.15 does."""

    def distance(node: str) -> int:
        place, own = (int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") for name in (node, "node-1"))
        return (place - own) % 2**64

    order = sorted(PODS, key=lambda pod: (distance(PODS[pod][0]), pod))
    expected = sorted(PODS[pod][0] for pod in order[:limit])
    surroundings.restart_with(KUBENURSE_NEIGHBOUR_LIMIT=str(limit))
    agent = surroundings.agent
    until(lambda: len(agent.state()["neighbourhood"]["checked"]) == limit and states(agent).keys() > set(OTHERS))
    assert sorted(one["node_name"] for one in agent.state()["neighbourhood"]["checked"]) == expected
    until(lambda: sum(kind.startswith("path_") for kind in states(agent)) == limit)
    assert value(agent, "kubenurse_neighbours", state="known") == len(PODS)
    assert value(agent, "kubenurse_neighbours", state="checked") == limit
    # All known neighbours are shown, as in v1.4.
    assert len(agent.get("/alive").json()["neighbourhood"]) == len(PODS)


def test_no_neighbours_is_fine(surroundings: Surroundings) -> None:
    """An agent without neighbours is healthy: the neighbourhood is ok and empty."""
    agent = surroundings.agent
    for pod in PODS:
        surroundings.cluster.api.delete("pods", pod)
    surroundings.wait_for_paths()
    answer = agent.get("/alive")
    assert (answer.status, answer.json()["neighbourhood"], answer.json()["neighbourhood_state"]) == (200, [], "ok")
    assert value(agent, "kubenurse_neighbours", state="known") == 0


def test_the_token_is_for_the_api_server_alone(surroundings: Surroundings) -> None:
    """No other server receives the token, whatever the path, and no endpoint or log shows it."""
    agent, token = surroundings.agent, surroundings.cluster.token
    for recorder in surroundings.recorders:
        recorder.heads.clear()
    for kind in (*OTHERS, *PATHS):
        wait_for_rounds(agent, kind, 1)
    for recorder in surroundings.recorders:
        assert recorder.heads
        assert not [head for head in recorder.heads if "authorization" in head.lower() or token in head]
    assert surroundings.extra.heads[-1].startswith("GET /version HTTP/1.1")
    assert surroundings.proxy.heads[-1].startswith("GET http://somewhere.invalid/version HTTP/1.1")
    requests = list(surroundings.cluster.api.requests)
    assert "/version" in {request.path for request in requests}
    assert all(request.authorization for request in requests)
    for path in ("/alive", "/state", "/metrics"):
        assert token.encode() not in agent.get(path).body
    assert token not in agent.stderr_file.read_text()


def test_a_rotated_token_is_used_at_once(surroundings: Surroundings) -> None:
    """After the token file changes, the next requests carry the new token."""
    cluster, agent = surroundings.cluster, surroundings.agent
    old = cluster.token
    try:
        cluster.api.tokens = {"another"}
        until(lambda: failing(agent).get("api_server_direct") == "401 Unauthorized")
        agent.account.rotate(token="another")
        until(lambda: not failing(agent))
    finally:
        cluster.api.tokens = {old}
        agent.account.rotate(token=old)
