"""Components: a cause, the failures that it can explain, and how much better it explains them than chance. Pure.

The gain is an exact log-likelihood ratio, as in Flock (Harsh et al., CoNEXT 2023): for each request that failed
ln(rate / noise), for each that succeeded ln((1 - rate) / (1 - noise)), and a prior that grows with the number of
causes of the same kind, so that a large cluster has no more false verdicts than a small one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import log

from checks.diagnosis.causes import GONE, Cause, at, path
from checks.diagnosis.evidence import Failure
from checks.diagnosis.scene import Scene, large_only
from checks.diagnosis.states import API_TYPES, BUILT_IN_TYPES, DNS, ME_INGRESS, ME_SERVICE, is_backend_failure

NEVER = float("-inf")
HIGHEST_RATE = 0.95
# A request that the collector itself sent to an agent that stayed silent counts like this many failed ones.
SILENCE = 2.0
# At least this share of the requests fails in the first pass: of one place, and of what all agents share.
STRONG = 0.6
SHARED = 0.04
# Broken routing makes at least this share fail, of the API server's checks as well as of the Service's.
ROUTING = 0.4
WEAK = 0.25

# A node is the cause when no single pair or target makes up more of the failures than this.
MOST_OF_ONE = 0.8

_GLOBAL_PRIOR = 6.0
_NODE_PRIOR = 8.0
_PAIR_PRIOR = 9.0
# What comes and goes is believed later than what is broken.
_PARTIAL_PRIOR = 6.0
# That large packets are lost is believed later when no witness has tried both sizes.
_UNPROVEN_PRIOR = 8.0
# Of two causes that explain the same, the one with less here is named.
_PREFERENCE = {
    "dns": 0.0,
    "mtu": 0.05,
    "api_server": 0.1,
    "ingress": 0.1,
    "extra": 0.1,
    "service_backends": 0.15,
    GONE: 0.2,
    "agent": 0.25,
    "isolated": 0.3,
    "service_routing": 0.5,
    "path": 0.6,
    "zones": 1.0,
}


@dataclass(slots=True, eq=False)
class Component:
    """A cause with the failures that it can explain.

    ``primary`` failures are of the scope whose successes speak against the cause; ``secondary`` ones come with it.
    """

    cause: Cause
    primary: list[Failure] = field(default_factory=list)
    secondary: list[Failure] = field(default_factory=list)
    gain: float = NEVER
    rate: float = 0.0

    @property
    def failures(self) -> list[Failure]:
        """All failures of the component."""
        return self.primary + self.secondary


class Expected:
    """How often a request to the Service or the ingress fails because of what was found already, by node.

    A request to one of N backends meets a dead one with a probability of 1/N for each of those.
    """

    def __init__(self, scene: Scene) -> None:
        self._backends = scene.backends
        self._agents = max(1, len(scene.reporting))
        self._everywhere = len(scene.departing | scene.starved) / self._backends
        self._at: dict[str, float] = defaultdict(float)
        # What was not reached a moment ago made requests to the Service fail then.
        tested = Counter(node for node, _ in scene.evidence.passed.pairs)
        ended = Counter(node for node, _, target in scene.evidence.ended if target)
        for node, count in ended.items():
            self._at[node] += count / max(count, tested[node])

    def add_dead(self, nodes: Iterable[str]) -> None:
        """Count backends that nobody reaches."""
        self._everywhere += len(set(nodes)) / self._backends

    def add_unreachable(self, counts: Iterable[tuple[str, int]]) -> None:
        """Count backends that some nodes do not reach, by node."""
        for node, count in counts:
            self._at[node] += count / self._backends

    def share(self, kind: str, node: str = "") -> float:
        """Return the expected share of failures, 0 for what is not behind the Service."""
        if kind not in (ME_SERVICE, ME_INGRESS):
            return 0.0
        at_node = self._at.get(node, 0.0) if node else sum(self._at.values()) / self._agents
        return min(0.9, self._everywhere + at_node)


def prior(cause: Cause, scene: Scene) -> float:
    """Return what a cause has to gain before it is believed."""
    keys = {key for key, _ in cause.where}
    found = _GLOBAL_PRIOR
    if "node" in keys:
        found = _NODE_PRIOR + log(max(2, len(scene.evidence.known_nodes)))
    elif "from" in keys:
        found = _PAIR_PRIOR + log(max(2, len(scene.evidence.passed.pairs)))
    return found + _PREFERENCE.get(cause.name, 0.0)


def measure(component: Component, scene: Scene, expected: Expected, least_rate: float = 0.0) -> float:
    """Return a component's gain, NEVER when it cannot be the cause; note it and the rate in the component."""
    component.gain = NEVER
    failed = sum(each.failed for each in component.primary)
    if failed and component.cause.name == GONE and component.cause.node in scene.silent:
        failed += SILENCE
    if not failed or not _is_plausible(component, scene):
        return NEVER
    passed = _passed_beside(component, scene)
    rate = min(HIGHEST_RATE, failed / (failed + passed))
    noise = scene.noise + _expected_in_scope(component, expected)
    if rate < least_rate or rate < 1.5 * noise:
        return NEVER
    gain = passed * log((1.0 - rate) / (1.0 - noise)) - prior(component.cause, scene)
    if rate < STRONG:
        gain -= _PARTIAL_PRIOR
    if component.cause.name == "mtu" and not any(_tried_sizes(each) for each in component.primary):
        gain -= _UNPROVEN_PRIOR
    gain += sum(_gain_of(each, rate, scene, expected) for each in component.primary)
    gain += max(0.0, failed - sum(each.failed for each in component.primary)) * log(rate / noise)
    if gain > 0 and (rate >= STRONG or component.cause.name != "isolated"):
        for each in component.secondary:
            gain += max(0.0, _gain_of(each, max(rate, 0.5), scene, expected))
    component.gain, component.rate = gain, rate
    return gain


