"""Precision and recall of the diagnosis on simulated clusters, as the table in docs/diagnosis.md.

    .venv/bin/python -m bench.diagnosis_score [--each 40] [--pairs 3] [--healthy 10000] [--write]

The clusters have 5 to 40 nodes (some 1,000), 1 to 3 zones and up to 0.4 % failures that mean nothing. Precision is the
share of verdicts that name what is broken, with exactly its place; recall is the share of what is broken that is named.
Combinations in which one fault hides the other are left out. With ``--write`` the table goes into the page.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from tests.diagnosis.catalogue import FAULTS, is_hidden
from tests.diagnosis.score import SIZES, Case, Score, judge_all, make_case

PAGE = Path(__file__).parent.parent / "docs" / "diagnosis.md"
BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"
MAINTENANCE = [name for name in FAULTS if name.startswith("maintenance")]
VARIANTS = {
    "new": "began 20 s ago",
    "flapping": "half of the requests pass",
    "missing": "half of the states missing",
    "mute": "a third of the agents silent, and alive",
    "old": "a third of the agents of version 1.15",
    "lying": "one agent sends garbage",
}
# What shows in times or in segments sent again over a minute cannot be told after 20 s.
SLOW_TO_SHOW = ("dns_slow {}", "dns_slow {node}", "api_server_slow {}", "api_server_slow {node}", "loss {from, to}")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=40, help="clusters for each cause alone")
    parser.add_argument("--pairs", type=int, default=3, help="clusters for each pair")
    parser.add_argument("--triples", type=int, default=400)
    parser.add_argument("--healthy", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=20, help="clusters of 1,000 nodes")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = [*_table(options), "", *_causes(options.each)]
    print("\n".join(lines))
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{chr(10).join(lines)}\n{END}{after}", encoding="utf-8")


def _table(options: argparse.Namespace) -> Iterator[str]:
    pairs = [pair for pair in combinations(FAULTS, 2) if not is_hidden(*pair)]
    yield "| clusters | number | all verdicts right | precision | recall | false verdicts |"
    yield "|---|--:|--:|--:|--:|--:|"
    yield _row("one cause", _score([[name] for name in FAULTS for _ in range(options.each)]))
    yield _row("two causes", _score([pair for pair in pairs for _ in range(options.pairs)]))
    yield _row("three causes", _score(_triples(options.triples)))
    yield _row("healthy", _score([[]] * options.healthy))
    yield _row("maintenance", _score([[name] for name in MAINTENANCE for _ in range(options.healthy // 20)]))
    large = [[name] for name in list(FAULTS)[:: max(1, len(FAULTS) // options.large)]] if options.large else []
    yield _row("one cause, 1,000 nodes", _score(large, sizes=(1000,)))
    for variant, words in VARIANTS.items():
        names = [name for name in FAULTS if variant != "new" or name not in SLOW_TO_SHOW]
        yield _row(f"one cause, {words}", _score([[name] for name in names for _ in range(10)], variant=variant))


def _causes(each: int) -> Iterator[str]:
    yield "| cause, alone | number | precision | recall | false verdicts |"
    yield "|---|--:|--:|--:|---|"
    for name in FAULTS:
        score = _score([[name]] * each)
        false = ", ".join(f"{count} {cause}" for cause, count in sorted(score.false.items())) or "none"
        yield f"| {name} | {score.cases} | {score.precision():.3f} | {score.recall():.3f} | {false} |"


def _row(words: str, score: Score) -> str:
    counts = f"{score.cases:,} | {score.exact / max(1, score.cases):.1%}"
    return f"| {words} | {counts} | {score.precision():.3f} | {score.recall():.3f} | {score.false.total()} |"


def _score(faults: Sequence[Sequence[str]], *, variant: str = "", sizes: Sequence[int] = SIZES) -> Score:
    def cases() -> Iterator[Case]:
        for seed, names in enumerate(faults):
            yield make_case(names, 1000 + seed, sizes=sizes, variant=variant)

    return judge_all(cases(), Score())


def _triples(count: int) -> list[list[str]]:
    rng = random.Random(3)
    found: list[list[str]] = []
    while len(found) < count:
        three = rng.sample(list(FAULTS), 3)
        if not any(is_hidden(*pair) for pair in combinations(three, 2)):
            found.append(three)
    return found


if __name__ == "__main__":
    main()
