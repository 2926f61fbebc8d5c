"""The search for the causes: a greedy cover of the failures, in stages. Pure.

Take the cause with the largest gain, remove the failures that it explains, and go on until no cause gains anything
(SCORE, Kompella et al., NSDI 2005). Strong causes come first, since they hide weak ones (Canary): what fails always,
then segments that are lost, then what comes and goes. A cause at a wide scope is taken only where its parts, each at
the price of its own prior, do not explain the same failures better.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import log, sqrt

from checks.diagnosis.causes import GONE, Cause, at, explanations, isolated, path
from checks.diagnosis.components import (
    SHARED,
    STRONG,
    WEAK,
    Component,
    Expected,
    is_primary,
    measure,
    narrower,
    passed_in_scope,
    prior,
)
from checks.diagnosis.endings import has_ended
from checks.diagnosis.evidence import Failure
from checks.diagnosis.loss import find_loss
from checks.diagnosis.scene import Scene
from checks.diagnosis.states import ME_INGRESS

# Gains that differ by less than this (a likelihood ratio of 20) are nearly equal.
NEARLY = 3.0
# An alternative explains at least this share of what the cause explains.
SAME = 0.9
# Failures with another state are chance when they are at most this share of a check's explained failures.
BESIDE = 0.35
# A single check that fails is told from chance by this gain, to which the number of checks adds.
_LONE_PRIOR = 9.0


@dataclass(slots=True, eq=False)
class Chosen:
    """A cause that was found, the failures that it explains, and the requests in its scope that succeeded."""

    cause: Cause
    failures: list[Failure]
    gain: float
    rate: float
    passed: float = 0.0
    margin: float = 0.0
    alternatives: list[Cause] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Solution:
    """The causes, the failures that none of them explains, and the share of failures expected at the Service."""

    chosen: list[Chosen]
    unexplained: list[Failure]
    expected: Expected


def solve(scene: Scene) -> Solution:
    """Find the causes of a scene's failures."""
    return _Search(scene).run()


