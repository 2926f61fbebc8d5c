"""Run one agent for a day's rounds at a short interval, and hold what it uses in the end against what it used before.

    .venv/bin/python -m bench.soak [--rounds 17280] [--interval 0.05]

The agent checks the sandbox's API server, Service and ingress, a second agent, and guests: Pods that come and go, each
on a node with a new name, some of them without anything that listens. It is scraped all the time. For a tenth of the
time hostile clients (``bench.hostile``) connect to it. The exit code is 1 when a limit below does not hold.

A warm-up comes first, whose rounds do not count. The run ends when the rounds are made, or after twice the time that
they should take and a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.processes import most_rss_megabytes, rss_megabytes
from sandbox.agent import Agent
from sandbox.cluster import Cluster
from sandbox.faults import Request
from sandbox.objects import make_node, make_pod
from sandbox.service import Address

ROUNDS_A_DAY = 17_280
FIXED_TYPES = ("api_server_direct", "api_server_dns", "me_ingress", "me_service")
COUNT = "kubenurse_request_duration_count"
TICK = 1.0
# A guest comes every GUEST_TICKS, and the oldest leaves when there are more than GUESTS.
GUESTS, GUEST_TICKS = 3, 5
# Nobody listens on this address.
NOWHERE = "127.0.1.240"
# In each cycle the hostile clients come once, for a tenth of it.
CYCLE_SECONDS, HOSTILE_SECONDS = 30.0, 3.0
# Hostile connections end this long after their clients at most: from then on the agent is measured again.
CALM_AFTER_SECONDS = 3.0
# Departed neighbours' series last for 45 s, so that their number is steady after this time. Its rounds do not count.
WARM_UP_SECONDS = 75.0

MOST_RSS_GROWTH = 1.0
MOST_RSS = 64.0
MOST_MORE_THREADS, MOST_MORE_DESCRIPTORS = 4, 4
MOST_SERIES_GROWTH = 0.1
# Between a request's arrival and its count a check is under way: one of each fixed type for each of two agents.
MOST_UNDER_WAY = 2 * len(FIXED_TYPES)
SLOWEST_ANSWER = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the agent used at one moment (monotonic seconds); memory is in units of 2^20 bytes."""

    at: float
    rss: float
    threads: int
    descriptors: int
    series: int
    calm: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """One limit: whether it holds, and the figures in words."""

    holds: bool
    words: str


class Guests:
    """Neighbours that come and go; at most ``GUESTS`` are there at a time."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._here: deque[str] = deque()
        self.came = 0

    def change(self) -> None:
        """Let the next one come, and the oldest leave."""
        self.came += 1
        name = f"guest-{self.came}"
        # Every third of them does not answer.
        address = NOWHERE if self.came % 3 == 0 else self._cluster.agents[1].address[0]
        self._cluster.api.put("nodes", make_node(f"node-{name}"))
        self._cluster.api.put("pods", make_pod(name, f"node-{name}", address))
        self._here.append(name)
        if len(self._here) > GUESTS:
            oldest = self._here.popleft()
            self._cluster.api.delete("pods", oldest)
            self._cluster.api.delete("nodes", f"node-{oldest}")


class Received:
    """Counts the checks that the sandbox's API server and Service received from all agents."""

    def __init__(self, cluster: Cluster) -> None:
        self._agents = cluster.agents
        self._to_api, self._to_service = _Tally(), 0
        self._backends = cluster.service.backends
        # Both agents have asked before: only the difference to what they have counted by now tells something.
        cluster.api.requests, cluster.service.backends = self._to_api, self._ask_backends
        self._counted_before = self._counted()

    def verdict(self) -> Verdict:
        """Hold what the agents count against what they sent."""
        least = self._received() - MOST_UNDER_WAY
        counted = self._counted() - self._counted_before
        most = self._received() + MOST_UNDER_WAY
        return Verdict(
            least <= counted <= most,
            f"{counted:.0f} checks counted by both agents, {least + MOST_UNDER_WAY} received and a few under way",
        )

    def _ask_backends(self) -> Sequence[Address]:
        """Count a connection to the Service: one of me_service, or one of me_ingress that the ingress passed on."""
        self._to_service += 1
        return self._backends()

    def _received(self) -> int:
        return self._to_api.seen + self._to_service

    def _counted(self) -> float:
        return sum(
            sum(each for kind, each in counts_in(agent.metrics()).items() if kind in FIXED_TYPES)
            for agent in self._agents
        )


