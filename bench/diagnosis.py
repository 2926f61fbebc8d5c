"""How long the diagnosis takes: simulated clusters of 1,000 agents with 14 checks each, healthy and with faults.

    .venv/bin/python -m bench.diagnosis [--agents 1000] [--times 7]

Printed are medians of milliseconds, wall-clock and of CPU time, from the parsed bundle to the finished document. Where
the machine is busy with other things the CPU time is the one to compare.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from checks.diagnosis import diagnose
from tests.diagnosis.catalogue import FAULTS
from tests.diagnosis.faults import Truth
from tests.diagnosis.generator import Bundler, make_world

CASES: dict[str, tuple[str, ...]] = {
    "healthy": (),
    "node down": ("node",),
    "DNS down for all": ("dns {}",),
    "API server down and a node down": ("api_server {}", "node"),
    "two zones split": ("zones",),
    "packets lost between two zones": ("loss {zone, zone_to}",),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--noise", type=float, default=0.001)
    options = parser.parse_args()
    for name, faults in CASES.items():
        rng = random.Random(1)
        world = make_world(rng, options.agents, noise=options.noise)
        world.extras = []
        truth = Truth(world, rng)
        for each in faults:
            FAULTS[each](truth)
        bundle = Bundler(world).bundle()
        checks = max(len(state["checks"]) - 1 for state in bundle["states"])
        taken, cpu = [], []
        for _ in range(options.times):
            began, used = time.perf_counter(), time.process_time()
            found = diagnose(bundle)
            cpu.append(1000 * (time.process_time() - used))
            taken.append(1000 * (time.perf_counter() - began))
        said = len(found["verdicts"])
        print(f"{name}: {len(bundle['states'])} states, {checks} checks each and path_explore, {said} verdicts: "
              f"median {statistics.median(taken):.0f} ms, of CPU {statistics.median(cpu):.0f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
