"""What is checked, and what is left out, follows from the configuration alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.config.load import load
from checks.config.settings import Config
from checks.config.skips import NEIGHBOURHOOD, skips
from checks.model import API_SERVER_DIRECT, API_SERVER_DNS, BUILT_IN_TYPES, ME_INGRESS, ME_SERVICE, Target
from checks.targets import api_server, extra, me

IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBENURSE_NAMESPACE": "monitoring"}
API = "https://10.0.0.1:443"
INGRESS = {"KUBENURSE_INGRESS_URL": "https://nurse.example"}
SERVICE = {"KUBENURSE_SERVICE_URL": "http://kubenurse.monitoring.svc:8080"}
FILTER = {"KUBENURSE_NEIGHBOUR_FILTER": "app=kubenurse"}
SWITCHES = {
    API_SERVER_DIRECT: "KUBENURSE_CHECK_API_SERVER_DIRECT",
    API_SERVER_DNS: "KUBENURSE_CHECK_API_SERVER_DNS",
    ME_INGRESS: "KUBENURSE_CHECK_ME_INGRESS",
    ME_SERVICE: "KUBENURSE_CHECK_ME_SERVICE",
    NEIGHBOURHOOD: "KUBENURSE_CHECK_NEIGHBOURHOOD",
}


def config(*environs: Mapping[str, str]) -> Config:
    """The configuration of an agent with these variables."""
    merged = {name: value for environ in environs for name, value in environ.items()}
    return load(merged, hostname=lambda: "kubenurse-x7k2p")


def all_targets(found: Config, base_url: str) -> list[Target]:
    """All targets that need no neighbours."""
    return [*api_server.targets(found, base_url), *me.targets(found), *extra.targets(found)]


def test_api_server_by_address_and_by_name() -> None:
    """In a cluster the API server is asked for its version by its address and by its name, with the credentials."""
    assert api_server.targets(config(IN_CLUSTER), API) == [
        Target(API_SERVER_DIRECT, "https://10.0.0.1:443/version", to_api_server=True),
        Target(API_SERVER_DNS, "https://kubernetes.default.svc:443/version", to_api_server=True),
    ]


def test_api_server_by_a_name_and_port_of_ones_own() -> None:
    """KUBERNETES_SERVICE_DNS and KUBERNETES_SERVICE_PORT make the URL of the check by name."""
    found = config(IN_CLUSTER, {"KUBERNETES_SERVICE_PORT": "6443", "KUBERNETES_SERVICE_DNS": "api.example"})
    assert api_server.targets(found, "https://10.0.0.1:6443")[1].url == "https://api.example:6443/version"


def test_api_server_with_an_ipv6_address() -> None:
    """The address of the check is that of the base URL, brackets and all."""
    found = config(IN_CLUSTER, {"KUBERNETES_SERVICE_HOST": "fd00::1"})
    assert api_server.targets(found, "https://[fd00::1]:443")[0].url == "https://[fd00::1]:443/version"


def test_api_server_of_a_kubeconfig_is_not_checked_by_its_name_in_the_cluster() -> None:
    """Outside a cluster the name that only a cluster resolves is not asked for, unless the user named it."""
    outside = api_server.targets(config(), "https://api.example:6443")
    assert [target.type for target in outside] == [API_SERVER_DIRECT]
    named = api_server.targets(config({"KUBERNETES_SERVICE_DNS": "api.internal"}), "https://api.example:6443")
    assert [target.url for target in named] == ["https://api.example:6443/version", "https://api.internal:443/version"]


def test_no_api_server_no_checks_of_it() -> None:
    """Without an API server to talk to neither of its checks is made."""
    assert api_server.targets(config(IN_CLUSTER), "") == []


@pytest.mark.parametrize("url", ["https://nurse.example", "https://nurse.example/"])
def test_ingress_is_reached_as_its_users_reach_it(url: str) -> None:
    """The ingress is checked at /alwayshappy, through a proxy if there is one, redirects to the same host followed."""
    assert me.targets(config({"KUBENURSE_INGRESS_URL": url})) == [
        Target(ME_INGRESS, "https://nurse.example/alwayshappy", follow_redirects=True, use_proxy=True)
    ]


def test_ingress_below_a_path() -> None:
    """/alwayshappy is appended to the path under which the ingress serves kubenurse."""
    found = me.targets(config({"KUBENURSE_INGRESS_URL": "https://shared.example/nurse/"}))
    assert [target.url for target in found] == ["https://shared.example/nurse/alwayshappy"]


def test_service_is_reached_directly() -> None:
    """The Service is checked at /alwayshappy, without proxy and without redirects."""
    assert me.targets(config(SERVICE)) == [Target(ME_SERVICE, "http://kubenurse.monitoring.svc:8080/alwayshappy")]


def test_extra_checks_go_to_the_urls_as_they_are() -> None:
    """Extra checks have the user's names, URLs and order; nothing is appended; proxies and redirects are allowed."""
    found = config({"KUBENURSE_EXTRA_CHECKS": "shop:https://shop.example/health?deep=1|db:http://10.1.2.3:9000"})
    assert extra.targets(found) == [
        Target("shop", "https://shop.example/health?deep=1", follow_redirects=True, use_proxy=True),
        Target("db", "http://10.1.2.3:9000", follow_redirects=True, use_proxy=True),
    ]


