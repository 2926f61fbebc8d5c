"""Which witnesses follow which failure, how often they are made, and that they hold up nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from checks.model import (
    AGAIN,
    DNS_TCP,
    DNS_UDP,
    HOP,
    LARGE,
    LAST_ADDRESS,
    NODE,
    NODE_OBJECT,
    OTHER_ADDRESS,
    PHASES,
    SMALL,
    WITNESS_KINDS,
    CheckResult,
    Target,
    Witness,
)
from checks.probe.witness import Examiner, Failure
from checks.probe.witnesses import MOST_AT_ONCE, SPACING, Witnesses, follow_up
from tests.support.servers import GENEROUS, Server, probing, silent
from tests.support.waiting import until

PATH = Target("path_worker-1", "http://10.0.0.1:8080/alwayshappy", node="worker-1", node_address="192.168.0.1")
SERVICE = Target("me_service", "http://kubenurse.kube-system.svc/alwayshappy")
INGRESS = Target("me_ingress", "https://kubenurse.example/alwayshappy")
API = Target("api_server_dns", "https://kubernetes.default.svc/version", to_api_server=True)
NAMES = (DNS_UDP, DNS_TCP, LAST_ADDRESS)


def failed(target: Target, state: str, event: str = "timeout", phase: str = "") -> CheckResult:
    """Return a failed result; the phase is by default the first word of the state."""
    return CheckResult(target.type, state, event, phase=phase or state.partition(":")[0])


@pytest.mark.parametrize(
    ("target", "state", "event", "kinds"),
    [
        (API, "dns: name not known", "dns_done", NAMES),
        (INGRESS, "dns: timed out after 5s", "timeout", NAMES),
        (SERVICE, "connect: connection refused", "connect_done", (AGAIN, OTHER_ADDRESS)),
        (API, "connect: timed out after 5s", "timeout", (AGAIN, OTHER_ADDRESS)),
        (INGRESS, "connect: connection refused", "connect_done", ()),
        (PATH, "connect: timed out after 5s", "timeout", (NODE, HOP, NODE_OBJECT)),
        (PATH, "connect: no route to host", "connect_done", (NODE, HOP, NODE_OBJECT)),
        (PATH, "connect: connection timed out", "connect_done", (NODE, HOP, NODE_OBJECT)),
        (PATH, "connect: connection refused", "connect_done", (NODE_OBJECT,)),
        (PATH, "tls: timed out after 5s", "timeout", (SMALL, LARGE, NODE_OBJECT)),
        (PATH, "response: timed out after 5s", "timeout", (SMALL, LARGE, NODE_OBJECT)),
        (PATH, "response: connection reset by peer", "got_first_resp_byte", (NODE_OBJECT,)),
        (SERVICE, "response: timed out after 5s", "timeout", (SMALL, LARGE)),
        (INGRESS, "response: timed out after 5s", "timeout", ()),
        (API, "tls: certificate has expired", "tls_handshake_done", ()),
    ],
)
def test_what_follows(target: Target, state: str, event: str, kinds: tuple[str, ...]) -> None:
    """Each failure is followed by the tests that tell its causes apart."""
    assert follow_up(target, failed(target, state, event)) == kinds


@pytest.mark.parametrize("target", [PATH, SERVICE, INGRESS, API])
def test_every_phase_has_an_answer(target: Target) -> None:
    """A good check is followed by nothing, a failed one by kinds of the closed set, each once."""
    assert follow_up(target, CheckResult(target.type, "ok")) == ()
    for phase in PHASES:
        kinds = follow_up(target, failed(target, f"{phase}: timed out after 5s", phase=phase))
        assert len(set(kinds)) == len(kinds)
        assert set(kinds) <= set(WITNESS_KINDS)


class Court:
    """Witnesses whose tests the test controls, and a clock that it sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.may_end = threading.Event()
        self.may_end.set()
        self.failures: list[Failure] = []
        self.at_once = self.most_at_once = 0
        self.told: list[tuple[str, tuple[Witness, ...]]] = []
        self.lock = threading.Lock()
        self.witnesses = Witnesses(
            {AGAIN: self.make}, on_made=lambda kind, made: self.told.append((kind, made)), clock=lambda: self.now
        )

    def make(self, failure: Failure) -> Sequence[Witness]:
        """Make a witness, when the test lets it."""
        with self.lock:
            self.failures.append(failure)
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        assert self.may_end.wait(GENEROUS)
        with self.lock:
            self.at_once -= 1
        return (Witness(AGAIN, "10.0.0.1", "", ok=True, seconds=0.1, detail="ok", at=1.0),)

    def fail(self) -> None:
        """Note a failure of one check."""
        self.witnesses.note(SERVICE, failed(SERVICE, "connect: connection refused", "connect_done"))


