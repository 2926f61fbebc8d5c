"""A whole cluster on loopback: API server, Service, ingress, and agents as processes of their own."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from sandbox.agent import STOP_TIMEOUT, Agent, ClusterError, pod_name
from sandbox.apiserver import ApiServer
from sandbox.certificates import CertificateAuthority, ServiceAccountDirectory
from sandbox.ingress import Ingress
from sandbox.objects import LABELS, NAMESPACE, make_node
from sandbox.service import Address, Service

API_ADDRESS = "127.0.0.1"
API_NAME = "localhost"
AGENT_NETWORK = "127.0.1"
SERVICE_ADDRESS = "127.0.2.1"
MAX_AGENTS = 250
PREFERRED_PORT = 8080
PORTS_TRIED = 100

KUBENURSE = Path(__file__).resolve().parent.parent / "kubenurse.py"

# Becomes the agent, after asking the kernel for SIGKILL should the sandbox die first (prctl(2), PR_SET_PDEATHSIG = 1,
# which is kept across exec). A preexec_fn would run Python between fork and exec in a process that has threads.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class Cluster:
    """A cluster of ``agents`` agents that lives as long as the ``with`` block.

    ``environ`` is added to every agent's environment, ``environs`` to that of single agents by their number, which is
    counted from 1. ``command`` starts an agent and begins with the full path of a program. Everything listens on
    loopback: the API server and the ingress on 127.0.0.1, the Service on 127.0.2.1, the agents on 127.0.1.1 and on, all
    on one port as neighbours expect. ``directory`` holds all files, the agents' stderr too, and is removed in the end.
    Faults are set on ``api`` (``faults``), ``service`` (``backends``), ``ingress`` (``fault``) and ``agents``.

    Raises:
        ClusterError: on entry, when something cannot start.
    """

    def __init__(
        self,
        agents: int = 4,
        *,
        environ: Mapping[str, str] | None = None,
        environs: Mapping[int, Mapping[str, str]] | None = None,
        command: Sequence[str] = (sys.executable, str(KUBENURSE)),
    ) -> None:
        if not 1 <= agents <= MAX_AGENTS:
            raise ValueError(f"{agents} agents: expected 1 to {MAX_AGENTS}")
        self._count = agents
        self._environ = dict(environ or {})
        self._environs = dict(environs or {})
        self._command = list(command)
        self._stack = contextlib.ExitStack()
        self._cordoned: set[str] = set()
        self.token = secrets.token_urlsafe(32)
        self.agents: list[Agent] = []

    def __enter__(self) -> Self:
        try:
            self._start_infrastructure()
            self._start_agents()
        except OSError as error:
            self.close()
            raise ClusterError(f"the cluster cannot start: {error}") from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything, within seconds."""
        self._stack.close()

    def cordon(self, node: str) -> None:
        """Mark a node as unschedulable, as ``kubectl cordon`` does. Its agent, no longer ready, leaves the Service."""
        self._cordoned.add(node)
        self.api.put("nodes", make_node(node, unschedulable=True))

    def uncordon(self, node: str) -> None:
        """Mark the node as schedulable again."""
        self._cordoned.discard(node)
        self.api.put("nodes", make_node(node))

    def _start_infrastructure(self) -> None:
        enter = self._stack.enter_context
        self.directory = Path(enter(tempfile.TemporaryDirectory(prefix="kubenurse-sandbox-")))
        self._addresses = [f"{AGENT_NETWORK}.{number}" for number in range(1, self._count + 1)]
        self.port = enter(_free_port(self._addresses))
        self.authority = CertificateAuthority(self.directory / "pki")
        certificate = self.authority.issue("api-server", API_NAME, API_ADDRESS)
        self.api = enter(ApiServer(API_ADDRESS, context=certificate.server_context(), tokens={self.token}))
        self.service = enter(Service(self._ready_backends, SERVICE_ADDRESS))
        self.ingress = enter(Ingress(self.authority, (self.service.address, self.service.port)))

    def _start_agents(self) -> None:
        self._launcher = self._stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="sandbox-launcher"))
        self._stack.callback(self._end_agents)
        for number, address in enumerate(self._addresses, start=1):
            agent = self._make_agent(number, address)
            self.agents.append(agent)
            self.api.put("nodes", make_node(agent.node))
            agent.start()
        for agent in self.agents:
            agent.wait_until_serving()

    def _make_agent(self, number: int, address: str) -> Agent:
        name = pod_name(number)
        account = ServiceAccountDirectory(
            self.directory / name, token=self.token, ca=self.authority.pem, namespace=NAMESPACE
        )
        return Agent(
            number,
            (address, self.port),
            api=self.api,
            account=account,
            environ={
                **self._common_environ(),
                "KUBENURSE_LISTEN_ADDRESS": address,
                "KUBENURSE_POD_NAME": name,
                "KUBENURSE_SERVICEACCOUNT_DIR": str(account.path),
                **self._environ,
                **self._environs.get(number, {}),
            },
            stderr_file=self.directory / f"{name}.stderr",
            launch=self._launch,
        )

    def _common_environ(self) -> dict[str, str]:
        """Return the environment that all agents share. From the sandbox's own it has the search path only."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.directory),
            # As in our image: one heap for all threads instead of one each, half a megabyte less.
            "MALLOC_ARENA_MAX": "1",
            # By these a coverage run follows its child processes.
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
            "KUBERNETES_SERVICE_HOST": self.api.address,
            "KUBERNETES_SERVICE_PORT": str(self.api.port),
            "KUBERNETES_SERVICE_DNS": API_NAME,
            "KUBENURSE_PORT": str(self.port),
            "KUBENURSE_NAMESPACE": NAMESPACE,
            "KUBENURSE_NEIGHBOUR_FILTER": ",".join(f"{key}={value}" for key, value in LABELS.items()),
            "KUBENURSE_SERVICE_URL": self.service.url,
            "KUBENURSE_INGRESS_URL": self.ingress.url,
            "KUBENURSE_EXTRA_CA": str(self.authority.file),
            "KUBENURSE_SHUTDOWN_DURATION": "500ms",
        }

    def _launch(self, environ: Mapping[str, str], stderr_file: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *self._command]
        with stderr_file.open("ab") as stderr:
            # PR_SET_PDEATHSIG watches the thread that forked, so a thread that lives as long as the cluster forks.
            return self._launcher.submit(
                subprocess.Popen,
                command,
                env=environ,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            ).result()

    def _ready_backends(self) -> Sequence[Address]:
        return [agent.address for agent in self.agents if agent.serving and agent.node not in self._cordoned]

    def _end_agents(self) -> None:
        # A stopped agent receives its SIGTERM only after SIGCONT.
        for number in (signal.SIGTERM, signal.SIGCONT):
            for agent in self.agents:
                agent.signal(number)
        deadline = time.monotonic() + STOP_TIMEOUT
        for agent in self.agents:
            agent.wait_until_ended(max(0.0, deadline - time.monotonic()))


@contextlib.contextmanager
def _free_port(addresses: Sequence[str]) -> Iterator[int]:
    """Yield a TCP port that is free on all the addresses and that no other cluster chooses meanwhile.

    The agents bind the port, so it must stay free. Clusters that start at the same time mark it as taken by binding the
    UDP port of the same number. Ports of the ephemeral range are not tried, because the kernel gives them to clients.
    """
    for port in range(PREFERRED_PORT, PREFERRED_PORT + PORTS_TRIED):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mark:
            try:
                mark.bind((addresses[0], port))
                for address in addresses:
                    socket.create_server((address, port)).close()
            except OSError:
                continue
            yield port
            return
    last = PREFERRED_PORT + PORTS_TRIED - 1
    raise ClusterError(f"no port from {PREFERRED_PORT} to {last} is free on all of {addresses[0]} to {addresses[-1]}")
