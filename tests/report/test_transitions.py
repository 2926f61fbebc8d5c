"""The log tells of changes: when a check starts failing, when the reason changes and when it recovers."""

from __future__ import annotations

import logging

from hypothesis import given
from hypothesis import strategies as st

from checks.model import OK, CheckResult
from checks.report.transitions import MOST_TURNS, REASON_SECONDS, TURN_SECONDS, Transitions, log

REFUSED = "connect: connection refused"
NOT_FOUND = "404 Not Found"


class Lines(logging.Handler):
    """Collects what is logged, as (level, event, facts)."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Collect a record."""
        self.lines.append((record.levelname, record.getMessage(), record.__dict__["facts"]))

    def events(self) -> list[str]:
        """The events logged since the last call."""
        events = [event for _, event, _ in self.lines]
        self.lines.clear()
        return events

    def __enter__(self) -> Lines:
        self.level_before = log.level
        log.setLevel(logging.INFO)
        log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        log.removeHandler(self)
        log.setLevel(self.level_before)


def result(state: str, *, kind: str = "me_service", at: float = 0.0) -> CheckResult:
    """A result of a check at a moment, on a machine whose clock goes back an hour with each check."""
    if state == OK:
        return CheckResult(kind, OK, started_at=1e9 - 3600 * at, finished=at)
    return CheckResult(kind, state, event="connect_done", started_at=1e9 - 3600 * at, finished=at, remote="10.0.0.1")


def test_outage_is_three_lines_however_long_it_is() -> None:
    """A check says that it fails, that the reason changed and that it recovered, and is silent in between."""
    transitions = Transitions()
    states = [OK, OK, REFUSED, REFUSED, REFUSED, NOT_FOUND, NOT_FOUND, OK, OK]
    with Lines() as logged:
        for moment, state in enumerate(states):
            transitions.take(result(state, at=1000.0 + 5 * moment))
    common = {"type": "me_service", "error_event": "connect_done", "remote": "10.0.0.1"}
    assert logged.lines == [
        ("WARNING", "check failing", {**common, "state": REFUSED}),
        ("WARNING", "check reason changed", {**common, "state": NOT_FOUND, "was": REFUSED}),
        ("INFO", "check recovered", {"type": "me_service", "seconds": 25.0, "was": NOT_FOUND}),
    ]


def test_healthy_checks_log_nothing() -> None:
    """Checks that are ok from the beginning write no line."""
    transitions = Transitions()
    with Lines() as logged:
        for kind in ("me_ingress", "me_service", "me_ingress"):
            transitions.take(result(OK, kind=kind))
    assert logged.lines == []


def test_checks_are_told_apart() -> None:
    """One check's recovery is not another's."""
    transitions = Transitions()
    with Lines() as logged:
        transitions.take(result(REFUSED, kind="path_a"))
        transitions.take(result(REFUSED, kind="path_b"))
        transitions.take(result(OK, kind="path_a"))
        transitions.take(result(REFUSED, kind="path_b"))
    assert [(event, facts["type"]) for _, event, facts in logged.lines] == [
        ("check failing", "path_a"),
        ("check failing", "path_b"),
        ("check recovered", "path_a"),
    ]


def test_second_outage_is_told_again() -> None:
    """A check that failed, recovered and fails again says so again, and counts its seconds anew."""
    transitions = Transitions()
    with Lines() as logged:
        for moment, state in [(0.0, REFUSED), (5.0, OK), (100.0, REFUSED), (103.0, OK)]:
            transitions.take(result(state, at=moment))
    assert [facts.get("seconds") for _, _, facts in logged.lines] == [None, 5.0, None, 3.0]


def test_clock_set_back_gives_no_negative_outage() -> None:
    """An outage during which the wall clock was set back lasted no less than 0 seconds."""
    transitions = Transitions()
    with Lines() as logged:
        transitions.take(result(REFUSED, at=1000.0))
        transitions.take(result(OK, at=400.0))
    assert logged.lines[-1][2]["seconds"] == 0.0


