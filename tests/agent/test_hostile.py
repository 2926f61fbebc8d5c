"""The agent in a hostile place: too little memory, files that are pipes, impatient operators, hostile clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.hostile import attack
from checks.cli.run import CLOSE_SECONDS
from sandbox.certificates import CertificateAuthority
from tests.support.kube import Kube
from tests.support.process import ADDRESS, Running, agent, command
from tests.support.servers import Server, silent
from tests.support.waiting import until

MEBIBYTE = 1024 * 1024
TIMEOUT_SECONDS = 2.0
SHUTDOWN_SECONDS = 1.0
# What a busy machine adds to the agent's own limits, in seconds.
SLACK = 4.0
API_CHECKS = ("api_server_direct", "api_server_dns")
# Connections that end with their clients are gone after this many seconds; what waits for more input has 10 s for it.
CALM_WITHIN = 15.0
# With nothing to spare no thread starts; with 4 MiB a thread, of 8 MiB, does not; with 24 MiB some do.
SPARE_MEBIBYTES = (0, 4, 24)
LOAD_SECONDS = 1.0
REQUEST_SECONDS = 3.0


def ended(running: Running) -> bool:
    """Tell whether the process has ended."""
    return running.process.poll() is not None


def answers(running: Running) -> bool:
    """Tell whether /alwayshappy is answered."""
    try:
        return running.get("/alwayshappy")[0] == 200
    except OSError:
        return False


def end_in_time(running: Running, number: signal.Signals = signal.SIGTERM) -> int:
    """Send a signal; return the exit code, which has to come within the shutdown duration and 3 s."""
    running.process.send_signal(number)
    return running.process.wait(SHUTDOWN_SECONDS + CLOSE_SECONDS + SLACK)


def address_space(running: Running) -> int:
    """Return how much address space the process has, in bytes (proc(5))."""
    pages = Path(f"/proc/{running.process.pid}/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


def load(running: Running, seconds: float, clients: int = 20) -> None:
    """Ask for everything again and again, from many clients at the same time."""
    end = time.monotonic() + seconds

    def ask(path: str) -> None:
        while time.monotonic() < end and not ended(running):
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                contextlib.closing(http.client.HTTPConnection(ADDRESS, running.port, timeout=REQUEST_SECONDS)) as asked,
            ):
                asked.request("GET", path)
                asked.getresponse().read()

    paths = ("/metrics", "/alive", "/state", "/alwayshappy")
    threads = [threading.Thread(target=ask, args=(paths[number % 4],), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + REQUEST_SECONDS)


@contextlib.contextmanager
def short_of_memory(running: Running, spare: int) -> Iterator[None]:
    """Let the process have no more address space than it has and ``spare`` bytes."""
    limit = address_space(running) + spare
    _, most = resource.prlimit(running.process.pid, resource.RLIMIT_AS)
    resource.prlimit(running.process.pid, resource.RLIMIT_AS, (limit, most))
    try:
        yield
    finally:
        if not ended(running):
            resource.prlimit(running.process.pid, resource.RLIMIT_AS, (most, most))


@contextlib.contextmanager
def small_agent(directory: Path) -> Iterator[Running]:
    """Run an agent with little address space, whose check of the Service hangs until its timeout in each round."""
    variables = {
        # As in the image: without it each thread's heap takes 64 MiB of address space.
        "MALLOC_ARENA_MAX": "1",
        "KUBENURSE_CHECK_INTERVAL": "50ms",
        "KUBENURSE_CHECK_TIMEOUT": f"{TIMEOUT_SECONDS:g}s",
        "KUBENURSE_SHUTDOWN_DURATION": f"{SHUTDOWN_SECONDS:g}s",
    }
    with Server(silent) as server, agent(directory, KUBENURSE_SERVICE_URL=server.url(), **variables) as running:
        yield running


@pytest.mark.parametrize("spare", SPARE_MEBIBYTES)
def test_the_agent_outlives_a_shortage_of_memory_or_ends(tmp_path: Path, spare: int) -> None:
    """When memory was short under load and no longer is, the agent answers, or it has ended with an exit code."""
    with small_agent(tmp_path) as running:
        with short_of_memory(running, spare * MEBIBYTE):
            load(running, LOAD_SECONDS)
        until(lambda: ended(running) or answers(running), CALM_WITHIN)
        code = running.process.returncode if ended(running) else end_in_time(running)
        assert code in (0, 1), running.log()[-3000:]


@pytest.mark.parametrize("spare", SPARE_MEBIBYTES)
def test_sigterm_is_obeyed_while_memory_is_short(tmp_path: Path, spare: int) -> None:
    """While memory is short, SIGTERM ends the agent within the shutdown duration and 3 s."""
    with small_agent(tmp_path) as running, short_of_memory(running, spare * MEBIBYTE):
        load(running, LOAD_SECONDS)
        code = running.process.returncode if ended(running) else end_in_time(running)
        assert code in (0, 1), running.log()[-3000:]


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served API server."""
    kube = Kube(tmp_path)
    with kube.server:
        yield kube


