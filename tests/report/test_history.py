"""What the agent remembers: slots of each check, the flight recorder, and bounds for both."""

from __future__ import annotations

import json
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.model import CONNECT, OK, CheckResult, TcpFacts
from checks.report import history as history_module
from checks.report.history import MOST_SLOTS, SLOT_SECONDS, History
from checks.report.recorder import MOST_FAILURES, MOST_WITNESSES
from checks.report.ring import MOST_STATES, OTHER

REFUSED = "connect: connection refused"
MINUTES_15 = 900.0
WALL = 1.8e9


class World:
    """A clock that stands still until told, the wall clock that follows it, and an agent that may be starved."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.starved = False

    def history(self, seconds: float = MINUTES_15) -> History:
        """Make a history in this world."""
        return History(
            seconds, starved=lambda: self.starved, clock=lambda: self.now, wall=lambda: WALL + self.now - 1000.0
        )

    def result(self, state: str = OK, kind: str = "me_service", seconds: float = 0.001) -> CheckResult:
        """A result that has just come."""
        failed = state != OK
        return CheckResult(
            kind,
            state,
            event="connect_done" if failed else "",
            phase=CONNECT if failed else "",
            duration=seconds,
            started_at=WALL + self.now - 1000.0 - seconds,
            finished=self.now,
            remote="10.0.0.1",
            tcp=TcpFacts(0.0004, 1500, 2) if failed else None,
        )


@pytest.fixture
def world() -> World:
    """A world for one test."""
    return World()


def test_slots_tell_when_what_happened(world: World) -> None:
    """Each slot has its results, failures, slowest seconds, retransmits, state and mark; a slot without is empty."""
    history = world.history(30.0)
    course: list[tuple[float, str, float]] = [(0, OK, 0.25), (1, OK, 0.5), (5, REFUSED, 5.0), (15, OK, 0.125)]
    for after, state, seconds in course:
        world.now = 1000.0 + after
        world.starved = state != OK
        history.take(world.result(state, seconds=seconds))
    world.now = 1017.0
    document = history.document()
    assert (document["seconds"], document["slot_seconds"], document["left_out"]) == (30.0, SLOT_SECONDS, 0)
    assert document["from"] == WALL - 10
    assert document["checks"] == {
        "me_service": {
            "departed": False,
            "made": [0, 0, 2, 1, 0, 1],
            "failed": [0, 0, 0, 1, 0, 0],
            "seconds": [None, None, 0.5, 5.0, None, 0.125],
            "retransmits": [0, 0, 0, 2, 0, 0],
            "state": [0, 0, 0, 1, 0, 0],
            "starved": [0, 0, 0, 1, 0, 0],
            "states": [OK, REFUSED],
        }
    }
    json.dumps(document)


@given(st.lists(st.tuples(st.floats(0, 40), st.sampled_from([OK, REFUSED, "404 Not Found"])), max_size=60))
def test_the_ring_holds_what_the_slots_in_it_had(course: list[tuple[float, str]]) -> None:
    """Whatever the pauses, counts and states are those of the results of the slots shown."""
    world = World()
    history, made = world.history(60.0), list[tuple[int, str]]()
    for pause, state in course:
        world.now += pause
        history.take(world.result(state))
        made.append((int(world.now // SLOT_SECONDS), state))
    current = int(world.now // SLOT_SECONDS)
    shown = history.document()["checks"].get("me_service")
    numbers = range(current - 11, current + 1)
    assert (shown is None) == (not course)
    if shown is not None:
        in_slot = [[state for number, state in made if number == slot] for slot in numbers]
        failures = [[state for state in states if state != OK] for states in in_slot]
        assert shown["made"] == [len(states) for states in in_slot]
        assert shown["failed"] == [len(states) for states in failures]
        assert [shown["states"][index] for index in shown["state"]] == [(each or [OK])[-1] for each in failures]


def test_a_departed_neighbour_stays_until_it_ages_out(world: World) -> None:
    """A check that is no longer made is shown as departed for as long as it is remembered, then it is gone."""
    history = world.history()
    history.take(world.result(REFUSED, "path_node-1"))
    history.take(world.result(OK, "me_service"))
    history.retain({"me_service"})
    world.now += MINUTES_15 - 2 * SLOT_SECONDS
    history.retain({"me_service"})
    history.take(world.result(OK, "me_service"))
    checks = history.document()["checks"]
    assert {kind: shown["departed"] for kind, shown in checks.items()} == {"path_node-1": True, "me_service": False}
    history.retain({"me_service", "path_node-1"})
    assert not history.document()["checks"]["path_node-1"]["departed"]
    world.now += 3 * SLOT_SECONDS
    history.retain({"me_service"})
    document = history.document()
    assert set(document["checks"]) == {"me_service"}
    assert [failure["type"] for failure in document["failures"]] == ["path_node-1"]


def test_more_checks_than_there_is_room_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check that departed first makes room; with none departed the new one is left out, and that is said."""
    monkeypatch.setattr(history_module, "MOST_BYTES", 3 * 4_300)
    history = world.history()
    for kind in ("path_a", "path_b", "path_c"):
        history.take(world.result(kind=kind))
    history.take(world.result(kind="path_d"))
    document = history.document()
    assert (set(document["checks"]), document["left_out"]) == ({"path_a", "path_b", "path_c"}, 1)
    history.retain({"path_b", "path_d"})
    history.take(world.result(kind="path_d"))
    history.retain({"path_b"})
    document = history.document()
    assert (set(document["checks"]), document["left_out"]) == ({"path_b", "path_c", "path_d"}, 0)


