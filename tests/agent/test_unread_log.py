"""An agent whose log nobody reads: standard error is a pipe that is full before the agent starts."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from sandbox.objects import make_pod
from tests.support.kube import Kube
from tests.support.pipes import pipe
from tests.support.process import ADDRESS, PROGRAM, environment, free_port, heeding_ctrl_c
from tests.support.recorder import Recorder
from tests.support.waiting import until


def metric(port: int, series: str) -> float | None:
    """The value of a series of an agent, None while there is none."""
    with closing(HTTPConnection(ADDRESS, port, timeout=5)) as connection:
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        except (OSError, HTTPException):
            return None
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


@contextmanager
def unread(port: int, variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """An agent whose standard error is a full pipe; it is killed at the end."""
    with pipe(full=True) as (_, stderr):
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            env={**variables, "KUBENURSE_PORT": str(port)},
            stderr=stderr,
            stdout=stderr,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait(5)


def test_checks_go_on_and_the_agent_ends_while_nobody_reads_the_log(tmp_path: Path) -> None:
    """Each change of a check is seen in the metrics, and SIGTERM ends the agent with 0 within 3 s."""
    success = 'kubenurse_check_success{type="target"}'
    port, target_port = free_port(), free_port()
    variables = environment(
        tmp_path,
        KUBENURSE_CHECK_INTERVAL="100ms",
        KUBENURSE_EXTRA_CHECKS=f"target:http://{ADDRESS}:{target_port}/",
    )
    with unread(port, variables) as process:
        for _ in range(2):
            with Recorder(port=target_port):
                until(lambda: metric(port, success) == 1, timeout=10)
            until(lambda: metric(port, success) == 0, timeout=10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(3) == 0


def test_discovery_goes_on_while_nobody_reads_the_log(tmp_path: Path) -> None:
    """Neighbours that come and go are known, each time, and SIGINT ends the agent with 0 within 3 s."""
    kube = Kube(tmp_path)
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(kube.server)
        variables = environment(
            tmp_path,
            KUBERNETES_SERVICE_HOST=kube.server.address,
            KUBERNETES_SERVICE_PORT=str(kube.server.port),
            KUBENURSE_SERVICEACCOUNT_DIR=str(kube.account.path),
            KUBENURSE_NEIGHBOUR_FILTER="app=kubenurse",
            KUBENURSE_LOG_LEVEL="debug",
        )
        stack.enter_context(heeding_ctrl_c())
        process = stack.enter_context(unread(port, variables))
        for number in range(1, 4):
            kube.server.put("pods", make_pod(f"kubenurse-{number}", f"node-{number}", f"127.0.1.{number}"))
            until(partial(is_known, port, number), timeout=10)
        for number in range(1, 4):
            kube.server.delete("pods", f"kubenurse-{number}")
            until(partial(is_known, port, 3 - number), timeout=10)
        process.send_signal(signal.SIGINT)
        assert process.wait(3) == 0


def is_known(port: int, neighbours: int) -> bool:
    """Tell whether an agent knows of so many neighbours."""
    return metric(port, 'kubenurse_neighbours{state="known"}') == neighbours
