"""The agent as a process outside the cluster, with a kubeconfig: API checks and neighbourhood work."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sandbox.objects import make_pod
from tests.support.kube import TOKEN
from tests.support.kube_home import Home, Plugin, certificate, serving
from tests.support.process import ADDRESS, Running, agent, command, free_port
from tests.support.waiting import until

NEIGHBOUR = "127.0.0.9"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A kubeconfig for a served cluster. Its namespace has the Pod of one agent, whose port is closed."""
    with serving(tmp_path) as kube:
        home = Home(tmp_path, kube)
        kube.server.put("pods", make_pod("pod-1", "node-1", NEIGHBOUR, namespace="nurses"))
        yield home


def variables(home: Home, **more: str) -> dict[str, str]:
    """Return the environment of an agent with that kubeconfig."""
    home.write()
    return {
        "KUBECONFIG": str(home.file),
        "KUBENURSE_NEIGHBOUR_FILTER": "app=kubenurse",
        "KUBENURSE_CHECK_INTERVAL": "200ms",
        **more,
    }


def alive(running: Running) -> Mapping[str, Any]:
    """Return the document of /alive."""
    found: Mapping[str, Any] = json.loads(running.get("/alive")[1])
    return found


def use_token(home: Home) -> None:
    """Keep the token."""


def use_certificate(home: Home) -> None:
    """Use a client certificate instead."""
    chain, key = certificate(home)
    home.user = {"client-certificate": str(chain), "client-key": str(key)}


def use_plugin(home: Home) -> None:
    """Use an exec plugin instead."""
    Plugin(home).give(token=TOKEN, seconds=3600)


@pytest.mark.parametrize("use", [use_token, use_certificate, use_plugin])
def test_a_kubeconfig_is_enough(home: Home, tmp_path: Path, use: Any) -> None:
    """A kubeconfig is enough to check the API server and the neighbours in its namespace."""
    use(home)
    with agent(tmp_path, **variables(home)) as running:
        answer = alive(running)
        assert answer["api_server_direct"] == "ok"
        assert answer["api_server_dns"] == "skipped"
        assert answer["neighbourhood_state"] == "ok"
        assert [each["PodName"] for each in answer["neighbourhood"]] == ["pod-1"]
        assert answer["last_check_result"]["path_node-1"] == "connect: connection refused"
        home.kube.server.put("pods", make_pod("pod-2", "node-2", NEIGHBOUR, namespace="nurses"))
        until(lambda: len(alive(running)["neighbourhood"]) == 2)
        assert running.end(signal.SIGTERM) == 0
        assert TOKEN not in running.log()


def test_the_namespace_may_be_another(home: Home, tmp_path: Path) -> None:
    """KUBENURSE_NAMESPACE overrides the namespace of the context."""
    home.kube.server.put("pods", make_pod("pod-3", "node-3", NEIGHBOUR, namespace="others"))
    with agent(tmp_path, **variables(home, KUBENURSE_NAMESPACE="others")) as running:
        assert [each["PodName"] for each in alive(running)["neighbourhood"]] == ["pod-3"]


def test_the_extra_ca_counts_for_it_too(home: Home, tmp_path: Path) -> None:
    """KUBENURSE_EXTRA_CA is trusted for an API server whose CA the kubeconfig does not name."""
    del home.cluster["certificate-authority"]
    with agent(tmp_path, **variables(home, KUBENURSE_EXTRA_CA=str(home.kube.authority.file))) as running:
        assert alive(running)["api_server_direct"] == "ok"


def test_check_uses_it(home: Home, tmp_path: Path) -> None:
    """``kubenurse check`` uses the kubeconfig as the agent does."""
    done = command(tmp_path, "check", "--json", **variables(home))
    assert json.loads(done.stdout)["checks"]["api_server_direct"]["state"] == "ok"
    assert done.returncode == 1  # for the neighbour that does not answer


def test_a_kubeconfig_that_cannot_be_used_is_said_once_and_the_rest_runs(home: Home, tmp_path: Path) -> None:
    """With an unusable kubeconfig, API checks and neighbourhood are skipped with a logged reason. Other checks run."""
    home.cluster["insecure-skip-tls-verify"] = True
    service = f"http://{ADDRESS}:{free_port()}"
    with agent(tmp_path, **variables(home, KUBENURSE_SERVICE_URL=service)) as running:
        answer = alive(running)
        assert (answer["api_server_direct"], answer["neighbourhood_state"]) == ("skipped", "skipped")
        assert answer["me_service"] == "connect: connection refused"
        assert running.log().count("insecure-skip-tls-verify is refused") == 1
        assert running.log().count("no usable kubeconfig") == 3
    assert not home.kube.server.requests
