"""The agent as a process outside any cluster: start, configuration, signals."""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from checks.web.endpoints import MOST_WAITING
from sandbox.certificates import CertificateAuthority
from tests.support.process import ADDRESS, PROGRAM, Running, agent, command, environment, free_port
from tests.support.servers import Server, silent
from tests.support.waiting import until


def test_runs_outside_a_cluster_and_says_once_what_it_skips(tmp_path: Path) -> None:
    """Without a cluster the agent serves, skips every check that it cannot make, and logs each skip once."""
    with agent(tmp_path, KUBENURSE_CHECK_INTERVAL="100ms") as running:
        status, body = running.get("/alive")
        answer = json.loads(body)
        assert status == 200
        assert {answer[kind] for kind in ("api_server_direct", "api_server_dns", "me_ingress", "me_service")} == {
            "skipped"
        }
        assert answer["neighbourhood_state"] == "skipped"
        assert answer["hostname"] == "kubenurse-test"
        for _ in range(3):
            assert running.get("/alive")[0] == 200
        skips = [line for line in running.log().splitlines() if "check skipped" in line]
        assert len(skips) == 5
        assert any("KUBENURSE_INGRESS_URL is not set" in line for line in skips)
        assert running.end(signal.SIGTERM) == 0


def test_neighbours_are_answered_however_many_wait_for_checks(tmp_path: Path) -> None:
    """While a check hangs and more clients wait for it than connections are allowed, /alwayshappy answers 200."""
    with ExitStack() as stack:
        hanging = stack.enter_context(socket.create_server((ADDRESS, 0)))
        url = f"http://{ADDRESS}:{hanging.getsockname()[1]}"
        running = stack.enter_context(agent(tmp_path, KUBENURSE_SERVICE_URL=url, KUBENURSE_CHECK_TIMEOUT="1m"))
        waiting = []
        for _ in range(150):
            client = stack.enter_context(socket.create_connection((ADDRESS, running.port), timeout=20))
            client.sendall(b"GET /alive HTTP/1.1\r\nHost: here\r\n\r\n")
            waiting.append(client)
        # Clients over the limit are answered at once; when they have answers, all clients have arrived.
        until(lambda: len(select.select(waiting, [], [], 1)[0]) >= 150 - MOST_WAITING)
        assert running.get("/alwayshappy")[0] == 200
        answered = select.select(waiting, [], [], 0)[0]
        assert len(answered) == 150 - MOST_WAITING
        assert {client.recv(12) for client in answered} == {b"HTTP/1.1 500"}


def test_reports_every_configuration_problem_at_once_and_opens_nothing(tmp_path: Path) -> None:
    """The agent exits with 2 and prints one line for each problem: variable, value and expectation."""
    port = free_port()
    done = command(
        tmp_path,
        KUBENURSE_PORT=str(port),
        KUBENURSE_CHECK_INTERVAL="soon",
        KUBENURSE_INSECURE="perhaps",
        KUBENURSE_NEIGHBOUR_FILTER="app=(",
        KUBENURSE_USE_TLS="true",
    )
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(re.match(r"kubenurse: [A-Z_]+='.*': .+", line) for line in lines), lines
    named = {line.split("=")[0].removeprefix("kubenurse: ") for line in lines}
    assert named == {
        "KUBENURSE_CHECK_INTERVAL",
        "KUBENURSE_INSECURE",
        "KUBENURSE_NEIGHBOUR_FILTER",
        "KUBENURSE_CERT_FILE",
        "KUBENURSE_CERT_KEY",
    }


