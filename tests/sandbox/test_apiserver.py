"""The sandbox's API server works with the official client."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes.client import ApiException, CoreV1Api, VersionApi

from sandbox.apiserver import ApiServer
from sandbox.certificates import CertificateAuthority
from sandbox.objects import NAMESPACE, UNSCHEDULABLE_TAINT, make_node, make_pod
from tests.support.kube import PODS, Kube
from tests.support.official import Watcher, names, official_client, status_of


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster."""
    kube = Kube(tmp_path, bookmark_seconds=0.2)
    with kube.server:
        yield kube


@pytest.fixture
def core(kube: Kube) -> Iterator[Any]:
    """The official client's view of it."""
    with official_client(kube) as client:
        yield CoreV1Api(client)


def test_cordoned_nodes_are_selected_by_field(kube: Kube, core: Any) -> None:
    """The field selector spec.unschedulable lists the cordoned nodes, and its watch sees cordon and uncordon."""
    kube.server.put("nodes", make_node("node-1"), make_node("node-2", unschedulable=True))
    listing = core.list_node(field_selector="spec.unschedulable=true")
    assert names(listing) == ["node-2"]
    assert listing.items[0].spec.taints[0].key == UNSCHEDULABLE_TAINT
    assert names(core.list_node(field_selector="spec.unschedulable!=true")) == ["node-1"]
    watcher = Watcher(
        core.list_node,
        field_selector="spec.unschedulable=true",
        resource_version=listing.metadata.resource_version,
        timeout_seconds=30,
    )
    kube.server.put("nodes", make_node("node-1", unschedulable=True))
    watcher.wait_for("ADDED", "node-1")
    kube.server.put("nodes", make_node("node-1"))
    watcher.wait_for("DELETED", "node-1")


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("metadata.name=pod-1", ["pod-1"]),
        ("metadata.name==pod-2", ["pod-2"]),
        ("spec.nodeName=node-3", ["pod-3"]),
        ("status.phase=Running,metadata.name!=pod-2", ["pod-1"]),
        (f"metadata.namespace={NAMESPACE},status.phase=Pending", ["pod-3"]),
    ],
)
def test_pods_are_selected_by_field(kube: Kube, core: Any, selector: str, expected: list[str]) -> None:
    """Field selectors of Pods compare names, nodes, namespaces and phases, all terms together."""
    kube.put_pods("pod-1", "pod-2")
    kube.put_pods("pod-3", phase="Pending")
    assert names(core.list_pod_for_all_namespaces(field_selector=selector)) == expected


@pytest.mark.parametrize(
    "options",
    [{"field_selector": "spec.hostname=a"}, {"field_selector": "status.phase"}, {"label_selector": "a in (b"}],
)
def test_bad_selectors_are_bad_requests(core: Any, options: dict[str, str]) -> None:
    """A selector that is malformed or names an unknown field is answered with 400 and a reason."""
    with pytest.raises(ApiException) as caught:
        core.list_namespaced_pod(NAMESPACE, **options)
    assert caught.value.status == 400
    assert status_of(caught.value)["message"]


def test_namespaces_are_apart(kube: Kube, core: Any) -> None:
    """The list of a namespace has the Pods of that namespace. The list of all namespaces has all Pods."""
    kube.put_pods("pod-1")
    kube.put_pods("pod-2", namespace="other")
    assert names(core.list_namespaced_pod("other")) == ["pod-2"]
    assert sorted(names(core.list_pod_for_all_namespaces())) == ["pod-1", "pod-2"]


def test_single_objects_and_version(kube: Kube, core: Any) -> None:
    """The server answers requests for single objects, resources and the version. Others are a 404 Status."""
    kube.put_pods("pod-1", terminating=True)
    kube.server.put("nodes", make_node("node-1", taints=["example.com/dedicated"]))
    assert core.read_namespaced_pod("pod-1", NAMESPACE).metadata.deletion_timestamp
    assert core.read_node("node-1").spec.taints[0].key == "example.com/dedicated"
    assert {resource.name for resource in core.get_api_resources().resources} == {"pods", "nodes"}
    assert VersionApi(core.api_client).get_code().git_version.startswith("v1.")
    with pytest.raises(ApiException) as caught:
        core.read_namespaced_pod("pod-2", NAMESPACE)
    assert status_of(caught.value)["reason"] == "NotFound"
    with pytest.raises(ApiException) as caught:
        core.list_service_for_all_namespaces()
    assert caught.value.status == 404


