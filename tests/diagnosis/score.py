"""Scoring: simulated clusters are judged, and the verdicts are compared with what is broken."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from checks.diagnosis import diagnose
from tests.diagnosis.catalogue import FAULTS
from tests.diagnosis.faults import Truth, Verdict, verdict
from tests.diagnosis.generator import ROUNDS, Bundler, make_world

SIZES = (5, 6, 8, 10, 12, 20, 40)
NOISES = (0.0, 0.001, 0.004)


@dataclass(slots=True)
class Case:
    """A simulated cluster: its bundle and the verdicts to be expected."""

    name: str
    seed: int
    bundle: dict[str, Any]
    expected: set[Verdict]


@dataclass(slots=True)
class Score:
    """Counts of verdicts by the fault that was injected (``found``, ``missed``), and by the cause that was said."""

    cases: int = 0
    exact: int = 0
    found: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    false: Counter[str] = field(default_factory=Counter)

    def add(self, case: Case, said: set[Verdict]) -> None:
        """Count a case."""
        self.cases += 1
        self.exact += said == case.expected
        for each in case.expected:
            (self.found if each in said else self.missed)[scope(each)] += 1
        for each in said - case.expected:
            self.false[scope(each)] += 1

    def precision(self) -> float:
        """Return the share of verdicts that are right."""
        found, false = self.found.total(), self.false.total()
        return found / (found + false) if found + false else 1.0

    def recall(self) -> float:
        """Return the share of faults that were found."""
        found, missed = self.found.total(), self.missed.total()
        return found / (found + missed) if found + missed else 1.0


def scope(found: Verdict) -> str:
    """Return a verdict's cause with the keys of its place."""
    cause, where = found
    keys = ", ".join(str(value) if key == "direction" else key for key, value in where if key != "both")
    return f"{cause} {{{keys}}}"


def verdicts_of(document: dict[str, Any]) -> set[Verdict]:
    """Return the verdicts of a /diagnosis document in a form that can be compared."""
    return {verdict(each["cause"], each["where"]) for each in document["verdicts"]}


def make_case(names: Sequence[str], seed: int, sizes: Sequence[int] = SIZES, variant: str = "") -> Case:
    """Return a cluster with these faults at once.

    A ``variant`` is one of ``new`` (the faults began 20 s ago), ``ended`` (they ended 20 s ago), ``flapping`` (half of
    the requests that they concern pass), ``missing`` (half of the states are missing), ``mute`` (a third of the agents
    does not answer the collector although it lives), ``old`` (a third of the agents is of version 1.15), ``lying`` (one
    agent without a fault sends garbage).
    """
    rng = random.Random(f"{names} {seed} {variant}")
    size = rng.choice(sizes)
    zones = rng.choice([each for each in (1, 2, 3) if size >= 3 * each])
    if any("zone" in each for each in names):
        size, zones = max(size, 8), rng.choice((2, 3))
    if variant in ("missing", "mute", "old"):
        size = max(size, 10)
    world = make_world(rng, size, zones=zones, noise=rng.choice(NOISES), limit=rng.choice((10, 10, 10, 0, 5)))
    truth = Truth(world, rng)
    for each in names:
        FAULTS[each](truth)
    if variant == "flapping":
        world.flapping = 0.5
    free = [each.name for each in world.nodes if each.name not in truth.used]
    some = frozenset(rng.sample(free, len(free) // (2 if variant == "missing" else 3)))
    bundler = Bundler(
        world,
        onset=8 if variant == "new" else 0,
        end=8 if variant == "ended" else ROUNDS,
        hidden=some if variant == "missing" else frozenset(),
        mute=some if variant == "mute" else frozenset(),
        old=some if variant == "old" else frozenset(),
    )
    bundle = bundler.bundle()
    if variant == "lying":
        garble(next(each for each in bundle["states"] if each["node_name"] in some), rng)
    lasting = ("maintenance", "starved", "discovery")
    if variant == "ended":
        truth.verdicts = {each for each in truth.verdicts if each[0] in lasting or world.ends}
        if not truth.verdicts:
            world.discovery = {}
    return Case("+".join(names), seed, bundle, truth.verdicts)


GARBAGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    1e308,
    float("nan"),
    "x" * 999,
    "\x1b[2J",
    [],
    {},
    [[]],
    {"a": {}},
    10**400,
)


def garble(state: dict[str, Any], rng: random.Random) -> None:
    """Put values of other types into most fields of a state, at every depth."""
    for kind in list(state["checks"]):
        check = state["checks"][kind]
        for holder in (check, check["window"]):
            for key in rng.sample(list(holder), len(holder) // 2):
                holder[key] = rng.choice(GARBAGE)
        check["state"] = rng.choice(GARBAGE[:5])
    state["zone"], state["skipped"], state["neighbourhood"] = rng.choice(GARBAGE), rng.choice(GARBAGE), "?"
    state["checks"]["\x1b[31mhostile\n"] = {"state": "ok"}


def judge_all(cases: Iterator[Case], score: Score, show: bool = False) -> Score:
    """Judge cases and count what came of them."""
    for case in cases:
        said = verdicts_of(diagnose(case.bundle))
        score.add(case, said)
        if show and said != case.expected:
            print(case.name, case.seed, "MISSED", case.expected - said, "FALSE", said - case.expected)  # noqa: T201
    return score
