"""What discovery costs in a large cluster, and what hostile answers of an API server make of the agent's memory.

    .venv/bin/python -m bench.discovery [--pods 5000] [--bytes 8192] [--agent OTHER/kubenurse.py ...] [--hostile]

One agent follows the sandbox's API server; its neighbours do not answer (nothing listens on their loopback addresses).
Then every Pod changes once, as in a rolling update. The API server's process is this one, so its memory does not count.
With ``--hostile`` the API server gives one hostile answer after the other instead. ``--agent`` names the agent of
another checkout to compare with in the same run, before this one's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import urllib3

from bench.hostile_answers import ANSWERS, HostileServer
from bench.processes import cpu_seconds, most_rss_megabytes, rss_megabytes
from sandbox.apiserver import ApiServer
from sandbox.certificates import CertificateAuthority, ServiceAccountDirectory
from sandbox.cluster import KUBENURSE
from sandbox.objects import LABELS, NAMESPACE, make_node, make_pod

AGENT, PORT = "127.0.4.200", 18090
TOKEN = "bench-token"
IDLE_SECONDS = 10.0


class Account:
    """A directory with the certificate of an API server and the service account that trusts it."""

    def __init__(self, directory: Path) -> None:
        authority = CertificateAuthority(directory / "pki")
        self.context = authority.issue("api-server", "localhost", "127.0.0.1").server_context()
        self.path = ServiceAccountDirectory(
            directory / "account", token=TOKEN, ca=authority.pem, namespace=NAMESPACE
        ).path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--bytes", type=int, default=8 * 1024, help="size of each Pod's JSON")
    parser.add_argument("--agent", type=Path, action="append", default=[], help="kubenurse.py of another checkout")
    parser.add_argument("--hostile", action="store_true", help="measure hostile answers instead")
    options = parser.parse_args()
    agents = [*options.agent, KUBENURSE]
    with tempfile.TemporaryDirectory(prefix="kubenurse-bench-") as name:
        account = Account(Path(name))
        if options.hostile:
            _measure_hostile(account, agents)
            return
        with ApiServer(context=account.context, tokens={TOKEN}) as api:
            for number in range(options.pods):
                api.put("nodes", make_node(f"node-{number}"))
                _put_pod(api, number, options.bytes)
            for program in agents:
                _measure(api, account, program, options.pods, options.bytes)
                api.put("nodes", make_node("node-1"))
            _compare_reads(api, account, options.pods)


def _put_pod(api: ApiServer, number: int, size: int) -> None:
    address = f"127.9.{number // 250}.{number % 250 + 1}"
    api.put("pods", make_pod(f"kubenurse-{number}", f"node-{number}", address, size=size))


@contextlib.contextmanager
def _agent(program: Path, port: int, account: Account) -> Iterator[int]:
    """Run an agent and yield its process's id."""
    environ = {
        "PATH": os.environ["PATH"],
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(port),
        "KUBERNETES_SERVICE_DNS": "localhost",
        "KUBENURSE_SERVICEACCOUNT_DIR": str(account.path),
        "KUBENURSE_NEIGHBOUR_FILTER": ",".join(f"{key}={value}" for key, value in LABELS.items()),
        "KUBENURSE_POD_NAME": "kubenurse-0",
        "KUBENURSE_LISTEN_ADDRESS": AGENT,
        "KUBENURSE_PORT": str(PORT),
        "KUBENURSE_CHECK_INTERVAL": "1s",
        "KUBENURSE_SHUTDOWN_DURATION": "0s",
        "KUBENURSE_LOG_LEVEL": "error",
    }
    process = subprocess.Popen([sys.executable, str(program)], env=environ)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


def _measure(api: ApiServer, account: Account, program: Path, pods: int, size: int) -> None:
    print(f"\n{program}")
    requests, sent, reads = len(api.requests), api.body_bytes, api.etcd_reads
    begun = time.monotonic()
    with _agent(program, api.port, account) as pid:
        _until(lambda: _known() == pods - 1)
        seconds, cpu = time.monotonic() - begun, cpu_seconds(pid)
        print(f"{pods} Pods of {size} bytes known after {seconds:.1f} s, {cpu:.1f} s of CPU (start included)")
        lists = [each for each in list(api.requests)[requests:] if each.verb == "list"]
        print(
            f"{len(lists)} list requests, {api.etcd_reads - reads} of them read from etcd, "
            f"{(api.body_bytes - sent) / pods:.0f} bytes a Pod on the wire"
        )
        _print_memory("after the first list", pid)
        time.sleep(2)
        before = _discovery_requests(api)
        time.sleep(IDLE_SECONDS)
        print(f"{_discovery_requests(api) - before} discovery requests in {IDLE_SECONDS:g} idle seconds")
        for number in range(1, pods):
            _put_pod(api, number, size + 1)
        api.put("nodes", make_node("node-1", unschedulable=True))
        _until(lambda: _known() == pods - 1 and _state()["neighbourhood"]["cordoned"] == 1)
        _print_memory("after every Pod changed once", pid)


def _compare_reads(api: ApiServer, account: Account, pods: int) -> None:
    """Print what a list takes and what the same takes by a watch from its begin, as with sendInitialEvents."""
    for verb in ("list", "watch"):
        sent = api.body_bytes
        arguments = ("-m", "bench.reading", verb, str(pods), str(api.port), str(account.path))
        said = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
        print(f"{verb}: {(api.body_bytes - sent) / pods:.0f} bytes a Pod on the wire; {said.stdout.strip()}")


def _measure_hostile(account: Account, agents: list[Path]) -> None:
    """Print how much memory an agent had at most while it was given each answer three times."""
    for name, answer in ANSWERS.items():
        with HostileServer(account.context, answer) as server:
            for program in agents:
                server.answered = 0
                with _agent(program, server.port, account) as pid:
                    state = "no state within a minute"
                    with contextlib.suppress(TimeoutError):
                        # Pods and nodes are read at the same time; the third answer adds to what is known by then.
                        _until(lambda: server.answered >= 3)
                        _until(lambda: _state()["neighbourhood"]["state"] != "not synced yet")
                        state = _state()["neighbourhood"]["state"]
                    print(f"{name}: most RSS {most_rss_megabytes(pid):.1f} MB, {program}: {state}", flush=True)


def _print_memory(when: str, pid: int) -> None:
    print(f"{when}: RSS {rss_megabytes(pid):.1f} MB, most so far {most_rss_megabytes(pid):.1f} MB")


def _discovery_requests(api: ApiServer) -> int:
    return sum(request.path.endswith(("/pods", "/nodes")) for request in list(api.requests))


def _known() -> int:
    known: int = _state()["neighbourhood"]["known"]
    return known


def _state() -> dict[str, dict[str, Any]]:
    with urllib3.PoolManager(retries=False) as pool:
        state: dict[str, dict[str, Any]] = pool.request("GET", f"http://{AGENT}:{PORT}/state").json()
    return state


def _until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib3.exceptions.HTTPError):  # the agent does not serve yet
            if holds():
                return
        time.sleep(0.05)
    raise TimeoutError(f"not reached in {seconds:g} s")


if __name__ == "__main__":
    main()