def in_cluster(kube: Kube) -> dict[str, str]:
    """Return the environment of an agent in that cluster."""
    return {
        "KUBERNETES_SERVICE_HOST": kube.server.address,
        "KUBERNETES_SERVICE_PORT": str(kube.server.port),
        "KUBERNETES_SERVICE_DNS": "localhost",
        "KUBENURSE_SERVICEACCOUNT_DIR": str(kube.account.path),
        "KUBENURSE_NEIGHBOUR_FILTER": "app=kubenurse",
        "KUBENURSE_CHECK_INTERVAL": "200ms",
        "KUBENURSE_CHECK_TIMEOUT": f"{TIMEOUT_SECONDS:g}s",
        "KUBENURSE_SHUTDOWN_DURATION": f"{SHUTDOWN_SECONDS:g}s",
    }


def checks(running: Running) -> dict[str, dict[str, Any]]:
    """Return the latest results of the checks, by type."""
    found: dict[str, dict[str, Any]] = json.loads(running.get("/state")[1])["checks"]
    return found


def become_fifo(path: Path) -> None:
    """Put a FIFO without a writer in the place of a file, at once, as a volume's update does."""
    fifo = path.with_name("fifo")
    os.mkfifo(fifo)
    fifo.replace(path)


def fail_with_reason(running: Running) -> bool:
    """Tell whether both checks of the API server fail and say why."""
    found = checks(running)
    states = [found[kind]["state"] for kind in API_CHECKS if kind in found]
    return len(states) == len(API_CHECKS) and all("token" in state for state in states)


@pytest.mark.parametrize("when", ["before the start", "later"])
def test_a_token_file_that_is_a_fifo_is_a_failure_with_a_reason(kube: Kube, tmp_path: Path, when: str) -> None:
    """Both checks of the API server name the token file within their timeout, and SIGTERM is obeyed in time."""
    token = kube.account.path / "token"
    if when == "before the start":
        become_fifo(token)
    with agent(tmp_path, **in_cluster(kube)) as running:
        if when == "later":
            until(lambda: {checks(running).get(kind, {}).get("state") for kind in API_CHECKS} == {"ok"})
            become_fifo(token)
        until(lambda: fail_with_reason(running), TIMEOUT_SECONDS + SLACK)
        assert running.get("/alive")[0] == 500
        assert end_in_time(running) == 0


def test_a_ca_file_that_becomes_a_fifo_does_not_hold_the_agent_up(kube: Kube, tmp_path: Path) -> None:
    """Rounds go on, whatever the checks say of it, and SIGTERM is obeyed in time."""
    with agent(tmp_path, **in_cluster(kube)) as running:
        until(lambda: {checks(running).get(kind, {}).get("state") for kind in API_CHECKS} == {"ok"})
        become_fifo(kube.account.path / "ca.crt")
        since = time.time() + TIMEOUT_SECONDS
        until(
            lambda: all(checks(running)[kind]["started_at"] > since for kind in API_CHECKS),
            2 * TIMEOUT_SECONDS + SLACK,
        )
        assert end_in_time(running) == 0


@pytest.mark.parametrize("name", ["KUBENURSE_EXTRA_CA", "KUBENURSE_CERT_FILE", "KUBENURSE_CERT_KEY"])
def test_a_configured_file_that_is_a_fifo_is_a_configuration_error(tmp_path: Path, name: str) -> None:
    """The agent does not wait for a writer: it names the variable and ends with 2."""
    certificate = CertificateAuthority(tmp_path / "pki").issue("served", ADDRESS)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    files = {"KUBENURSE_CERT_FILE": str(certificate.chain), "KUBENURSE_CERT_KEY": str(certificate.key)}
    done = command(tmp_path, KUBENURSE_USE_TLS="true", **{**files, name: str(fifo)})
    assert done.returncode == 2
    assert f"{name}='{fifo}': " in done.stderr