def _tried_sizes(failure: Failure) -> bool:
    return not failure.is_path or any(each.kind == "large" for each in failure.witnesses)


def _gain_of(failure: Failure, rate: float, scene: Scene, expected: Expected) -> float:
    noise = scene.noise + (expected.share(failure.kind, failure.node) if _is_backends(failure) else 0.0)
    return failure.failed * log(rate / min(0.95, noise))


def _is_backends(failure: Failure) -> bool:
    """Tell whether a dead backend explains a failure; a refused connection to the ingress itself is another matter."""
    return failure.kind == ME_SERVICE or is_backend_failure(failure.state, failure.phase)


def _expected_in_scope(component: Component, expected: Expected) -> float:
    cause = component.cause
    if cause.name == "service_backends":
        return expected.share(ME_SERVICE)
    if cause.name == "ingress" and all(_is_backends(each) for each in component.primary):
        return expected.share(ME_INGRESS, cause.node)
    return 0.0


def _passed_beside(component: Component, scene: Scene) -> float:
    """Return what speaks against a component. One of the API server's addresses alone may be broken."""
    cause = component.cause
    if cause.name == "api_server":
        return sum(scene.passed(kind, cause.node) for kind in {each.kind for each in component.primary})
    return passed_in_scope(cause, scene)


def passed_in_scope(cause: Cause, scene: Scene) -> float:
    """Return how many requests succeeded that the cause would have made fail."""
    name, where, node = cause.name, dict(cause.where), cause.node
    passed = scene.evidence.passed
    if name == "dns":
        if "server" in where:
            return 0.0
        return sum(scene.resolved(kind, node) for kind in scene.named_kinds)
    if name == "api_server":
        return sum(scene.passed(kind, node) for kind in API_TYPES)
    if name == "service_routing":
        return sum(scene.passed(kind, node) for kind in (*API_TYPES, ME_SERVICE))
    if name in ("service_backends", "ingress", "extra"):
        kind = {"service_backends": ME_SERVICE, "ingress": ME_INGRESS}.get(name) or where["check"]
        return scene.passed(kind, node)
    if name == "zones":
        return passed.between.get((where["zone"], where["zone_to"]), 0.0)
    if name == "path":
        return passed.pairs.get((where["from"], where["to"]), 0.0)
    if name == "isolated" and where["direction"] == "out":
        return passed.out_of.get(node, 0.0)
    if name in (GONE, "agent", "isolated"):
        return passed.into.get(node, 0.0)
    return 0.0