def test_checks_no_longer_made_are_forgotten() -> None:
    """A failing check that is gone is forgotten: when it returns failing, that is news, and ok is none."""
    transitions = Transitions()
    with Lines() as logged:
        for kind in ("path_a", "path_b", "path_c"):
            transitions.take(result(REFUSED, kind=kind))
        logged.events()
        transitions.retain({"path_c", "path_new"})
        transitions.take(result(REFUSED, kind="path_a"))
        transitions.take(result(OK, kind="path_b"))
        transitions.take(result(REFUSED, kind="path_c"))
        assert logged.events() == ["check failing"]


@given(st.lists(st.sampled_from([OK, REFUSED, NOT_FOUND])))
def test_one_line_a_change_and_none_otherwise(states: list[str]) -> None:
    """With rare changes there is one line for each result that differs from the one before, of the right kind."""
    expected = []
    for before, state in zip([OK, *states], states, strict=False):
        if state == OK != before:
            expected.append("check recovered")
        elif state != before:
            expected.append("check failing" if before == OK else "check reason changed")
    transitions = Transitions()
    with Lines() as logged:
        for number, state in enumerate(states):
            transitions.take(result(state, at=REASON_SECONDS * number))
        assert logged.events() == expected


def test_alternating_reasons_are_said_once_a_minute() -> None:
    """A check that fails for two reasons in turn says the change once a minute, with the number held back."""
    transitions = Transitions()
    with Lines() as logged:
        for round_ in range(37):
            transitions.take(result(NOT_FOUND if round_ % 2 else REFUSED, at=5.0 * round_))
        transitions.take(result(OK, at=200.0))
    assert [(event, facts.get("held_back")) for _, event, facts in logged.lines] == [
        ("check failing", None),
        ("check reason changed", None),
        ("check reason changed", 12),
        ("check reason changed", 12),
        ("check recovered", 9),
    ]
    assert logged.lines[-1][2]["seconds"] == 200.0


def test_a_flapping_check_says_little_and_ends_with_the_truth() -> None:
    """A check that fails every other time writes a few lines a minute; when it settles, the log says how it is."""
    transitions = Transitions()
    with Lines() as logged:
        for round_ in range(121):
            transitions.take(result(OK if round_ % 2 else REFUSED, at=5.0 * round_))
        assert len(logged.lines) <= MOST_TURNS + 600 / TURN_SECONDS + 1
        assert sum(int(str(facts.get("held_back", 0))) for _, _, facts in logged.lines) + len(logged.lines) <= 121
        for round_ in range(121, 121 + 13):
            transitions.take(result(REFUSED, at=5.0 * round_))
        assert logged.events()[-1] == "check failing"
        for round_ in range(200, 200 + 13):
            transitions.take(result(OK, at=5.0 * round_))
        assert logged.events() == ["check recovered"]


@given(
    st.lists(
        st.tuples(st.sampled_from([OK, REFUSED, NOT_FOUND]), st.floats(min_value=0.1, max_value=8)),
        min_size=1,
        max_size=200,
    )
)
def test_lines_are_bounded_and_the_last_word_is_right(course: list[tuple[str, float]]) -> None:
    """Any minute has a bounded number of lines, and after a calm minute the log's last word is true."""
    transitions, now, said_at = Transitions(), 0.0, list[float]()
    with Lines() as logged:
        last = OK
        for state, pause in course:
            now += pause
            transitions.take(result(state, at=now))
            said_at += [now] * len(logged.lines[len(said_at) :])
        for moment in said_at:
            assert sum(moment - REASON_SECONDS < other <= moment for other in said_at) <= MOST_TURNS + 5
        transitions.take(result(course[-1][0], at=now + REASON_SECONDS))
        for _, event, facts in logged.lines:
            last = OK if event == "check recovered" else str(facts["state"])
    assert last == course[-1][0]


def test_it_remembers_no_more_than_the_checks_of_a_round() -> None:
    """However many neighbours came, failed and went, only those of the current round are remembered."""
    departed = 1000
    transitions = Transitions()
    with Lines() as logged:
        for number in range(departed):
            kind = f"path_{number}"
            transitions.take(result(REFUSED, kind=kind))
            transitions.retain({kind})
        logged.events()
        for number in range(departed):
            transitions.take(result(OK, kind=f"path_{number}"))
        assert logged.events() == ["check recovered"]
