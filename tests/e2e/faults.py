"""What a fault is: how it comes and goes, and what exactly the agents are to say of it."""

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
# Long enough that every check of every agent has run twice.
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

    A ``state`` that is a pattern is matched as a whole. ``always`` failures fail in every round as long as the fault
    lasts; others may or may not, of which at least ``at_least`` in the whole fleet have to. ``event`` is empty for
    discovery, which is no check. ``detected`` and ``recovered`` are the limits in seconds.
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
        """Tell whether a result of one of these is what is expected."""
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
    """Return what may be seen, as each request takes its chance."""
    return Expected(nodes, types, state, event, always=False, at_least=at_least)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: ``inject`` is a context manager, in force within the block.

    ``expected`` is all that may fail; without any, nothing may. ``gone`` are checks (node, type) that are no longer
    made. ``hold`` is how long it is watched in seconds, after it was detected. ``proof`` looks for what is to be seen
    beside states (AssertionError when it is not there), in the results during the fault, and returns it in words.
    ``prepare`` is called before, when all is well.
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
        """The name as a test's."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