def is_primary(cause: Cause, failure: Failure, scene: Scene) -> bool:
    """Tell whether successes of the same scope would speak against the cause that explains the failure."""
    if cause.name == "service_backends":
        return failure.kind == ME_SERVICE
    if cause.name == "service_routing":
        return failure.phase == DNS or failure.kind in (*API_TYPES, ME_SERVICE)
    if cause.name == "isolated":
        return failure.is_path
    if cause.name == "mtu":
        return not failure.is_path or large_only(failure, scene)
    return True


def narrower(component: Component) -> Mapping[Cause, Component]:
    """Return the narrower causes that together explain what a component explains."""
    name = component.cause.name
    parts: dict[Cause, Component] = {}
    if name in ("certificate", "mtu", "path") or (component.cause.node and name not in (GONE, "agent", "isolated")):
        return {}
    if any(key == "server" for key, _ in component.cause.where):
        return {}
    for each in component.primary:
        if each.is_path:
            cause = path(each.node, each.target)
        elif name in ("dns", "api_server", "service_routing", "ingress"):
            cause = at(name, node=each.node)
        else:
            cause = Cause(name, (*component.cause.where, ("node", each.node)))
        part = parts.setdefault(cause, Component(cause))
        part.primary.append(each)
    return parts


def _is_plausible(component: Component, scene: Scene) -> bool:
    """Tell whether a cause can be named at all, by what kinds and how many places fail."""
    name, failures = component.cause.name, component.primary
    nodes = {each.node for each in failures}
    kinds = {each.kind for each in failures}
    several = len(nodes) > 1
    if name == "dns":
        cluster_name = kinds <= {"api_server_dns"} or (component.cause.node and kinds <= {"api_server_dns", ME_SERVICE})
        return (several or bool(component.cause.where)) and (len(kinds) > 1 or bool(cluster_name))
    if name == "service_routing":
        connecting = {each.kind for each in failures if each.phase != DNS}
        resolving = any(each.phase == DNS for each in failures)
        enough = ME_SERVICE in connecting or (bool(connecting) and (resolving or _not_checked(ME_SERVICE, scene)))
        return enough and (several or bool(component.cause.where)) and _service_and_api_fail(component, scene)
    if name in ("api_server", "ingress"):
        return several or bool(component.cause.where)
    if name in ("service_backends", "extra"):
        return several or len(scene.reporting) == 1 or bool(component.cause.node)
    if name == "zones":
        return len({frozenset((each.node, each.target)) for each in failures}) > 1
    if name == "isolated":
        return _is_cut_off(component, scene)
    if name == "agent":
        return several
    if name == GONE:
        return several or component.cause.node in scene.silent
    if name == "mtu":
        return _is_narrow(component)
    return True


def _service_and_api_fail(component: Component, scene: Scene) -> bool:
    """Tell whether all that goes by cluster IP fails, or on one node the Service alone."""
    node = component.cause.node
    rates = []
    for kinds in (API_TYPES, (ME_SERVICE,)):
        failed = sum(each.failed for each in component.primary if each.kind in kinds)
        passed = sum(scene.passed(kind, node) for kind in kinds)
        if failed + passed:
            rates.append(failed / (failed + passed))
    if node and len(rates) > 1 and not rates[0]:
        return True
    return all(rate >= ROUTING for rate in rates)


def _not_checked(kind: str, scene: Scene) -> bool:
    return not scene.totals.get(kind) and not any(each.kind == kind for each in scene.failures)


def _is_cut_off(component: Component, scene: Scene) -> bool:
    if dict(component.cause.where)["direction"] == "in":
        return len({each.node for each in component.primary}) > 1
    targets = {each.target for each in component.primary}
    own = {each.kind for each in component.secondary}
    alone = not scene.evidence.passed.out_of.get(component.cause.node)
    return len(targets) > 1 or (len(targets) == 1 and len(own) > 1 and alone)


def _is_narrow(component: Component) -> bool:
    """Tell whether large answers are lost at a node, which more than one pair or more than one target shows."""
    if not component.cause.node:
        return True
    parts: dict[object, float] = defaultdict(float)
    for each in component.primary:
        parts[frozenset((each.node, each.target)) if each.is_path else each.kind] += each.failed
    return len(parts) > 1 and max(parts.values()) <= MOST_OF_ONE * sum(parts.values())


def is_extra(kind: str) -> bool:
    """Tell whether a type is an extra check's name."""
    return kind not in BUILT_IN_TYPES
