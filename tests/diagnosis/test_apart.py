"""What is set apart before anything is judged: maintenance, agents of other versions, faults that ended, chance."""

from __future__ import annotations

import pytest

from checks.diagnosis import diagnose
from tests.diagnosis.bundles import LOST, NAMED, NODES, REFUSED, Bundle, witness
from tests.diagnosis.faults import verdict
from tests.diagnosis.score import make_case, verdicts_of

NO_NAME = "dns: no usable answer from the name servers"


def maintained(node: str) -> set[object]:
    """Return the verdict of a node under maintenance."""
    return {verdict("maintenance", {"node": node})}


@pytest.mark.parametrize("field", ["cordoned", "deleted"])
def test_what_fails_because_of_maintenance_is_no_fault(field: str) -> None:
    """Paths to the node, and the share of the Service's requests that meets its Pod."""
    bundle = Bundle()
    bundle.document["nodes"][2][field] = True
    bundle.silence("a2")
    bundle.fail(bundle.others("a2"), ["path_a2"], LOST)
    bundle.fail(["b1", "a3"], ["me_service"], REFUSED, failed=2, streak=3)
    document = diagnose(bundle.document)
    assert verdicts_of(document) == maintained("a2")
    assert document["healthy"]
    assert document["verdicts"][0]["severity"] == "info"
    assert document["verdicts"][0]["explains"]["failed"] == 60


def test_an_agent_that_is_replaced_is_maintenance() -> None:
    """It is leaving; its node is not cordoned."""
    bundle = Bundle()
    bundle.document["leaving"] = [{"pod_name": "kubenurse-a2", "node_name": "a2"}]
    bundle.fail(bundle.others("a2"), ["path_a2"], REFUSED, failed=4)
    bundle.fail(["a2"], NAMED, NO_NAME)
    assert bundle.verdicts() == maintained("a2")


def test_a_node_whose_object_is_gone_is_maintenance() -> None:
    """The agents that looked for it say so, although the list of nodes is older."""
    bundle = Bundle()
    gone = witness("node_object", "a2", False, "404 Not Found")
    bundle.fail(bundle.others("a2"), ["path_a2"], LOST, witnesses=[gone])
    bundle.silence("a2")
    assert bundle.verdicts() == maintained("a2")


def test_a_node_that_is_not_ready_is_down() -> None:
    """Its object is there."""
    bundle = Bundle()
    seen = witness("node_object", "a2", False, "Ready is Unknown")
    bundle.fail(bundle.others("a2"), ["path_a2"], LOST, witnesses=[seen])
    bundle.silence("a2")
    assert bundle.verdicts() == {verdict("node", {"node": "a2"})}


def test_maintenance_and_a_fault_elsewhere_are_both_said() -> None:
    """The gravest first."""
    bundle = Bundle()
    bundle.document["nodes"][2]["cordoned"] = True
    bundle.fail(["b1"], NAMED, NO_NAME)
    document = diagnose(bundle.document)
    assert [each["cause"] for each in document["verdicts"]] == ["dns", "maintenance"]


def test_an_agent_of_version_1_15_lives() -> None:
    """It answers 404 where newer ones give their state; others reach it."""
    bundle = Bundle()
    bundle.silence("a2", "404 Not Found", "status")
    assert bundle.verdicts() == set()
    bundle.fail(bundle.others("a2"), ["path_a2"], LOST)
    assert bundle.verdicts() == {verdict("isolated", {"node": "a2", "direction": "in"})}


def test_an_agent_that_the_collector_alone_does_not_reach_is_no_verdict() -> None:
    """The others reach it; that it gave no state is said."""
    bundle = Bundle()
    bundle.silence("a2")
    document = diagnose(bundle.document)
    assert not document["verdicts"]
    assert any("a2" in each for each in document["unknown"])


@pytest.mark.parametrize(("failed", "streak"), [(8, 4), (10, 2), (6, 6), (3, 9), (11, 1)])
def test_a_fault_that_ended_raises_nothing(failed: int, streak: int) -> None:
    """All that failed had failed before the streak of successes."""
    bundle = Bundle()
    bundle.fail(NODES, NAMED, NO_NAME, failed=failed, streak=streak)
    document = diagnose(bundle.document)
    assert not document["verdicts"]
    assert document["healthy"]


@pytest.mark.parametrize("streak", [1, -1, 2, -2])
def test_a_fault_that_comes_and_goes_is_raised(streak: int) -> None:
    """Half of the requests fail, now and then."""
    bundle = Bundle()
    bundle.fail(NODES, NAMED, NO_NAME, failed=6, streak=streak)
    assert bundle.verdicts() == {verdict("dns", {})}


def test_a_fault_that_began_a_few_rounds_ago_is_raised() -> None:
    """What was before does not speak against it."""
    bundle = Bundle()
    bundle.fail(["a2"], NAMED, NO_NAME, failed=3, streak=-3)
    assert bundle.verdicts() == {verdict("dns", {"node": "a2"})}


def test_single_failures_raise_nothing() -> None:
    """One in the minute, now or before, on many checks."""
    bundle = Bundle()
    bundle.fail(["a1"], ["me_service", "path_b2"], LOST, failed=1)
    bundle.fail(["b1"], ["me_ingress"], "502 Bad Gateway", failed=1, streak=5)
    bundle.fail(["a3"], ["path_a2"], LOST, failed=1, streak=11)
    bundle.fail(["b3"], ["db"], LOST, failed=2, streak=4)
    document = diagnose(bundle.document)
    assert not document["verdicts"]
    assert document["healthy"]


@pytest.mark.parametrize("variant", ["missing", "mute", "old"])
@pytest.mark.parametrize("fault", ["node", "dns {}", "ingress {node}", "isolated, in", "path", "service_backends {}"])
def test_missing_states_change_no_verdict(variant: str, fault: str) -> None:
    """Half of the states missing, or agents silent or of version 1.15 among them."""
    for seed in range(3):
        case = make_case([fault], seed, variant=variant)
        assert verdicts_of(diagnose(case.bundle)) == case.expected, seed


@pytest.mark.parametrize("fault", ["node", "dns {node}", "service_backends {}", "zones", "isolated, both"])
def test_a_simulated_fault_that_ended_raises_nothing(fault: str) -> None:
    """Twenty seconds after its end."""
    for seed in range(3):
        case = make_case([fault], seed, variant="ended")
        assert verdicts_of(diagnose(case.bundle)) == set(), seed
