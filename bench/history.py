"""What the history takes: memory, the size of /history, and the time of a result and of a document.

    .venv/bin/python -m bench.history

"defaults" are 14 checks over 15 minutes, all well. "one fails" has a check that fails in each round, with witnesses.
"rolling" has ten new neighbours every 90 s. "worst" fills every bound: ever new types, each failing in ever new long
words, with as many witnesses as are kept. Memory is that of Python's allocations (tracemalloc).
"""

from __future__ import annotations

import json
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

from checks.model import CONNECT, OK, CheckResult, TcpFacts
from checks.report.history import History
from checks.report.recorder import MOST_WITNESSES

MINUTES_15 = 900.0
INTERVAL = 5.0
FIXED = ("api_server_direct", "api_server_dns", "me_ingress", "me_service")
PATHS = tuple(f"path_node-{number}" for number in range(10))


def result(kind: str, now: float, state: str = OK) -> CheckResult:
    """A result as the probes make them."""
    failed = state != OK
    return CheckResult(
        kind,
        state,
        event="connect_done" if failed else "",
        phase=CONNECT if failed else "",
        duration=0.001 + now % 0.01,
        trace={"connect_start": 0.0001, "connect_done": 0.001 + now % 0.01},
        started_at=1.8e9 + now,
        finished=now,
        remote="10.0.0.1",
        tcp=TcpFacts(0.0004 + now % 0.01, 1500, int(failed)),
    )


def witness(number: int) -> dict[str, Any]:
    """A witness as the probes make them."""
    target, detail = f"10.0.{number % 250}.1", f"timed out after {number} s"
    return {"kind": "node", "target": target, "ok": False, "seconds": 2.0 + number, "detail": detail, "at": 1.8e9}


def defaults(history: History, *, failing: str = "") -> Iterator[float]:
    """Rounds of 14 checks for 15 minutes."""
    for round_ in range(int(MINUTES_15 / INTERVAL)):
        for number, kind in enumerate((*FIXED, *PATHS)):
            now = round_ * INTERVAL + number * 0.3
            history.take(result(kind, now, "connect: timed out after 5s" if kind == failing else OK))
            if kind == failing:
                history.witnessed(kind, [witness(round_)])
            yield now


def rolling(history: History) -> Iterator[float]:
    """Ten new neighbours every 90 seconds."""
    for round_ in range(2 * int(MINUTES_15 / INTERVAL)):
        kinds = (*FIXED, *(f"path_node-{round_ // 18}-{number}" for number in range(10)))
        for number, kind in enumerate(kinds):
            now = round_ * INTERVAL + number * 0.3
            history.take(result(kind, now))
            yield now
        history.retain(kinds)


def worst(history: History) -> Iterator[float]:
    """Everything that is bounded, filled."""
    for number in range(300):
        kind = f"path_node-{number}.some-datacentre.example.com"
        for attempt in range(12):
            now = number * 3.0 + attempt * 0.25
            history.take(result(kind, now, f"{number} {attempt} {'x' * 200}"))
            for _ in range(MOST_WITNESSES):
                history.witnessed(kind, [witness(number)])
            yield now
        history.retain({kind})


def measure(name: str, course: Callable[[History], Iterator[float]]) -> None:
    """Run a course and print its figures."""
    now = 0.0
    tracemalloc.start()
    history = History(MINUTES_15, clock=lambda: now, wall=lambda: 1.8e9 + now)
    for now in course(history):  # noqa: B007 # the clock reads it
        pass
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    begun = time.perf_counter()
    for number in range(10_000):
        history.take(result("me_service", now + number * 0.001))
    each = (time.perf_counter() - begun) / 10_000
    seconds = []
    for _ in range(11):
        begun = time.perf_counter()
        document = json.dumps(history.document(), separators=(",", ":"))
        seconds.append(time.perf_counter() - begun)
    print(
        f"{name}: {taken / 1e3:.0f} kB, /history {len(document) / 1e3:.0f} kB "
        f"in {statistics.median(seconds) * 1e3:.1f} ms, a result {each * 1e6:.1f} us"
    )


def main() -> None:
    """Measure and print."""
    measure("defaults", defaults)
    measure("one fails", lambda history: defaults(history, failing="path_node-3"))
    measure("rolling", rolling)
    measure("worst", worst)


if __name__ == "__main__":
    main()