def test_a_kubeconfig_that_is_a_fifo_does_not_hold_the_agent_up(tmp_path: Path) -> None:
    """The agent starts without it, says why, and obeys SIGTERM in time."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with agent(tmp_path, KUBECONFIG=str(fifo), KUBENURSE_SHUTDOWN_DURATION=f"{SHUTDOWN_SECONDS:g}s") as running:
        assert "kubeconfig" in running.log()
        assert answers(running)
        assert end_in_time(running) == 0


def test_a_namespace_file_that_is_a_fifo_is_as_good_as_none(kube: Kube, tmp_path: Path) -> None:
    """The agent does not wait for a writer: it asks for the variable that replaces the file, and ends with 2."""
    become_fifo(kube.account.path / "namespace")
    done = command(tmp_path, **in_cluster(kube))
    assert done.returncode == 2
    assert "KUBENURSE_NAMESPACE=''" in done.stderr


def test_two_sigints_while_a_check_hangs_end_the_agent_in_time(tmp_path: Path) -> None:
    """An impatient operator presses Ctrl-C twice: exit code 0, in time, and no traceback."""
    variables = {"KUBENURSE_CHECK_TIMEOUT": "1h", "KUBENURSE_SHUTDOWN_DURATION": "1h"}
    with Server(silent) as server, agent(tmp_path, KUBENURSE_SERVICE_URL=server.url(), **variables) as running:
        # The first round begins within the interval.
        until(lambda: server.connections >= 1, 10)
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(CLOSE_SECONDS + SLACK) == 0
        assert "Traceback" not in running.log()


def test_two_sigints_during_the_start_end_the_agent(tmp_path: Path) -> None:
    """Signals that come at any moment of the start end it with 0, and with no traceback."""
    for wait in (0.0, 0.05, 0.1, 0.2, 0.4):
        directory = tmp_path / f"{wait:g}"
        directory.mkdir()
        running = Running(directory, {})
        try:
            # heed_signals is the first thing that the program does: before it runs, the interpreter's own handler does.
            until(lambda running=running: "SigCgt" in status(running) and handles_sigint(running))  # type: ignore[misc]
            time.sleep(wait)
            running.process.send_signal(signal.SIGINT)
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(CLOSE_SECONDS + SLACK) == 0, running.log()
            assert "Traceback" not in running.log()
        finally:
            with contextlib.suppress(ProcessLookupError):
                running.process.kill()
            running.process.wait()


def status(running: Running) -> str:
    """Return what proc(5) tells of the process."""
    return Path(f"/proc/{running.process.pid}/status").read_text()


def handles_sigint(running: Running) -> bool:
    """Tell whether the process catches both SIGTERM and SIGINT, which the interpreter by itself does not."""
    caught = int(status(running).partition("SigCgt:")[2].split()[0], 16)
    return all(caught >> (number - 1) & 1 for number in (signal.SIGTERM, signal.SIGINT))


def threads(running: Running) -> int:
    """Return the number of the process's threads."""
    return len(list(Path(f"/proc/{running.process.pid}/task").iterdir()))


def descriptors(running: Running) -> int:
    """Return the number of the process's open files."""
    return len(list(Path(f"/proc/{running.process.pid}/fd").iterdir()))


def test_hostile_clients_leave_nothing_behind(tmp_path: Path) -> None:
    """While they come /alwayshappy and /ready are answered; when they have left, their threads and sockets are gone."""
    with agent(tmp_path) as running:
        assert running.get("/metrics")[0] == 200
        before = threads(running), descriptors(running)
        hostile = threading.Thread(target=attack, args=((ADDRESS, running.port), 4.0), daemon=True)
        hostile.start()
        answered = 0
        while hostile.is_alive():
            assert running.get("/alwayshappy")[0] == 200
            assert running.get("/ready")[0] == 200
            answered += 1
        assert answered > 0
        # The pool of checks and the log keep the threads that they made.
        until(lambda: threads(running) <= before[0] + 2 and descriptors(running) <= before[1] + 2, CALM_WITHIN)
        assert running.end(signal.SIGTERM) == 0
