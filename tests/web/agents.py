"""Agents that say what they were told to, and what is asked of them and answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from checks.model import BUILT_IN_TYPES, OK, CheckResult, Neighbour, Neighbourhood, Report
from checks.web.endpoints import Agent, respond
from checks.web.http1 import Header, Request, Response, encode_response

ALL_OK = {name: CheckResult(name, OK) for name in BUILT_IN_TYPES}
NEIGHBOUR = Neighbour("kubenurse-b", "10.0.0.2", "192.168.0.2", "node-b", "Running", schedulable=True)


@dataclass
class FixedAgent:
    """An agent that says what it was told to and remembers what it was asked."""

    report: Report = field(default_factory=lambda: Report(ALL_OK, Neighbourhood(OK)))
    pod_name: str = "kubenurse-a"
    node_name: str = "node-a"
    reason: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def alive(self) -> Report:
        """Say that it was asked."""
        self.calls.append("alive")
        return self.report

    def latest(self) -> Report:
        """Say that it was asked."""
        self.calls.append("latest")
        return self.report

    def not_ready(self) -> str:
        """The reason given."""
        return self.reason

    def neighbour_called(self, origin: str) -> None:
        """Remember the neighbour."""
        self.calls.append(f"called by {origin}")

    def render_metrics(self, accept: str, accept_encoding: str) -> tuple[list[Header], bytes]:
        """What is accepted, as headers."""
        return [("Content-Type", accept), ("Content-Encoding", accept_encoding)], b"metrics"

    @property
    def zone(self) -> str:
        """The node's zone."""
        return "zone-a"

    def own(self) -> Mapping[str, object]:
        """An agent that runs well."""
        return {"starved": False, "lateness_seconds": 0.0, "throttled_ratio": None}

    def window(self, kind: str) -> Mapping[str, object]:
        """The last minute of a check."""
        return {"seconds": 60, "made": 12, "failed": {}, "streak": 12}

    def history(self) -> Mapping[str, object]:
        """Nothing remembered."""
        return {"seconds": 900.0, "checks": {}, "failures": []}

    def about(self) -> Mapping[str, object]:
        """The facts given."""
        return self.facts


def get(target: str, agent: Agent | None = None, *headers: Header, method: str = "GET") -> Response:
    """Ask for one path."""
    return respond(Request(method, target, headers, "10.0.0.9:4711"), agent or FixedAgent())


def document(response: Response) -> dict[str, Any]:
    """A response's body as JSON."""
    found: dict[str, Any] = json.loads(whole(response))
    return found


def whole(response: Response) -> bytes:
    """A response's whole body."""
    return b"".join((response.body, *response.more))


def sent(response: Response, *, head_only: bool = False, close: bool = False) -> bytes:
    """A response as it travels."""
    return b"".join(encode_response(response, head_only=head_only, close=close))


def header(response: Response, name: str) -> str | None:
    """One header of a response."""
    return dict(response.headers).get(name)