def test_a_failure_comes_with_its_evidence(world: World) -> None:
    """A failure has phase, event, address, kernel figures, mark and the witnesses made after it."""
    history = world.history()
    world.starved = True
    history.witnessed("me_service", [{"kind": "again"}])
    history.take(world.result(REFUSED, seconds=0.25))
    witnesses = [{"kind": "again", "ok": False, "at": number} for number in range(MOST_WITNESSES + 3)]
    for witness in witnesses:
        history.witnessed("me_service", [witness])
    assert history.document()["failures"] == [
        {
            "type": "me_service",
            "at": WALL - 0.25,
            "state": REFUSED,
            "phase": "connect",
            "event": "connect_done",
            "status_code": None,
            "seconds": 0.25,
            "trace": {},
            "remote": "10.0.0.1",
            "tcp": {"rtt_seconds": 0.0004, "path_mtu_bytes": 1500, "retransmits": 2},
            "not_after": None,
            "starved": True,
            "witnesses": witnesses[:MOST_WITNESSES],
        }
    ]


def test_a_noisy_check_does_not_push_out_the_others(world: World) -> None:
    """The last failures of rare types stay, however often another one fails; the noisy one keeps its latest."""
    history = world.history()
    for kind in ("path_a", "path_b"):
        history.take(world.result(REFUSED, kind))
    for number in range(10 * MOST_FAILURES):
        world.now += 1
        history.take(world.result(f"{number}", "me_ingress"))
    failures = history.document()["failures"]
    assert len(failures) == MOST_FAILURES
    assert [failure["type"] for failure in failures[:2]] == ["path_a", "path_b"]
    assert [failure["state"] for failure in failures[-98:]] == [str(number) for number in range(902, 1000)]
    for number in range(2 * MOST_FAILURES):
        history.take(world.result(REFUSED, f"path_{number}"))
    failures = history.document()["failures"]
    assert len({failure["type"] for failure in failures}) == len(failures) == MOST_FAILURES


def test_ever_new_states_are_bounded(world: World) -> None:
    """A ring tells some states apart and calls the rest "other"; states that no slot has any longer make room."""
    history = world.history()
    for number in range(100):
        world.now += SLOT_SECONDS
        history.take(world.result(f"state {number}"))
    states = history.document()["checks"]["me_service"]["states"]
    assert states[0] == OK
    assert states[-1] == OTHER
    assert len(states) <= MOST_STATES + 2
    world.now += MINUTES_15
    history.take(world.result(OK))
    history.take(world.result(REFUSED))
    shown = history.document()["checks"]["me_service"]
    assert [shown["states"][index] for index in shown["state"]][-1] == REFUSED


def test_zero_remembers_nothing(world: World) -> None:
    """KUBENURSE_HISTORY=0 keeps neither slots nor failures."""
    history = world.history(0.0)
    history.take(world.result(REFUSED))
    history.retain({"me_service"})
    history.witnessed("me_service", [{"kind": "again"}])
    document = history.document()
    assert (document["seconds"], document["checks"], document["failures"]) == (0.0, {}, [])


@pytest.mark.parametrize(("seconds", "slots"), [(900.0, 180), (7.0, 2), (86_400.0, MOST_SLOTS)])
def test_a_long_memory_has_longer_slots(world: World, seconds: float, slots: int) -> None:
    """The slots cover the time remembered; beyond MOST_SLOTS they get longer instead of more."""
    history = world.history(seconds)
    history.take(world.result())
    document = history.document()
    assert len(document["checks"]["me_service"]["made"]) == slots
    assert slots * document["slot_seconds"] >= seconds


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer allocates too")
@pytest.mark.parametrize("seconds", [MINUTES_15, 86_400.0])
def test_memory_is_bounded(seconds: float) -> None:
    """With ever new neighbours that all fail in ever new long words, with witnesses, it takes at most 1 MB."""
    world = World()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        history = world.history(seconds)
        for number in range(300):
            kind = f"path_node-{number}.some-datacentre.example.com"
            for attempt in range(MOST_STATES + 2):
                world.now += 0.25
                history.take(world.result(f"{number} {attempt} {'x' * 200}", kind))
                for _ in range(MOST_WITNESSES):
                    history.witnessed(kind, [witness(number)])
            history.retain({kind})
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= 1_000_000


def witness(number: int) -> dict[str, Any]:
    """A witness as the probes make them."""
    return {
        "kind": "node",
        "target": f"10.0.0.{number % 250}",
        "ok": False,
        "seconds": 2.0,
        "detail": f"timed out {number}",
        "at": WALL + number,
    }
