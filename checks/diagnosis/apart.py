"""Setting apart, before anything is judged: starved agents, stale states and what is under maintenance. Pure.

R-Pingmesh (SIGCOMM 2024) found that most wrong verdicts came from testers that lacked CPU time; they are asked first.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from checks.diagnosis.endings import without_outdated
from checks.diagnosis.evidence import Agent, Evidence, Failure
from checks.diagnosis.observations import read_checks
from checks.diagnosis.outline import note, read_outline
from checks.diagnosis.scene import Scene, index
from checks.diagnosis.states import CONNECT, NOT_SYNCED, OK, SKIPPED, STATUS

# A state older than this many of the agent's cycles (interval and timeout), and than LEAST_STALE seconds, is stale.
STALE_CYCLES = 3.0
LEAST_STALE = 45.0
# An agent that has made a check this often has had the time to learn of its neighbours.
LONG_RUNNING = 10.0
_GONE_WORDS = ("not found", "gone", "deleted", "404", "no such")


def read(bundle: Mapping[str, Any]) -> Scene:
    """Read a bundle and set apart what must not be judged."""
    evidence, found = read_outline(bundle)
    leaving_pods = {pod for pod, _ in evidence.leaving}
    stale = _stale(evidence)
    for agent, state in found:
        if agent.starved or agent.pod in stale or _is_leaving(agent, evidence, leaving_pods):
            continue
        read_checks(state, agent, evidence)
    if stale:
        _note_stale(evidence, stale)
    evidence.deleted |= _deleted_by_witness(evidence)
    return _scene(evidence, stale, leaving_pods)


def _stale(evidence: Evidence) -> set[str]:
    """Return the Pods whose states are old. Where most seem to be, the collector's clock is wrong, not the states."""
    dated = [agent for agent in evidence.agents if agent.sampled_at]
    stale = {agent.pod for agent in dated if _is_stale(agent, evidence.collected_at)}
    if 2 * len(stale) <= len(dated):
        return stale
    middle = statistics.median(agent.sampled_at for agent in dated)
    note(evidence, "The collector's clock and most agents' differ: ages are judged by the agents' clocks.")
    return {agent.pod for agent in dated if _is_stale(agent, middle)}


def _is_stale(agent: Agent, now: float) -> bool:
    return now - agent.sampled_at > max(LEAST_STALE, STALE_CYCLES * agent.cycle)


def _is_leaving(agent: Agent, evidence: Evidence, leaving_pods: set[str]) -> bool:
    if agent.pod in leaving_pods or "shutting down" in agent.not_ready:
        evidence.leaving.add((agent.pod, agent.node))
        return True
    return agent.node in evidence.deleted or agent.node in evidence.cordoned


def _note_stale(evidence: Evidence, stale: set[str]) -> None:
    for pod in sorted(stale)[:3]:
        note(evidence, f"The checks of {pod} cannot be judged: its state is old.")
    if len(stale) > 3:
        note(evidence, f"The states of {len(stale) - 3} more agents are old and are not judged.")


def _deleted_by_witness(evidence: Evidence) -> set[str]:
    """Return the nodes whose object most of the agents that looked found gone."""
    votes: dict[str, list[bool]] = defaultdict(list)
    for failure in evidence.failures:
        for witness in failure.witnesses:
            if failure.is_path and not failure.explored and witness.kind == "node_object":
                words = witness.detail.lower()
                votes[failure.target].append(not witness.ok and any(each in words for each in _GONE_WORDS))
    return {node for node, gone in votes.items() if 2 * sum(gone) > len(gone)}


def _scene(evidence: Evidence, stale: set[str], leaving_pods: set[str]) -> Scene:
    apart = evidence.cordoned | evidence.deleted | {node for _, node in evidence.leaving if node}
    starved = frozenset(agent.node for agent in evidence.agents if agent.starved)
    agents = [
        agent
        for agent in evidence.agents
        if not agent.starved and agent.pod not in stale and agent.pod not in leaving_pods and agent.node not in apart
    ]
    alive = {agent.node for agent in evidence.agents if agent.pod not in stale}
    # An answer with a status, whatever it is, comes from an agent that lives.
    alive |= {each.node for each in evidence.silent if each.phase == STATUS}
    failures: list[Failure] = []
    set_apart: list[Failure] = []
    for each in without_outdated(evidence):
        due = each.target in apart or each.node in apart or (each.target in starved and _is_slow_answer(each))
        (set_apart if due else failures).append(each)
    return index(
        Scene(
            evidence=evidence,
            reporting=sorted({agent.node for agent in agents}),
            agents=agents,
            apart=frozenset(apart),
            starved=starved,
            alive=frozenset(alive),
            silent={each.node: each for each in evidence.silent if each.phase != STATUS},
            failures=failures,
            set_apart=set_apart,
        )
    )


def _is_slow_answer(failure: Failure) -> bool:
    """Tell whether an agent that lacks CPU time explains a failed request to it."""
    return failure.phase != CONNECT or failure.manner in ("timeout", "other")


def discovery_fails(agent: Agent, scene: Scene) -> bool:
    """Tell whether an agent does not learn of its neighbours. One that has just started is given time."""
    if agent.discovery == NOT_SYNCED:
        own = scene.evidence.passed.own.get(agent.node, {})
        return max(own.values(), default=0.0) >= LONG_RUNNING
    return agent.discovery not in ("", OK, SKIPPED)
