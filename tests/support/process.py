"""kubenurse as a process of its own, outside any cluster."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support.waiting import PROCESS_START, until

PROGRAM = Path(__file__).resolve().parents[2] / "kubenurse.py"
ADDRESS = "127.0.0.1"


# Below what the kernel gives to connections and to who asks for any port (ip_local_port_range): nobody else takes one
# before it is used. Processes that run tests at the same time begin at places of their own.
_PORTS = range(20_000, 32_000)
_next_port = itertools.count(61 * os.getpid())


def free_port() -> int:
    """A port that nobody listens on, another one each time."""
    while True:
        port = _PORTS[next(_next_port) % len(_PORTS)]
        with contextlib.suppress(OSError), closing(socket.socket()) as sock:
            sock.bind((ADDRESS, port))
            return port


def environment(directory: Path, **variables: str) -> dict[str, str]:
    """The whole environment of an agent outside any cluster."""
    coverage = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "KUBENURSE_LISTEN_ADDRESS": ADDRESS,
        "KUBENURSE_SERVICEACCOUNT_DIR": str(directory / "none"),
        "KUBENURSE_SHUTDOWN_DURATION": "0s",
        "KUBENURSE_POD_NAME": "kubenurse-test",
        **coverage,
        **variables,
    }


def command(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run kubenurse with arguments to its end."""
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env=environment(directory, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def heeding_ctrl_c() -> Iterator[None]:
    """Let processes started within heed SIGINT, also where whoever runs the tests ignores it, as behind a ``&``."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Running:
    """An agent's process, and the lines it has logged."""

    def __init__(self, directory: Path, variables: Mapping[str, str]) -> None:
        self.port = int(variables.get("KUBENURSE_PORT", free_port()))
        self.log_file = directory / "log"
        env = environment(directory, **{"KUBENURSE_PORT": str(self.port), **variables})
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen([sys.executable, str(PROGRAM)], env=env, stderr=log, stdout=log)

    def log(self) -> str:
        """All it has logged."""
        return self.log_file.read_text()

    def get(self, path: str) -> tuple[int, bytes]:
        """Its answer's status and body."""
        with closing(http.client.HTTPConnection(ADDRESS, self.port, timeout=20)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)


@contextmanager
def agent(directory: Path, **variables: str) -> Iterator[Running]:
    """An agent that has started, or ended."""
    running = Running(directory, variables)
    try:
        until(lambda: "agent started" in running.log() or running.process.poll() is not None, PROCESS_START)
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait(20)