def test_a_taken_port_ends_it_with_the_variable_named(tmp_path: Path) -> None:
    """The agent exits with 1 and prints the port, the variable and the reason."""
    with closing(socket.socket()) as taken:
        taken.bind((ADDRESS, 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = command(tmp_path, KUBENURSE_PORT=str(port))
    assert done.returncode == 1
    assert f"KUBENURSE_PORT='{port}'" in done.stderr
    assert "already in use" in done.stderr.lower()


def test_a_taken_tls_port_is_named_too(tmp_path: Path) -> None:
    """A taken TLS port also ends the agent with 1."""
    certificate = CertificateAuthority(tmp_path / "pki").issue("served", ADDRESS)
    with closing(socket.create_server((ADDRESS, 0))) as taken:
        port = taken.getsockname()[1]
        done = command(
            tmp_path,
            KUBENURSE_PORT=str(free_port()),
            KUBENURSE_USE_TLS="true",
            KUBENURSE_TLS_PORT=str(port),
            KUBENURSE_CERT_FILE=str(certificate.chain),
            KUBENURSE_CERT_KEY=str(certificate.key),
        )
    assert done.returncode == 1
    assert f"KUBENURSE_TLS_PORT='{port}'" in done.stderr


def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    """The agent exits with 1 and names the address, not the port, as the cause."""
    done = command(tmp_path, KUBENURSE_LISTEN_ADDRESS="192.0.2.1")
    assert done.returncode == 1
    assert "KUBENURSE_LISTEN_ADDRESS='192.0.2.1'" in done.stderr
    assert "expected an address of this machine" in done.stderr


def test_what_is_odd_is_warned_of_and_the_rest_runs(tmp_path: Path) -> None:
    """A misspelt variable and an unusable kubeconfig are logged once. API checks are skipped, the others run."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("no: kubeconfig\n")
    with agent(tmp_path, KUBECONFIG=str(kubeconfig), KUBENURSE_INTERVAL="1s") as running:
        answer = json.loads(running.get("/alive")[1])
        assert running.end(signal.SIGTERM) == 0
        lines = running.log().splitlines()
    assert answer["api_server_direct"] == answer["neighbourhood_state"] == "skipped"
    warned = [line for line in lines if "level=warning" in line]
    assert len(warned) == 2
    assert "reading the kubeconfig failed" in warned[0]
    assert "KUBENURSE_INTERVAL: unknown variable" in warned[1]


# Runs the agent and shuts its listening socket down once it listens. Accepting fails from then on.
_BREAK_THE_LISTENER = """
import os, socket, sys, threading, time
import kubenurse

def listeners():
    for number in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(number)))
        except OSError:
            continue
        with sock:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield sock

def break_one():
    while True:
        for sock in listeners():
            socket.create_connection(sock.getsockname()).close()
            sock.shutdown(socket.SHUT_RDWR)
            return
        time.sleep(0.01)

threading.Thread(target=break_one, daemon=True).start()
sys.exit(kubenurse.main([]))
"""


def test_the_death_of_a_server_ends_the_agent(tmp_path: Path) -> None:
    """When a server thread dies, the agent ends with 1 and logs which server died and why."""
    variables = environment(tmp_path, KUBENURSE_PORT=str(free_port()), KUBENURSE_SHUTDOWN_DURATION="1h")
    done = subprocess.run(
        [sys.executable, "-c", _BREAK_THE_LISTENER],
        cwd=PROGRAM.parent,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "agent stopping" in done.stderr
    assert re.search(r'why="kubenurse-http-\d+ died: ', done.stderr)


def test_sigterm_drains_and_a_second_one_ends_at_once(tmp_path: Path) -> None:
    """After SIGTERM the agent serves on, with /ready at 503. A second signal ends it at once. The exit code is 0."""
    with agent(tmp_path, KUBENURSE_SHUTDOWN_DURATION="1h") as running:
        assert running.get("/ready")[0] == 200
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.get("/ready")[0] == 503)
        assert running.get("/alwayshappy")[0] == 200
        assert running.end(signal.SIGTERM) == 0


def test_sigint_ends_without_a_drain(tmp_path: Path) -> None:
    """SIGINT ends the agent without the shutdown duration."""
    with agent(tmp_path, KUBENURSE_SHUTDOWN_DURATION="1h") as running:
        assert running.end(signal.SIGINT) == 0


def test_a_check_cut_short_by_the_end_is_no_failure(tmp_path: Path) -> None:
    """A check that is under way when the agent ends is not logged as a failure."""
    variables = {"KUBENURSE_CHECK_INTERVAL": "100ms", "KUBENURSE_CHECK_TIMEOUT": "1h"}
    with Server(silent) as server, agent(tmp_path, KUBENURSE_SERVICE_URL=server.url(), **variables) as running:
        until(lambda: server.connections == 1)
        assert running.end(signal.SIGINT) == 0
        assert "check failing" not in running.log()
        assert "agent stopped" in running.log()


def test_a_failing_check_is_logged_when_it_changes_not_every_round(tmp_path: Path) -> None:
    """Each change of a check's state is logged once, however many rounds the state lasts."""
    port = free_port()
    url = f"http://{ADDRESS}:{port}"
    with agent(tmp_path, KUBENURSE_SERVICE_URL=url, KUBENURSE_CHECK_INTERVAL="100ms") as running:

        def rounds() -> float:
            count = rb'kubenurse_request_duration_count\{type="me_service"\} (\S+)'
            found = re.search(count, running.get("/metrics")[1])
            return float(found[1]) if found else 0.0

        until(lambda: rounds() >= 3)
        lines = [line for line in running.log().splitlines() if "type=me_service" in line]
        assert len(lines) == 1
        assert "connection refused" in lines[0]
        assert "=connect_done " in lines[0]
        with agent_on(tmp_path / "other", port):
            until(lambda: "check recovered" in running.log())
        until(lambda: running.log().count("check failing") == 2)


@contextmanager
def agent_on(directory: Path, port: int) -> Iterator[Running]:
    """An agent on a port of the test's choice."""
    directory.mkdir()
    with agent(directory, KUBENURSE_PORT=str(port)) as running:
        yield running
