"""Reading the checks of one state into failures and counts. Pure.

Most checks of most agents are ok; what is read of those is kept short, so that a thousand agents are judged in the time
of one request.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from checks.diagnosis import fields
from checks.diagnosis.endings import quiet_chance
from checks.diagnosis.evidence import Agent, Evidence, Failure, Timing, Witness
from checks.diagnosis.outline import note
from checks.diagnosis.scene import FEW_FAILURES
from checks.diagnosis.states import (
    BUILT_IN_TYPES,
    CERTIFICATE,
    DNS,
    ME_INGRESS,
    ME_SERVICE,
    OK,
    PATH_EXPLORE,
    PATH_PREFIX,
    PHASES,
    is_backend_failure,
    manner_of,
    phase_of,
)

MOST_CHECKS = 10_000
MOST_WITNESSES = 64
MOST_EXPLORED = 1_000
# A window that claims more requests is scaled down, so that no agent outvotes the others.
MOST_REQUESTS = 60
# Slower than this is looked at; all else is prompt.
SLOW_SECONDS = 0.1
# A run of failures of this length is a new fault rather than chance.
NEW_FAULT = 3
# A run in which this share has the latest state is one fault's.
MOST_OF_A_RUN = 0.7
# Failures that come and go leave a streak this long with this probability: a longer one means that the fault ended.
ENDED_CHANCE = 0.04
# A witness is a test made for a purpose: it counts like this many requests, unless a Service chose its backend.
WITNESS_WEIGHT = 4.0
# Segments that one failed request sends again; the rest were sent again by requests that succeeded.
RETRANSMITS_OF_A_FAILURE = 2


def read_checks(state: Mapping[str, Any], agent: Agent, evidence: Evidence) -> None:
    """Add the checks of one agent to the evidence."""
    _Reader(state, agent, evidence).read()


class _Reader:
    """Reads one state. ``bad`` counts the entries left out."""

    def __init__(self, state: Mapping[str, Any], agent: Agent, evidence: Evidence) -> None:
        self.state = state
        self.agent = agent
        self.evidence = evidence
        self.node = agent.node
        self.own = evidence.passed.own.setdefault(agent.node, defaultdict(float))
        self.resolved = evidence.passed.resolved.setdefault(agent.node, defaultdict(float))
        self.by_address = evidence.passed.by_address.setdefault(agent.node, defaultdict(float))
        self.timings = evidence.timings.setdefault(agent.node, {})
        self.expected: set[tuple[Any, Any]] | None = None
        self.bad = 0

    def read(self) -> None:
        """Read all checks, leaving out those that cannot be."""
        checks = self.state.get("checks")
        if not isinstance(checks, dict) or len(checks) > MOST_CHECKS:
            note(self.evidence, f"The checks of {self.agent.pod} are not readable.")
            return
        for kind, check in checks.items():
            try:
                self._read(kind, check)
            except (TypeError, KeyError, AttributeError, ValueError):
                self.bad += 1
        if self.bad:
            note(self.evidence, f"{self.bad} checks of {self.agent.pod} are not readable and are left out.")

    def _read(self, kind: str, check: Mapping[str, Any]) -> None:
        if kind == PATH_EXPLORE:
            self._explore(check)
            return
        target = ""
        if kind.startswith(PATH_PREFIX) and kind not in BUILT_IN_TYPES:
            # A name is checked only where it is kept: interned names of known nodes are the common case.
            target = check.get("node") or kind[len(PATH_PREFIX) :].partition("_")[0]
            if target not in self.evidence.known_nodes and not fields.name(target):
                raise ValueError(kind)
        elif not fields.name(kind):
            raise ValueError(kind)
        window = check["window"] if "window" in check else self._single(check)
        failed = window["failed"]
        if check["state"] == OK and not failed and type(failed) is dict:
            made = window["made"]
            if type(made) is not int or not 0 <= made <= MOST_REQUESTS:
                made = min(fields.positive(made), MOST_REQUESTS)
            self._passed(kind, target, made)
        else:
            self._failed(kind, target, check, window)
        self._facts(kind, target, check, window)

    def _single(self, check: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a window of the latest result alone."""
        state = check["state"]
        return {"made": 1, "failed": {} if state == OK else {state: 1}, "streak": 1 if state == OK else -1}

    def _passed(self, kind: str, target: str, count: float) -> None:
        if target:
            pairs = self.evidence.passed.pairs
            key = (self.node, target)
            pairs[key] = pairs.get(key, 0) + count
        else:
            self.own[kind] += count
            self.resolved[kind] += count

    def _failed(self, kind: str, target: str, check: Mapping[str, Any], window: Mapping[str, Any]) -> None:
        latest, latest_phase = fields.text(check["state"]), fields.text(check.get("phase"))
        if not latest:
            raise ValueError(kind)
        counts = _counts(window["failed"])
        total = sum(counts.values())
        if latest != OK and not total:
            counts, total = {latest: 1.0}, 1.0
        made = max(fields.positive(window["made"]), 1.0 if latest != OK else 0.0)
        if total > made:
            raise ValueError(kind)
        streak = int(fields.number(window.get("streak")) or (1 if latest == OK else -1))
        if streak == -1 and 0.0 < counts.get(latest, 0.0) <= 1.0 < total - 1.0:
            # Another failure than those before, after a success: chance, and it hides whether those have ended.
            return
        scale, made, weighed, chance = _weigh(made, total, streak)
        if weighed < total and counts.get(latest, 0.0) >= MOST_OF_A_RUN * weighed > 0:
            # The fault is new: its run has the latest state, and failures with another one were before.
            counts, scale = {latest: weighed}, 1.0
        if not weighed and total > FEW_FAILURES:
            self.evidence.ended.add((self.node, kind if not target else "", target))
        total = weighed
        self._passed(kind, target, made - total)
        witnesses = _witnesses(check.get("witnesses"))
        for state, count in counts.items() if scale else ():
            phase = latest_phase if state == latest and latest_phase in PHASES else phase_of(state)
            failure = Failure(
                node=self.node,
                kind=kind,
                target=target,
                state=state,
                phase=phase,
                manner=manner_of(state, phase),
                failed=count * scale,
                ok=made - total,
                streak=streak,
                began=self._began(check, streak),
                chance=chance,
                witnesses=witnesses,
            )
            self.evidence.failures.append(failure)
            self._look_behind(failure)
            if failure.manner == CERTIFICATE:
                # A server showed it: whatever carries the connection works.
                self._passed(kind, target, failure.failed)

    def _began(self, check: Mapping[str, Any], streak: int) -> float | None:
        started = fields.positive(check.get("started_at"))
        if streak >= 0 or not started:
            return None
        interval = max(0.0, fields.positive(fields.mapping(self.state.get("about")).get("interval"), 5.0))
        return max(0.0, started - (min(-streak, 1_000_000) - 1) * interval)

    def _look_behind(self, failure: Failure) -> None:
        """Note what the last known address answered while the name was not resolved."""
        if failure.target:
            return
        if failure.phase != DNS:
            if failure.manner == CERTIFICATE:
                return
            self.resolved[failure.kind] += failure.failed
            return
        found = [each for each in failure.witnesses if each.kind == "last_address"]
        if not found:
            return
        if found[-1].ok:
            self.by_address[failure.kind] += WITNESS_WEIGHT
            return
        state = found[-1].detail
        phase = phase_of(state) if ":" in state or state[:3].isdigit() or "redirect" in state else "connect"
        by_chance = failure.kind == ME_SERVICE or (failure.kind == ME_INGRESS and is_backend_failure(state, phase))
        derived = Failure(
            node=self.node,
            kind=failure.kind,
            target="",
            state=state if phase_of(state) == phase else f"connect: {state}",
            phase=phase,
            manner=manner_of(state, phase),
            failed=1.0 if by_chance else WITNESS_WEIGHT,
            ok=0.0,
            streak=failure.streak,
            began=failure.began,
            derived=True,
        )
        self.evidence.failures.append(derived)

    def _facts(self, kind: str, target: str, check: Mapping[str, Any], window: Mapping[str, Any]) -> None:
        """Note times, segments sent again and certificates."""
        again = window.get("retransmits")
        if again and type(again) in (int, float) and 0 < again < fields.LARGEST_NUMBER:
            self._sent_again(kind, target, again, window)
        ends = check.get("not_after")
        if ends is not None:
            found = fields.positive(ends)
            if found:
                self._certificate(kind, target, found)
        median = window.get("median_seconds")
        if target:
            if type(median) is float and median >= SLOW_SECONDS and check["state"] == OK:
                slow = self.evidence.slow_paths
                slow[self.node] = slow.get(self.node, 0) + 1
            if check.get("answered_by"):
                self._answered_by(kind, target, check["answered_by"])
        elif check["state"] == OK and (not window["failed"] or sum(_counts(window["failed"]).values()) <= FEW_FAILURES):
            prompt = type(median) is float and 0.0 <= median < SLOW_SECONDS
            self.timings[kind] = None if prompt else _timing(check, window)

    def _sent_again(self, kind: str, target: str, again: float, window: Mapping[str, Any]) -> None:
        failed = sum(_counts(window["failed"]).values())
        rest = min(again, 1000.0) - RETRANSMITS_OF_A_FAILURE * failed
        if rest > 0:
            key = (self.node, kind if not target else "", target)
            self.evidence.retransmits[key] = self.evidence.retransmits.get(key, 0.0) + rest

    def _certificate(self, kind: str, target: str, ends: float) -> None:
        of = certificate_of(kind, target)
        self.evidence.certificates.setdefault(of, []).append((self.node, ends))

    def _answered_by(self, kind: str, target: str, pod: Any) -> None:
        if self.expected is None:
            neighbourhood = fields.mapping(self.state.get("neighbourhood"))
            found = [each for each in fields.entries(neighbourhood.get("checked"), MOST_CHECKS) if type(each) is dict]
            self.expected = {(each.get("node_name"), each.get("pod_name")) for each in found}
        # Two Pods of one node have types of their own; either may answer while one replaces the other.
        if (target, pod) not in self.expected and self.expected and len(self.evidence.strangers) < MOST_WITNESSES:
            self.evidence.strangers.append(f"{kind} of {self.node} was answered by {fields.text(pod) or 'no Pod'}.")

    def _explore(self, check: Mapping[str, Any]) -> None:
        """Read the requests of path_explore, each to another node, when any of them failed."""
        window = fields.mapping(check.get("window"))
        if check.get("state") == OK and not window.get("failed"):
            return
        latest = fields.name(check.get("node"))
        witnesses = _witnesses(check.get("witnesses"))
        by_target: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
        for entry in fields.entries(check.get("explored"), MOST_EXPLORED):
            facts = fields.mapping(entry)
            target, state = facts.get("node"), fields.text(facts.get("state"))
            if type(target) is not str or (target not in self.evidence.known_nodes and not fields.name(target)):
                continue
            if state:
                by_target[target].append((fields.positive(facts.get("at")), state, fields.text(facts.get("phase"))))
        for target, results in by_target.items():
            self._explored(target, sorted(results), witnesses if target == latest else ())

    def _explored(self, target: str, results: list[tuple[float, str, str]], witnesses: tuple[Witness, ...]) -> None:
        failed = [each for each in results if each[1] != OK]
        passed = len(results) - len(failed)
        if not failed:
            self._passed("", target, passed)
            return
        streak = 0
        for each in reversed(results):
            if (each[1] == OK) != (results[-1][1] == OK):
                break
            streak += 1 if each[1] == OK else -1
        self._passed("", target, passed)
        at, state, phase = failed[-1]
        phase = phase if phase in PHASES else phase_of(state)
        if streak >= 2:
            return
        self.evidence.failures.append(
            Failure(
                node=self.node,
                kind=PATH_EXPLORE,
                target=target,
                state=state,
                phase=phase,
                manner=manner_of(state, phase),
                failed=float(len(failed)),
                ok=float(passed),
                streak=streak,
                began=failed[0][0] if streak < 0 and at else None,
                witnesses=witnesses,
                explored=True,
            )
        )


