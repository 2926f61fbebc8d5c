"""Loss: segments that the kernel sent again at one node, pair or pair of zones, and not elsewhere. Pure.

Retransmissions are counted events, so the gain is that of a Poisson rate above the fleet's own.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from math import log

from checks.diagnosis.causes import Cause
from checks.diagnosis.evidence import Failure
from checks.diagnosis.scene import Scene
from checks.diagnosis.states import REFUSED, STATUS

# Segments sent again in one window of one check, in a healthy cluster: never assumed to be fewer.
LEAST_AGAIN = 0.05
# A place that loses packets sends again at least this many segments, and so many times more than others.
ENOUGH = 3.0
TIMES = 4.0
_NODE_PRIOR = 6.0
_PAIR_PRIOR = 5.0
_ZONES_PRIOR = 8.0

Cell = tuple[str, str, str]


@dataclass(slots=True, eq=False)
class Loss:
    """A place where segments are sent again. ``again`` counts them, ``cells`` are node, type and target."""

    cause: Cause
    cells: set[Cell] = field(default_factory=set)
    again: float = 0.0
    gain: float = 0.0
    size: int = 0

    def covers(self, failure: Failure) -> bool:
        """Tell whether loss here explains a failed request."""
        if failure.manner == REFUSED or failure.phase == STATUS:
            return False
        where = dict(self.cause.where)
        if "node" in where:
            return where["node"] in (failure.node, failure.target)
        return (failure.node, "", failure.target) in self.cells


def find_loss(scene: Scene, explained: Iterable[Failure], without: Collection[str]) -> list[Loss]:
    """Return the places that lose packets. Checks that fail for a known cause, and some nodes, are left out."""
    known = {(each.node, "" if each.is_path else each.kind, each.target) for each in explained}
    again = {
        cell: count
        for cell, count in scene.evidence.retransmits.items()
        if cell not in known and cell[0] not in without and cell[2] not in without
    }
    if not again:
        return []
    sizes = _Sizes(scene)
    usual = _usual(again, sizes)
    found = []
    while again:
        best = max(_candidates(again, scene, sizes, usual), key=lambda each: each.gain, default=None)
        if best is None or best.gain <= 0:
            break
        found.append(best)
        again = {cell: count for cell, count in again.items() if not _within(best, cell)}
    return found


class _Sizes:
    """How many windows each place has."""

    def __init__(self, scene: Scene) -> None:
        self.nodes: dict[str, int] = defaultdict(int)
        self.zones: dict[tuple[str, str], int] = defaultdict(int)
        self.all = 0
        for node, kinds in scene.evidence.passed.own.items():
            self.nodes[node] += len(kinds)
            self.all += len(kinds)
        for node, target in scene.evidence.passed.pairs:
            self.nodes[node] += 1
            self.nodes[target] += 1
            self.all += 1
            zones = _zones(scene, node, target)
            if zones:
                self.zones[zones] += 1


def _usual(again: dict[Cell, float], sizes: _Sizes) -> float:
    """Return how many segments a window of an average check sends again: the median, which few places do not move."""
    counts = sorted(again.values())
    zeros = max(0, sizes.all - len(counts))
    median = statistics.median([0.0] * zeros + counts) if zeros + len(counts) else 0.0
    # Below the median are those that lose nothing; their mean is what is usual.
    few = [count for count in counts if count <= 1]
    return max(LEAST_AGAIN, median, sum(few) / max(1, sizes.all))


def _candidates(again: dict[Cell, float], scene: Scene, sizes: _Sizes, usual: float) -> Iterator[Loss]:
    nodes: dict[str, Loss] = {}
    pairs: dict[tuple[str, str], Loss] = {}
    zones: dict[tuple[str, str], Loss] = {}
    for cell, count in again.items():
        node, _, target = cell
        for place in (node, target) if target else (node,):
            _add(nodes.setdefault(place, Loss(Cause("loss", (("node", place),)))), cell, count)
        if target:
            first, second = sorted((node, target))
            _add(pairs.setdefault((first, second), Loss(Cause("loss"))), cell, count)
            between = _zones(scene, node, target)
            if between:
                where = (("zone", between[0]), ("zone_to", between[1]))
                _add(zones.setdefault(between, Loss(Cause("loss", where))), cell, count)
    many = log(max(2, len(scene.evidence.known_nodes)))
    for place, loss in nodes.items():
        if len(loss.cells) > 1:
            yield _rated(loss, sizes.nodes[place], usual, _NODE_PRIOR + many)
    for loss in pairs.values():
        loss.cause = _direction(loss)
        size = sum((node, target) in scene.evidence.passed.pairs for node, _, target in _both_ways(loss))
        yield _rated(loss, max(1, size), usual, _PAIR_PRIOR + log(max(2, len(scene.evidence.passed.pairs))))
    for between, loss in zones.items():
        if len({frozenset((node, target)) for node, _, target in loss.cells}) > 1:
            yield _rated(loss, sizes.zones[between], usual, _ZONES_PRIOR)


def _add(loss: Loss, cell: Cell, count: float) -> None:
    loss.cells.add(cell)
    loss.again += count


def _rated(loss: Loss, size: int, usual: float, prior: float) -> Loss:
    """Note the gain of a Poisson rate of its own; every cell without loss in the scope speaks against it."""
    loss.size = max(size, len(loss.cells))
    rate = loss.again / loss.size
    loss.gain = -prior
    if loss.again >= ENOUGH and rate >= TIMES * usual:
        loss.gain = loss.again * log(rate / usual) - (rate - usual) * loss.size - prior
    return loss


def _both_ways(loss: Loss) -> set[Cell]:
    return loss.cells | {(target, "", node) for node, _, target in loss.cells}


def _direction(loss: Loss) -> Cause:
    ways = sorted((node, target) for node, _, target in loss.cells)
    return Cause("loss", (("from", ways[0][0]), ("to", ways[0][1])))


def _zones(scene: Scene, node: str, target: str) -> tuple[str, str] | None:
    here, there = scene.evidence.zone(node), scene.evidence.zone(target)
    if not here or not there or here == there:
        return None
    return (here, there) if here < there else (there, here)


def _within(loss: Loss, cell: Cell) -> bool:
    where = dict(loss.cause.where)
    if "node" in where:
        return where["node"] in (cell[0], cell[2])
    return cell in loss.cells
