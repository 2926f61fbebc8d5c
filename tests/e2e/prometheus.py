"""Debian's Prometheus in a namespace of its own, scraping all agents twice: in the text format and in OpenMetrics."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import yaml

from tests.e2e.cluster import Cluster
from tests.e2e.network import bracketed
from tests.e2e.nginx import write_configuration
from tests.e2e.nodes import PORT
from tests.support.prometheus import Prometheus
from tests.support.waiting import PROCESS_START, until

TEXT, OPENMETRICS = "text", "openmetrics"
RULES = Path(__file__).resolve().parents[2] / "rules" / "kubenurse.rules.yml"
# Long enough for two samples a second apart.
RATE_INTERVAL = "20s"
_PORT = 9090
_PROXY_PORT = 3128

Result = TypeVar("Result")


class Scraper:
    """A running Prometheus; the series of a format are those of the cluster of that name."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._namespace = cluster.prometheus_member.namespace
        self._prometheus = Prometheus(f"http://127.0.0.1:{_PORT}")
        directory = self._namespace.directory
        proxy = write_configuration(directory, _PROXY.format(port=_PROXY_PORT))
        file = directory / "prometheus.yml"
        file.write_text(yaml.safe_dump(self._configuration()), encoding="utf-8")
        start = cluster.processes.start
        self._proxy = start("nginx", self._namespace, ["nginx", "-c", str(proxy)])
        arguments = [f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}", "--log.level=warn"]
        listen = f"--web.listen-address=127.0.0.1:{_PORT}"
        self.process = start("prometheus", self._namespace, ["prometheus", *arguments, listen])
        until(lambda: self._inside(self._prometheus.ready), PROCESS_START)

    def query(self, expr: str) -> list[dict[str, object]]:
        """Return the instant vector that an expression is now."""
        return self._inside(lambda: self._prometheus.query(expr))

    def finds(self, expr: str, cluster: str, node: str = ".*") -> bool:
        """Tell whether a query returns data, with the dashboards' variables put in as Grafana does."""
        values = {"__rate_interval": RATE_INTERVAL, "cluster": cluster, "node": node, "type": ".*", "request_type": ""}
        return bool(self.query(re.sub(r"\$([a-z_]\w*)", lambda match: values[match[1]], expr)))

    def rules(self) -> list[dict[str, object]]:
        """Return all rules with their state."""
        return self._inside(self._prometheus.rules)

    def close(self) -> None:
        """End it."""
        self.process.stop()
        self._proxy.stop()

    def _inside(self, action: Callable[[], Result]) -> Result:
        return self._namespace.call(action)

    def _configuration(self) -> dict[str, object]:
        jobs = [
            {
                "job_name": name,
                **({"proxy_url": f"http://127.0.0.1:{_PROXY_PORT}"} if name == TEXT else {}),
                "static_configs": [
                    {
                        "targets": [f"{bracketed(node.ip)}:{PORT}"],
                        "labels": {"cluster": name, "namespace": "kubenurse", "node": node.name, "pod": node.pod},
                    }
                    for node in self._cluster.nodes
                ],
            }
            for name in (TEXT, OPENMETRICS)
        ]
        return {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)] if RULES.exists() else [],
            "scrape_configs": jobs,
        }


@contextlib.contextmanager
def scraping(cluster: Cluster) -> Iterator[Scraper]:
    """Run Prometheus while the ``with`` block lasts."""
    scraper = Scraper(cluster)
    try:
        yield scraper
    finally:
        scraper.close()


# This Prometheus always asks for OpenMetrics first. What comes by this proxy asks for the text format only.
_PROXY = """
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://$http_host$request_uri;
      proxy_set_header Accept "text/plain;version=0.0.4";
    }}
  }}
"""
