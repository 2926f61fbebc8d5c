"""Bundles from Pods that babble or lie: nothing raises, and what can be judged is."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checks.cli.diagnose import print_diagnosis
from checks.diagnosis import diagnose, diagnose_one
from tests.diagnosis.bundles import LOST, NAMED, NODES, Bundle, Document
from tests.diagnosis.faults import verdict
from tests.diagnosis.score import verdicts_of

NO_NAME = "dns: no usable answer from the name servers"
KEYS = ("healthy", "sentence", "collected_at", "agents", "verdicts", "unexplained", "unknown")

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)


@given(anything)
def test_whatever_a_bundle_is_a_document_comes_out(bundle: Any) -> None:
    """Of the right shape, that JSON can hold."""
    document = diagnose(bundle)
    assert tuple(document) == KEYS
    json.dumps(document, allow_nan=False)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.extend(_places(inner, (*path, key)))
    return found


FAILING = Bundle()
FAILING.fail(["a2"], NAMED, NO_NAME)
FAILING.fail(FAILING.others("b3"), ["path_b3"], LOST)
FAILING.silence("b3")
PLACES = _places(FAILING.document)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(PLACES), anything), min_size=1, max_size=6))
def test_no_field_of_another_type_raises(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    """Any field at any depth may be anything."""
    document: Any = copy.deepcopy(FAILING.document)
    for path, value in changes:
        holder = document
        try:
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = value
        except (TypeError, KeyError, IndexError):  # an earlier change took the place away
            continue
    judged = diagnose(document)
    json.dumps(judged, allow_nan=False)
    shown = print_diagnosis(judged, colour=False)
    assert all(character.isprintable() or character == "\n" for character in shown)


@pytest.mark.parametrize(
    "window",
    [
        {"made": 12, "failed": {LOST: -5}, "streak": -12},
        {"made": 12, "failed": {LOST: 13}, "streak": -12},
        {"made": 12, "failed": {LOST: float("nan")}, "streak": -12},
        {"made": float("inf"), "failed": {LOST: float("inf")}, "streak": -1},
        {"made": "12", "failed": [LOST], "streak": "many"},
        {"made": 12, "failed": {f"state {index}": 0.01 for index in range(1000)}, "streak": -12},
        None,
    ],
)
def test_a_window_that_cannot_be_is_left_out_and_said_to_be(window: Any) -> None:
    """The agent's other checks still count."""
    bundle = Bundle()
    bundle.fail(["a2"], NAMED, NO_NAME)
    bundle.check("b1", "path_a3").update(state=LOST, phase="connect", window=window)
    document = diagnose(bundle.document)
    assert verdicts_of(document) == {verdict("dns", {"node": "a2"})}
    assert any("kubenurse-b1" in each for each in document["unknown"])


def test_an_agent_that_claims_many_requests_does_not_outvote_the_others() -> None:
    """A billion failures of one agent are that agent's."""
    bundle = Bundle()
    window = {"made": 10**9, "failed": {LOST: 10**9}, "streak": -(10**9)}
    for kind in ("api_server_direct", *NAMED, *(f"path_{each}" for each in bundle.others("a2"))):
        bundle.check("a2", kind).update(state=LOST, phase="connect", window=window)
    assert bundle.verdicts() == {verdict("isolated", {"node": "a2", "direction": "out"})}


def test_hostile_names_and_words_do_not_reach_a_terminal() -> None:
    """Names that no node can have are left out; words are cleaned and cut."""
    bundle = Bundle()
    bundle.fail(NODES, ["db"], "connect: \x1b[2J\u202e" + "x" * 100_000)
    bundle.state("a1")["checks"]["\x1b[31mred"] = bundle.check("a1", "db")
    bundle.document["silent"] = [{"node_name": "evil\nnode", "why": LOST}]
    document = diagnose(bundle.document)
    text = json.dumps(document, ensure_ascii=False)
    assert verdicts_of(document) == {verdict("extra", {"check": "db"})}
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text) < 20_000


def test_a_second_state_of_a_pod_is_left_out() -> None:
    """Whoever sends it: the first counts."""
    bundle = Bundle()
    copied: Document = copy.deepcopy(bundle.state("a2"))
    for kind in NAMED:
        copied["checks"][kind].update(state=NO_NAME, phase="dns")
    bundle.document["states"].append(copied)
    document = diagnose(bundle.document)
    assert not document["verdicts"]
    assert any("second state" in each for each in document["unknown"])


@given(anything)
def test_a_single_state_may_be_anything(state: Any) -> None:
    """An agent judges itself by the same code."""
    assert tuple(diagnose_one(state)) == KEYS
