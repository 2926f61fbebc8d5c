"""The document of /diagnosis: its fields, words and severities."""

from __future__ import annotations

import pytest

from checks.diagnosis import diagnose, diagnose_one
from tests.diagnosis.bundles import LOST, NAMED, NODES, NOW, REFUSED, Bundle, witness
from tests.diagnosis.catalogue import FAULTS
from tests.diagnosis.score import make_case

NO_NAME = "dns: no usable answer from the name servers"
FIELDS = {
    "cause",
    "where",
    "severity",
    "detail",
    "sentence",
    "evidence",
    "confidence",
    "since",
    "explains",
    "or",
    "next",
}
WARNINGS = {"starved", "loss", "path", "dns_slow", "api_server_slow"}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_verdict_is_complete(fault: str) -> None:
    """Words are filled in, figures are in range, the severity is the cause's."""
    for verdict in diagnose(make_case([fault], 2).bundle)["verdicts"]:
        assert set(verdict) == FIELDS
        assert verdict["sentence"].endswith(".")
        assert "{" not in verdict["sentence"] + verdict["next"]
        assert verdict["next"]
        assert all(each.endswith(".") for each in verdict["evidence"])
        assert 0.0 <= verdict["confidence"] <= 1.0
        assert verdict["explains"]["failed"] <= verdict["explains"]["of"]
        soon = fault == "certificate, ends soon"
        expected = "info" if verdict["cause"] == "maintenance" else "warning" if soon else "critical"
        assert verdict["severity"] == ("warning" if verdict["cause"] in WARNINGS else expected)


def test_evidence_is_in_counts() -> None:
    """How many testers fail, of how many."""
    bundle = Bundle()
    bundle.fail(bundle.others("a2"), ["path_a2"], LOST, witnesses=[witness("node", "10.0.0.3", False)])
    bundle.silence("a2")
    (found,) = diagnose(bundle.document)["verdicts"]
    assert found["evidence"][0] == f"5 of 5 testers of a2 fail (60 failures: {LOST})."
    assert found["explains"] == {"failed": 60, "of": 60}
    assert found["detail"] == LOST


def test_since_is_when_the_oldest_run_of_failures_began() -> None:
    """The last result and the streak before it tell."""
    bundle = Bundle()
    bundle.fail(["a2"], NAMED, NO_NAME, failed=5)
    bundle.fail(["a2"], ["db"], NO_NAME, streak=-100)
    (found,) = diagnose(bundle.document)["verdicts"]
    assert found["since"] == NOW - 2.0 - 99 * 5.0


def test_what_cannot_be_judged_is_said() -> None:
    """While names do not resolve, nothing tells whether what they stand for works."""
    bundle = Bundle()
    bundle.fail(NODES, NAMED, NO_NAME)
    unknown = diagnose(bundle.document)["unknown"]
    assert "The API server by name cannot be judged while DNS is down everywhere." in unknown


def test_the_last_known_address_tells_what_the_name_hides() -> None:
    """The ingress is broken too, and nobody can ask for its name."""
    bundle = Bundle()
    bundle.fail(NODES, NAMED, NO_NAME, witnesses=[witness("last_address", "10.96.0.1", True)])
    broken = witness("last_address", "192.0.2.7", False, "redirect to another host: https://login.example/")
    bundle.fail(NODES, ["me_ingress"], NO_NAME, witnesses=[broken])
    assert {each["cause"] for each in diagnose(bundle.document)["verdicts"]} == {"dns", "ingress"}


def test_causes_that_explain_the_same_are_named_as_alternatives() -> None:
    """TLS handshakes that hang on one node: its MTU, or what is between it and the API server."""
    bundle = Bundle()
    bundle.fail(["a2"], ["api_server_direct", "api_server_dns"], "tls: timed out after 5s")
    (found,) = diagnose(bundle.document)["verdicts"]
    assert (found["cause"], found["where"]) == ("mtu", {"node": "a2"})
    assert found["or"] == [{"cause": "api_server", "where": {"node": "a2"}}]
    assert found["confidence"] < 0.9


def test_an_agent_alone_says_how_far_it_sees() -> None:
    """It judges itself, and that others were not asked is said first."""
    bundle = Bundle()
    bundle.fail(["a2"], NAMED, NO_NAME)
    document = diagnose_one(bundle.state("a2"))
    assert [(each["cause"], each["where"]) for each in document["verdicts"]] == [("dns", {"node": "a2"})]
    assert "Only this agent was asked" in document["unknown"][0]


def test_nobody_answering_is_not_health() -> None:
    """Nothing can be judged."""
    document = diagnose({"kubenurse_bundle": 1, "states": []})
    assert not document["healthy"]
    assert document["sentence"] == "No agent answered: nothing can be judged."


def test_agents_are_counted() -> None:
    """Those asked, and those that gave a state."""
    bundle = Bundle()
    bundle.silence("a2", "404 Not Found", "status")
    assert diagnose(bundle.document)["agents"] == {"asked": 6, "answered": 5}


def test_the_gravest_comes_first_and_the_sentence_counts_the_rest() -> None:
    """Critical before warning, and more failures before fewer."""
    bundle = Bundle()
    bundle.fail(["b1"], ["path_a2"], LOST)
    bundle.fail(NODES, ["me_service"], REFUSED)
    document = diagnose(bundle.document)
    assert [each["cause"] for each in document["verdicts"]] == ["service_backends", "path"]
    assert document["sentence"].endswith("1 more cause found.")
