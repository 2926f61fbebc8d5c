"""An agent of the sandbox: a Pod in the API and the real process that is its container."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.apiserver import ApiServer
from sandbox.certificates import ServiceAccountDirectory
from sandbox.objects import make_pod

START_TIMEOUT = 20.0
STOP_TIMEOUT = 3.0
# Seconds that a Pod has to end by itself.
GRACE_PERIOD = 10.0
ANSWER_TIMEOUT = 15.0
STDERR_TAIL_BYTES = 2000
_POLL = 0.02

Launch = Callable[[Mapping[str, str], Path], "subprocess.Popen[bytes]"]


class ClusterError(Exception):
    """A part of the cluster could not start; the message is for a person."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An agent's answer to one request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object; ValueError when it is not one."""
        document = json.loads(self.body)
        if not isinstance(document, dict):
            raise ValueError("the answer is no JSON object")  # noqa: TRY004 - the kind that json.loads raises
        return document


class Agent:
    """One agent, on a node of its own.

    ``environ`` is the whole environment of its process and may be changed before a (re)start; ``account`` is its
    service account, to rotate; ``stderr_file`` collects what all its processes log. Methods that ask the process
    something raise OSError or ``http.client.HTTPException`` when it does not answer.
    """

    def __init__(
        self,
        number: int,
        address: tuple[str, int],
        *,
        api: ApiServer,
        account: ServiceAccountDirectory,
        environ: Mapping[str, str],
        stderr_file: Path,
        launch: Launch,
    ) -> None:
        self.node = node_name(number)
        self.pod = pod_name(number)
        self.address = address
        self.account = account
        self.environ = dict(environ)
        self.stderr_file = stderr_file
        self._api = api
        self._launch = launch
        self._process: subprocess.Popen[bytes] | None = None
        self._has_served = False

    @property
    def url(self) -> str:
        """Where it serves plain HTTP."""
        return "http://{}:{}".format(*self.address)

    @property
    def pid(self) -> int | None:
        """The id of the process, None when no process runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """The last process's exit code (negative: ended by that signal), None while it runs or before the first."""
        return self._process.poll() if self._process else None

    @property
    def serving(self) -> bool:
        """True from the first accepted connection until the process ends or is told to end."""
        return self._has_served and self.pid is not None

    def start(self) -> None:
        """Create the Pod and start its process. ``wait_until_serving`` waits for it."""
        if self.pid is not None:
            raise ClusterError(f"{self.pod} runs already, as process {self.pid}")
        self._has_served = False
        self._api.put("pods", make_pod(self.pod, self.node, self.address[0]))
        self._process = self._launch(self.environ, self.stderr_file)

    def wait_until_serving(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until it accepts connections.

        Raises:
            ClusterError: it ended, or ``timeout`` seconds are over; the message has the end of its stderr.
        """
        deadline = time.monotonic() + timeout
        while not self._accepts():
            if self.pid is None:
                raise ClusterError(f"{self.pod} ended with code {self.exit_code}:\n{self.stderr_tail()}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{self.pod} does not serve after {timeout:g} s:\n{self.stderr_tail()}")
            time.sleep(_POLL)
        self._has_served = True

    def stop(self) -> None:
        """End it as kubelet ends a Pod: mark it terminating, leave the Service, send SIGTERM, delete the Pod."""
        self._has_served = False
        self._api.put("pods", make_pod(self.pod, self.node, self.address[0], terminating=True))
        self.signal(signal.SIGTERM)
        self.wait_until_ended(GRACE_PERIOD)
        self._api.delete("pods", self.pod)

    def kill(self) -> None:
        """Kill the process and leave its Pod Running in the API, as a crash does."""
        self.signal(signal.SIGKILL)
        self.wait_until_ended()

    def restart(self) -> None:
        """Stop it, if it runs, start it again, and wait until it serves."""
        if self.pid is not None:
            self.stop()
        self.start()
        self.wait_until_serving()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if one runs. SIGSTOP makes an agent hang, SIGCONT lets it go on."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait_until_ended(self, timeout: float = STOP_TIMEOUT) -> None:
        """Wait for the process to end, and kill it after ``timeout`` seconds."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def get(self, path: str, timeout: float = ANSWER_TIMEOUT, headers: Mapping[str, str] | None = None) -> Answer:
        """Request ``path`` from the agent itself; waits at most ``timeout`` seconds for each part of the answer."""
        with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=timeout)) as connection:
            connection.request("GET", path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())

    def alive(self) -> tuple[int, dict[str, Any]]:
        """Return the status and the document of /alive, which may run a round of checks."""
        answer = self.get("/alive")
        return answer.status, answer.json()

    def state(self, timeout: float = ANSWER_TIMEOUT) -> dict[str, Any]:
        """Return the document of /state, which runs nothing."""
        return self.get("/state", timeout).json()

    def metrics(self) -> str:
        """Return /metrics in Prometheus's text format."""
        return self.get("/metrics").body.decode()

    def stderr_tail(self) -> str:
        """Return the last ``STDERR_TAIL_BYTES`` of its log."""
        if not self.stderr_file.exists():
            return ""
        return self.stderr_file.read_bytes()[-STDERR_TAIL_BYTES:].decode(errors="replace")

    def _accepts(self) -> bool:
        try:
            socket.create_connection(self.address, timeout=1).close()
        except OSError:
            return False
        return True


def node_name(number: int) -> str:
    """Return the name of the node that agent ``number`` is on."""
    return f"node-{number}"


def pod_name(number: int) -> str:
    """Return the name of agent ``number``'s Pod."""
    return f"kubenurse-{number}"
