"""Each cause, from a bundle written by hand: what agents say and what is concluded."""

from __future__ import annotations

import pytest

from checks.diagnosis import diagnose
from tests.diagnosis.bundles import LOST, NAMED, NODES, NOW, REFUSED, Bundle, witness
from tests.diagnosis.faults import Verdict, verdict

DAY = 86_400.0
API = ("api_server_direct", "api_server_dns")
NO_NAME = "dns: no usable answer from the name servers"
PATHS = tuple(f"path_{each}" for each in NODES)


def said(cause: str, **where: object) -> set[Verdict]:
    """Return the only verdict."""
    return {verdict(cause, dict(where))}


def paths_from(bundle: Bundle, node: str) -> list[str]:
    """Return the paths that a node checks."""
    return [f"path_{each}" for each in bundle.others(node)]


@pytest.mark.parametrize("state", [NO_NAME, "dns: timed out after 5s", "dns: name not known"])
@pytest.mark.parametrize("witnessed", [True, False])
def test_names_that_nobody_resolves_are_dns(state: str, witnessed: bool) -> None:
    """All checks by name fail on all nodes, with witnesses or without."""
    bundle = Bundle()
    servers = [witness("dns_udp", "10.96.0.10", False), witness("last_address", "10.96.0.1", True)]
    bundle.fail(NODES, NAMED, state, witnesses=servers if witnessed else [])
    assert bundle.verdicts() == said("dns")


def test_one_dead_name_server_of_two_is_named() -> None:
    """Witnesses of several nodes agree on the server that does not answer."""
    bundle = Bundle()
    servers = [witness("dns_udp", "10.0.0.1", True), witness("dns_udp", "10.0.0.2", False)]
    bundle.fail(NODES, NAMED, "dns: timed out after 5s", failed=6, streak=-1, witnesses=servers)
    assert bundle.verdicts() == said("dns", server="10.0.0.2")


def test_a_name_server_that_one_node_does_not_reach_is_that_nodes_trouble() -> None:
    """The server answers the others."""
    bundle = Bundle()
    servers = [witness("dns_udp", "10.0.0.1", True), witness("dns_udp", "10.0.0.2", False)]
    bundle.fail(["a2"], NAMED, "dns: timed out after 5s", witnesses=servers)
    assert bundle.verdicts() == said("dns", node="a2")


@pytest.mark.parametrize("node", [None, "b2"])
@pytest.mark.parametrize("traced", [True, False])
def test_late_names_are_dns_slow(node: str | None, traced: bool) -> None:
    """What goes by name is late, what goes by address is not."""
    bundle = Bundle()
    for each in [node] if node else NODES:
        for kind in NAMED:
            found = bundle.check(each, kind)
            found["duration"] = found["window"]["median_seconds"] = 0.6
            found["trace"] = {"dns_start": 0.0, "dns_done": 0.55} if traced else {}
    assert bundle.verdicts() == (said("dns_slow", node=node) if node else said("dns_slow"))


@pytest.mark.parametrize("node", [None, "b2"])
def test_a_late_api_server_is_said_to_be(node: str | None) -> None:
    """Only the API server's checks are late."""
    bundle = Bundle()
    for each in [node] if node else NODES:
        for kind in API:
            found = bundle.check(each, kind)
            found["duration"] = found["window"]["median_seconds"] = 1.2
    assert bundle.verdicts() == (said("api_server_slow", node=node) if node else said("api_server_slow"))


def test_an_api_server_that_is_far_away_is_not_late() -> None:
    """The round-trip time explains the answer's."""
    bundle = Bundle()
    for each in NODES:
        for kind in API:
            found = bundle.check(each, kind)
            found["duration"] = found["window"]["median_seconds"] = 0.4
            found["tcp"]["rtt_seconds"] = 0.09
    assert bundle.verdicts() == set()


@pytest.mark.parametrize("state", [REFUSED, LOST, "429 Too Many Requests", "tls: timed out after 5s"])
def test_an_api_server_that_serves_nobody_is_named_and_discovery_is_not(state: str) -> None:
    """Discovery fails because of it."""
    bundle = Bundle()
    bundle.fail(NODES, API, state)
    for node in NODES:
        bundle.state(node)["neighbourhood"]["state"] = "pods: connection: connection refused"
    assert bundle.verdicts() == said("api_server")


@pytest.mark.parametrize("kinds", [API, API[:1]])
def test_an_api_server_that_one_node_does_not_reach_is_that_nodes_trouble(kinds: tuple[str, ...]) -> None:
    """By both of its addresses, or by one."""
    bundle = Bundle()
    bundle.fail(["a2"], kinds, LOST)
    assert bundle.verdicts() == said("api_server", node="a2")