class _Tally(deque[Request]):
    """Remembers nothing of the requests but the number of checks among them."""

    seen = 0

    def append(self, request: Request) -> None:
        """Count a check."""
        self.seen += request.path == "/version"


class Soak:
    """One run; ``samples`` has at most one entry for each second of it."""

    def __init__(self, cluster: Cluster, rounds: int, interval: float) -> None:
        self.agent = cluster.agents[0]
        self.rounds = rounds
        self.interval = interval
        self.guests = Guests(cluster)
        self.received = Received(cluster)
        self.samples: list[Sample] = []
        self.answers: dict[bool, list[float]] = {True: [], False: []}
        self.unanswered = 0
        self.began = self.warm = self.ended = time.monotonic()
        self.first: dict[str, float] | None = None
        self.last = counts_in(self.agent.metrics())

    def run(self) -> None:
        """Warm up, then run until the rounds are made, or the time is over."""
        deadline = self.began + WARM_UP_SECONDS + 2 * self.rounds * self.interval + 60
        tick = 0
        while time.monotonic() < deadline and not self._is_done():
            # The first cycle has none, so that the agent starts in peace.
            with _hostile_clients(self.agent, HOSTILE_SECONDS if tick else 0.0):
                for _ in range(round(CYCLE_SECONDS / TICK)):
                    self._tick(tick)
                    tick += 1
                    if self._is_done():
                        break

    def made(self) -> dict[str, float]:
        """Return how often each fixed type was checked since the warm-up."""
        first = self.first or self.last
        return {kind: self.last[kind] - first[kind] for kind in FIXED_TYPES}

    def _is_done(self) -> bool:
        return min(self.made().values()) >= self.rounds

    def _tick(self, tick: int) -> None:
        begun = time.monotonic()
        if tick % GUEST_TICKS == 0:
            self.guests.change()
        since_cycle = (tick * TICK) % CYCLE_SECONDS
        hostile = tick * TICK >= CYCLE_SECONDS and since_cycle < HOSTILE_SECONDS
        calm = not hostile and since_cycle >= HOSTILE_SECONDS + CALM_AFTER_SECONDS
        for path in ("/alwayshappy", "/ready"):
            self._time(path, hostile=hostile)
        with contextlib.suppress(OSError, http.client.HTTPException):
            text = self.agent.get("/metrics", timeout=5.0).body.decode()
            self.ended, self.last = time.monotonic(), counts_in(text)
            if self.first is None and self.ended >= self.began + WARM_UP_SECONDS:
                self.warm, self.first = self.ended, self.last
            self.samples.append(sample(self.agent, text, calm=calm))
        time.sleep(max(0.0, begun + TICK - time.monotonic()))

    def _time(self, path: str, *, hostile: bool) -> None:
        begun = time.perf_counter()
        try:
            self.agent.get(path, timeout=5.0)
        except (OSError, http.client.HTTPException):
            self.unanswered += 1
            return
        self.answers[hostile].append(time.perf_counter() - begun)

    def verdicts(self) -> Iterator[Verdict]:
        """Judge the run, limit by limit."""
        yield self._rounds_are_made()
        yield self.received.verdict()
        calm = [each for each in self.samples if each.calm and each.at >= self.warm]
        fifth = len(calm) // 5
        if self.first is None or not fifth:
            yield Verdict(False, f"only {len(calm)} samples after the warm-up: ask for more rounds")
            return
        yield from _growth(calm[:fifth], calm[-fifth:])
        pid = self.agent.pid
        assert pid is not None
        most = most_rss_megabytes(pid)
        yield Verdict(most <= MOST_RSS, f"most RSS {most:.1f} MB, limit {MOST_RSS:g}")
        yield self._answered()

    def _rounds_are_made(self) -> Verdict:
        """A busy machine may leave out rounds, at most every other one: else the time is over before all are made."""
        made, seconds = self.made(), self.ended - self.warm
        allowed = seconds / self.interval
        each = ", ".join(f"{kind} {count:.0f}" for kind, count in made.items())
        return Verdict(
            self._is_done() and max(made.values()) <= allowed + 2,
            f"checks in {seconds:.0f} s: {each}; asked for {self.rounds}, the interval allows {allowed:.0f}",
        )

    def _answered(self) -> Verdict:
        words = []
        for hostile, times in self.answers.items():
            if times:
                when = "with hostile clients" if hostile else "without"
                median, slowest = statistics.median(times) * 1000, max(times) * 1000
                words.append(f"{when}: median {median:.1f} ms, slowest {slowest:.0f} ms of {len(times)}")
        slowest = max((each for times in self.answers.values() for each in times), default=0.0)
        words.append(f"{self.unanswered} without an answer")
        return Verdict(slowest <= SLOWEST_ANSWER and not self.unanswered, "/alwayshappy and /ready " + "; ".join(words))


