"""Fuzz the readers of ``fuzz/targets.py`` with atheris (libFuzzer), one after the other.

    make fuzz SECONDS=30
    .venv/bin/python -m fuzz [--seconds 30] [TARGET ...]

``--seconds`` is the time of each target. Each starts with its corpus and runs in a process of its own, which libFuzzer
ends for an input that takes longer than 10 s or 512 MB. An input that fails is kept in ``fuzz/corpus/TARGET/``, where
the tests replay it from then on. The exit code is 1 when there was one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"
LONGEST_INPUT = 4096
LONGEST_SECONDS = 10
MOST_MEGABYTES = 512
# The start takes some seconds: every module is instrumented.
_PATIENCE = 120.0
_LINES_SHOWN = 60

# `-c` instead of a module: imports of this package before atheris would not be instrumented.
_RUN = """
import sys
import atheris
name, *arguments = sys.argv[1:]
with atheris.instrument_imports(include=["checks", "kubenurse"]):
    from fuzz.targets import TARGETS
atheris.Setup(["fuzz", *arguments], TARGETS[name])
atheris.Fuzz()
"""


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz a target for so many seconds; return whether every input was fine. Found inputs go into its corpus."""
    seeds = CORPUS / name
    seeds.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kubenurse-fuzz-") as grown:
        command = [
            *(sys.executable, "-c", _RUN, name),
            f"-max_total_time={seconds}",
            f"-max_len={LONGEST_INPUT}",
            f"-timeout={LONGEST_SECONDS}",
            f"-rss_limit_mb={MOST_MEGABYTES}",
            f"-artifact_prefix={seeds}/",
            "-print_final_stats=1",
            "-verbosity=0",
            *(grown, str(seeds)),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds + _PATIENCE, check=False
        )
    runs = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("stat::number_of_executed_units")]
    print(f"{name}: {'ok' if not done.returncode else 'FAILED'}, {''.join(runs) or 'no'} inputs", flush=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO: Instrumenting")]
        print(done.stdout, *lines[-_LINES_SHOWN:], sep="\n", flush=True)
    return not done.returncode


def main() -> int:
    """Fuzz the targets given, or all; return the exit code."""
    from fuzz.targets import TARGETS  # not instrumented here: only the names are needed

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", choices=[[], *TARGETS], help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    options = parser.parse_args()
    outcomes = [fuzz(name, options.seconds) for name in options.targets or TARGETS]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