@pytest.mark.parametrize("nodes", [NODES, ("a2",)])
@pytest.mark.parametrize("by_cluster_ip", [True, False])
def test_cluster_ips_that_do_not_work_are_service_routing(nodes: tuple[str, ...], by_cluster_ip: bool) -> None:
    """Whether the name server has a cluster IP too, or not."""
    bundle = Bundle()
    bundle.fail(nodes, ["api_server_direct"], LOST)
    if by_cluster_ip:
        servers = [witness("dns_udp", "10.96.0.10", False), witness("last_address", "10.96.0.1", False)]
        bundle.fail(nodes, NAMED, "dns: timed out after 5s", witnesses=servers)
    else:
        bundle.fail(nodes, ["api_server_dns", "me_service"], LOST)
    assert bundle.verdicts() == (said("service_routing", node="a2") if len(nodes) == 1 else said("service_routing"))


def test_an_ingress_by_cluster_ip_is_part_of_service_routing() -> None:
    """Everything but Pod IPs fails on one node."""
    bundle = Bundle()
    bundle.fail(["a2"], ["api_server_direct", *NAMED], LOST)
    assert bundle.verdicts() == said("service_routing", node="a2")


def test_a_service_without_endpoints_is_named_and_the_ingress_before_it_is_not() -> None:
    """The ingress answers 502 because of it."""
    bundle = Bundle()
    bundle.fail(NODES, ["me_service"], REFUSED)
    bundle.fail(NODES, ["me_ingress"], "502 Bad Gateway")
    assert bundle.verdicts() == said("service_backends")


def test_some_dead_endpoints_are_service_backends() -> None:
    """A third of the requests fails, whoever asks."""
    bundle = Bundle()
    for node, streak in zip(NODES, (1, -1, 3, 2, -2, 1), strict=True):
        bundle.fail([node], ["me_service"], LOST, failed=4, streak=streak)
        bundle.fail([node], ["me_ingress"], "response: timed out after 5s", failed=3, streak=-streak)
    assert bundle.verdicts() == said("service_backends")


@pytest.mark.parametrize(
    "state",
    ["502 Bad Gateway", "redirect to another host: https://login.example/", REFUSED, LOST, "404 Not Found"],
)
@pytest.mark.parametrize("nodes", [NODES, ("b1",)])
def test_a_broken_ingress_is_named_with_its_reason(state: str, nodes: tuple[str, ...]) -> None:
    """For all or for one node; the reason is the detail."""
    bundle = Bundle()
    bundle.fail(nodes, ["me_ingress"], state)
    assert bundle.verdicts() == (said("ingress", node="b1") if len(nodes) == 1 else said("ingress"))
    assert diagnose(bundle.document)["verdicts"][0]["detail"] == state


CERTIFICATES = (
    "tls: certificate has expired",
    "tls: self-signed certificate",
    "tls: unable to get local issuer certificate",
    "tls: hostname mismatch, certificate is not valid for 'kubenurse.example'",
    "tls: IP address mismatch, certificate is not valid for '10.1.0.7'",
)


@pytest.mark.parametrize("state", CERTIFICATES)
@pytest.mark.parametrize(
    ("of", "kinds"), [("ingress", ["me_ingress"]), ("api_server", API), ("db", ["db"]), ("neighbour", PATHS)]
)
def test_a_certificate_that_is_not_accepted_is_named(state: str, of: str, kinds: list[str]) -> None:
    """Whatever is wrong with it."""
    bundle = Bundle()
    for node in NODES:
        bundle.fail([node], [kind for kind in kinds if kind != f"path_{node}"], state)
    assert bundle.verdicts() == said("certificate", of=of)
    assert diagnose(bundle.document)["verdicts"][0]["severity"] == "critical"


def test_a_certificate_that_ends_soon_is_a_warning() -> None:
    """Within 14 days, not before."""
    bundle = Bundle()
    for node in NODES:
        bundle.check(node, "me_ingress")["not_after"] = NOW + 10 * DAY
        bundle.check(node, "db")["not_after"] = NOW + 15 * DAY
    assert bundle.verdicts() == said("certificate", of="ingress")
    assert diagnose(bundle.document)["verdicts"][0]["severity"] == "warning"


@pytest.mark.parametrize("state", [REFUSED, LOST, "503 Service Unavailable", "dns: name not known"])
def test_an_extra_target_that_fails_for_all_is_named(state: str) -> None:
    """Also when only its name is not known."""
    bundle = Bundle()
    bundle.fail(NODES, ["db"], state)
    assert bundle.verdicts() == said("extra", check="db")


