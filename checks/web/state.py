"""The document that /state answers: this agent's latest round, for other agents and for programs.

Its schema is docs/state.schema.json.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict

from checks.model import CheckResult, Neighbour, Report, Target
from checks.web.agent import Agent

SCHEMA = 2


def state_document(agent: Agent, report: Report) -> dict[str, object]:
    """Return a report as the JSON object of /state: seconds, and epoch for points in time."""
    neighbourhood = report.neighbourhood
    targets = {target.type: target for target in report.targets}
    return {
        "schema": SCHEMA,
        "pod_name": agent.pod_name,
        "node_name": agent.node_name,
        "zone": agent.zone,
        "not_ready": agent.not_ready(),
        "sampled_at": _rounded(time.time()),
        "own": dict(agent.own()),
        "about": dict(agent.about()),
        "started_at": _rounded(report.started_at),
        "finished_at": _rounded(report.finished_at),
        "checks": {
            name: _check_facts(result, agent.window(name), targets.get(name)) for name, result in report.results.items()
        },
        "skipped": list(report.skipped),
        # Only the neighbours chosen: all of them, from every agent, would grow with the square of the cluster.
        "neighbourhood": {
            "state": neighbourhood.state,
            "known": neighbourhood.known,
            "cordoned": neighbourhood.cordoned,
            "own_node_cordoned": neighbourhood.own_node_cordoned,
            "checked": [_neighbour_facts(neighbour) for neighbour in report.checked],
        },
    }


def _neighbour_facts(neighbour: Neighbour) -> dict[str, object]:
    facts = asdict(neighbour)
    del facts["started_at"]
    return facts


def _check_facts(result: CheckResult, window: Mapping[str, object], target: Target | None) -> dict[str, object]:
    """A result for another agent to read: seconds, and epoch for points in time."""
    node = {"node": target.node} if target is not None and target.node else {}
    return {
        "state": result.state,
        "phase": result.phase,
        "event": result.event,
        "status_code": result.status_code,
        "duration": _rounded(result.duration),
        "trace": {event: _rounded(offset) for event, offset in result.trace.items()},
        "started_at": _rounded(result.started_at),
        "tcp": asdict(result.tcp) if result.tcp else None,
        "not_after": result.not_after,
        "remote": result.remote,
        "answered_by": result.answered_by,
        **node,
        "window": dict(window),
        "witnesses": [],
    }


def _rounded(seconds: float) -> float:
    """Microseconds are the last digits that mean something; the rest would only make the answer longer."""
    return round(seconds, 6)
