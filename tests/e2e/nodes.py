"""Nodes with an agent's Pod each, managed as kubelet does: objects, addresses and process, in this order."""

from __future__ import annotations

import http.client
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from prometheus_client.parser import text_string_to_metric_families

from sandbox.apiserver import ApiServer
from sandbox.certificates import ServiceAccountDirectory
from sandbox.objects import make_node, make_pod
from tests.e2e.network import Addresses, Member
from tests.e2e.processes import Process, Processes
from tests.support.waiting import until

PORT = 8080
ANSWER_TIMEOUT = 5.0
KUBENURSE = Path(__file__).resolve().parents[2] / "kubenurse.py"


class ControlPlane(Protocol):
    """The interface of the cluster that a node needs."""

    api: ApiServer

    def set_ready(self, node: str, addresses: Addresses | None) -> None:
        """Add a Pod to the Service's endpoints on all nodes, or take the node's Pod out (None)."""
        ...


class Node:
    """A node and its agent's Pod. ``pod`` is the Pod's name, new in each generation.

    ``version`` is the IP version of the Pod's address in the API. ``extra_environ`` is added to the agent's when its
    process starts. ``runs`` tells whether an agent is to be asked. ``clock_offset`` is by how many seconds its agent's
    time of day is wrong.
    """

    def __init__(
        self,
        member: Member,
        plane: ControlPlane,
        processes: Processes,
        account: ServiceAccountDirectory,
        environ: Mapping[str, str],
        version: int = 4,
    ) -> None:
        self.name = member.name
        self.member = member
        self.account = account
        self.version = version
        self.extra_environ: dict[str, str] = {}
        self.generation = 0
        self.runs = False
        self.cordoned = False
        self.clock_offset = 0.0
        self._plane = plane
        self._processes = processes
        self._environ = dict(environ)
        self._process: Process | None = None
        self._plane.api.put("nodes", make_node(self.name, ip=member.host.v4))

    @property
    def pod(self) -> str:
        """The current Pod's name."""
        return f"kubenurse-{self.member.number}-{self.generation}"

    @property
    def addresses(self) -> Addresses:
        """The current Pod's addresses."""
        return self.member.pod_addresses(self.generation)

    @property
    def ip(self) -> str:
        """The address that the API tells of the Pod."""
        return self.addresses.of_family(self.version)

    @property
    def process(self) -> Process:
        """The agent's process, running or not."""
        assert self._process is not None
        return self._process

    @property
    def path_type(self) -> str:
        """The type of the check that others make of it."""
        return f"path_{self.name}"

    def create_pod(self) -> None:
        """Make the next Pod: pending without an address first, then running, though it may not listen yet."""
        self.generation += 1
        self._put_pod(ip="", phase="Pending")
        self.member.move_pod(self.addresses)
        self.start_process()
        self._put_pod(ip=self.ip, ready=False)

    def start_process(self) -> None:
        """Start the Pod's container (again)."""
        environ = {**self._environ, "KUBENURSE_POD_NAME": self.pod, **self.extra_environ}
        command = [sys.executable, str(KUBENURSE)]
        self._process = self._processes.start("agent", self.member.namespace, command, environ)

    def become_ready(self, timeout: float = 20.0) -> None:
        """Wait for its readiness, and let the Service know."""
        until(self._is_ready, timeout)
        self._put_pod(ip=self.ip)
        self.runs = True
        self._plane.set_ready(self.name, self.addresses)

    def delete_pod(self) -> None:
        """End the Pod as the API server, the endpoints controller and kubelet do together, in that order."""
        self._put_pod(ip=self.ip, terminating=True)
        self._plane.set_ready(self.name, None)
        self.runs = False
        self.process.signal(signal.SIGTERM)
        self.process.wait(timeout=15)
        self._plane.api.delete("pods", self.pod)
        self.member.move_pod(None)

    def replace_pod(self) -> None:
        """Delete the Pod and make its successor, as a DaemonSet's rolling update does with each node."""
        self.delete_pod()
        self.create_pod()
        self.become_ready()

    def kill(self) -> None:
        """Kill the agent. Its Pod stays in the API and leaves the Service's endpoints."""
        self._put_pod(ip=self.ip, ready=False)
        self._plane.set_ready(self.name, None)
        self.runs = False
        self.process.signal(signal.SIGKILL)
        self.process.wait()

    def cordon(self) -> None:
        """Cordon the node; its agent is then not ready."""
        self.cordoned = True
        self._plane.api.put("nodes", make_node(self.name, unschedulable=True, ip=self.member.host.v4))
        self._plane.set_ready(self.name, None)

    def uncordon(self) -> None:
        """Uncordon the node and add its agent, if there is one, to the endpoints."""
        self.cordoned = False
        self._plane.api.put("nodes", make_node(self.name, ip=self.member.host.v4))
        if self.runs:
            self._plane.set_ready(self.name, self.addresses)

    def ask(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Request a path from the agent, inside its own Pod, where faults of the network do not matter."""
        return self.member.namespace.call(lambda: request(path, headers))

    def metrics(self) -> str:
        """Return /metrics in the text format."""
        return self.ask("/metrics")[1].decode()

    def metric(self, name: str) -> float:
        """Return the sum of all samples of a name in /metrics."""
        families = text_string_to_metric_families(self.metrics())
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    def state(self) -> dict[str, Any]:
        """Return the document of /state."""
        document = json.loads(self.ask("/state")[1])
        assert isinstance(document, dict)
        return document

    def _is_ready(self) -> bool:
        if not self.process.runs:
            raise AssertionError(f"{self.pod} ended: {self.process.tail()}")
        try:
            return self.ask("/ready")[0] == 200
        except OSError:
            return False

    def _put_pod(self, ip: str, phase: str = "Running", *, ready: bool = True, terminating: bool = False) -> None:
        pod = make_pod(self.pod, self.name, ip, phase=phase, host_ip=self.member.host.v4, terminating=terminating)
        if ip:
            both = (self.ip, self.addresses.of_family(10 - self.version))
            pod["status"]["podIPs"] = [{"ip": address} for address in both]
        for condition in pod["status"]["conditions"]:
            if condition["type"] in ("Ready", "ContainersReady") and not ready:
                condition |= {"status": "False", "reason": "ContainersNotReady"}
        self._plane.api.put("pods", pod)


def request(path: str, headers: Mapping[str, str] | None = None, host: str = "127.0.0.1") -> tuple[int, bytes]:
    """Request a path of the agent at ``host`` as seen by the calling thread; return status and body."""
    connection = http.client.HTTPConnection(host, PORT, timeout=ANSWER_TIMEOUT)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