def test_an_extra_target_that_fails_on_one_node_is_not_explained() -> None:
    """No cause of the table fits; the check is listed."""
    bundle = Bundle()
    bundle.fail(["a2"], ["db"], LOST)
    document = diagnose(bundle.document)
    assert not document["verdicts"]
    assert document["unexplained"] == [{"node": "a2", "type": "db", "state": LOST}]
    assert not document["healthy"]


@pytest.mark.parametrize("witnessed", [True, False])
def test_a_node_that_nobody_reaches_and_that_says_nothing_is_down(witnessed: bool) -> None:
    """Its agent is silent."""
    bundle = Bundle()
    bundle.fail(bundle.others("a2"), ["path_a2"], LOST, witnesses=[witness("node", "a2", False)] if witnessed else [])
    bundle.silence("a2")
    assert bundle.verdicts() == said("node", node="a2")


@pytest.mark.parametrize(
    ("state", "why", "lives"),
    [
        (REFUSED, "connect: connection refused", []),
        ("response: timed out after 5s", "response: timed out after 1s", []),
        (LOST, "connect: timed out after 1s", [witness("node", "a2", True)]),
    ],
)
def test_a_dead_agent_on_a_node_that_lives_is_named(state: str, why: str, lives: list[dict[str, object]]) -> None:
    """A refused connection, one that is accepted, or the node's own address tells that the node lives."""
    bundle = Bundle()
    bundle.fail(bundle.others("a2"), ["path_a2"], state, witnesses=lives)
    bundle.silence("a2", why)
    assert bundle.verdicts() == said("agent", node="a2")


@pytest.mark.parametrize("state", [LOST, REFUSED, "connect: no route to host"])
def test_a_node_whose_agent_speaks_and_that_nobody_reaches_is_isolated(state: str) -> None:
    """Inbound."""
    bundle = Bundle()
    bundle.fail(bundle.others("a2"), ["path_a2"], state, witnesses=[witness("node", "a2", True)])
    assert bundle.verdicts() == said("isolated", node="a2", direction="in")


@pytest.mark.parametrize("everything", [True, False])
def test_a_node_that_reaches_nobody_is_isolated(everything: bool) -> None:
    """Outbound, whether other Pods alone or everything is out of reach."""
    bundle = Bundle()
    bundle.fail(["a2"], paths_from(bundle, "a2"), LOST)
    if everything:
        bundle.fail(["a2"], ["api_server_direct"], LOST)
        bundle.fail(["a2"], NAMED, "dns: timed out after 5s", witnesses=[witness("last_address", "10.96.0.1", False)])
    assert bundle.verdicts() == said("isolated", node="a2", direction="out")


def test_a_node_cut_off_both_ways_is_said_once() -> None:
    """Inbound and outbound are one cause."""
    bundle = Bundle()
    bundle.fail(["a2"], [*paths_from(bundle, "a2"), "api_server_direct"], LOST)
    bundle.fail(["a2"], NAMED, "dns: timed out after 5s")
    bundle.fail(bundle.others("a2"), ["path_a2"], LOST)
    assert bundle.verdicts() == said("isolated", node="a2", direction="both")


@pytest.mark.parametrize("state", [LOST, REFUSED, "connect: no route to host", "response: timed out after 5s"])
def test_one_pair_is_a_path(state: str) -> None:
    """In one direction, or in both, then in order."""
    bundle = Bundle()
    bundle.fail(["b1"], ["path_a2"], state)
    assert bundle.verdicts() == {verdict("path", {"from": "b1", "to": "a2"})}
    bundle.fail(["a2"], ["path_b1"], state)
    assert bundle.verdicts() == {verdict("path", {"from": "a2", "to": "b1", "both": True})}


def test_two_zones_that_do_not_reach_each_other_are_named() -> None:
    """All paths between them fail and none within."""
    bundle = Bundle()
    for node in NODES:
        bundle.fail([node], [f"path_{each}" for each in NODES if each[0] != node[0]], LOST)
    assert bundle.verdicts() == said("zones", zone="zone-a", zone_to="zone-b")


def _send_again(bundle: Bundle, node: str, kinds: list[str], count: int = 5) -> None:
    for kind in kinds:
        bundle.check(node, kind)["window"]["retransmits"] = count


