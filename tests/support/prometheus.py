"""A real Prometheus, scraping real agents: Debian's package, run on loopback from a directory of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.waiting import PROCESS_START, until

PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
WHY_NOT = "not installed; Debian has it: apt-get install prometheus"

needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason=f"prometheus is {WHY_NOT}")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason=f"promtool is {WHY_NOT}")

Labels = Mapping[str, str]


class Prometheus:
    """Asks a running Prometheus at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the instant vector that an expression is now; AssertionError with Prometheus's words if it is none."""
        answer = self._get("/api/v1/query", query=expr)
        if answer["resultType"] != "vector":
            raise AssertionError(f"{expr} is a {answer['resultType']}")
        result: list[dict[str, Any]] = answer["result"]
        return result

    def label_values(self, label: str, selector: str) -> list[str]:
        """Return the values that a label has on the series of a selector, as a dashboard's variable asks for them."""
        values: list[str] = self._get(f"/api/v1/label/{label}/values", **{"match[]": selector})
        return values

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules with their state."""
        return [rule for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def ready(self) -> bool:
        """Tell whether it serves queries."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error


@contextlib.contextmanager
def scraping(directory: Path, targets: Sequence[tuple[str, Labels]], rules: Path) -> Iterator[Prometheus]:
    """Run Prometheus while the ``with`` block lasts, scraping and evaluating ``rules`` every second.

    ``targets`` are pairs of ``HOST:PORT`` and the labels its series get; ``directory`` takes configuration, data, log.
    """
    assert PROMETHEUS is not None
    job = {
        "job_name": "kubenurse",
        "static_configs": [{"targets": [target], "labels": dict(labels)} for target, labels in targets],
    }
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [job],
    }
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    # Whatever ends the tests, SIGKILL included, ends Prometheus, where util-linux is there to ask the kernel for that.
    setpriv = shutil.which("setpriv")
    command = [
        *([setpriv, "--pdeathsig", "KILL"] if setpriv else []),
        PROMETHEUS,
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    log = directory / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            prometheus = Prometheus(f"http://127.0.0.1:{port}")
            until(lambda: prometheus.ready() or process.poll() is not None, PROCESS_START)
            assert process.poll() is None, log.read_text(encoding="utf-8")
            yield prometheus
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
