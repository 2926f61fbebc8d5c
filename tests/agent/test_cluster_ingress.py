"""Each fault of an ingress in a cluster of real agents: state, metric and log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.certificates import CertificateAuthority
from sandbox.cluster import Cluster
from sandbox.ingress import ELSEWHERE, Fault
from tests.support.seen import (
    ENVIRON,
    TIMEOUT,
    Log,
    failing,
    states,
    value,
    wait_for_rounds,
    wait_for_state,
    wait_until_well,
)
from tests.support.waiting import until

# In words and as the label of kubenurse_errors_total; {url} is the ingress's.
EXPECTED = {
    Fault.BAD_GATEWAY: ("502 Bad Gateway", "status_code_502"),
    Fault.REDIRECT_ELSEWHERE: (f"redirect to another host: {ELSEWHERE}", "redirect"),
    Fault.REDIRECT_LOOP: ("more than 5 redirects, the last to {url}/alwayshappy", "redirect"),
    Fault.EXPIRED: ("tls: certificate has expired", "tls_handshake_done"),
    Fault.SELF_SIGNED: ("tls: self-signed certificate", "tls_handshake_done"),
    Fault.WRONG_NAME: ("tls: hostname mismatch, certificate is not valid for 'localhost'", "tls_handshake_done"),
    Fault.HANG: (f"response: timed out after {TIMEOUT}", "timeout"),
    Fault.SLOW_HEADERS: (f"response: timed out after {TIMEOUT}", "timeout"),
    Fault.CUT_HEAD: ("response: truncated", "round_trip_error"),
    Fault.CUT_BODY: ("response: truncated, 991 bytes are missing", "round_trip_error"),
}
CERTIFICATES = [Fault.EXPIRED, Fault.SELF_SIGNED, Fault.WRONG_NAME]


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """Two agents, the second of which does not verify certificates."""
    with Cluster(2, environ=ENVIRON, environs={2: {"KUBENURSE_INSECURE": "true"}}) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """The cluster in a healthy state. It is repaired after the test."""
    wait_until_well(shared.agents[0], "path_node-2")
    wait_until_well(shared.agents[1], "path_node-1")
    yield shared
    shared.ingress.fault = Fault.NONE


def test_every_fault_is_expected() -> None:
    """Every fault of the sandbox has an expectation here."""
    assert set(Fault) == {*EXPECTED, Fault.NONE, Fault.REDIRECT_HERE}


@pytest.mark.parametrize("fault", EXPECTED, ids=lambda fault: fault.name.lower())
def test_a_fault_is_told_everywhere_and_taken_back(cluster: Cluster, fault: Fault) -> None:
    """State, event, metric and one log line agree on a fault. No other check fails. One line reports the recovery."""
    state, event = EXPECTED[fault]
    state = state.format(url=cluster.ingress.url)
    agent = cluster.agents[0]
    log = Log(agent)
    errors = value(agent, "kubenurse_errors_total", type="me_ingress", event=event)

    cluster.ingress.fault = fault
    found = wait_for_state(agent, "me_ingress", state)
    assert found["event"] == event
    alive = agent.get("/alive")
    assert (alive.status, alive.json()["me_ingress"]) == (500, state)
    assert alive.json()["last_check_result"] == {**states(agent), "me_ingress": state}
    assert failing(agent) == {"me_ingress": state}
    assert value(agent, "kubenurse_errors_total", type="me_ingress", event=event) > errors
    assert value(agent, "kubenurse_check_success", type="me_ingress") == 0
    if fault not in (Fault.HANG, Fault.SLOW_HEADERS):  # rounds of timeouts only take time
        wait_for_rounds(agent, "me_ingress")

    cluster.ingress.fault = Fault.NONE
    wait_for_state(agent, "me_ingress", "ok")
    until(lambda: len(log.events("me_ingress")) == 2)
    failed, recovered = log.events("me_ingress")
    assert (failed["event"], failed["level"]) == ("check failing", "warning")
    assert (failed["state"], failed["error_event"]) == (state, event)
    assert (recovered["event"], recovered["level"], recovered["was"]) == ("check recovered", "info", state)
    assert log.events() == [failed, recovered]
    assert value(agent, "kubenurse_check_success", type="me_ingress") == 1


def test_a_redirect_on_the_same_host_is_followed(cluster: Cluster) -> None:
    """A redirect to the same host is ok and is not logged."""
    agent = cluster.agents[0]
    log = Log(agent)
    cluster.ingress.fault = Fault.REDIRECT_HERE
    wait_for_rounds(agent, "me_ingress", 3)
    assert failing(agent) == {}
    assert log.events() == []


@pytest.mark.parametrize("fault", CERTIFICATES, ids=lambda fault: fault.name.lower())
def test_insecure_does_not_mind_certificates(cluster: Cluster, fault: Fault) -> None:
    """An agent with KUBENURSE_INSECURE accepts a certificate that the other agent refuses."""
    strict, insecure = cluster.agents
    cluster.ingress.fault = fault
    wait_for_state(strict, "me_ingress", EXPECTED[fault][0])
    wait_for_rounds(insecure, "me_ingress")
    assert failing(insecure) == {}
    assert value(insecure, "kubenurse_tls_not_after_timestamp_seconds", type="me_ingress") > 0


def test_insecure_still_verifies_the_api_server(cluster: Cluster, tmp_path: Path) -> None:
    """KUBENURSE_INSECURE does not apply to the API server: an unknown authority is refused."""
    insecure = cluster.agents[1]
    authority, stranger = cluster.authority, CertificateAuthority(tmp_path / "pki")
    environ = dict(insecure.environ)
    try:
        # The user's CA is also trusted for the API server.
        insecure.environ["KUBENURSE_EXTRA_CA"] = str(stranger.file)
        insecure.account.rotate(ca=stranger.pem)
        insecure.restart()
        for kind in ("api_server_direct", "api_server_dns"):
            wait_for_state(insecure, kind, "tls: unable to get local issuer certificate")
        wait_for_state(insecure, "me_ingress", "ok")
        until(lambda: "tls" in failing(insecure)["neighbourhood"].lower())
        insecure.account.rotate(ca=authority.pem)
        wait_for_state(insecure, "api_server_direct", "ok")
    finally:
        insecure.environ.update(environ)
        insecure.account.rotate(ca=authority.pem)
        insecure.restart()