def test_a_node_that_loses_packets_is_named() -> None:
    """Segments are sent again on its paths, in both directions."""
    bundle = Bundle()
    _send_again(bundle, "a2", [*paths_from(bundle, "a2"), "api_server_direct"])
    for node in bundle.others("a2"):
        _send_again(bundle, node, ["path_a2"])
    bundle.fail(["b1"], ["path_a2"], LOST, failed=1, streak=4)
    assert bundle.verdicts() == said("loss", node="a2")


def test_a_pair_that_loses_packets_is_named() -> None:
    """In the direction in which it was seen."""
    bundle = Bundle()
    _send_again(bundle, "b1", ["path_a2"], 6)
    assert bundle.verdicts() == {verdict("loss", {"from": "b1", "to": "a2"})}
    _send_again(bundle, "a2", ["path_b1"], 6)
    assert bundle.verdicts() == {verdict("loss", {"from": "a2", "to": "b1"})}


def test_zones_that_lose_packets_between_them_are_named() -> None:
    """And no node or pair of them."""
    bundle = Bundle()
    for node in NODES:
        _send_again(bundle, node, [f"path_{each}" for each in NODES if each[0] != node[0]], 4)
    assert bundle.verdicts() == said("loss", zone="zone-a", zone_to="zone-b")


SIZES = (witness("small", "10.1.0.4", True), witness("large", "10.1.0.4", False))


def test_a_node_that_loses_large_packets_is_named() -> None:
    """Small answers pass."""
    bundle = Bundle()
    state = "response: timed out after 5s"
    bundle.fail(bundle.others("a2"), ["path_a2"], state, witnesses=SIZES)
    bundle.fail(["a2"], paths_from(bundle, "a2"), state, witnesses=SIZES)
    assert bundle.verdicts() == said("mtu", node="a2")


def test_a_node_whose_tls_handshakes_hang_loses_large_packets() -> None:
    """A server's certificate is large, a plain answer is not."""
    bundle = Bundle()
    bundle.fail(["a2"], [*API, "me_ingress"], "tls: timed out after 5s")
    assert bundle.verdicts() == said("mtu", node="a2")


def test_a_pair_that_loses_large_packets_is_named() -> None:
    """Small answers pass there too."""
    bundle = Bundle()
    bundle.fail(["b1"], ["path_a2"], "response: timed out after 5s", witnesses=SIZES)
    assert bundle.verdicts() == {verdict("mtu", {"from": "b1", "to": "a2"})}


def test_an_agent_that_waits_for_its_cpu_is_set_aside() -> None:
    """Neither its own failures nor those that wait for its answers are anybody's fault."""
    bundle = Bundle()
    bundle.state("a2")["own"]["starved"] = True
    bundle.fail(["a2"], ["api_server_direct", *NAMED, *paths_from(bundle, "a2")], LOST)
    bundle.fail(["b1", "b2"], ["path_a2"], "response: timed out after 5s", failed=5, streak=-2)
    assert bundle.verdicts() == said("starved", node="a2")


@pytest.mark.parametrize("nodes", [NODES, ("a2",)])
def test_agents_that_do_not_learn_of_their_neighbours_are_named(nodes: tuple[str, ...]) -> None:
    """For all or one, while the API server works."""
    bundle = Bundle()
    for node in nodes:
        bundle.state(node)["neighbourhood"]["state"] = "pods: 403 Forbidden"
    assert bundle.verdicts() == (said("discovery", node="a2") if len(nodes) == 1 else said("discovery"))


def test_an_old_state_is_not_judged() -> None:
    """It says nothing about now; that it is old is said."""
    bundle = Bundle()
    bundle.fail(["a2"], NAMED, NO_NAME)
    bundle.state("a2")["sampled_at"] = NOW - 600
    document = diagnose(bundle.document)
    assert not document["verdicts"]
    assert any("kubenurse-a2" in each for each in document["unknown"])


def test_a_collector_whose_clock_is_wrong_makes_no_state_old() -> None:
    """All states are equally old then."""
    bundle = Bundle()
    bundle.fail(["a2"], NAMED, NO_NAME)
    bundle.document["collected_at"] = NOW + 3600
    assert bundle.verdicts() == said("dns", node="a2")


def test_an_agent_that_never_learns_of_its_neighbours_is_named_and_a_new_one_is_not() -> None:
    """A minute is enough to learn."""
    bundle = Bundle()
    bundle.state("a2")["neighbourhood"]["state"] = "not synced yet"
    assert bundle.verdicts() == said("discovery", node="a2")
    for each in bundle.state("a2")["checks"].values():
        each["window"].update(made=2, streak=2)
    assert bundle.verdicts() == set()
