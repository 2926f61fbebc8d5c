"""Faults that ended: failures that come and go would have left shorter streaks of successes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import comb, log, sqrt

from checks.diagnosis.evidence import Evidence, Failure

# The chance below which failures that come and go do not explain that all of them lie so far back.
UNLIKELY = 0.02
# Some of many checks fail by chance after a fault has ended: at most this share of those that would be expected to.
FEW = 0.1
ENOUGH = 8.0
# As many failures in a window may be chance.
FEW_FAILED = 2
# In results. Agents are not independent: what comes and goes may do so for all of them at once, for a moment.
LAGS = (3, 4, 6, 8)


def without_outdated(evidence: Evidence) -> list[Failure]:
    """Return the failures without those of path_explore that the neighbours checked all the time show to be over.

    path_explore meets a node once in many rounds: its last word on it may be older than the node's recovery.
    """
    if not evidence.ended:
        return evidence.failures
    failing = [each for each in evidence.failures if each.is_path and not each.explored and each.failed > FEW_FAILED]
    ended = [(node, target) for node, targets in evidence.ended.items() for target in targets]
    sources = {node for node, _ in ended} - {each.node for each in failing}
    targets = {target for _, target in ended} - {each.target for each in failing}
    zones = {(evidence.zone(node), evidence.zone(target)) for node, target in ended}
    zones -= {_zones(each, evidence) for each in failing}

    def is_outdated(failure: Failure) -> bool:
        over = failure.node in sources or failure.target in targets or _zones(failure, evidence) in zones
        return failure.explored and over

    return [each for each in evidence.failures if not is_outdated(each)]


def _zones(failure: Failure, evidence: Evidence) -> tuple[str, str]:
    return evidence.zone(failure.node), evidence.zone(failure.target)


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
