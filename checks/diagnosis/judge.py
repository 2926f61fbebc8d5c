"""From a bundle to verdicts: the stages in their order, and what they find joined to one list of causes. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from checks.diagnosis.apart import discovery_fails
from checks.diagnosis.causes import Cause, at
from checks.diagnosis.certificates import Ending, find_ending
from checks.diagnosis.evidence import Failure
from checks.diagnosis.merge import tidy
from checks.diagnosis.scene import Scene
from checks.diagnosis.slow import Late, find_slow
from checks.diagnosis.solve import Chosen, solve
from checks.diagnosis.states import REFUSED, SKIPPED

# Nearly all: so many of the agents cannot learn of their neighbours that the reason is not theirs.
NEARLY_ALL = 0.8


@dataclass(slots=True)
class Findings:
    """All that was found. ``maintenance`` counts failures due to it by node, ``starved`` those by starved node."""

    chosen: list[Chosen]
    late: list[Late]
    ending: list[Ending]
    discovery: list[tuple[Cause, list[str], str]]
    maintenance: Counter[str] = field(default_factory=Counter)
    starved: Counter[str] = field(default_factory=Counter)
    unexplained: list[Failure] = field(default_factory=list)


def judge(scene: Scene) -> Findings:
    """Judge a scene."""
    solution = solve(scene)
    chosen = tidy(solution.chosen)
    broken = {(each.cause.name, each.cause.node) for each in chosen}
    cut_off = {each.cause.node for each in chosen if each.cause.name in ("isolated", "service_routing", "mtu")} - {""}
    failing = broken | {(name, node) for node in cut_off for name in ("dns", "api_server")}
    of = {dict(each.cause.where).get("of") for each in chosen if each.cause.name == "certificate"}
    findings = Findings(
        chosen=chosen,
        late=find_slow(scene, frozenset(failing)),
        ending=[each for each in find_ending(scene) if dict(each.cause.where)["of"] not in of],
        discovery=_discovery(scene, frozenset(broken), cut_off, api_certificate="api_server" in of),
        unexplained=solution.unexplained,
    )
    _count_set_apart(scene, findings)
    return findings


def _discovery(
    scene: Scene, broken: frozenset[tuple[str, str]], cut_off: set[str], *, api_certificate: bool
) -> list[tuple[Cause, list[str], str]]:
    """Return where agents do not learn of their neighbours although they reach the API server."""
    if api_certificate or broken & {("api_server", ""), ("service_routing", "")}:
        return []
    judged = [
        agent
        for agent in scene.agents
        if agent.discovery not in ("", SKIPPED)
        and ("api_server", agent.node) not in broken
        and agent.node not in cut_off
    ]
    failing = {agent.node: agent.discovery for agent in judged if discovery_fails(agent, scene)}
    nodes = {agent.node for agent in judged}
    if len(failing) > 1 and len(failing) >= NEARLY_ALL * len(nodes):
        words = Counter(failing.values()).most_common(1)[0][0]
        return [(at("discovery"), sorted(failing), words)]
    return [(at("discovery", node=node), [node], words) for node, words in sorted(failing.items())]


def _count_set_apart(scene: Scene, findings: Findings) -> None:
    for node in scene.apart:
        findings.maintenance[node] = 0
    for node in scene.starved - scene.apart:
        findings.starved[node] = 0
    for each in scene.set_apart:
        if each.target in scene.apart or each.node in scene.apart:
            findings.maintenance[each.target if each.target in scene.apart else each.node] += int(each.failed)
        else:
            findings.starved[each.target] += int(each.failed)


def died(chosen: Chosen, scene: Scene) -> tuple[str, list[str]]:
    """Return whether the node or only its agent is dead, from the manner of the failures, and what else it may be."""
    answered = failed = 0.0
    lives: list[bool] = []
    for each in chosen.failures:
        if not each.is_path:
            continue
        failed += each.failed
        if each.manner == REFUSED or each.phase != "connect":
            answered += each.failed
        lives.extend(witness.ok for witness in each.witnesses if witness.kind == "node")
    silent = scene.silent.get(chosen.cause.node)
    if silent is not None and silent.manner == REFUSED:
        answered += 1
        failed += 1
    if 2 * answered > failed:
        return "agent", []
    if lives and 2 * sum(lives) > len(lives):
        return "agent", ["isolated"]
    return "node", []
