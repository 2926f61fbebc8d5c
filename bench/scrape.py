"""What a scrape costs: series, bytes and time, of agents in the sandbox with different settings.

    .venv/bin/python -m bench.scrape [--agents 11]

Series are the lines of /metrics that are no comment, after each check has been made at least once. The time is that of
the whole request on loopback, so it includes what the agent does besides.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping

from sandbox.agent import Agent
from sandbox.cluster import Cluster

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "defaults": {},
    "six buckets": {"KUBENURSE_HISTOGRAM_BUCKETS": "0.001,0.005,0.025,0.1,1,5"},
    "trace events dns_done and got_first_resp_byte": {"KUBENURSE_TRACE_EVENTS": "dns_done,got_first_resp_byte"},
    "no trace events": {"KUBENURSE_TRACE_EVENTS": "none"},
    "vmrange buckets": {"KUBENURSE_VICTORIAMETRICS_HISTOGRAM": "true"},
}
INTERVAL_SECONDS = 2.0
SCRAPES = 11


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=11, help="each checks the others, at most 10 of them")
    options = parser.parse_args()
    for name, environ in SETTINGS.items():
        settings = {"KUBENURSE_CHECK_INTERVAL": f"{INTERVAL_SECONDS}s", **environ}
        with Cluster(options.agents, environ=settings) as cluster:
            time.sleep(3 * INTERVAL_SECONDS)
            print(f"{name}: {_figures(cluster.agents[0])}", flush=True)


def _figures(agent: Agent) -> str:
    seconds = []
    for _ in range(SCRAPES):
        begun = time.perf_counter()
        text = agent.get("/metrics").body
        seconds.append(time.perf_counter() - begun)
    series = sum(1 for line in text.splitlines() if line and not line.startswith(b"#"))
    packed = len(agent.get("/metrics", headers={"Accept-Encoding": "gzip"}).body)
    checks = len(agent.state()["checks"])
    return (
        f"{checks} checks, {series} series, {len(text) / 1e3:.1f} kB, {packed / 1e3:.1f} kB with gzip, "
        f"median {statistics.median(seconds) * 1e3:.1f} ms"
    )


if __name__ == "__main__":
    main()
