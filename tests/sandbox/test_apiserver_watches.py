"""Watches of the sandbox's API server work with the official client."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes.client import ApiException, CoreV1Api

from sandbox.objects import LABELS, NAMESPACE, make_node
from sandbox.store import HISTORY, GoneError, Store
from tests.support.kube import PODS, TOKEN, Kube
from tests.support.official import PATIENCE, Watch, Watcher, official_client, wait_for_watch


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


def test_watch_tells_what_happens_after_a_version(kube: Kube, core: Any) -> None:
    """A watch from the version of a list yields all later additions, changes and deletions in order."""
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
    """A watch without a version begins with the objects that exist."""
    kube.put_pods("pod-1", "pod-2")
    watcher = Watcher(core.list_namespaced_pod, NAMESPACE, timeout_seconds=1)
    watcher.join(PATIENCE)
    assert watcher.events == [("ADDED", "pod-1"), ("ADDED", "pod-2")]


def test_bookmarks_come_to_those_who_ask(kube: Kube, core: Any) -> None:
    """A quiet watch gets bookmarks while it lasts and at its end, if it asked for them."""
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
    """An open watch continues after a compaction."""
    version = core.list_namespaced_pod(NAMESPACE).metadata.resource_version
    watcher = Watcher(core.list_namespaced_pod, NAMESPACE, resource_version=version, timeout_seconds=30)
    wait_for_watch(kube)
    kube.put_pods("pod-1")
    watcher.wait_for("ADDED", "pod-1")
    kube.server.compact()
    kube.put_pods("pod-2")
    watcher.wait_for("ADDED", "pod-2")


def test_history_is_bounded() -> None:
    """No watch can begin at or continue from a version that is older than the history."""
    store = Store()
    start = store.version
    for number in range(HISTORY + 1):
        store.put("nodes", make_node(f"node-{number % 3}"))
    assert not store.is_watchable(start)
    with pytest.raises(GoneError):
        store.changes_since(start)
    assert len(store.changes_since(start + 1)[1]) == HISTORY


def test_leaving_a_selection_is_a_deletion(kube: Kube, core: Any) -> None:
    """An object that leaves the selection is DELETED, and one that enters it is ADDED."""
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


def test_silenced_watch_says_nothing_more(kube: Kube, core: Any) -> None:
    """A silenced watch stays open and gets no events or bookmarks. A new watch gets them."""
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
    """The connection of a cut watch closes inside an event and without the end of the chunked body."""
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
    """Lists and then watches, repeatedly, until an object of a certain name exists."""

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
    """A list followed by watches gives the state of the server after changes, compactions and cuts."""
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