def _growth(before: Sequence[Sample], after: Sequence[Sample]) -> Iterator[Verdict]:
    """Compare the first fifth of the samples after the warm-up with the last one."""

    def medians(figure: Callable[[Sample], float]) -> tuple[float, float]:
        return statistics.median(map(figure, before)), statistics.median(map(figure, after))

    first, last = medians(lambda each: each.rss)
    yield Verdict(
        last - first <= MOST_RSS_GROWTH,
        f"RSS {first:.2f} MB after the warm-up, {last:.2f} MB in the end, limit {MOST_RSS_GROWTH:+g} MB",
    )
    first, last = medians(lambda each: each.threads)
    yield Verdict(last - first <= MOST_MORE_THREADS, f"threads {first:g}, then {last:g}")
    first, last = medians(lambda each: each.descriptors)
    yield Verdict(last - first <= MOST_MORE_DESCRIPTORS, f"descriptors {first:g}, then {last:g}")
    first, last = (float(max(each.series for each in part)) for part in (before, after))
    yield Verdict(last <= first * (1 + MOST_SERIES_GROWTH), f"series at most {first:g}, then {last:g}")


def sample(agent: Agent, metrics: str, *, calm: bool) -> Sample:
    """Measure an agent from outside (proc(5)), and count the series that it exposes."""
    pid = agent.pid
    assert pid is not None
    process = Path(f"/proc/{pid}")
    return Sample(
        at=time.monotonic(),
        rss=rss_megabytes(pid),
        threads=len(list((process / "task").iterdir())),
        descriptors=len(list((process / "fd").iterdir())),
        series=sum(not line.startswith("#") for line in metrics.splitlines()),
        calm=calm,
    )


def counts_in(metrics: str) -> dict[str, float]:
    """Return how often each type was checked, by /metrics; 0 for a fixed type without a result."""
    found = dict.fromkeys(FIXED_TYPES, 0.0)
    for family in text_string_to_metric_families(metrics):
        for each in family.samples:
            if each.name == COUNT:
                found[each.labels["type"]] = each.value
    return found


@contextlib.contextmanager
def _hostile_clients(agent: Agent, seconds: float) -> Iterator[None]:
    """Have hostile clients for so many seconds, in a process of their own: they must not slow the sandbox down."""
    if not seconds:
        yield
        return
    address, port = agent.address
    command = [sys.executable, "-m", "bench.hostile", address, str(port), "--seconds", f"{seconds:g}"]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.terminate()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS_A_DAY)
    parser.add_argument("--interval", type=float, default=0.05, help="seconds")
    options = parser.parse_args()
    # Only the first agent is in a hurry: the second one is there to be checked.
    environs = {1: {"KUBENURSE_CHECK_INTERVAL": f"{options.interval}s"}}
    with Cluster(2, environs=environs) as cluster:
        soak = Soak(cluster, options.rounds, options.interval)
        soak.run()
        verdicts = list(soak.verdicts())
    for verdict in verdicts:
        print(f"{'holds' if verdict.holds else 'FAILS'}: {verdict.words}")
    sys.exit(0 if all(verdict.holds for verdict in verdicts) else 1)


if __name__ == "__main__":
    main()