def threads() -> int:
    """How many threads make witnesses."""
    return sum(thread.name == "witness" for thread in threading.enumerate())


def test_nothing_runs_while_all_is_well() -> None:
    """A good result starts no thread and makes no witness."""
    court = Court()
    for _ in range(10):
        court.witnesses.note(SERVICE, CheckResult("me_service", "ok", remote="10.0.0.1"))
    assert (court.witnesses.of("me_service"), court.failures, threads()) == ((), [], 0)


def test_a_failure_is_followed() -> None:
    """After a failure the witnesses are made and kept, with the address where the check succeeded last."""
    court = Court()
    court.witnesses.note(SERVICE, CheckResult("me_service", "ok", remote="10.0.0.1"))
    court.fail()
    until(lambda: court.told, 5)
    assert [found.last_address for found in court.failures] == ["10.0.0.1"]
    assert [(witness.kind, witness.ok) for witness in court.witnesses.of("me_service")] == [(AGAIN, True)]
    assert court.told == [("me_service", court.witnesses.of("me_service"))]
    until(lambda: threads() == 0, 5)


def test_not_too_often() -> None:
    """The failures of one check are followed at most once in SPACING seconds."""
    court = Court()
    court.fail()
    until(lambda: len(court.told) == 1, 5)
    court.now += SPACING - 0.001
    court.fail()
    court.now += 0.001
    court.fail()
    until(lambda: len(court.told) == 2, 5)
    assert len(court.failures) == 2
    court.witnesses.close()


def test_a_few_at_once() -> None:
    """However many checks fail, a few witnesses are made at a time, and the others wait for their turn."""
    court = Court()
    court.may_end.clear()
    court.witnesses = Witnesses({NODE: court.make}, clock=lambda: court.now)
    paths = [Target(f"path_{n}", "http://10.0.0.1/", node=f"{n}") for n in range(30)]
    for path in paths:
        court.witnesses.note(path, failed(path, "connect: timed out after 5s"))
    until(lambda: court.at_once == MOST_AT_ONCE, 5)
    assert threads() == MOST_AT_ONCE
    court.may_end.set()
    until(lambda: all(court.witnesses.of(path.type) for path in paths), 5)
    assert (court.most_at_once, len(court.failures)) == (MOST_AT_ONCE, len(paths))
    until(lambda: threads() == 0, 5)


def test_a_failure_under_way_is_not_followed_twice() -> None:
    """While the witnesses of a check hang, its further failures are not queued."""
    court = Court()
    court.may_end.clear()
    court.fail()
    until(lambda: court.at_once == 1, 5)
    for _ in range(10):
        court.now += SPACING
        court.fail()
    court.may_end.set()
    until(lambda: threads() == 0, 5)
    assert len(court.failures) == 1


def test_departed_checks_are_forgotten() -> None:
    """What is kept of a check ends with it."""
    court = Court()
    court.fail()
    until(lambda: court.told, 5)
    court.witnesses.retain(frozenset({"other"}))
    assert court.witnesses.of("me_service") == ()


def test_a_test_that_breaks_stops_no_other() -> None:
    """An unexpected error in one witness is logged, and the next failure is followed all the same."""
    court = Court()

    def broken(_failure: Failure) -> Sequence[Witness]:
        raise RuntimeError("as told")

    witnesses = Witnesses({AGAIN: broken, NODE: court.make})
    witnesses.note(SERVICE, failed(SERVICE, "connect: connection refused"))
    witnesses.note(PATH, failed(PATH, "connect: timed out after 5s"))
    until(lambda: witnesses.of(PATH.type), 5)
    witnesses.close()


def test_without_a_thread_to_be_had() -> None:
    """When no thread can be started the failure is not followed, and a later one is."""
    court = Court()
    before = threading.stack_size(1 << 47)  # no address space holds such a stack
    try:
        court.fail()
    finally:
        threading.stack_size(before)
    assert (court.failures, threads()) == ([], 0)
    court.now += SPACING
    court.fail()
    until(lambda: court.told, 5)


def test_the_end_of_the_agent() -> None:
    """Stopping the checks ends witnesses under way at once; nothing is kept of those, and none begins any more."""
    with Server(silent) as server, probing() as prober:
        examiner = Examiner(prober.shared, node_port=0)
        witnesses = Witnesses(examiner.by_kind)
        checked = Target("me_service", server.url())
        witnesses.note(checked, failed(checked, "connect: connection refused"))
        until(lambda: server.connections, 5)
        witnesses.stop()
        prober.stop()
        witnesses.close()
        assert threads() == 0
        assert witnesses.of("me_service") == ()
        witnesses.note(API, failed(API, "connect: connection refused"))
        assert threads() == 0
