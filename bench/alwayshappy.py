"""What /alwayshappy takes with the request parser of ``http.server`` and with one of our own, over new connections.

    .venv/bin/python -m bench.alwayshappy [--requests 5000]

Two servers, each in a process of its own, are asked in turns, so that both see the same machine. A request is what a
neighbour sends. Its time is from before the connect to the end of the answer.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from bench import own_parser
from bench.processes import cpu_seconds
from checks.model import Neighbourhood, Report
from checks.web import connection, http1
from checks.web.endpoints import respond
from checks.web.http1 import Head, Header
from checks.web.server import Server

PARSERS: Mapping[str, Callable[[bytes], Head]] = {"own": own_parser.parse_head, "http.server": http1.parse_head}
WARM_UP = 200
REQUEST = (
    b"GET /alwayshappy HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: kubenurse/2.0.0\r\nAccept: */*\r\n"
    b"Accept-Encoding: identity\r\nConnection: close\r\nKUBENURSE-NEIGHBOUR-ORIGIN: kubenurse-x7k2p\r\n\r\n"
)


class _Agent:
    """An agent that does nothing else."""

    pod_name = "kubenurse-a1b2c"
    node_name = "node-a"
    zone = ""

    def alive(self) -> Report:
        return self.latest()

    def latest(self) -> Report:
        return Report({}, Neighbourhood("ok"))

    def not_ready(self) -> str:
        return ""

    def neighbour_called(self, origin: str) -> None:
        """Count nothing."""

    def render_metrics(self, accept: str, accept_encoding: str) -> tuple[list[Header], bytes]:  # noqa: ARG002
        return [], b""

    def own(self) -> Mapping[str, object]:
        return {}

    def window(self, kind: str) -> Mapping[str, object]:  # noqa: ARG002
        return {}

    def history(self) -> Mapping[str, object]:
        return {}

    def about(self) -> Mapping[str, object]:
        return {}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000, help="to each server")
    parser.add_argument("--serve", choices=list(PARSERS), help="be the server with this parser")
    options = parser.parse_args()
    if options.serve:
        _serve(PARSERS[options.serve])
        return
    with ExitStack() as stack:
        processes = {name: stack.enter_context(_server(name)) for name in PARSERS}
        seconds: dict[str, list[float]] = {name: [] for name in PARSERS}
        before = {name: cpu_seconds(pid) for name, (pid, _) in processes.items()}
        for number in range(WARM_UP + options.requests):
            # Neither is always the one that is asked right after the other.
            for name in sorted(processes, reverse=number % 2 == 1):
                took = _ask(processes[name][1])
                if number >= WARM_UP:
                    seconds[name].append(took)
        for name, (pid, _) in processes.items():
            cpu = (cpu_seconds(pid) - before[name]) / (WARM_UP + options.requests)
            print(f"{name}: {_figures(seconds[name])}, {cpu * 1e6:.0f} us of CPU a request")
    ratios = [_ratio(seconds, quantile) for quantile in (50, 99)]
    print(f"http.server over own: median {ratios[0]:.2f}, p99 {ratios[1]:.2f}")


def _figures(seconds: list[float]) -> str:
    return f"median {_quantile(seconds, 50) * 1e6:.0f} us, p99 {_quantile(seconds, 99) * 1e6:.0f} us"


def _ratio(seconds: Mapping[str, list[float]], percent: int) -> float:
    return _quantile(seconds["http.server"], percent) / _quantile(seconds["own"], percent)


def _quantile(seconds: list[float], percent: int) -> float:
    return statistics.quantiles(seconds, n=100)[percent - 1]


def _ask(port: int) -> float:
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(REQUEST)
        answer = b""
        while received := client.recv(65536):
            answer += received
        took = time.perf_counter() - begun
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"answer {answer[:50]!r}")
    return took


@contextmanager
def _server(name: str) -> Iterator[tuple[int, int]]:
    """A server's process number and port."""
    command = [sys.executable, "-m", "bench.alwayshappy", "--serve", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.stdin.close()


def _serve(parse_head: Callable[[bytes], Head]) -> None:
    """Serve until stdin ends."""
    # The module's own name is replaced: this process does nothing else.
    vars(connection)["parse_head"] = parse_head
    agent = _Agent()
    server = Server(lambda request: respond(request, agent), "127.0.0.1", 0)
    server.start()
    print(server.port, flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
