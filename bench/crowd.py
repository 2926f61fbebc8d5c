"""How late an agent answers its neighbours while many clients scrape it without a pause, by the switch interval.

    .venv/bin/python -m bench.crowd [--clients 64] [--intervals 5 2 1 0.5 0.2 0.1]

The agent is one of a sandbox's; the others check it all the time. For each interval of ``sys.setswitchinterval`` a new
sandbox is asked for /alwayshappy over new connections: while nobody scrapes, while the clients do, and quiet again.
The clients are one process of their own, and each scrapes again as soon as it was answered. Memory is the most that the
agent's process had.
"""

from __future__ import annotations

import argparse
import http.client
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from bench.processes import most_rss_megabytes
from sandbox.agent import Agent
from sandbox.cluster import KUBENURSE, Cluster

ASKED = 400
PAUSE_SECONDS = 0.01
AGENTS = 11
CLIENT_ADDRESS = "127.0.9.1"
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"
START = """
import sys
sys.path.insert(0, {directory!r})
from checks.web import server
server.SWITCH_INTERVAL_SECONDS = {seconds}
import kubenurse
sys.exit(kubenurse.main([]))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--intervals", type=float, nargs="+", default=[5, 2, 1, 0.5, 0.2, 0.1], help="milliseconds")
    parser.add_argument("--scrape", nargs=2, metavar=("ADDRESS", "PORT"), help="be the clients")
    options = parser.parse_args()
    if options.scrape:
        _scrape_until_told(options.scrape[0], int(options.scrape[1]), options.clients)
        return
    for milliseconds in options.intervals:
        command = (sys.executable, "-c", START.format(seconds=milliseconds / 1e3, directory=str(KUBENURSE.parent)))
        with Cluster(AGENTS, command=command, environ={"KUBENURSE_CHECK_INTERVAL": "2s"}) as cluster:
            time.sleep(6)
            print(f"switch interval {milliseconds:g} ms: {_figures(cluster.agents[0], options.clients)}", flush=True)


def _figures(agent: Agent, clients: int) -> str:
    quiet = _ask(agent)
    with _clients(agent, clients) as process:
        crowded = _ask(agent)
        answers = process.communicate("", timeout=20)[0].strip()
    quiet_again = _ask(agent)
    p90_quiet = statistics.mean(_quantile(seconds, 90) for seconds in (quiet, quiet_again))
    memory = most_rss_megabytes(agent.pid or 0)
    return (
        f"quiet {_words(quiet)} and {_words(quiet_again)}; crowded {_words(crowded)}; "
        f"p90 {_quantile(crowded, 90) / p90_quiet:.1f} times; answers {answers}; {memory:.1f} MB"
    )


def _words(seconds: Sequence[float]) -> str:
    return "p50 {:.2f} p90 {:.2f} p99 {:.2f} ms".format(
        *(1e3 * _quantile(seconds, percent) for percent in (50, 90, 99))
    )


def _quantile(seconds: Sequence[float], percent: int) -> float:
    return statistics.quantiles(seconds, n=100)[percent - 1]


def _ask(agent: Agent) -> list[float]:
    """Seconds from before the connect to the end of the answer, of each request."""
    took = []
    for _ in range(ASKED):
        begun = time.perf_counter()
        connection = http.client.HTTPConnection(*agent.address, timeout=20)
        connection.request("GET", "/alwayshappy", headers={"Connection": "close"})
        if connection.getresponse().status != http.client.OK:
            raise ConnectionError("/alwayshappy is not 200")
        took.append(time.perf_counter() - begun)
        connection.close()
        time.sleep(PAUSE_SECONDS)
    return took


@contextmanager
def _clients(agent: Agent, clients: int) -> Iterator[subprocess.Popen[str]]:
    """Scraping clients, a process that ends with its stdin and then prints how often it was answered what."""
    address, port = agent.address
    command = [sys.executable, "-m", "bench.crowd", "--clients", str(clients), "--scrape", address, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(2)
        try:
            yield process
        finally:
            process.kill()


def _scrape_until_told(address: str, port: int, clients: int) -> None:
    answers: Counter[str] = Counter()
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        for _ in range(clients):
            _connect(selector, address, port)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    print(dict(answers))
                    return
                if _goes_on(selector, key, answers):
                    continue
                selector.unregister(key.fileobj)
                _connect(selector, address, port)


def _connect(selector: selectors.DefaultSelector, address: str, port: int) -> None:
    client = socket.socket()
    client.bind((CLIENT_ADDRESS, 0))
    client.setblocking(False)
    with suppress(BlockingIOError):
        client.connect((address, port))
    selector.register(client, selectors.EVENT_WRITE, bytearray())


def _goes_on(selector: selectors.DefaultSelector, key: selectors.SelectorKey, answers: Counter[str]) -> bool:
    """Take one step of a scrape; False when it is over."""
    client, received = key.fileobj, key.data
    assert isinstance(client, socket.socket)
    try:
        if key.events & selectors.EVENT_WRITE:
            client.send(SCRAPE)
            selector.modify(client, selectors.EVENT_READ, received)
            return True
        data = client.recv(1 << 20)
    except OSError:
        data = b""
    received += data
    if data:
        return True
    answers[bytes(received[9:12]).decode() or "none"] += 1
    client.close()
    return False


if __name__ == "__main__":
    main()
