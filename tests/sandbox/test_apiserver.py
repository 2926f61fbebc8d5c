"""The sandbox's API server, used by the official client as by a stranger."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import watch
from kubernetes.client import ApiClient, ApiException, Configuration, CoreV1Api, VersionApi

from sandbox.apiserver import ApiServer
from sandbox.certificates import CertificateAuthority
from sandbox.objects import LABELS, NAMESPACE, UNSCHEDULABLE_TAINT, make_node, make_pod
from sandbox.store import HISTORY, SNAPSHOTS, GoneError, Selection, Store
from tests.support.kube import PODS, TOKEN, Kube

PATIENCE = 20

# Its functions have no types; what the others give is optional wherever the API server may leave it out.
Watch: Any = watch.Watch


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


def official_client(kube: Kube, token: str = TOKEN) -> ApiClient:
    """Make an official client."""
    configuration = Configuration(host=kube.server.url)
    configuration.ssl_ca_cert = str(kube.authority.file)
    configuration.proxy = None
    configuration.retries = False
    # The setting's name differs from version to version of the client.
    configuration.api_key = dict.fromkeys(("BearerToken", "authorization"), f"Bearer {token}")
    return ApiClient(configuration)


def names(listing: Any) -> list[str]:
    """Return the names of a list's objects."""
    return [item.metadata.name for item in listing.items]


def status_of(error: ApiException) -> Any:
    """Return the Status object of a refusal."""
    return json.loads(error.body or "{}")