def certificate_of(kind: str, target: str) -> str:
    """Return what a check's certificate is of, as verdicts name it."""
    if target or kind in ("me_service", PATH_EXPLORE):
        return "neighbour"
    if kind.startswith("api_server_"):
        return "api_server"
    return "ingress" if kind == "me_ingress" else kind


def _counts(failed: Any) -> dict[str, float]:
    """Return the failures of a window by state. Raises ValueError for what cannot be a count."""
    counts: dict[str, float] = {}
    if not isinstance(failed, dict) or len(failed) > MOST_WITNESSES:
        raise ValueError("failed")
    for state, count in failed.items():
        found = fields.number(count)
        if found is None or found < 0:
            raise ValueError("failed")
        words = fields.text(state)
        if found and words and words != OK:
            counts[words] = counts.get(words, 0.0) + found
    return counts


def _weigh(made: float, failed: float, streak: int) -> tuple[float, float, float, float]:
    """Return what a window says of the present: a factor for its counts, made, failed, and the streak's chance.

    A run of failures that began within the window is a fault that is new: what was before does not count. Failures
    that ended do not count either. The chance is hypergeometric: that the last ``streak`` of ``made`` results are ok
    when ``failed`` of them, anywhere, are not.
    """
    factor = min(1.0, MOST_REQUESTS / made) if made else 1.0
    run = min(-streak, failed)
    if streak <= -NEW_FAULT and run < made and (failed - run <= 1 or run >= made / 2):
        return factor * run / failed, factor * run, factor * run, 1.0
    chance = 1.0
    if streak > 0 and failed:
        chance = quiet_chance(made, failed, streak)
        if streak >= 2 and chance < ENDED_CHANCE:
            return 0.0, min(float(streak), made) * factor, 0.0, chance
    return factor, made * factor, failed * factor, chance