class _Search:
    """The state of one search. ``left`` are the failures that nothing explains yet, by identity."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.expected = Expected(scene)
        self.left = {id(each): each for each in scene.failures}
        self.chosen: list[Chosen] = []
        self.components = _components(scene)
        self.paths = {each.cause: each for each in self.components if each.cause.name == "path"}
        self.lossy = self._lossy()

    def run(self) -> Solution:
        """Run the stages."""
        self._cover(STRONG)
        explained = [each for chosen in self.chosen for each in chosen.failures]
        narrow = {chosen.cause.node for chosen in self.chosen if chosen.cause.name == "mtu"}
        for found in find_loss(self.scene, explained, narrow | self.scene.starved | self.scene.apart):
            covered = [each for each in self.left.values() if found.covers(each)]
            self._take(Chosen(found.cause, covered, found.gain, 0.0, margin=found.gain, facts={"again": found.again}))
        self._cover(WEAK)
        return Solution(self.chosen, self._unexplained(), self.expected)

    def _cover(self, least: float) -> None:
        """Take causes until none gains anything. ``least`` is the smallest share of failures at one place."""
        candidates = [each for each in self.components if self._measure(each, least) > 0]
        while candidates:
            candidates.sort(key=lambda each: -each.gain)
            best = candidates.pop(0)
            if self._parts_are_better(best):
                continue
            if has_ended(best.primary):
                self._forget(best.failures)
            else:
                self._choose(best, candidates)
            candidates = [each for each in candidates if self._measure(each, least) > 0]

    def _measure(self, component: Component, least: float) -> float:
        left = self.left
        component.primary = [each for each in component.primary if id(each) in left]
        component.secondary = [each for each in component.secondary if id(each) in left]
        return measure(component, self.scene, self.expected, self._least_rate(component.cause, least))

    def _least_rate(self, cause: Cause, least: float) -> float:
        """Return the smallest share of failures: what many places share shows when little of it fails."""
        if cause.name in ("certificate", "mtu") or "server" in dict(cause.where):
            return 0.0
        if cause.name == "service_routing" and not cause.node:
            return STRONG
        if not cause.node and cause.name in ("dns", "api_server", "service_backends", "ingress", "extra"):
            return SHARED
        touched = {cause.node, *dict(cause.where).values()} & self.lossy
        return least if touched else WEAK

    def _lossy(self) -> set[str]:
        """Return the nodes at which packets seem to be lost, before anything is explained."""
        broken = [each for each in self.scene.failures if each.failed >= STRONG * (each.failed + each.ok)]
        found = find_loss(self.scene, broken, self.scene.starved | self.scene.apart)
        return {node for loss in found for cell in loss.cells for node in (cell[0], cell[2]) if node}

    def _parts_are_better(self, component: Component) -> bool:
        parts = narrower(component)
        if len(parts) < 2:
            return False
        total = sum(max(0.0, measure(part, self.scene, self.expected)) for part in parts.values())
        return total > component.gain

    def _choose(self, best: Component, others: list[Component]) -> None:
        self._take(self._chosen(best, others))
        if best.cause.name != "path":
            return
        # That a pair fails in one direction makes the other direction likely: it needs no prior of its own.
        back = self.paths.get(_reversed(best.cause))
        if back is not None and self._measure(back, WEAK) > -prior(back.cause, self.scene):
            self._take(self._chosen(back, []))

    def _chosen(self, best: Component, others: list[Component]) -> Chosen:
        failures = _explained(best, self.scene)
        found = Chosen(best.cause, failures, best.gain, best.rate, passed_in_scope(best.cause, self.scene))
        found.alternatives, found.margin = _alternatives(best, others)
        return found

    def _take(self, chosen: Chosen) -> None:
        self.chosen.append(chosen)
        self._forget(chosen.failures)
        self._forget(self._chance_beside(chosen.failures))
        name, node = chosen.cause.name, chosen.cause.node
        if name in (GONE, "agent") or chosen.cause == isolated(node, "in"):
            self.expected.add_dead([node])
        elif name == "zones":
            self.expected.add_unreachable(_cut_between(chosen.cause, self.scene))
        elif name == "path":
            self.expected.add_unreachable({(each.node, 1) for each in chosen.failures if each.is_path})
        elif name == "loss" and node:
            self.expected.add_dead([node])

    def _forget(self, failures: Iterable[Failure]) -> None:
        for each in failures:
            self.left.pop(id(each), None)

    def _chance_beside(self, failures: list[Failure]) -> list[Failure]:
        """Return single failures of checks that fail anyway, which are chance: nothing tells how often they are ok."""
        covered: dict[tuple[str, str, str], float] = defaultdict(float)
        for each in failures:
            covered[each.node, each.kind, each.target] += each.failed
        return [
            each
            for each in self.left.values()
            if not each.derived and each.failed <= BESIDE * covered.get((each.node, each.kind, each.target), 0.0)
        ]

    def _unexplained(self) -> list[Failure]:
        """Return the failures left that are neither chance nor what is expected of a Service with dead backends."""
        found = []
        cells = max(2, len(self.scene.evidence.passed.pairs) + len(self.scene.reporting))
        for each in self.left.values():
            noise = self.scene.noise + self.expected.share(each.kind, each.node)
            rate = min(0.95, each.failed / max(1.0, each.failed + each.ok))
            if rate <= noise or has_ended([each]) or each.derived:
                continue
            gain = each.failed * log(rate / noise) + each.ok * log((1 - rate) / (1 - noise))
            if gain > _LONE_PRIOR + log(cells):
                found.append(each)
        return found


def _cut_between(cause: Cause, scene: Scene) -> Iterator[tuple[str, int]]:
    """Return each node of two zones with the number of nodes in the other one."""
    first, second = dict(cause.where).values()
    sizes = Counter(scene.evidence.zones.values())
    for node, zone in scene.evidence.zones.items():
        if zone in (first, second):
            yield node, sizes[second if zone == first else first]


def _components(scene: Scene) -> list[Component]:
    found: dict[Cause, Component] = {}
    for failure in scene.failures:
        for cause in explanations(failure, scene):
            component = found.get(cause)
            if component is None:
                component = found[cause] = Component(cause)
            (component.primary if is_primary(cause, failure, scene) else component.secondary).append(failure)
    _keep_servers_apart(found)
    return list(found.values())


def _keep_servers_apart(found: dict[Cause, Component]) -> None:
    """Let a name server be the cause where witnesses of several nodes agree; one node alone has its own trouble."""
    servers = [each for cause, each in found.items() if cause.name == "dns" and dict(cause.where).get("server")]
    taken: set[int] = set()
    for component in servers:
        if len({each.node for each in component.primary}) < 2:
            del found[component.cause]
            continue
        taken |= {id(each) for each in component.primary}
    if taken:
        unseen = [each for each in found[at("dns")].primary if not _asked_servers(each)]
        taken |= {id(each) for each in unseen}
        for component in servers:
            component.primary.extend(unseen)
        for cause, component in found.items():
            if cause.name in ("dns", "service_routing") and "server" not in dict(cause.where):
                component.primary = [each for each in component.primary if id(each) not in taken]


def _asked_servers(failure: Failure) -> bool:
    return any(each.kind in ("dns_udp", "dns_tcp") for each in failure.witnesses)


def _reversed(cause: Cause) -> Cause:
    where = dict(cause.where)
    return path(where["to"], where["from"])


def _explained(component: Component, scene: Scene) -> list[Failure]:
    """Return the failures that a cause explains, without those of the ingress that its rate cannot explain."""
    if component.cause.name != "service_backends":
        return component.failures
    failed = sum(each.failed for each in component.secondary)
    made = failed + scene.passed(ME_INGRESS)
    if made and failed / made > 1.5 * component.rate + 0.1 + 2.0 / sqrt(made):
        return component.primary
    return component.failures


def _alternatives(best: Component, others: list[Component]) -> tuple[list[Cause], float]:
    """Return the causes that explain nearly the same nearly as well, and the distance to the next one."""
    mine = {id(each): each.failed for each in best.failures}
    total = sum(mine.values()) or 1.0
    found, margin = [], best.gain
    for other in others:
        if sum(mine.get(id(each), 0.0) for each in other.failures) < SAME * total:
            continue
        margin = min(margin, best.gain - other.gain)
        if other.gain >= best.gain - NEARLY:
            found.append(other.cause)
    return found[:3], max(0.0, margin)