class Watcher(threading.Thread):
    """Collects the events of one watch of the official client until it ends."""

    def __init__(self, list_function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(name="watcher", daemon=True)
        self.call = (list_function, *args)
        self.kwargs = kwargs
        self.events: list[tuple[str, str]] = []
        self.error: ApiException | None = None
        self.arrived = threading.Condition()
        self.start()

    def run(self) -> None:
        """Watch."""
        try:
            for event in Watch().stream(*self.call, **self.kwargs):
                with self.arrived:
                    self.events.append((event["type"], event["raw_object"]["metadata"].get("name", "")))
                    self.arrived.notify_all()
        except ApiException as error:
            self.error = error
        except urllib3.exceptions.HTTPError:
            return  # the server went away, as it does at a test's end

    def wait_for(self, kind: str, name: str = "") -> None:
        """Wait for an event."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: (kind, name) in self.events, PATIENCE), self.events

    def named(self) -> list[tuple[str, str]]:
        """Return the events that are no bookmarks."""
        return [event for event in self.events if event[1]]


def wait_for_watch(kube: Kube) -> None:
    """Wait until a watch was asked for."""
    assert kube.server.wait_for_request(lambda request: request.verb == "watch", PATIENCE)


def test_lists_in_chunks_of_one_version(kube: Kube, core: Any) -> None:
    """A list with a limit comes in pages that continue, all of the first page's version, whatever changes meanwhile."""
    kube.put_pods(*(f"pod-{number}" for number in range(1, 8)))
    first = core.list_namespaced_pod(NAMESPACE, limit=3)
    assert first.metadata.remaining_item_count == 4
    kube.server.delete("pods", "pod-7")
    second = core.list_namespaced_pod(NAMESPACE, limit=3, _continue=first.metadata._continue)
    third = core.list_namespaced_pod(NAMESPACE, limit=3, _continue=second.metadata._continue)
    assert names(first) + names(second) + names(third) == [f"pod-{number}" for number in range(1, 8)]
    assert not third.metadata._continue
    assert first.metadata.resource_version == third.metadata.resource_version


def test_expired_continue_token_is_gone(kube: Kube, core: Any) -> None:
    """After a compaction, the next page of an unfinished list is answered with 410."""
    kube.put_pods("pod-1", "pod-2")
    token = core.list_namespaced_pod(NAMESPACE, limit=1).metadata._continue
    kube.server.compact()
    with pytest.raises(ApiException) as caught:
        core.list_namespaced_pod(NAMESPACE, limit=1, _continue=token)
    assert caught.value.status == 410
    assert status_of(caught.value)["reason"] == "Expired"


def test_only_so_many_unfinished_lists_are_remembered() -> None:
    """The oldest unfinished list is forgotten when there are more than the bound."""
    store = Store()
    for number in range(3):
        store.put("pods", make_pod(f"pod-{number}", "node", "10.0.0.1"))
    everything = Selection.parse("pods")
    tokens = [store.page(everything, 1, "")[2] for _ in range(SNAPSHOTS + 1)]
    assert len(store.page(everything, 1, tokens[1])[1]) == 1
    with pytest.raises(GoneError):
        store.page(everything, 1, tokens[0])


def test_watch_tells_what_happens_after_a_version(kube: Kube, core: Any) -> None:
    """A watch from a list's version yields what was added, modified and deleted since, in order."""
    kube.put_pods("pod-1")
    version = core.list_namespaced_pod(NAMESPACE).metadata.resource_version
    kube.put_pods("pod-2")
    watcher = Watcher(core.list_namespaced_pod, NAMESPACE, resource_version=version, timeout_seconds=30)
    watcher.wait_for("ADDED", "pod-2")
    kube.put_pods("pod-2", phase="Pending")
    kube.server.delete("pods", "pod-1")
    watcher.wait_for("DELETED", "pod-1")
    assert watcher.events == [("ADDED", "pod-2"), ("MODIFIED", "pod-2"), ("DELETED", "pod-1")]


def test_watch_without_a_version_begins_with_what_is_there(kube: Kube, core: Any) -> None:
    """A watch from nowhere first adds the objects that exist."""
    kube.put_pods("pod-1", "pod-2")
    watcher = Watcher(core.list_namespaced_pod, NAMESPACE, timeout_seconds=1)
    watcher.join(PATIENCE)
    assert watcher.events == [("ADDED", "pod-1"), ("ADDED", "pod-2")]


def test_bookmarks_come_to_those_who_ask(kube: Kube, core: Any) -> None:
    """A quiet watch gets bookmarks while it lasts and one at its end, if it asked for them, else nothing."""
    version = core.list_namespaced_pod(NAMESPACE).metadata.resource_version
    options = {"resource_version": version, "timeout_seconds": 3}
    asked = Watcher(core.list_namespaced_pod, NAMESPACE, allow_watch_bookmarks=True, **options)
    not_asked = Watcher(core.list_namespaced_pod, NAMESPACE, **options)
    asked.join(PATIENCE)
    not_asked.join(PATIENCE)
    assert len(asked.events) >= 2
    assert set(asked.events) == {("BOOKMARK", "")}
    assert not_asked.events == []


@pytest.mark.parametrize("as_status", [False, True])
def test_watch_of_an_old_version_is_gone(kube: Kube, core: Any, as_status: bool) -> None:
    """A watch from before a compaction ends with 410, as an ERROR event or as the answer's status."""
    version = core.list_namespaced_pod(NAMESPACE).metadata.resource_version
    kube.server.gone_as_status = as_status
    kube.server.compact()
    watcher = Watcher(core.list_namespaced_pod, NAMESPACE, resource_version=version, timeout_seconds=30)
    watcher.join(PATIENCE)
    assert watcher.error is not None
    assert watcher.error.status == 410


def test_compaction_leaves_open_watches_alone(kube: Kube, core: Any) -> None:
    """A watch that is open when the history is compacted goes on."""
    version = core.list_namespaced_pod(NAMESPACE).metadata.resource_version
    watcher = Watcher(core.list_namespaced_pod, NAMESPACE, resource_version=version, timeout_seconds=30)
    wait_for_watch(kube)
    kube.put_pods("pod-1")
    watcher.wait_for("ADDED", "pod-1")
    kube.server.compact()
    kube.put_pods("pod-2")
    watcher.wait_for("ADDED", "pod-2")


def test_history_is_bounded() -> None:
    """A version with more changes after it than are remembered cannot be watched from, open or not."""
    store = Store()
    start = store.version
    for number in range(HISTORY + 1):
        store.put("nodes", make_node(f"node-{number % 3}"))
    assert not store.is_watchable(start)
    with pytest.raises(GoneError):
        store.changes_since(start)
    assert len(store.changes_since(start + 1)[1]) == HISTORY


def test_leaving_a_selection_is_a_deletion(kube: Kube, core: Any) -> None:
    """An object whose labels change so that it does not match any more is DELETED for the watch, then ADDED again."""
    kube.put_pods("pod-1")
    version = core.list_namespaced_pod(NAMESPACE).metadata.resource_version
    watcher = Watcher(
        core.list_namespaced_pod,
        NAMESPACE,
        label_selector="app in (kubenurse)",
        resource_version=version,
        timeout_seconds=30,
    )
    kube.put_pods("pod-1", labels={"app": "other"})
    watcher.wait_for("DELETED", "pod-1")
    kube.put_pods("pod-1", labels=LABELS)
    watcher.wait_for("ADDED", "pod-1")
    assert watcher.events == [("DELETED", "pod-1"), ("ADDED", "pod-1")]


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
    """A namespace's list has its own Pods only, the list of all namespaces has all."""
    kube.put_pods("pod-1")
    kube.put_pods("pod-2", namespace="other")
    assert names(core.list_namespaced_pod("other")) == ["pod-2"]
    assert sorted(names(core.list_pod_for_all_namespaces())) == ["pod-1", "pod-2"]


def test_single_objects_and_version(kube: Kube, core: Any) -> None:
    """Single objects, the API's resources and the version are there; what is not there is a 404 Status."""
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
    """A wrong token is answered with 401; tokens rotate by changing the server's set."""
    with official_client(kube, token="new") as client:
        core: Any = CoreV1Api(client)
        with pytest.raises(ApiException) as caught:
            core.list_node()
        assert caught.value.status == 401
        kube.server.tokens.add("new")
        assert names(core.list_node()) == []
    assert kube.server.requests[0].authorization


def test_client_certificate_is_accepted(tmp_path: Path) -> None:
    """Where client certificates are verified, one of them is as good as a token; without either it is 401."""
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
    """A hanging path takes the request and says nothing, other paths work."""
    kube.server.faults.hang(PODS, verb="list")
    with pytest.raises(urllib3.exceptions.HTTPError):
        core.list_namespaced_pod(NAMESPACE, _request_timeout=0.3)
    assert names(core.list_node()) == []


def test_silenced_watch_says_nothing_more(kube: Kube, core: Any) -> None:
    """A silenced watch stays open without events and bookmarks while a new one gets them; then it can be dropped."""
    version = core.list_namespaced_pod(NAMESPACE).metadata.resource_version
    options = {"resource_version": version, "allow_watch_bookmarks": True, "timeout_seconds": 30}
    silenced = Watcher(core.list_namespaced_pod, NAMESPACE, **options)
    silenced.wait_for("BOOKMARK")
    kube.server.silence_watches()
    kube.put_pods("pod-1")
    fresh = Watcher(core.list_namespaced_pod, NAMESPACE, **options)
    fresh.wait_for("ADDED", "pod-1")
    fresh.wait_for("BOOKMARK")
    assert silenced.is_alive()
    kube.server.drop_watches()
    silenced.join(PATIENCE)
    fresh.join(PATIENCE)
    assert not silenced.is_alive()
    assert silenced.named() == []
    assert fresh.named() == [("ADDED", "pod-1")]


def test_cut_watch_ends_in_the_middle_of_a_line(kube: Kube) -> None:
    """A cut watch is a connection that closes after half an event, without the end of the chunked body."""
    with urllib3.PoolManager(ca_certs=str(kube.authority.file), retries=False) as pool:
        response = pool.request(
            "GET",
            f"{kube.server.url}{PODS}?watch=true&resourceVersion={kube.server.store.version}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            preload_content=False,
        )
        kube.server.cut_watches()
        heard = next(stream := response.stream())
        with pytest.raises(urllib3.exceptions.ProtocolError):
            next(stream)
        assert heard.startswith(b'{"type":')
        assert not heard.endswith(b"\n")


def test_restart_keeps_port_and_objects(kube: Kube, core: Any) -> None:
    """A server that was stopped refuses connections; started again, it is on the same port with the same objects."""
    kube.put_pods("pod-1")
    port = kube.server.port
    kube.server.stop()
    kube.server.stop()
    with pytest.raises(urllib3.exceptions.HTTPError):
        core.list_namespaced_pod(NAMESPACE)
    kube.server.start()
    assert kube.server.port == port
    assert names(core.list_namespaced_pod(NAMESPACE)) == ["pod-1"]


def test_stop_ends_open_watches(kube: Kube, core: Any) -> None:
    """Stopping the server ends the watches that are open."""
    with urllib3.PoolManager(ca_certs=str(kube.authority.file), retries=False) as pool:
        response = pool.request(
            "GET",
            f"{kube.server.url}/api/v1/nodes?watch=1",
            headers={"Authorization": f"Bearer {TOKEN}"},
            preload_content=False,
        )
        kube.server.stop()
        with pytest.raises(urllib3.exceptions.ProtocolError):
            list(response.stream())


class Informer(threading.Thread):
    """List, then watch, over and over, until an object of a certain name is there."""

    def __init__(self, core: Any, last: str) -> None:
        super().__init__(name="informer", daemon=True)
        self.core = core
        self.last = last
        self.picture: dict[str, str] = {}

    def run(self) -> None:
        """Follow."""
        while self.last not in self.picture:
            listing = self.core.list_namespaced_pod(NAMESPACE)
            self.picture = {pod.metadata.name: pod.status.phase for pod in listing.items}
            with contextlib.suppress(ApiException, urllib3.exceptions.HTTPError):
                self.watch(listing.metadata.resource_version)

    def watch(self, version: str) -> None:
        """Follow from a version on."""
        options = {"resource_version": version, "timeout_seconds": 1}
        for event in Watch().stream(self.core.list_namespaced_pod, NAMESPACE, **options):
            pod = event["object"]
            if event["type"] == "DELETED":
                del self.picture[pod.metadata.name]
            else:
                self.picture[pod.metadata.name] = pod.status.phase


def test_informer_loop_ends_with_the_same_picture(kube: Kube, core: Any) -> None:
    """List, then watch, over and over: the picture is that of the server after changes, compactions and cuts."""
    informer = Informer(core, last="pod-99")
    informer.start()
    for number in range(40):
        kube.put_pods(f"pod-{number % 7}", phase=("Running", "Pending")[number % 2])
        if number % 5 == 0:
            kube.server.delete("pods", f"pod-{number % 7}")
        if number == 20:
            kube.server.compact()
            kube.server.drop_watches()
        if number == 30:
            kube.server.cut_watches()
    kube.put_pods("pod-99")
    informer.join(PATIENCE)
    assert not informer.is_alive()
    listing = core.list_namespaced_pod(NAMESPACE)
    assert informer.picture == {pod.metadata.name: pod.status.phase for pod in listing.items}


def test_pods_look_real(kube: Kube, core: Any) -> None:
    """A padded Pod has at least the size asked for, and the official client understands all of it."""
    pod = make_pod("pod-1", "node-1", "10.0.0.1", host_ip="192.0.2.1", size=6144)
    assert 6144 <= len(json.dumps(pod, separators=(",", ":"))) < 6300
    kube.server.put("pods", pod, make_pod("pod-2", "node-2", "", phase="Pending"))
    read = core.read_namespaced_pod("pod-1", NAMESPACE)
    assert (read.status.pod_ip, read.status.host_ip) == ("10.0.0.1", "192.0.2.1")
    assert core.read_namespaced_pod("pod-2", NAMESPACE).status.pod_ip is None
