"""Late answers: name resolution or the API server takes long while other checks of the same agents are prompt. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from checks.diagnosis.causes import Cause, at
from checks.diagnosis.evidence import Timing
from checks.diagnosis.scene import Scene
from checks.diagnosis.states import API_SERVER_DIRECT, API_SERVER_DNS, API_TYPES, ME_SERVICE

# The distance alone explains an answer within this many round trips: TCP, TLS 1.2 and the request take four.
ROUND_TRIPS = 8.0
# Late for all: at least this share of the agents, and two of them.
NEARLY_ALL = 0.8
# A name that takes this much longer than the address of the same server takes its time in resolution.
TIMES = 3.0


@dataclass(frozen=True, slots=True)
class Late:
    """A cause that makes answers late. ``seconds`` is the median of the nodes concerned, ``nodes`` of ``judged``."""

    cause: Cause
    seconds: float
    nodes: int
    judged: int


def find_slow(scene: Scene, failing: frozenset[tuple[str, str]]) -> list[Late]:
    """Return what is late. ``failing`` are causes (name, node or empty) that are broken and so not merely late."""
    found: list[Late] = []
    far = _slow_everywhere(scene)
    for name, late_on in (("dns", _resolving), ("api_server", _answering)):
        if (name, "") in failing:
            continue
        late: dict[str, float] = {}
        judged = 0
        for node in scene.reporting:
            timings = scene.evidence.timings.get(node, {})
            if (name, node) in failing or not _judgeable(timings) or node in far:
                continue
            judged += 1
            seconds = late_on(timings)
            if seconds is not None:
                late[node] = seconds
        found.extend(_scoped(f"{name}_slow", late, judged))
    return found


def _slow_everywhere(scene: Scene) -> set[str]:
    """Return the nodes whose neighbours answer late too: neither names nor the API server are the reason there."""
    paths: dict[str, int] = defaultdict(int)
    for node, _ in scene.evidence.passed.pairs:
        paths[node] += 1
    return {node for node, slow in scene.evidence.slow_paths.items() if 2 * slow > paths[node]}


def _judgeable(timings: Mapping[str, Timing | None]) -> bool:
    return any(kind in timings for kind in (*API_TYPES, ME_SERVICE))


def _resolving(timings: Mapping[str, Timing | None]) -> float | None:
    """Return how long names take when they take long, None when they do not or nobody can tell."""
    named = {kind: each for kind, each in timings.items() if kind != API_SERVER_DIRECT}
    traced = [each.resolving for each in named.values() if each and each.resolving is not None]
    late = [seconds for seconds in traced if seconds >= 0.1]
    if len(late) > 1 or (late and len(named) == 1):
        return statistics.median(late)
    if traced:
        return None
    # Without traces: everything by name is late, and what goes by address is not.
    slow = {kind: each.median for kind, each in named.items() if each and not _is_far(each)}
    prompt = [kind for kind, each in named.items() if each is None]
    others = [seconds for kind, seconds in slow.items() if kind != API_SERVER_DNS]
    if 2 * len(prompt) >= len(named) or ME_SERVICE in prompt:
        return None
    # The same server is prompt by its address and late by its name, or several others are late by their names.
    address_is_prompt = API_SERVER_DIRECT in timings and timings[API_SERVER_DIRECT] is None
    if API_SERVER_DNS in slow and address_is_prompt:
        return statistics.median(slow.values())
    return statistics.median(others) if len(others) > 1 else None


def _answering(timings: Mapping[str, Timing | None]) -> float | None:
    """Return how long the API server takes when it takes long and the agent's other checks do not."""
    direct = timings.get(API_SERVER_DIRECT)
    by_name = timings.get(API_SERVER_DNS)
    if direct is None or _is_far(direct):
        return None
    others = [each for kind, each in timings.items() if kind not in API_TYPES]
    # Other checks by name may be late because of the names; what they take beyond that is what counts.
    later = [each for each in others if each and each.median - (each.resolving or 0.0) >= direct.median / TIMES]
    if others and len(later) == len(others) and not (by_name and by_name.median >= 1.5 * direct.median):
        return None
    return direct.median


def _is_far(timing: Timing) -> bool:
    return timing.median - (timing.resolving or 0.0) < ROUND_TRIPS * timing.rtt and not timing.resolving


def _scoped(name: str, late: Mapping[str, float], judged: int) -> Iterator[Late]:
    if len(late) > 1 and len(late) >= NEARLY_ALL * judged:
        yield Late(at(name), statistics.median(late.values()), len(late), judged)
        return
    for node, seconds in sorted(late.items()):
        yield Late(at(name, node=node), seconds, 1, judged)
