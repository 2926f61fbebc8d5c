"""The document of /diagnosis. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from checks.diagnosis.apart import read
from checks.diagnosis.judge import Findings, judge
from checks.diagnosis.scene import Scene
from checks.diagnosis.verdicts import Document, write
from checks.diagnosis.words import count, some

MOST_UNEXPLAINED = 100
MOST_UNKNOWN = 20


def diagnose(bundle: Mapping[str, Any]) -> dict[str, Any]:
    """Judge a bundle and return the /diagnosis document. Whatever the bundle holds, this does not raise."""
    scene = read(bundle if isinstance(bundle, dict) else {})
    findings = judge(scene)
    verdicts = write(findings, scene)
    unexplained = [
        {"node": each.node, "type": each.kind, "state": each.state}
        for each in sorted(findings.unexplained, key=lambda each: (each.node, each.kind, each.state))
    ]
    healthy = bool(scene.evidence.agents) and not unexplained and all(each["severity"] == "info" for each in verdicts)
    answered = len(scene.evidence.agents)
    return {
        "healthy": healthy,
        "sentence": _sentence(verdicts, unexplained, scene),
        "collected_at": scene.evidence.collected_at,
        "agents": {"asked": answered + len(scene.evidence.silent), "answered": answered},
        "verdicts": verdicts,
        "unexplained": unexplained[:MOST_UNEXPLAINED],
        "unknown": list(_unknown(findings, scene))[:MOST_UNKNOWN],
    }


def diagnose_one(state: Mapping[str, Any]) -> dict[str, Any]:
    """Judge one agent's own state. What only other agents can tell stands in ``unknown``."""
    sampled_at = state.get("sampled_at") if isinstance(state, dict) else None
    document = diagnose({"kubenurse_bundle": 1, "collected_at": sampled_at, "states": [state]})
    document["unknown"].insert(0, "Only this agent was asked: it cannot be told what other nodes see.")
    return document


def _sentence(verdicts: list[Document], unexplained: list[Document], scene: Scene) -> str:
    if not scene.evidence.agents:
        return "No agent answered: nothing can be judged."
    faults = [each for each in verdicts if each["severity"] != "info"]
    if faults:
        rest = f" {count(len(faults) - 1, 'more cause')} found." if len(faults) > 1 else ""
        return str(faults[0]["sentence"]) + rest
    if unexplained:
        nodes = sorted({each["node"] for each in unexplained})
        return f"{count(len(unexplained), 'check')} on {some(nodes)} fail for a reason that is not known."
    if verdicts:
        nodes = sorted(each["where"]["node"] for each in verdicts)
        return f"All is well; {some(nodes)} {'is' if len(nodes) == 1 else 'are'} under maintenance."
    return f"All is well: {count(len(scene.evidence.agents), 'agent')} answered."


def _unknown(findings: Findings, scene: Scene) -> Iterator[str]:
    yield from scene.evidence.notes
    causes = {(each.cause.name, each.cause.where) for each in findings.chosen}
    if ("dns", ()) in causes:
        yield "The API server by name cannot be judged while DNS is down everywhere."
        yield "The ingress and extra checks by name cannot be judged while DNS is down everywhere."
    for name, where in sorted(causes):
        place = dict(where)
        if name == "dns" and "node" in place:
            yield f"What goes by name cannot be judged from {place['node']} while DNS is down there."
        if name == "service_routing":
            yield f"DNS cannot be judged {'on ' + place['node'] if place else 'at all'} while cluster IPs do not work."
        if name == "isolated" and place["direction"] != "in":
            yield f"The other checks of {place['node']} cannot be judged while it is cut off."
    judged = {each.cause.node for each in findings.chosen}
    reached = {target for _, target in scene.evidence.passed.pairs}
    unheard = sorted(node for node in scene.silent if node not in judged and node not in scene.apart)
    if unheard:
        known = [node for node in unheard if node in reached]
        yield f"No state came from {some(unheard)}; {count(len(known), 'of them is', 'of them are')} reached by others."
    yield from scene.evidence.strangers[:3]
