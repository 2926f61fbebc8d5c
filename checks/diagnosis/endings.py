"""Faults that ended: failures that come and go would have left shorter streaks of successes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import comb, log, sqrt

from checks.diagnosis.evidence import Evidence, Failure

# The chance below which failures that come and go do not explain that all of them lie so far back.
UNLIKELY = 0.02
# Some of many checks fail by chance after a fault has ended: at most this share of those that would be expected to.
FEW = 0.1
ENOUGH = 8.0
# So many failures in a row are a fault that lasts.
STEADY = 3
# As many failures in a window may be chance.
FEW_FAILED = 2
# More than the checks of any group.
MANY = 1_000_000
# In results. Agents are not independent: what comes and goes may do so for all of them at once, for a moment.
LAGS = (3, 4, 6, 8)


def without_outdated(evidence: Evidence) -> list[Failure]:
    """Return the failures without those that other checks show to be over.

    path_explore meets a node once in many rounds: its last word on it may be older than the node's recovery. A check
    that failed by chance since its recovery seems to come and go, while all others like it have recovered.
    """
    if not evidence.ended:
        return evidence.failures
    recovered = _Recovered(evidence)
    return [each for each in evidence.failures if is_steady(each) or not recovered.covers(each)]


def is_steady(failure: Failure) -> bool:
    """Tell whether a check fails now, again and again."""
    return not failure.explored and failure.streak <= -STEADY


class _Recovered:
    """The places and types of which most checks that failed work again, and none still fails steadily."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        ended: Counter[tuple[str, object]] = Counter()
        for node, kind, target in evidence.ended:
            ended.update(_groups(node, kind, target, evidence))
        failing: Counter[tuple[str, object]] = Counter()
        for each in evidence.failures:
            if not each.explored and each.failed > FEW_FAILED:
                weight = MANY if is_steady(each) else 1
                for group in _groups(each.node, each.kind if not each.target else "", each.target, evidence):
                    failing[group] += weight
        self._groups = {group for group, count in ended.items() if count > max(failing[group], _least(group))}

    def covers(self, failure: Failure) -> bool:
        """Tell whether checks like a failed one work again."""
        kind = failure.kind if not failure.target else ""
        return any(group in self._groups for group in _groups(failure.node, kind, failure.target, self._evidence))


def _groups(node: str, kind: str, target: str, evidence: Evidence) -> Iterator[tuple[str, object]]:
    """Return what a check has in common with others."""
    if not target:
        yield "kind", kind
        yield "node", node
        return
    yield "source", node
    yield "target", target
    here, there = evidence.zone(node), evidence.zone(target)
    if here and there and here != there:
        yield "zones", (here, there)


def _least(group: tuple[str, object]) -> int:
    """Return how many checks of a group that work again are too few to tell."""
    return 1 if group[0] in ("kind", "node") else 0


def has_ended(failures: Sequence[Failure]) -> bool:
    """Tell whether failures of one cause are over, by the streaks of all the checks that saw them."""
    if not failures:
        return False
    if all(each.streak > 0 for each in failures):
        surprise = sum(-log(max(each.chance, 1e-9)) for each in failures)
        # Fisher's method of joining chances.
        if surprise > len(failures) + 3 * sqrt(len(failures)) + 1:
            return True
    return any(_is_over_since(failures, lag) for lag in LAGS)


def _is_over_since(failures: Iterable[Failure], lag: int) -> bool:
    """Tell whether too few checks failed within their last ``lag`` results."""
    expected, seen, none = 0.0, 0, 0.0
    for each in failures:
        quiet = quiet_chance(each.failed + each.ok, each.failed, lag)
        expected += 1.0 - quiet
        none += log(max(quiet, 1e-9))
        seen += each.streak < lag
    if not seen:
        return none < log(UNLIKELY)
    return expected >= ENOUGH and seen <= FEW * expected


def quiet_chance(made: float, failed: float, lag: int) -> float:
    """Return the chance that the last ``lag`` of ``made`` results are ok when ``failed``, anywhere, are not."""
    whole, bad = round(made), max(1, round(failed))
    if bad >= whole or whole > 1000:
        return 1.0 if bad < whole else 0.0
    return comb(max(0, whole - lag), bad) / comb(whole, bad)
