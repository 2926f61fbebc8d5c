"""The facts that a bundle gives: what was tested, from where, how often, and what failed. Pure data."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from checks.diagnosis.states import DNS


@dataclass(frozen=True, slots=True)
class Witness:
    """One more test that an agent made after a failure. ``seconds`` is its duration."""

    kind: str
    target: str
    name: str
    ok: bool
    seconds: float
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """The failures of one check of one agent in its window that have the same state.

    ``node`` is the agent's node. ``target`` is the neighbour's node for a path, else empty. ``failed`` and ``ok`` count
    requests. ``streak`` counts results of the same kind in a row, negative for failed results. ``began`` is epoch: when
    the current run of failures began, None when the check is ok now. ``explored`` marks a request of path_explore,
    ``derived`` a failure that a witness saw while name resolution hid it. ``chance`` is the probability that failures
    which come and go leave a streak as long as this one.
    """

    node: str
    kind: str
    target: str
    state: str
    phase: str
    manner: str
    failed: float
    ok: float
    streak: int
    began: float | None = None
    chance: float = 1.0
    witnesses: tuple[Witness, ...] = ()
    explored: bool = False
    derived: bool = False

    @property
    def is_path(self) -> bool:
        """True when another agent was the target."""
        return bool(self.target)


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent that answered. ``discovery`` is its neighbourhood's state in words. ``sampled_at`` is epoch."""

    pod: str
    node: str
    zone: str
    starved: bool
    sampled_at: float
    cycle: float
    discovery: str
    not_ready: str
    own_node_cordoned: bool
    lateness: float


@dataclass(frozen=True, slots=True)
class Silent:
    """One agent that gave no state. ``why`` is in the words of a check."""

    pod: str
    node: str
    zone: str
    why: str
    phase: str
    manner: str


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one check takes that succeeds. All fields are seconds; ``resolving`` is None when no trace tells it."""

    median: float
    resolving: float | None
    rtt: float


@dataclass(slots=True)
class Passed:
    """Requests that succeeded, in counts.

    ``own`` is by node and type. ``resolved`` adds those whose name was resolved although a later phase failed, and
    ``by_address`` those that succeeded at the last known address while name resolution failed. ``pairs`` is by source
    and target node; ``into``, ``out_of`` and ``between`` (zones, sorted) are its sums.
    """

    own: dict[str, dict[str, float]] = field(default_factory=dict)
    resolved: dict[str, dict[str, float]] = field(default_factory=dict)
    by_address: dict[str, dict[str, float]] = field(default_factory=dict)
    pairs: dict[tuple[str, str], float] = field(default_factory=dict)
    into: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    out_of: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    between: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))


@dataclass(slots=True)
class Evidence:
    """All that a bundle tells, ready to be judged.

    ``zones`` maps nodes to zones. ``retransmits`` counts segments sent again without a failed request, by node and
    type or target; ``ended`` are checks that failed and work again, named alike. ``timings`` are by node and type,
    ``slow_paths`` counts by node the neighbours that answer late. ``certificates`` maps what a certificate is of to the
    nodes that saw it and its end (epoch). ``strangers`` tell of answers by another Pod than was asked, ``notes`` of
    what could not be read.
    """

    collected_at: float
    agents: list[Agent] = field(default_factory=list)
    silent: list[Silent] = field(default_factory=list)
    zones: dict[str, str] = field(default_factory=dict)
    cordoned: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    leaving: set[tuple[str, str]] = field(default_factory=set)
    known_nodes: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)
    passed: Passed = field(default_factory=Passed)
    retransmits: dict[tuple[str, str, str], float] = field(default_factory=dict)
    timings: dict[str, dict[str, Timing | None]] = field(default_factory=dict)
    ended: set[tuple[str, str, str]] = field(default_factory=set)
    slow_paths: dict[str, int] = field(default_factory=dict)
    certificates: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def zone(self, node: str) -> str:
        """Return a node's zone, empty when unknown."""
        return self.zones.get(node, "")


def reached_later_phase(failure: Failure) -> bool:
    """Tell whether name resolution had succeeded when this check failed."""
    return failure.phase != DNS
