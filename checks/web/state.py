"""The document that /state answers: this agent's latest round, for other agents and for programs."""

from __future__ import annotations

from dataclasses import asdict

from checks.model import CheckResult, Report
from checks.web.agent import Agent


def state_document(agent: Agent, report: Report) -> dict[str, object]:
    """Return a report as the JSON object of /state: seconds, and epoch for points in time."""
    neighbourhood = report.neighbourhood
    return {
        "pod_name": agent.pod_name,
        "node_name": agent.node_name,
        "not_ready": agent.not_ready(),
        "about": dict(agent.about()),
        "started_at": _rounded(report.started_at),
        "finished_at": _rounded(report.finished_at),
        "checks": {name: _check_facts(result) for name, result in report.results.items()},
        "skipped": list(report.skipped),
        # Only the neighbours chosen: all of them, from every agent, would grow with the square of the cluster.
        "neighbourhood": {
            "state": neighbourhood.state,
            "known": neighbourhood.known,
            "cordoned": neighbourhood.cordoned,
            "own_node_cordoned": neighbourhood.own_node_cordoned,
            "checked": [asdict(neighbour) for neighbour in report.checked],
        },
    }


def _check_facts(result: CheckResult) -> dict[str, object]:
    """A result for another agent to read: seconds, and epoch for points in time."""
    return {
        "state": result.state,
        "event": result.event,
        "status_code": result.status_code,
        "duration": _rounded(result.duration),
        "trace": {event: _rounded(offset) for event, offset in result.trace.items()},
        "started_at": _rounded(result.started_at),
        "tcp": asdict(result.tcp) if result.tcp else None,
        "not_after": result.not_after,
        "remote": result.remote,
    }


def _rounded(seconds: float) -> float:
    """Microseconds are the last digits that mean something; the rest would only make the answer longer."""
    return round(seconds, 6)
