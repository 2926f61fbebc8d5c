"""What discovery costs in a large cluster: memory with 3,000 Pods of 6 KB, and requests while nothing happens.

    .venv/bin/python -m bench.discovery [--pods 3000] [--bytes 6144]

One agent follows the sandbox's API server; its neighbours do not answer (nothing listens on their loopback addresses).
Then every Pod changes once, as in a rolling update. The API server's process is this one, so its memory does not count.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import urllib3

from bench.processes import most_rss_megabytes, rss_megabytes
from sandbox.apiserver import ApiServer
from sandbox.certificates import CertificateAuthority, ServiceAccountDirectory
from sandbox.cluster import KUBENURSE
from sandbox.objects import LABELS, NAMESPACE, make_node, make_pod

AGENT, PORT = "127.0.4.200", 18090
TOKEN = "bench-token"
IDLE_SECONDS = 10.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=3000)
    parser.add_argument("--bytes", type=int, default=6 * 1024, help="size of each Pod's JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kubenurse-bench-") as name:
        directory = Path(name)
        authority = CertificateAuthority(directory / "pki")
        context = authority.issue("api-server", "localhost", "127.0.0.1").server_context()
        account = ServiceAccountDirectory(directory / "account", token=TOKEN, ca=authority.pem, namespace=NAMESPACE)
        with ApiServer(context=context, tokens={TOKEN}) as api:
            for number in range(options.pods):
                api.put("nodes", make_node(f"node-{number}"))
                _put_pod(api, number, options.bytes)
            _measure(api, account.path, options.pods, options.bytes)


def _put_pod(api: ApiServer, number: int, size: int) -> None:
    address = f"127.9.{number // 250}.{number % 250 + 1}"
    api.put("pods", make_pod(f"kubenurse-{number}", f"node-{number}", address, size=size))


def _measure(api: ApiServer, account: Path, pods: int, size: int) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "KUBERNETES_SERVICE_HOST": api.address,
        "KUBERNETES_SERVICE_PORT": str(api.port),
        "KUBERNETES_SERVICE_DNS": "localhost",
        "KUBENURSE_SERVICEACCOUNT_DIR": str(account),
        "KUBENURSE_NEIGHBOUR_FILTER": ",".join(f"{key}={value}" for key, value in LABELS.items()),
        "KUBENURSE_POD_NAME": "kubenurse-0",
        "KUBENURSE_LISTEN_ADDRESS": AGENT,
        "KUBENURSE_PORT": str(PORT),
        "KUBENURSE_CHECK_INTERVAL": "1s",
        "KUBENURSE_SHUTDOWN_DURATION": "0s",
        "KUBENURSE_LOG_LEVEL": "error",
    }
    process = subprocess.Popen([sys.executable, str(KUBENURSE)], env=environ)
    try:
        begun = time.monotonic()
        _until(lambda: _known() == pods - 1)
        print(f"{pods} Pods of {size} bytes known after {time.monotonic() - begun:.1f} s (start included)")
        _print_memory("after the first list", process.pid)
        time.sleep(2)
        before = _discovery_requests(api)
        time.sleep(IDLE_SECONDS)
        print(f"{_discovery_requests(api) - before} discovery requests in {IDLE_SECONDS:g} idle seconds")
        for number in range(1, pods):
            _put_pod(api, number, size + 1)
        api.put("nodes", make_node("node-1", unschedulable=True))
        _until(lambda: _known() == pods - 1 and _state()["neighbourhood"]["cordoned"] == 1)
        _print_memory("after every Pod changed once", process.pid)
    finally:
        process.terminate()
        process.wait(10)


def _print_memory(when: str, pid: int) -> None:
    print(f"{when}: RSS {rss_megabytes(pid):.1f} MB, most so far {most_rss_megabytes(pid):.1f} MB")


def _discovery_requests(api: ApiServer) -> int:
    return sum(request.path.endswith(("/pods", "/nodes")) for request in list(api.requests))


def _known() -> int:
    known: int = _state()["neighbourhood"]["known"]
    return known


def _state() -> dict[str, dict[str, int]]:
    with urllib3.PoolManager(retries=False) as pool:
        state: dict[str, dict[str, int]] = pool.request("GET", f"http://{AGENT}:{PORT}/state").json()
    return state


def _until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except urllib3.exceptions.HTTPError:
            pass  # the agent does not serve yet
        time.sleep(0.05)
    raise TimeoutError(f"not reached in {seconds:g} s")


if __name__ == "__main__":
    main()
