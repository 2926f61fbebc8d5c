"""Verdicts: the documents that say what was found. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import exp
from typing import Any

from checks.diagnosis.causes import GONE, Cause
from checks.diagnosis.certificates import Ending
from checks.diagnosis.evidence import Failure
from checks.diagnosis.judge import Findings, died
from checks.diagnosis.scene import Scene
from checks.diagnosis.slow import Late
from checks.diagnosis.solve import Chosen
from checks.diagnosis.words import count, describe, seconds, severity, some

Document = dict[str, Any]
MOST_EVIDENCE = 6


def write(findings: Findings, scene: Scene) -> list[Document]:
    """Return the verdicts, the gravest first."""
    verdicts = [_broken(each, scene) for each in findings.chosen]
    verdicts.extend(_late(each) for each in findings.late)
    verdicts.extend(_ending(each) for each in findings.ending)
    verdicts.extend(_undiscovered(*each, agents=len(scene.agents)) for each in findings.discovery)
    verdicts.extend(_starved(node, failed, scene) for node, failed in sorted(findings.starved.items()))
    verdicts.extend(_maintenance(node, failed, scene) for node, failed in sorted(findings.maintenance.items()))
    order = {"critical": 0, "warning": 1, "info": 2}
    return sorted(verdicts, key=lambda each: (order[each["severity"]], -each["explains"]["failed"]))


def where_of(cause: Cause) -> dict[str, Any]:
    """Return the place of a cause as a verdict holds it."""
    return {key: True if key == "both" else value for key, value in cause.where}


def _verdict(cause: str, where: dict[str, Any], **fields: Any) -> Document:
    sentence, following = describe(cause, where)
    document = {
        "cause": cause,
        "where": where,
        "severity": severity(cause),
        "detail": "",
        "sentence": sentence,
        "evidence": [],
        "confidence": 0.9,
        "since": None,
        "explains": {"failed": 0, "of": 0},
        "or": [],
        "next": following,
    }
    return {**document, **fields}


def _broken(chosen: Chosen, scene: Scene) -> Document:
    cause, alternatives = chosen.cause, list(chosen.alternatives)
    name = cause.name
    others: list[Document] = []
    if name == GONE:
        name, also = died(chosen, scene)
        if also:
            others.append({"cause": "isolated", "where": {"node": cause.node, "direction": "in"}})
    others.extend({"cause": each.name, "where": where_of(each)} for each in alternatives if each.name != GONE)
    failed = sum(each.failed for each in chosen.failures)
    began = [each.began for each in chosen.failures if each.began is not None]
    document = _verdict(
        name,
        where_of(cause),
        detail=_detail(chosen.failures),
        evidence=list(_evidence(chosen, scene))[:MOST_EVIDENCE],
        confidence=_confidence(chosen),
        since=min(began, default=None),
        explains={"failed": round(failed), "of": round(failed + chosen.passed)},
        **{"or": others},
    )
    if name == "certificate":
        document["sentence"] = _certificate_sentence(document)
    return document


def _certificate_sentence(document: Document) -> str:
    return f"The certificate of {document['where']['of']} is not accepted: {document['detail']}."


def _confidence(chosen: Chosen) -> float:
    """Return a probability: of the cause against chance and against the next best cause."""
    nearest = min(chosen.gain, chosen.margin) if chosen.alternatives else chosen.gain
    return round(max(0.5, min(0.99, 1.0 / (1.0 + exp(-min(50.0, nearest / 2.0))))), 2)


def _detail(failures: list[Failure]) -> str:
    states: Counter[str] = Counter()
    for each in failures:
        states[each.state] += max(1, round(each.failed))
    return states.most_common(1)[0][0] if states else ""


def _evidence(chosen: Chosen, scene: Scene) -> Iterator[str]:
    failures = chosen.failures
    if "again" in chosen.facts:
        yield f"{count(chosen.facts['again'], 'segment was', 'segments were')} sent again by requests that succeeded."
    by_kind: dict[str, list[Failure]] = {}
    for each in failures:
        by_kind.setdefault("path" if each.is_path else each.kind, []).append(each)
    for kind, group in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        yield _group_sentence(kind, group, scene)
    yield from _witness_sentences(failures)
    silent = scene.silent.get(chosen.cause.node)
    if silent is not None:
        yield f"Its agent gave the collector no state: {silent.why}."


def _group_sentence(kind: str, group: list[Failure], scene: Scene) -> str:
    failed = sum(each.failed for each in group)
    nodes = sorted({each.node for each in group})
    what = f"{count(failed, 'failure')}: {_detail(group)}"
    if kind == "path":
        targets = sorted({each.target for each in group})
        if len(targets) == 1:
            testers = {node for node, target in scene.evidence.passed.pairs if target == targets[0]} | set(nodes)
            return f"{len(nodes)} of {count(len(testers), 'tester')} of {targets[0]} fail ({what})."
        if len(nodes) == 1:
            tested = {target for node, target in scene.evidence.passed.pairs if node == nodes[0]} | set(targets)
            return f"{nodes[0]} fails to reach {len(targets)} of {count(len(tested), 'neighbour')} ({what})."
        pairs = {(each.node, each.target) for each in group}
        return f"{count(len(pairs), 'pair')} of nodes fail ({what})."
    of = f"{len(nodes)} of {count(len(scene.reporting), 'agent')}"
    return f"{kind} fails on {some(nodes)}, {of} ({what})."


def _witness_sentences(failures: list[Failure]) -> Iterator[str]:
    tally: dict[tuple[str, str], list[bool]] = {}
    for each in failures:
        for witness in each.witnesses:
            tally.setdefault((witness.kind, witness.target), []).append(witness.ok)
    for (kind, target), found in sorted(tally.items(), key=lambda item: -len(item[1]))[:3]:
        label = _WITNESSES.get(kind, kind)
        yield f"{label} {target}: ok in {sum(found)} of {count(len(found), 'test')}."


_WITNESSES = {
    "dns_udp": "Name server asked by UDP,",
    "dns_tcp": "Name server asked by TCP,",
    "last_address": "Request to the last known address",
    "again": "Second attempt at",
    "other_address": "Request to the other address",
    "node": "Connection to the node's own address, node",
    "hop": "Last hop that answers on the way to",
    "node_object": "Node object of",
    "small": "Small answer from",
    "large": "Large answer from",
}


def _late(late: Late) -> Document:
    where = where_of(late.cause)
    evidence = [f"{count(late.nodes, 'agent')} of {late.judged} wait {seconds(late.seconds)} (median)."]
    detail = f"median {seconds(late.seconds)}"
    return _verdict(late.cause.name, where, detail=detail, evidence=evidence, confidence=0.8)


def _ending(ending: Ending) -> Document:
    of = dict(ending.cause.where)["of"]
    when = f"ends in {seconds(ending.left)}" if ending.left > 0 else "has ended, and is not verified"
    return _verdict(
        "certificate",
        {"of": of},
        severity=severity("certificate", only_soon=True),
        detail=f"the certificate {when}",
        sentence=f"The certificate of {of} {when}.",
        evidence=[f"{len(ending.nodes)} of {count(ending.seen_by, 'agent')} saw it: {some(list(ending.nodes))}."],
    )


def _undiscovered(cause: Cause, nodes: list[str], words: str, *, agents: int) -> Document:
    evidence = [f"{len(nodes)} of {count(agents, 'agent')} say so: {some(nodes)}."]
    return _verdict("discovery", where_of(cause), detail=words, evidence=evidence)


def _starved(node: str, failed: int, scene: Scene) -> Document:
    late = max((agent.lateness for agent in scene.evidence.agents if agent.node == node), default=0.0)
    evidence = [f"Its own timers ran up to {seconds(late)} late.", "None of its checks are counted."]
    if failed:
        evidence.append(f"{count(failed, 'failure')} of others that wait for its answer are set aside.")
    return _verdict("starved", {"node": node}, evidence=evidence, explains={"failed": failed, "of": failed})


def _maintenance(node: str, failed: int, scene: Scene) -> Document:
    evidence = scene.evidence
    what = [
        words
        for words, found in (
            ("cordoned", node in evidence.cordoned),
            ("deleted", node in evidence.deleted),
            ("being left by its agent", any(node == each for _, each in evidence.leaving)),
        )
        if found
    ]
    state = " and ".join(what)
    verdict = _verdict("maintenance", {"node": node}, detail=state, explains={"failed": failed, "of": failed})
    verdict["sentence"] = f"Node {node} is {state}: what fails because of it is no fault."
    verdict["evidence"] = [f"{count(failed, 'failure')} of checks from or to it are set apart."]
    return verdict
