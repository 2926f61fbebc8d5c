"""What the endpoints need of the agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from checks.model import Report
from checks.web.http1 import Header


class Agent(Protocol):
    """What the endpoints need of the agent."""

    @property
    def pod_name(self) -> str:
        """The name of this Pod."""

    @property
    def node_name(self) -> str:
        """The name of the node this Pod runs on, empty while unknown."""

    def alive(self) -> Report:
        """Return a report not older than the cache's TTL; runs the checks, which may take seconds, if there is none."""

    def latest(self) -> Report:
        """Return the latest report at once."""

    def not_ready(self) -> str:
        """Return why no traffic should come here, in words; empty when it may."""

    def neighbour_called(self, origin: str) -> None:
        """Count a check made by the neighbour of this Pod name; at once."""

    def render_metrics(self, accept: str, accept_encoding: str) -> tuple[list[Header], bytes]:
        """Return headers and body of the metrics in the format that the two request headers ask for."""

    @property
    def zone(self) -> str:
        """The zone of the own node, empty while unknown."""

    def own(self) -> Mapping[str, object]:
        """Return how well this agent itself runs, as ``own`` in /state has it."""

    def window(self, kind: str) -> Mapping[str, object]:
        """Return the last minute of a check type, as ``window`` in /state has it."""

    def history(self) -> Mapping[str, object]:
        """Return what this agent remembers, as /history shows it."""

    def about(self) -> Mapping[str, object]:
        """Return facts about this agent for /state: version, clock source, interval and the like."""
