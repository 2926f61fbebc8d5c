"""Reading a bundle's outline: the agents, those that are silent, the nodes and what leaves. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from checks.diagnosis import fields
from checks.diagnosis.evidence import Agent, Evidence, Silent
from checks.diagnosis.states import manner_of, phase_of

# More agents than any cluster has: Kubernetes supports 5,000 nodes.
MOST_AGENTS = 20_000
MOST_NOTES = 20
DEFAULT_INTERVAL = 5.0
DEFAULT_TIMEOUT = 5.0
LONGEST_CYCLE = 3600.0


def read_outline(bundle: Mapping[str, Any]) -> tuple[Evidence, list[tuple[Agent, Mapping[str, Any]]]]:
    """Return the evidence without any check, and each agent that answered with its state."""
    evidence = Evidence(collected_at=_collected_at(bundle))
    found: dict[str, tuple[Agent, Mapping[str, Any]]] = {}
    for state in fields.entries(bundle.get("states"), MOST_AGENTS):
        agent = _agent(state)
        if agent is None:
            note(evidence, "A state without a usable Pod name or node name is left out.")
        elif agent.pod in found:
            note(evidence, f"A second state of {agent.pod} is left out.")
        else:
            found[agent.pod] = agent, state
    evidence.agents = [agent for agent, _ in found.values()]
    _read_nodes(bundle, evidence)
    evidence.silent = [each for each in _silent(bundle) if each.pod not in found]
    for entry in fields.entries(bundle.get("leaving"), MOST_AGENTS):
        facts = fields.mapping(entry)
        evidence.leaving.add((fields.name(facts.get("pod_name")), fields.name(facts.get("node_name"))))
    _complete(evidence)
    return evidence, list(found.values())


def note(evidence: Evidence, sentence: str) -> None:
    """Add a sentence about what cannot be read or judged, once; the number of sentences is bounded."""
    if sentence not in evidence.notes and len(evidence.notes) < MOST_NOTES:
        evidence.notes.append(sentence)


def _collected_at(bundle: Mapping[str, Any]) -> float:
    found = fields.positive(bundle.get("collected_at"))
    if found:
        return found
    states = (fields.mapping(each) for each in fields.entries(bundle.get("states"), MOST_AGENTS))
    return max((fields.positive(each.get("sampled_at")) for each in states), default=0.0)


def _agent(state: Any) -> Agent | None:
    facts = fields.mapping(state)
    pod, node = fields.name(facts.get("pod_name")), fields.name(facts.get("node_name"))
    if not pod or not node:
        return None
    own, about = fields.mapping(facts.get("own")), fields.mapping(facts.get("about"))
    neighbourhood = fields.mapping(facts.get("neighbourhood"))
    interval = fields.positive(about.get("interval"), DEFAULT_INTERVAL)
    timeout = fields.positive(about.get("timeout"), DEFAULT_TIMEOUT)
    return Agent(
        pod=pod,
        node=node,
        zone=fields.name(facts.get("zone")),
        starved=fields.flag(own.get("starved")),
        sampled_at=fields.positive(facts.get("sampled_at")),
        cycle=min(interval + timeout, LONGEST_CYCLE),
        discovery=fields.text(neighbourhood.get("state")),
        not_ready=fields.text(facts.get("not_ready")),
        own_node_cordoned=fields.flag(neighbourhood.get("own_node_cordoned")),
        lateness=fields.positive(own.get("lateness_seconds")),
    )


def _read_nodes(bundle: Mapping[str, Any], evidence: Evidence) -> None:
    for entry in fields.entries(bundle.get("nodes"), MOST_AGENTS):
        facts = fields.mapping(entry)
        node, zone = fields.name(facts.get("name")), fields.name(facts.get("zone"))
        if not node:
            continue
        evidence.known_nodes.add(node)
        if zone:
            evidence.zones[node] = zone
        if fields.flag(facts.get("cordoned")):
            evidence.cordoned.add(node)
        if fields.flag(facts.get("deleted")):
            evidence.deleted.add(node)


def _silent(bundle: Mapping[str, Any]) -> Iterator[Silent]:
    for entry in fields.entries(bundle.get("silent"), MOST_AGENTS):
        facts = fields.mapping(entry)
        node, why = fields.name(facts.get("node_name")), fields.text(facts.get("why"))
        if not node:
            continue
        phase = fields.text(facts.get("phase")) or phase_of(why)
        pod, zone = fields.name(facts.get("pod_name")), fields.name(facts.get("zone"))
        yield Silent(pod=pod, node=node, zone=zone, why=why, phase=phase, manner=manner_of(why, phase))


def _complete(evidence: Evidence) -> None:
    """Take zones and nodes from the agents where the nodes were not read."""
    places = [(agent.node, agent.zone) for agent in evidence.agents]
    places.extend((each.node, each.zone) for each in evidence.silent)
    # Where nodes are read their list is right; an agent's own word counts where they are not.
    listed = set(evidence.known_nodes)
    evidence.cordoned.update(each.node for each in evidence.agents if each.own_node_cordoned and not listed)
    for node, zone in places:
        if zone:
            evidence.zones.setdefault(node, zone)
        evidence.known_nodes.add(node)
