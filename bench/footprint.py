"""Cost of one agent in the sandbox: memory after 100 rounds, CPU per check, time from start to first answer.

    .venv/bin/python -m bench.footprint [--rounds 100] [--interval 0.5]

Four agents check each other. CPU is user and system time of the whole process (scraping nothing) over the checks it
made. It includes discovery, the timer and the answers to as many checks of the others. The plain figure is of agents
whose checks are all without TLS. The cost of a plain check alone is measured with one agent that makes ten checks of a
local nginx (Debian's package nginx-light) and no others.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.nginx import nginx
from bench.processes import cpu_seconds, rss_megabytes
from sandbox.agent import Agent
from sandbox.certificates import CertificateAuthority
from sandbox.cluster import Cluster

PLAIN = {
    "KUBENURSE_CHECK_API_SERVER_DIRECT": "false",
    "KUBENURSE_CHECK_API_SERVER_DNS": "false",
    "KUBENURSE_CHECK_ME_INGRESS": "false",
}
NGINX, NGINX_TLS = "127.0.3.1:18100", "127.0.3.1:18101"
ALONE = {
    **PLAIN,
    "KUBENURSE_CHECK_ME_SERVICE": "false",
    "KUBENURSE_CHECK_NEIGHBOURHOOD": "false",
    "KUBENURSE_EXTRA_CHECKS": "|".join(f"nginx-{number}:http://{NGINX}/alwayshappy" for number in range(10)),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--interval", type=float, default=0.5, help="seconds")
    options = parser.parse_args()
    for name, environ in (("all checks", {}), ("plain checks", PLAIN)):
        with Cluster(4, environ={"KUBENURSE_CHECK_INTERVAL": f"{options.interval}s", **environ}) as cluster:
            figures = _figures(cluster, options.rounds, options.interval)
        print(f"{name}: {figures}")
    if shutil.which("nginx"):
        print(f"plain checks that nginx answers: {_alone(options.rounds, options.interval)}")
    with Cluster(4) as cluster:
        print(_start_times(cluster))


def _alone(rounds: int, interval: float) -> str:
    with tempfile.TemporaryDirectory(prefix="kubenurse-bench-") as name:
        directory = Path(name)
        served = CertificateAuthority(directory / "pki").issue("nginx", "localhost")
        environ = {"KUBENURSE_CHECK_INTERVAL": f"{interval}s", **ALONE}
        with (
            nginx(
                directory,
                plain=[NGINX],
                tls=[NGINX_TLS],
                certificate=served.chain,
                key=served.key,
                api_server=f"https://{NGINX_TLS}",
            ),
            Cluster(1, environ=environ) as cluster,
        ):
            return _figures(cluster, rounds, interval)


def _figures(cluster: Cluster, rounds: int, interval: float) -> str:
    time.sleep(3 * interval)
    before = [(cpu_seconds(agent.pid), _checks(agent)) for agent in cluster.agents if agent.pid]
    time.sleep(rounds * interval)
    after = [(cpu_seconds(agent.pid), _checks(agent)) for agent in cluster.agents if agent.pid]
    costs = [
        (cpu1 - cpu0) / (count1 - count0) * 1e3 for (cpu0, count0), (cpu1, count1) in zip(before, after, strict=True)
    ]
    memory = [rss_megabytes(agent.pid) for agent in cluster.agents if agent.pid]
    checks = statistics.median(count1 - count0 for (_, count0), (_, count1) in zip(before, after, strict=True))
    return (
        f"{checks:.0f} checks an agent; RSS median {statistics.median(memory):.1f} MB, most {max(memory):.1f} MB; "
        f"CPU median {statistics.median(costs):.2f} ms a check, most {max(costs):.2f} ms"
    )


def _checks(agent: Agent) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(agent.metrics())
        for sample in family.samples
        if sample.name == "kubenurse_request_duration_count"
    )


def _start_times(cluster: Cluster, runs: int = 11) -> str:
    """Time from starting the process to its first answers, with warm file caches."""
    agent = cluster.agents[0]
    first, alive = [], []
    for _ in range(runs):
        agent.stop()
        begun = time.perf_counter()
        agent.start()
        _until_answer(f"{agent.url}/alwayshappy")
        first.append(time.perf_counter() - begun)
        _until_answer(f"{agent.url}/alive")
        alive.append(time.perf_counter() - begun)
    return (
        f"start to first answer: median {statistics.median(first):.3f} s; "
        f"to /alive ok, all checks made: median {statistics.median(alive):.3f} s ({runs} starts)"
    )


def _until_answer(url: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=timeout) as answer:
                answer.read()
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.002)
    raise TimeoutError(f"{url} does not answer 200")


if __name__ == "__main__":
    main()
