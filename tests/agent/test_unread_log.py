"""An agent whose log nobody reads: standard error is a pipe that is full before the agent starts."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from tests.support.pipes import pipe
from tests.support.process import ADDRESS, PROGRAM, environment, free_port
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


def test_checks_go_on_and_the_agent_ends_while_nobody_reads_the_log(tmp_path: Path) -> None:
    """Each change of a check is seen in the metrics, and SIGTERM ends the agent with 0 within 3 s."""
    success = 'kubenurse_check_success{type="target"}'
    port, target_port = free_port(), free_port()
    variables = environment(
        tmp_path,
        KUBENURSE_PORT=str(port),
        KUBENURSE_CHECK_INTERVAL="100ms",
        KUBENURSE_EXTRA_CHECKS=f"target:http://{ADDRESS}:{target_port}/",
    )
    with pipe(full=True) as (_, stderr):
        process = subprocess.Popen([sys.executable, str(PROGRAM)], env=variables, stderr=stderr, stdout=stderr)
        try:
            for _ in range(2):
                with Recorder(port=target_port):
                    until(lambda: metric(port, success) == 1, timeout=10)
                until(lambda: metric(port, success) == 0, timeout=10)
            process.send_signal(signal.SIGTERM)
            assert process.wait(3) == 0
        finally:
            process.kill()
            process.wait(5)
