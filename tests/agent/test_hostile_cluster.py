"""The agent as a process in a cluster with odd files and odd objects: it goes on, says why, and ends in time."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sandbox.objects import make_pod
from tests.support.kube import Kube
from tests.support.kube_home import Home, Plugin, serving
from tests.support.process import ADDRESS, Running, agent
from tests.support.waiting import until

# Seconds from SIGTERM to the end, beside KUBENURSE_SHUTDOWN_DURATION, which is 0 here; by the agent's own log, since a
# busy machine takes its time to end a process.
LONGEST_END = 3.0
# A name of its own: another process's agent on the same port would be mistaken for this one.
POD = f"hostile-{os.getpid()}"
CHECKS = ("api_server_direct", "api_server_dns")


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster with one agent's Pod on loopback, where the agents listen."""
    kube = Kube(tmp_path / "kube")
    kube.server.put("pods", make_pod("pod-1", "node-1", "127.0.0.9"))
    with kube.server:
        yield kube


def variables(kube: Kube) -> dict[str, str]:
    """Return the environment of an agent in that cluster."""
    return {
        "KUBERNETES_SERVICE_HOST": kube.server.address,
        "KUBERNETES_SERVICE_PORT": str(kube.server.port),
        "KUBERNETES_SERVICE_DNS": "localhost",
        "KUBENURSE_SERVICEACCOUNT_DIR": str(kube.account.path),
        "KUBENURSE_NEIGHBOUR_FILTER": "app=kubenurse",
        "KUBENURSE_CHECK_INTERVAL": "200ms",
        "KUBENURSE_POD_NAME": POD,
    }


def alive(running: Running) -> Mapping[str, Any]:
    """Return what /alive says."""
    found: Mapping[str, Any] = json.loads(running.get("/alive")[1])
    assert found["hostname"] == POD, "another agent answers on this port"
    return found


def end_in_time(running: Running) -> None:
    """Send SIGTERM and see the process end with 0, in time."""
    assert running.end(signal.SIGTERM) == 0
    moments = [
        datetime.datetime.fromisoformat(line.split()[0].removeprefix("ts="))
        for line in running.log().splitlines()
        if 'event="agent stop' in line
    ]
    assert len(moments) == 2
    assert (moments[1] - moments[0]).total_seconds() < LONGEST_END


def test_a_fifo_as_token_file_is_a_failure_with_a_reason(kube: Kube, tmp_path: Path) -> None:
    """Without a writer of the FIFO the checks of the API server fail with the reason, and SIGTERM is obeyed."""
    token = kube.account.path / "token"
    with agent(tmp_path, **variables(kube)) as running:
        until(lambda: alive(running)["api_server_direct"] == "ok")
        # The kubelet's files are links into a directory that it replaces.
        token.unlink()
        os.mkfifo(token)
        # States are cut, and this path is long: the reason itself is seen below.
        until(lambda: {alive(running)[kind][:17] for kind in CHECKS} == {"setup: token file"}, 20.0)
        kube.server.drop_watches()
        until(lambda: "not a regular file" in alive(running)["neighbourhood_state"])
        end_in_time(running)


def test_odd_pods_are_left_out_and_the_rest_goes_on(kube: Kube, tmp_path: Path) -> None:
    """A Pod whose address leads to another port is not fetched; one whose node is no name stops nothing."""
    with closing(socket.create_server((ADDRESS, 0))) as other_port:
        other_port.settimeout(0.1)
        address = f"{ADDRESS}:{other_port.getsockname()[1]}/#"
        kube.server.put("pods", make_pod("pod-2", "node-2", address), make_pod("pod-3", "node\ud800", "127.0.0.9"))
        with agent(tmp_path, **variables(kube)) as running:
            until(lambda: alive(running)["last_check_result"].get("path_node-1"))
            answer = alive(running)
            assert (answer["neighbourhood_state"], answer["api_server_direct"]) == ("ok", "ok")
            assert [each["PodName"] for each in answer["neighbourhood"]] == ["pod-1"]
            assert running.get("/metrics")[0] == 200
            assert running.log().count("object left out") == 1
            with pytest.raises(TimeoutError):
                other_port.accept()
            end_in_time(running)


def test_a_plugin_that_hangs_while_credentials_are_renewed_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """The checks wait for a plugin that never ends, and SIGTERM is obeyed in time all the same."""
    with serving(tmp_path) as kube:
        home = Home(tmp_path, kube)
        plugin = Plugin(home)
        plugin.give(token="the-token", seconds=1)
        home.write()
        with agent(tmp_path, KUBECONFIG=str(home.file), KUBENURSE_CHECK_INTERVAL="200ms") as running:
            pipe = plugin.hang()
            # A plugin is run again 5 s after its last run at the earliest.
            until(lambda: plugin.runs == 2, timeout=20)
            end_in_time(running)
        # The plugin outlives an agent that is no container's first process.
        os.close(os.open(pipe, os.O_WRONLY))
