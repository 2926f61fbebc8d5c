"""Processes of the cluster, each in a namespace. They end with this process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.namespaces import Namespace
from tests.support.debian import search_path

STOP_TIMEOUT = 5.0
_TAIL_BYTES = 3000

# Becomes the command, after asking the kernel for SIGKILL should the parent thread end first (prctl(2),
# PR_SET_PDEATHSIG = 1, kept across exec).
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


class Process:
    """One process; ``log`` collects what it and its predecessors of the same name print."""

    def __init__(self, name: str, started: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._started = started

    @property
    def pid(self) -> int:
        """The process's id; `ip netns exec` has become the command itself."""
        return self._started.pid

    @property
    def runs(self) -> bool:
        """True until it ends."""
        return self._started.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.runs:
            self._started.send_signal(number)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Wait for its end and return the exit code (negative: that signal); kill it after ``timeout`` seconds."""
        try:
            return self._started.wait(timeout)
        except subprocess.TimeoutExpired:
            self._started.kill()
            return self._started.wait()

    def stop(self) -> int:
        """End it and return the exit code."""
        self.signal(signal.SIGTERM)
        # A stopped process receives SIGTERM only after SIGCONT.
        self.signal(signal.SIGCONT)
        return self.wait()

    def tail(self) -> str:
        """Return the end of its log."""
        return self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")


class Processes:
    """Starts processes, and ends those that still run in the end."""

    def __init__(self) -> None:
        self._all: list[Process] = []
        # PR_SET_PDEATHSIG watches the thread that forked, so one thread that stays starts all processes.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="e2e-launcher")

    def start(
        self, name: str, namespace: Namespace, command: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> Process:
        """Start a command in a namespace. From this process's environment it has the search path only."""
        log = namespace.directory / f"{name}.log"
        prefix = (sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *namespace.prefix())
        with log.open("ab") as output:
            started = self._thread.submit(
                subprocess.Popen,
                [*prefix, *command],
                env={"PATH": search_path(), **(environ or {})},
                cwd=namespace.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            ).result()
        process = Process(name, started, log)
        self._all = [each for each in self._all if each.runs] + [process]
        return process

    def close(self) -> None:
        """End all."""
        for number in (signal.SIGTERM, signal.SIGCONT):
            for process in self._all:
                process.signal(number)
        deadline = time.monotonic() + STOP_TIMEOUT
        for process in self._all:
            with contextlib.suppress(ProcessLookupError):
                process.wait(max(0.0, deadline - time.monotonic()))
        self._thread.shutdown()
