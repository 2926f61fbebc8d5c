"""The single file beside the installed program: time from start to first answer, and memory.

    make pyz && .venv/bin/python -m bench.pyz [--starts 15] [--seconds 30] [--python python3.13]

Each variant is the one agent of a cluster of its own, with all its checks. Starts alternate between the variants, so
that other load affects all equally; file caches are warm. Memory is read after ``--seconds`` with a
round every half second. With ``--python`` the same file is run by another version, which has to compile the sources.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.processes import rss_megabytes
from sandbox.agent import Agent, ClusterError
from sandbox.cluster import KUBENURSE, Cluster

PYZ = KUBENURSE.parent / "dist" / "kubenurse.pyz"
ENVIRON = {"KUBENURSE_CHECK_INTERVAL": "500ms"}
ANSWER_SECONDS = 20.0
POLL_SECONDS = 0.002


def main() -> None:
    """Measure and print a line for each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pyz", type=Path, default=PYZ)
    parser.add_argument("--starts", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--python", help="another Python to run the file with")
    options = parser.parse_args()
    if not options.pyz.is_file():
        parser.error(f"no file {options.pyz}, expected it there: make pyz")
    with contextlib.ExitStack() as stack:
        agents = {
            name: stack.enter_context(Cluster(1, environ=ENVIRON, command=command)).agents[0]
            for name, command in variants(options.pyz, options.python).items()
        }
        starts = start_times(agents, options.starts)
        time.sleep(options.seconds)
        for name, agent in agents.items():
            print(f"{name}: {starts[name]}; {resident(agent)}")


def variants(pyz: Path, other: str | None) -> dict[str, Sequence[str]]:
    """Return the commands to compare, by name."""
    commands: dict[str, Sequence[str]] = {
        "installed, python3 kubenurse.py": (sys.executable, str(KUBENURSE)),
        "installed, as in the image (-IS)": (sys.executable, "-IS", "-c", _as_in_the_image()),
        "single file, python3 -I -S kubenurse.pyz": (sys.executable, "-I", "-S", str(pyz)),
    }
    if other:
        found = shutil.which(other) or other
        commands[f"single file, {other}, from source"] = (found, "-I", "-S", str(pyz))
    return commands


def start_times(agents: Mapping[str, Agent], starts: int) -> dict[str, str]:
    """Start each agent again and again, in turn, and return the medians."""
    first: dict[str, list[float]] = {name: [] for name in agents}
    well: dict[str, list[float]] = {name: [] for name in agents}
    for _ in range(starts):
        for name, agent in agents.items():
            agent.stop()
            begun = time.perf_counter()
            agent.start()
            _wait_for(agent, "/alwayshappy")
            first[name].append(time.perf_counter() - begun)
            agent.wait_until_serving()
            _wait_for(agent, "/alive")
            well[name].append(time.perf_counter() - begun)
    return {
        name: f"start to first answer {_in_words(first[name])}, to all checks ok {_in_words(well[name])}"
        for name in agents
    }


def resident(agent: Agent) -> str:
    """Return the agent's memory as text."""
    return f"{rss_megabytes(agent.pid):.1f} MB resident" if agent.pid else "has ended"


def _as_in_the_image() -> str:
    """Return a program that finds what is installed beside this Python without running ``site``."""
    paths = [str(KUBENURSE.parent), *(path for path in sys.path if path.endswith("site-packages"))]
    return f"import sys; sys.path[:0] = {paths!r}; from kubenurse import main; sys.exit(main([]))"


def _in_words(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.3f} s (best of {len(seconds)}: {min(seconds):.3f} s)"


def _wait_for(agent: Agent, path: str) -> None:
    """Wait until ``path`` answers 200, in steps shorter than the sandbox's own."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if agent.get(path).status == 200:
                return
        if agent.pid is None:
            break
        time.sleep(POLL_SECONDS)
    raise ClusterError(f"{path} does not answer 200 (exit code {agent.exit_code}):\n{agent.stderr_tail()}")


if __name__ == "__main__":
    main()
