"""One fault from injection to recovery, and the judgement of all results."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from checks.model import NOT_SYNCED, PATH_PREFIX
from tests.e2e.cluster import AGENTS, Cluster
from tests.e2e.faults import DETECTED_WITHIN, RECOVERED_WITHIN, Expected, Fault, others
from tests.e2e.watcher import DISCOVERY, Seen

# Seconds. A reload of nginx or dnsmasq takes a moment; until then both answers are correct.
SETTLING = 0.3
# Seconds that the machine may add to the limits: two cores do the work of ten hosts.
SLACK = 0.7
# Seconds until the trial is given up, when an expected result does not come.
PATIENCE = 20.0
# Seconds: the highest age of results that show a calm cluster.
RECENTLY = 3.0
# A check that was under way when the fault came, and one when it went, may fail in another way.
MOST_IN_FLIGHT = 2

Errors = dict[tuple[str, str, str], float]


@dataclass(slots=True)
class Record:
    """The record of a fault. Times are in seconds, None where there is nothing to detect."""

    fault: Fault
    words: list[str] = field(default_factory=list)
    detected: float | None = None
    recovered: float | None = None


def errors(cluster: Cluster) -> Errors:
    """Return ``kubenurse_errors_total`` of all agents by node, type and event."""
    found: Errors = {}
    for node in cluster.nodes:
        if not node.runs:
            continue
        for family in text_string_to_metric_families(node.metrics()):
            for sample in family.samples:
                if sample.name == "kubenurse_errors_total":
                    found[node.name, sample.labels["type"], sample.labels["event"]] = sample.value
    return found


class Trial:
    """Runs a fault; points in time are epoch seconds, as the agents' are."""

    def __init__(self, cluster: Cluster, fault: Fault) -> None:
        self.cluster = cluster
        self.fault = fault
        self.record = Record(fault)
        self.injecting = self.injected = self.healing = self.healed = 0.0

    def run(self) -> Record:
        """Run it; AssertionError when agents report a wrong result, or report too late."""
        if not self.cluster.calm(time.time() - RECENTLY):
            self.cluster.wait_calm()
        if self.fault.prepare is not None:
            self.fault.prepare(self.cluster)
        before = errors(self.cluster)
        self.injecting = time.time()
        with self.fault.inject(self.cluster):
            self.injected = time.time()
            self._wait_detected()
            time.sleep(self.fault.hold)
            during = self._seen_during(time.time())
            if self.fault.proof is not None:
                self.record.words.append(self.fault.proof(self.cluster, during))
            self.healing = time.time()
        self.healed = time.time()
        self._wait_recovered()
        self.cluster.wait_calm()
        seen = self.cluster.timeline.since(self.injecting)
        self._judge(seen)
        self._judge_counters(before, errors(self.cluster))
        self._measure(seen)
        return self.record

    def _seen_during(self, now: float) -> list[Seen]:
        return [it for it in self.cluster.timeline.since(self.injecting) if self.injected <= it.started_at <= now]

    def _wait_detected(self) -> None:
        limit = max((expected.detected for expected in self.fault.expected), default=0.0) + self.fault.hold
        timeline = self.cluster.timeline
        if not timeline.wait_for(self._is_detected, max(limit, PATIENCE)):
            failing = {
                f"{it.node} {it.type}: {it.state} ({it.event})" for it in timeline.since(self.injecting) if not it.ok
            }
            raise AssertionError(f"{self.fault.name}: not seen in full; seen were {sorted(failing)}")
        if self.fault.gone:
            self.record.detected = self._within(DETECTED_WITHIN, time.time() - self.injecting, "no longer checked")

    def _is_detected(self) -> bool:
        latest = self.cluster.timeline.latest()
        seen = self.cluster.timeline.since(self.injecting)
        for expected in self.fault.expected:
            if expected.always and not all(
                pair in latest and expected.describes(latest[pair]) for pair in expected.pairs
            ):
                return False
            if not expected.always and self._count(expected, seen) < expected.at_least:
                return False
        return not any(pair in latest for pair in self.fault.gone)

    def _wait_recovered(self) -> None:
        limit = max((expected.recovered for expected in self.fault.expected), default=0.0) + 10.0
        self.cluster.timeline.wait_for(self._is_recovered, limit)
        if self.fault.gone:
            self.record.recovered = self._within(RECOVERED_WITHIN, time.time() - self.healed, "checked again")

    def _within(self, limit: float, took: float, what: str) -> float:
        assert took <= limit + SLACK, f"{self.fault.name}: {what} after {took:.2f} s"
        return took

    def _is_recovered(self) -> bool:
        latest = self.cluster.timeline.latest()
        pairs = [pair for expected in self.fault.expected for pair in expected.pairs] + list(self.fault.gone)
        return all(pair in latest and latest[pair].ok for pair in pairs)

    @staticmethod
    def _count(expected: Expected, seen: Iterable[Seen]) -> int:
        return sum(expected.covers(it.node, it.type) and expected.describes(it) for it in seen)

    def _judge(self, seen: Iterable[Seen]) -> None:
        """Compare every result with the expectation at the moment when its check began."""
        wrong = [f"{it.node} {it.type}: {it.state} ({it.event}) at {self._moment(it)}" for it in seen if self._lies(it)]
        assert not wrong, f"{self.fault.name}: " + "; ".join(wrong)

    def _lies(self, seen: Seen) -> bool:
        if seen.type == DISCOVERY and seen.state == NOT_SYNCED:  # what an agent says that has just started
            return False
        covering = [it for it in self.fault.expected if it.covers(seen.node, seen.type)]
        if not covering:
            return not seen.ok
        if seen.type == DISCOVERY:  # its limits are checked by the measurements
            return not (seen.ok or covering[0].describes(seen))
        if self.injected + SETTLING <= seen.started_at and seen.ended_at <= self.healing:
            described = any(it.describes(seen) for it in covering)
            return not described and (not seen.ok or all(it.always for it in covering))
        # Begun before the fault or ended after it: it met both, or the better part of it.
        return seen.started_at >= self.healed + SETTLING and not seen.ok

    def _moment(self, seen: Seen) -> str:
        begin, end = seen.started_at - self.injecting, seen.ended_at - self.injecting
        return f"{begin:.2f}-{end:.2f} s of {self.healing - self.injecting:.2f} s"

    def _judge_counters(self, before: Errors, after: Errors) -> None:
        """Compare the counters too: they include results that came and went between two looks."""
        covered = {pair for expected in self.fault.expected for pair in expected.pairs}
        events = {(node, kind, it.event) for it in self.fault.expected for node, kind in it.pairs}
        for key, count in after.items():
            # A counter that was reset counts from 0.
            more = count - before.get(key, 0.0) if count >= before.get(key, 0.0) else count
            allowed = float("inf") if key in events else MOST_IN_FLIGHT if key[:2] in covered else 0
            assert more <= allowed, f"{self.fault.name}: {key} counted {more:g} more errors"
        for expected in self.fault.expected:
            if expected.always and expected.event:
                for node, kind in expected.pairs:
                    assert after.get((node, kind, expected.event), 0.0) > before.get(
                        (node, kind, expected.event), 0.0
                    ), f"{self.fault.name}: {node} {kind} did not count {expected.event}"

    def _measure(self, seen: list[Seen]) -> None:
        """Record the time until the last agent detected the fault, and until the last one recovered."""
        record = self.record
        for expected in self.fault.expected:
            is_check = DISCOVERY not in expected.types
            detections = [self._detection(pair, expected, seen) for pair in expected.pairs]
            known = [moment for moment in detections if moment is not None]
            if expected.always or expected.at_least:
                took = max(known) if expected.always else min(known)
                # Failures that may occur have no time limit.
                said = self._within(expected.detected if expected.always else PATIENCE, took, f"{expected} detected")
                back = max(self._recovery(pair, seen) for pair in expected.pairs)
                self._within(expected.recovered, back, f"{expected} recovered")
                if is_check:
                    record.detected = max(record.detected or 0.0, said)
                    record.recovered = max(record.recovered or 0.0, back)
                else:
                    record.words.append(f"discovery: said after {said:.1f} s, taken back after {back:.1f} s")
            record.words += self._words(expected, seen)

    def _detection(self, pair: tuple[str, str], expected: Expected, seen: list[Seen]) -> float | None:
        moments = [it.ended_at for it in seen if (it.node, it.type) == pair and expected.describes(it)]
        return min(moments) - self.injecting if moments else None

    def _recovery(self, pair: tuple[str, str], seen: list[Seen]) -> float:
        results = [it for it in seen if (it.node, it.type) == pair]
        failures = [it.ended_at for it in results if not it.ok]
        last_failure = max(failures, default=0.0)
        good = [it.ended_at for it in results if it.ok and it.ended_at >= max(last_failure, self.healing)]
        # Discovery is noted when it changes only: recovered before the heal there is nothing more to see.
        return max(0.0, min(good, default=self.healing) - self.healing)

    def _words(self, expected: Expected, seen: list[Seen]) -> list[str]:
        states = sorted({it.state for it in seen if expected.covers(it.node, it.type) and expected.describes(it)})
        nodes, types = _names_of_nodes(expected.nodes), _names_of_types(expected.types)
        event = f" ({expected.event})" if expected.event else ""
        often = "" if expected.always else " now and then"
        return [f"{nodes}: {types}{often}: {re.sub('[|]', '/', state)}{event}" for state in states]


def _names_of_nodes(nodes: Sequence[str]) -> str:
    missing = others(*nodes)
    if len(missing) > 1:
        return ", ".join(nodes)
    return f"all but {missing[0]}" if missing else "all"


def _names_of_types(types: Sequence[str]) -> str:
    """Return the types, those of all of a node's neighbours in one word."""
    paths = [kind for kind in types if kind.startswith(PATH_PREFIX)]
    if len(paths) < AGENTS:
        return ", ".join(types)
    return ", ".join([*(kind for kind in types if kind not in paths), f"every {PATH_PREFIX}*"])