def test_nothing_is_changed_from_outside(kube: Kube, core: Any) -> None:
    """Requests that would change something are answered with 405."""
    with pytest.raises(ApiException) as caught:
        core.delete_namespaced_pod("pod-1", NAMESPACE)
    assert caught.value.status == 405


def test_deleting_what_is_not_there_is_an_error(kube: Kube) -> None:
    """From Python, deleting an unknown object raises."""
    with pytest.raises(KeyError):
        kube.server.delete("pods", "pod-1")


def test_token_is_required(kube: Kube) -> None:
    """A wrong token is answered with 401. Changing the server's set rotates the tokens."""
    with official_client(kube, token="new") as client:
        core: Any = CoreV1Api(client)
        with pytest.raises(ApiException) as caught:
            core.list_node()
        assert caught.value.status == 401
        kube.server.tokens.add("new")
        assert names(core.list_node()) == []
    assert kube.server.requests[0].authorization


def test_client_certificate_is_accepted(tmp_path: Path) -> None:
    """A server that verifies client certificates accepts one instead of a token. Without either it answers 401."""
    authority = CertificateAuthority(tmp_path)
    context = authority.issue("api", "127.0.0.1").server_context()
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(authority.file)
    mine = authority.issue("me", "me.example")
    with ApiServer(context=context) as server:
        options: dict[str, Any] = {"ca_certs": str(authority.file), "retries": False}
        with urllib3.PoolManager(cert_file=str(mine.chain), key_file=str(mine.key), **options) as pool:
            assert pool.request("GET", f"{server.url}/version").status == 200
        with urllib3.PoolManager(**options) as pool:
            assert pool.request("GET", f"{server.url}/version").status == 401
    assert [request.authorization for request in server.requests] == [False, False]


def test_serves_ipv6(tmp_path: Path) -> None:
    """An IPv6 address works and its URL has brackets."""
    kube = Kube(tmp_path, "::1")
    with kube.server, official_client(kube) as client:
        assert kube.server.url.startswith("https://[::1]:")
        assert names(CoreV1Api(client).list_node()) == []


@pytest.mark.parametrize(("status", "retry_after"), [(403, None), (429, 7), (500, None), (503, 1)])
def test_injected_status(kube: Kube, core: Any, status: int, retry_after: int | None) -> None:
    """An injected status is answered as a Status object, with Retry-After if given, until the faults are cleared."""
    kube.server.faults.answer("/api/v1/nodes", status, retry_after=retry_after, message="no way")
    with pytest.raises(ApiException) as caught:
        core.list_node()
    assert caught.value.status == status
    assert (caught.value.headers or {}).get("Retry-After") == (str(retry_after) if retry_after else None)
    assert status_of(caught.value)["message"] == "no way"
    assert names(core.list_namespaced_pod(NAMESPACE)) == []
    kube.server.faults.clear()
    assert names(core.list_node()) == []


def test_hanging_request_is_never_answered(kube: Kube, core: Any) -> None:
    """A hanging path accepts the request and does not answer. Other paths work."""
    kube.server.faults.hang(PODS, verb="list")
    with pytest.raises(urllib3.exceptions.HTTPError):
        core.list_namespaced_pod(NAMESPACE, _request_timeout=0.3)
    assert names(core.list_node()) == []


def test_restart_keeps_port_and_objects(kube: Kube, core: Any) -> None:
    """A stopped server refuses connections. After a restart it has the same port and the same objects."""
    kube.put_pods("pod-1")
    port = kube.server.port
    kube.server.stop()
    kube.server.stop()
    with pytest.raises(urllib3.exceptions.HTTPError):
        core.list_namespaced_pod(NAMESPACE)
    kube.server.start()
    assert kube.server.port == port
    assert names(core.list_namespaced_pod(NAMESPACE)) == ["pod-1"]


def test_pods_look_real(kube: Kube, core: Any) -> None:
    """A padded Pod has at least the size asked for, and the official client understands all of it."""
    pod = make_pod("pod-1", "node-1", "10.0.0.1", host_ip="192.0.2.1", size=6144)
    assert 6144 <= len(json.dumps(pod, separators=(",", ":"))) < 6300
    kube.server.put("pods", pod, make_pod("pod-2", "node-2", "", phase="Pending"))
    read = core.read_namespaced_pod("pod-1", NAMESPACE)
    assert (read.status.pod_ip, read.status.host_ip) == ("10.0.0.1", "192.0.2.1")
    assert core.read_namespaced_pod("pod-2", NAMESPACE).status.pod_ip is None
