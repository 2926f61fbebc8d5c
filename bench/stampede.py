"""How a fleet comes back to an API server after an outage: a simulation of the pauses, without any network.

    python -m bench.stampede [--agents 1000] [--outage 60] [--interval 5]

Each agent has two reflectors that pause as checks/kube/pauses.py says (its ``Backoff`` computes them here, too). Beside
them each agent checks the API server once by its address and once by its name in each interval, at moments of its own.
Compared are the pauses alone, and pauses that the first answer to any of the agent's requests cuts short
(``Discovery.api_server_answered``). A request is a watch that opens; with --expired the server refuses each watch as
too old (410), as a server without a cache does, and the reflector lists before it watches. An agent is back when all
of its reflectors watch; the state says so health.STEADY seconds later.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
from dataclasses import dataclass, field

from checks.kube.discovery import WAKE_WITHIN
from checks.kube.pauses import Backoff

REFLECTORS = 2
# Of a round, as in most clusters: checks of the API server, of ingress and Service, and of ten neighbours.
TARGETS = 14
SEED = 1


@dataclass
class Fleet:
    """What came of one run: moments after the API server's return. ``back`` are those at which agents were back."""

    outage: float
    interval: float
    wake_within: float | None
    expired: bool
    requests: list[float] = field(default_factory=list)
    lists: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    while_down: int = 0

    def run(self, agents: int) -> Fleet:
        """Let all agents go through the outage."""
        rng = random.Random(SEED)
        for _ in range(agents):
            self.back.append(_Agent(self, rng).run())
        return self


class _Agent:
    """One agent: its events to come, as (seconds since the outage began, kind, number of the reflector or check)."""

    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        self._fleet = fleet
        self._rng = rng
        self._backoffs = [Backoff(rng.random) for _ in range(REFLECTORS)]
        self._woken = False
        # When each reflector was back, in seconds since the outage began.
        self._done: dict[int, float] = {}
        self._queue: list[tuple[float, str, int]] = []
        # Watches end when the API server goes; the first try follows a pause without a failure before it.
        for number, backoff in enumerate(self._backoffs):
            self._plan(backoff.pause(), "watch", number)
        round_begins = rng.random() * fleet.interval
        for number, place in enumerate((0.0, fleet.interval / TARGETS)):
            self._plan(round_begins + place, "check", number)

    def run(self) -> float:
        """Return when it was back, in seconds since the API server's return."""
        while len(self._done) < REFLECTORS:
            now, kind, number = heapq.heappop(self._queue)
            if kind != "check" and number in self._done:
                continue  # it was woken before
            if now < self._fleet.outage:
                self._fail(now, kind, number)
                continue
            if kind != "check":
                self._answer(now, kind, number)
            if self._fleet.wake_within is not None and not self._woken:
                self._woken = True
                for other in range(REFLECTORS):
                    self._plan(now + self._rng.random() * self._fleet.wake_within, "watch", other)
        return max(self._done.values()) - self._fleet.outage

    def _plan(self, moment: float, kind: str, number: int) -> None:
        heapq.heappush(self._queue, (moment, kind, number))

    def _fail(self, now: float, kind: str, number: int) -> None:
        if kind == "check":
            self._plan(now + self._fleet.interval, kind, number)
            return
        self._fleet.while_down += 1
        self._backoffs[number].failures += 1
        self._plan(now + self._backoffs[number].pause(), kind, number)

    def _answer(self, now: float, kind: str, number: int) -> None:
        after = now - self._fleet.outage
        self._fleet.requests.append(after)
        if kind == "watch" and self._fleet.expired:
            self._backoffs[number].failures = 1
            self._plan(now + self._backoffs[number].pause(), "list", number)
            return
        if kind == "list":
            self._fleet.lists.append(after)
            self._fleet.requests.append(after)  # the watch that follows
        self._done[number] = now


def most_within(moments: list[float], seconds: float) -> int:
    """Return the most moments in any window of so many seconds."""
    ordered = sorted(moments)
    most = begin = 0
    for end, moment in enumerate(ordered):
        while moment - ordered[begin] >= seconds:
            begin += 1
        most = max(most, end - begin + 1)
    return most


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--outage", type=float, default=60.0, help="seconds")
    parser.add_argument("--interval", type=float, default=5.0, help="KUBENURSE_CHECK_INTERVAL in seconds")
    parser.add_argument("--expired", action="store_true", help="every watch is refused with 410 at first")
    options = parser.parse_args()
    print(f"{options.agents} agents, API server away for {options.outage:g} s, checks every {options.interval:g} s")
    print("pauses cut short      back after (s)            requests in the busiest     lists      while away")
    print("                      median   p99   worst         1 s      0.1 s             1 s      per second")
    for name, within in (("never", None), *((f"within {each:g} s", each) for each in (3.0, 1.0, WAKE_WITHIN))):
        fleet = Fleet(options.outage, options.interval, within, options.expired).run(options.agents)
        back = sorted(fleet.back)
        times = f"{statistics.median(back):6.1f} {back[int(len(back) * 0.99)]:6.1f} {back[-1]:6.1f}"
        most = f"{most_within(fleet.requests, 1.0):8d} {most_within(fleet.requests, 0.1):8d}"
        lists = most_within(fleet.lists, 1.0)
        print(f"{name:20}  {times}     {most}        {lists:8d}        {fleet.while_down / options.outage:8.0f}")


if __name__ == "__main__":
    main()