def test_nothing_configured_nothing_checked() -> None:
    """With an empty environment there is nothing to check, and each check says why."""
    assert all_targets(config(), "") == []
    assert set(skips(config(), has_api_server=False)) == {*BUILT_IN_TYPES, NEIGHBOURHOOD}


def test_everything_configured_nothing_skipped() -> None:
    """With everything set no check is skipped."""
    assert skips(config(IN_CLUSTER, INGRESS, SERVICE, FILTER), has_api_server=True) == {}


def test_skips_say_what_is_not_set() -> None:
    """A check that is skipped because a variable is unset names that variable."""
    found = skips(config(IN_CLUSTER), has_api_server=True)
    assert found == {
        ME_INGRESS: "KUBENURSE_INGRESS_URL is not set",
        ME_SERVICE: "KUBENURSE_SERVICE_URL is not set",
        NEIGHBOURHOOD: "KUBENURSE_NEIGHBOUR_FILTER is not set",
    }


def test_skips_outside_a_cluster() -> None:
    """Without an API server, what needs one says that there is none, and the rest runs."""
    found = skips(config(INGRESS, SERVICE, FILTER), has_api_server=False)
    assert set(found) == {API_SERVER_DIRECT, API_SERVER_DNS, NEIGHBOURHOOD}
    assert all("KUBERNETES_SERVICE_HOST is not set" in why for why in found.values())


def test_skip_of_the_name_of_a_kubeconfigs_api_server() -> None:
    """With a kubeconfig's API server only the check by name is skipped, for want of a name."""
    found = skips(config(INGRESS, SERVICE, FILTER), has_api_server=True)
    assert found == {API_SERVER_DNS: "KUBERNETES_SERVICE_DNS is not set"}


@pytest.mark.parametrize("kind", SWITCHES)
def test_a_check_can_be_switched_off(kind: str) -> None:
    """KUBENURSE_CHECK_... false leaves one check out, says so, and leaves the others in."""
    found = config(IN_CLUSTER, INGRESS, SERVICE, FILTER, {SWITCHES[kind]: "false"})
    assert skips(found, has_api_server=True) == {kind: f"{SWITCHES[kind]} is false"}
    assert {target.type for target in all_targets(found, API)} == set(BUILT_IN_TYPES) - {kind}


def environs() -> st.SearchStrategy[dict[str, str]]:
    """Any combination of what decides which checks are made."""
    parts: list[dict[str, str]] = [
        IN_CLUSTER,
        INGRESS,
        SERVICE,
        FILTER,
        {"KUBERNETES_SERVICE_DNS": "api.example"},
        {"KUBENURSE_EXTRA_CHECKS": "shop:https://shop.example"},
        {"KUBENURSE_INSECURE": "true"},
        *({switch: "false"} for switch in SWITCHES.values()),
    ]
    chosen = st.lists(st.sampled_from(parts))
    return chosen.map(lambda several: {name: value for part in several for name, value in part.items()})


@given(environs(), st.booleans())
def test_each_built_in_check_is_either_made_or_said_to_be_skipped(environ: dict[str, str], reachable: bool) -> None:
    """No built-in check gets lost between the targets and the skips, and none is in both."""
    found = config(environ)
    made = [target.type for target in all_targets(found, API if reachable else "") if target.type in BUILT_IN_TYPES]
    skipped = skips(found, has_api_server=reachable).keys() - {NEIGHBOURHOOD}
    assert sorted([*made, *skipped]) == sorted(BUILT_IN_TYPES)


@given(environs())
def test_only_the_api_servers_targets_carry_its_credentials(environ: dict[str, str]) -> None:
    """The token may go to the API server's two checks, over https, past any proxy and any redirect; to no other."""
    for target in all_targets(config(environ), API):
        if target.to_api_server:
            assert target.type in (API_SERVER_DIRECT, API_SERVER_DNS)
            assert target.url.startswith("https://")
            assert not target.follow_redirects
            assert not target.use_proxy
        else:
            assert target.type not in (API_SERVER_DIRECT, API_SERVER_DNS)
        assert target.origin == ""


@given(environs())
def test_types_are_unique(environ: dict[str, str]) -> None:
    """No two checks have one type: it is what tells their results and series apart."""
    types = [target.type for target in all_targets(config(environ), API)]
    assert len(types) == len(set(types))
