"""The difference between the times that an agent reports and those on the wire.

Run it as root, with nginx-light installed:

    sudo .venv/bin/python -m bench.truth [--rounds 60] [--interval 1.0]

An agent of its own process makes 14 checks a round: 10 plain neighbours, the API server twice over TLS, a TLS ingress
and a Service, all answered by a local nginx. Reported: from ``connect_start`` to ``got_first_resp_byte``, as /state
shows. Wire: from the SYN to the first byte of the answer, by the kernel's stamps in a packet capture.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from bench.capture import Capture, Exchange
from bench.nginx import nginx
from sandbox.apiserver import ApiServer
from sandbox.certificates import CertificateAuthority, ServiceAccountDirectory
from sandbox.objects import make_node, make_pod

PORT, SERVICE_PORT, TLS_PORT, API_PORT = 18080, 18081, 18444, 18443
NEIGHBOURS = [f"127.0.3.{number}" for number in range(1, 11)]
SERVICE, INGRESS, API, AGENT = "127.0.3.100", "127.0.3.101", "127.0.0.1", "127.0.3.200"
NAMESPACE, LABELS = "kube-system", {"app": "kubenurse"}
TOKEN = "bench-token"


@dataclass(frozen=True, slots=True)
class Sample:
    """One check, reported and captured; milliseconds."""

    type: str
    reported: float
    wire: float
    before_syn: float

    @property
    def error(self) -> float:
        """Reported minus wire."""
        return self.reported - self.wire


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kubenurse-bench-") as name:
        results, exchanges = _measure(Path(name), options.rounds, options.interval)
    samples = _matched(results, exchanges)
    _print(samples, len(results))


def _measure(directory: Path, rounds: int, interval: float) -> tuple[list[dict[str, Any]], list[Exchange]]:
    authority = CertificateAuthority(directory / "pki")
    served = authority.issue("nginx", "localhost", API, INGRESS)
    account = ServiceAccountDirectory(directory / "account", token=TOKEN, ca=authority.pem, namespace=NAMESPACE)
    capture = Capture(frozenset({PORT, SERVICE_PORT, TLS_PORT, API_PORT}))
    with ApiServer("127.0.0.1", context=served.server_context(), tokens={TOKEN}) as api:
        for number, address in enumerate([*NEIGHBOURS, AGENT]):
            api.put("nodes", make_node(f"node-{number}"))
            api.put("pods", make_pod(f"pod-{number}", f"node-{number}", address, namespace=NAMESPACE, labels=LABELS))
        with nginx(
            directory,
            plain=[*(f"{address}:{PORT}" for address in NEIGHBOURS), f"{SERVICE}:{SERVICE_PORT}"],
            tls=[f"{INGRESS}:{TLS_PORT}", f"{API}:{API_PORT}"],
            certificate=served.chain,
            key=served.key,
            api_server=api.url,
        ):
            capture.start()
            try:
                results = _run_agent(account.path, authority.file, rounds, interval, f"pod-{len(NEIGHBOURS)}")
            finally:
                exchanges = capture.stop()
    return results, exchanges


def _run_agent(account: Path, ca: Path, rounds: int, interval: float, pod: str) -> list[dict[str, Any]]:
    """Run an agent for so many rounds; return each result of each check that /state showed."""
    environ = {
        "PATH": os.environ["PATH"],
        "KUBERNETES_SERVICE_HOST": API,
        "KUBERNETES_SERVICE_PORT": str(API_PORT),
        "KUBERNETES_SERVICE_DNS": "localhost",
        "KUBENURSE_SERVICEACCOUNT_DIR": str(account),
        "KUBENURSE_EXTRA_CA": str(ca),
        "KUBENURSE_NEIGHBOUR_FILTER": "app=kubenurse",
        "KUBENURSE_POD_NAME": pod,
        "KUBENURSE_LISTEN_ADDRESS": AGENT,
        "KUBENURSE_PORT": str(PORT),
        "KUBENURSE_SERVICE_URL": f"http://{SERVICE}:{SERVICE_PORT}",
        "KUBENURSE_INGRESS_URL": f"https://{INGRESS}:{TLS_PORT}",
        "KUBENURSE_CHECK_INTERVAL": f"{interval}s",
        "KUBENURSE_SHUTDOWN_DURATION": "0s",
    }
    program = Path(__file__).resolve().parent.parent / "kubenurse.py"
    process = subprocess.Popen([sys.executable, str(program)], env=environ)
    seen: dict[tuple[str, float], dict[str, Any]] = {}
    try:
        with urllib3.PoolManager() as pool:
            time.sleep(2 * interval)  # rounds start at a random phase of the interval
            for _ in range(2 * rounds):
                state = pool.request("GET", f"http://{AGENT}:{PORT}/state", retries=5).json()
                for kind, found in state["checks"].items():
                    seen[kind, found["started_at"]] = {"type": kind, **found}
                time.sleep(interval / 2)
    finally:
        process.terminate()
        process.wait(10)
    return list(seen.values())


def _matched(results: list[dict[str, Any]], exchanges: list[Exchange]) -> list[Sample]:
    """Pair each result with the exchange that its connection was, by server address and time."""
    by_server: dict[str, list[Exchange]] = {}
    for exchange in exchanges:
        by_server.setdefault(exchange.server[0], []).append(exchange)
    samples = []
    for found in results:
        trace = found["trace"]
        if found["state"] != "ok":
            print(f"not ok: {found['type']}: {found['state']}")
            continue
        connect_at = found["started_at"] + trace["connect_start"]
        near = min(by_server[found["remote"]], key=lambda exchange: abs(exchange.syn_at - connect_at))
        if near.wire_seconds is None or abs(near.syn_at - connect_at) > 0.05:
            continue
        reported = trace["got_first_resp_byte"] - trace["connect_start"]
        samples.append(Sample(found["type"], reported * 1e3, near.wire_seconds * 1e3, trace["connect_start"] * 1e3))
    return samples


def _print(samples: list[Sample], results: int) -> None:
    print(f"{len(samples)} of {results} checks matched with the capture; milliseconds")
    print(f"{'':22}{'n':>6}{'wire p50':>10}{'reported p50':>14}{'error p50':>11}{'mean':>8}{'p99':>8}")
    groups = {
        "plain neighbours": [sample for sample in samples if sample.type.startswith("path_")],
        "service": [sample for sample in samples if sample.type == "me_service"],
        "ingress (TLS)": [sample for sample in samples if sample.type == "me_ingress"],
        "API server (TLS)": [sample for sample in samples if sample.type.startswith("api_server")],
        "all": samples,
    }
    for name, group in groups.items():
        errors = sorted(sample.error for sample in group)
        print(
            f"{name:22}{len(group):6}{statistics.median(sample.wire for sample in group):10.3f}"
            f"{statistics.median(sample.reported for sample in group):14.3f}{statistics.median(errors):11.3f}"
            f"{statistics.fmean(errors):8.3f}{errors[int(0.99 * (len(errors) - 1))]:8.3f}"
        )
    literal = [sample.before_syn for sample in samples if sample.type.startswith("path_")]
    print(f"start of a plain check to its SYN: median {statistics.median(literal):.3f} ms")


if __name__ == "__main__":
    main()
