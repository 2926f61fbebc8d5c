"""What is judged after the setting apart: the evidence, indexed, and how often requests fail by chance. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

from checks.diagnosis.evidence import Agent, Evidence, Failure, Silent
from checks.diagnosis.states import (
    API_SERVER_DNS,
    API_TYPES,
    DNS,
    ME_INGRESS,
    ME_SERVICE,
    REQUEST,
    RESPONSE,
    TIMEOUT,
    TLS,
)

# Requests that fail by chance: never assumed to be fewer or more than this.
LEAST_NOISE = 0.002
MOST_NOISE = 0.02
# A window with no more failures than this may be chance.
FEW_FAILURES = 2
# Names of the cluster itself: where these do not resolve, name resolution is broken.
CLUSTER_NAMES = (API_SERVER_DNS, ME_SERVICE)
# So many small answers that came make a path one on which only the large ones are lost.
ENOUGH_SMALL = 6


@dataclass(slots=True)
class Scene:
    """The evidence of all agents that can be believed.

    ``reporting`` are their nodes, ``apart`` the nodes under maintenance and ``starved`` those of starved agents.
    ``alive`` are nodes whose agent answered the collector in any way. ``noise`` is the share of requests that fail by
    chance. ``set_apart`` are failures that maintenance or a starved agent explains.
    """

    evidence: Evidence
    reporting: list[str]
    agents: list[Agent]
    apart: frozenset[str]
    starved: frozenset[str]
    alive: frozenset[str]
    silent: dict[str, Silent]
    failures: list[Failure]
    set_apart: list[Failure]
    noise: float = LEAST_NOISE
    totals: dict[str, float] = field(default_factory=dict)
    resolved_totals: dict[str, float] = field(default_factory=dict)
    named_kinds: frozenset[str] = frozenset()
    routing_works: frozenset[str] = frozenset()
    small_pass: frozenset[tuple[str, str]] = frozenset()
    narrow_pairs: frozenset[frozenset[str]] = frozenset()
    lone_names: frozenset[tuple[str, str]] = frozenset()

    @property
    def departing(self) -> frozenset[str]:
        """The nodes whose agent goes or is gone; one that is only cordoned goes on answering."""
        evidence = self.evidence
        leaving = evidence.deleted | {node for _, node in evidence.leaving}
        return frozenset(node for node in self.apart if node in leaving or node not in self.alive)

    @property
    def backends(self) -> int:
        """How many agents stand behind the Service, at least 1."""
        return max(1, len(self.evidence.known_nodes))

    def passed(self, kind: str, node: str = "") -> float:
        """Return how many requests of a type succeeded, of one node or of all."""
        if not node:
            return self.totals.get(kind, 0.0)
        passed = self.evidence.passed
        return passed.own.get(node, {}).get(kind, 0.0) + passed.by_address.get(node, {}).get(kind, 0.0)

    def resolved(self, kind: str, node: str = "") -> float:
        """Return how many requests of a type got their name resolved, of one node or of all."""
        if not node:
            return self.resolved_totals.get(kind, 0.0)
        return self.evidence.passed.resolved.get(node, {}).get(kind, 0.0)


def index(scene: Scene) -> Scene:
    """Fill in what follows from the evidence."""
    _sum_paths(scene)
    passed = scene.evidence.passed
    totals: dict[str, float] = defaultdict(float)
    resolved: dict[str, float] = defaultdict(float)
    for counts in (passed.own, passed.by_address):
        for by_kind in counts.values():
            for kind, count in by_kind.items():
                totals[kind] += count
    for by_kind in passed.resolved.values():
        for kind, count in by_kind.items():
            resolved[kind] += count
    scene.totals, scene.resolved_totals = dict(totals), dict(resolved)
    unresolved = {each.kind for each in scene.failures if each.phase == DNS}
    scene.named_kinds = frozenset(unresolved | {API_SERVER_DNS, ME_SERVICE, ME_INGRESS})
    scene.routing_works = frozenset(
        node for node, by_kind in passed.by_address.items() if by_kind.get(ME_SERVICE) or by_kind.get(API_SERVER_DNS)
    )
    scene.noise = _noise(scene)
    scene.small_pass = _small_pass(scene)
    scene.lone_names = _lone_names(scene)
    scene.narrow_pairs = frozenset(
        frozenset((each.node, each.target)) for each in scene.failures if each.witnesses and large_only(each, scene)
    )
    return scene


def large_only(failure: Failure, scene: Scene) -> bool:
    """Tell whether a failed path carries small answers and loses the large ones."""
    if not failure.is_path or failure.phase not in (TLS, REQUEST, RESPONSE):
        return False
    small = [each.ok for each in failure.witnesses if each.kind == "small"]
    large = [each.ok for each in failure.witnesses if each.kind == "large"]
    if large:
        return not large[-1] and (small[-1] if small else True)
    if frozenset((failure.node, failure.target)) in scene.narrow_pairs:
        return True
    return failure.explored and failure.manner == TIMEOUT and (failure.node, failure.target) in scene.small_pass


def _sum_paths(scene: Scene) -> None:
    passed, zones = scene.evidence.passed, scene.evidence.zones
    for (node, target), count in passed.pairs.items():
        passed.into[target] += count
        passed.out_of[node] += count
        here, there = zones.get(node, ""), zones.get(target, "")
        if here != there and here and there:
            passed.between[(here, there) if here < there else (there, here)] += count


def _noise(scene: Scene) -> float:
    """Estimate how often requests fail by chance: the median of the families, so that few faults do not move it."""
    failed: dict[str, float] = defaultdict(float)
    for each in scene.failures:
        if each.failed <= FEW_FAILURES and not each.derived and not each.explored:
            failed["path" if each.is_path else each.kind] += each.failed
    made = {**scene.totals, "path": sum(scene.evidence.passed.pairs.values())}
    rates = [failed[family] / count for family, count in made.items() if count > 0]
    return min(MOST_NOISE, max(LEAST_NOISE, statistics.median(rates) if rates else 0.0))


def _lone_names(scene: Scene) -> frozenset[tuple[str, str]]:
    """Return node and type where one name alone does not resolve: the name's trouble, not that of name resolution."""
    unresolved: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for each in scene.failures:
        if each.phase == DNS:
            unresolved[each.node][each.kind] += each.failed
    found = set()
    for node, kinds in unresolved.items():
        often = [kind for kind, count in kinds.items() if count > FEW_FAILURES]
        resolved = [kind for kind in scene.named_kinds if scene.resolved(kind, node) >= ENOUGH_SMALL]
        if len(often) == 1 and often[0] not in CLUSTER_NAMES and len(set(resolved) - set(often)) > 1:
            found.add((node, often[0]))
    return frozenset(found)


def _small_pass(scene: Scene) -> frozenset[tuple[str, str]]:
    explored = {(each.node, each.target) for each in scene.failures if each.explored}
    failing = {
        (each.node, each.target)
        for each in scene.failures
        if each.is_path and not each.explored and each.failed > FEW_FAILURES
    }
    pairs = scene.evidence.passed.pairs
    return frozenset(pair for pair in explored - failing if pairs.get(pair, 0.0) >= ENOUGH_SMALL)


def is_api(kind: str) -> bool:
    """Tell whether a check asks the API server."""
    return kind in API_TYPES
