"""A fault: its injection, and the exact results that agents must report."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from checks.model import API_SERVER_DIRECT, API_SERVER_DNS, ME_INGRESS, ME_SERVICE
from tests.e2e.cluster import AGENTS, GO_NODE, INTERVAL, OUTSIDE, TIMEOUT, Cluster
from tests.e2e.watcher import Seen

DETECTED_WITHIN = 2 * INTERVAL + TIMEOUT
RECOVERED_WITHIN = 2 * INTERVAL
# In this time every check of every agent runs twice.
HOLD = 2 * INTERVAL

ALL = tuple(f"node-{number}" for number in range(1, AGENTS + 1))
API = (API_SERVER_DIRECT, API_SERVER_DNS)
NAMED = (API_SERVER_DNS, ME_INGRESS, ME_SERVICE, OUTSIDE)
IN_TIME = f"timed out after {TIMEOUT:g}s"


def others(*nodes: str) -> tuple[str, ...]:
    """Return the nodes with agents other than these."""
    return tuple(name for name in ALL if name not in nodes)


def paths_from(node: str) -> tuple[str, ...]:
    """Return the types of a node's checks of its neighbours."""
    return tuple(f"path_{name}" for name in (*others(node), GO_NODE))


@dataclass(frozen=True, slots=True)
class Expected:
    """Some types on some nodes fail with this ``state`` and ``event``.

    A ``state`` that is a pattern must match completely. ``always`` checks fail in every round while the fault lasts.
    Other checks may fail; at least ``at_least`` failures must occur in the whole fleet. Discovery is no check: its
    ``event`` is empty. ``detected`` and ``recovered`` are the limits in seconds.
    """

    nodes: Sequence[str]
    types: Sequence[str]
    state: str | re.Pattern[str]
    event: str = ""
    always: bool = True
    at_least: int = 0
    detected: float = DETECTED_WITHIN
    recovered: float = RECOVERED_WITHIN

    def covers(self, node: str, kind: str) -> bool:
        """Tell whether a check is one of these."""
        return node in self.nodes and kind in self.types

    def describes(self, seen: Seen) -> bool:
        """Tell whether a result of one of these checks is as expected."""
        if seen.event != self.event:
            return False
        if isinstance(self.state, str):
            return seen.state == self.state
        return self.state.fullmatch(seen.state) is not None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Return the nodes and types one by one."""
        return [(node, kind) for node in self.nodes for kind in self.types]


def sometimes(
    nodes: Sequence[str], types: Sequence[str], state: str | re.Pattern[str], event: str, at_least: int = 0
) -> Expected:
    """Return failures that may occur, depending on the chance of each request."""
    return Expected(nodes, types, state, event, always=False, at_least=at_least)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault. ``inject`` is a context manager: the fault is active within the block.

    ``expected`` lists all checks that may fail. ``gone`` lists checks (node, type) that are no longer made. ``hold`` is
    the time in seconds for which the fault stays after its detection. ``proof`` examines further facts in the results
    during the fault, raises AssertionError when they are missing, and returns them in words. ``prepare`` is called
    before the injection.
    """

    name: str
    inject: Callable[[Cluster], AbstractContextManager[None]]
    expected: Sequence[Expected] = ()
    gone: Sequence[tuple[str, str]] = ()
    hold: float = HOLD
    proof: Callable[[Cluster, Sequence[Seen]], str] | None = None
    prepare: Callable[[Cluster], None] | None = None

    @property
    def identifier(self) -> str:
        """The name in the form of a test's name."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