def _witnesses(found: Any) -> tuple[Witness, ...]:
    if not found:
        return ()
    witnesses = []
    for entry in fields.entries(found, MOST_WITNESSES):
        facts = fields.mapping(entry)
        kind = fields.name(facts.get("kind"))
        if kind and isinstance(facts.get("ok"), bool):
            witnesses.append(
                Witness(
                    kind=kind,
                    target=fields.name(facts.get("target")),
                    name=fields.text(facts.get("name")),
                    ok=facts["ok"],
                    seconds=fields.positive(facts.get("seconds")),
                    detail=fields.text(facts.get("detail")),
                )
            )
    return tuple(witnesses)


def _timing(check: Mapping[str, Any], window: Mapping[str, Any]) -> Timing | None:
    """Return how long a check takes, None when it is prompt or not known."""
    median = fields.number(window.get("median_seconds"))
    if median is None:
        median = fields.number(check.get("duration"))
    latest = fields.number(check.get("duration"))
    if median is None or median < SLOW_SECONDS or (latest is not None and latest < SLOW_SECONDS):
        return None
    trace = fields.mapping(check.get("trace"))
    began, done = fields.number(trace.get("dns_start")), fields.number(trace.get("dns_done"))
    resolving = max(0.0, done - (began or 0.0)) if done is not None else None
    rtt = fields.positive(fields.mapping(check.get("tcp")).get("rtt_seconds"))
    return Timing(median=median, resolving=resolving, rtt=rtt)
