"""Lists of the sandbox's API server: pages from etcd, all at once from the watch cache, gzip."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes.client import ApiException, CoreV1Api

from sandbox.objects import NAMESPACE, make_pod
from sandbox.store import SNAPSHOTS, GoneError, Selection, Store
from tests.support.kube import PODS, TOKEN, Kube
from tests.support.official import names, official_client, status_of


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


def test_lists_in_chunks_of_one_version(kube: Kube, core: Any) -> None:
    """A list with a limit has pages. They keep the version of the first page while objects change."""
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
    """The server forgets the oldest unfinished list beyond the bound."""
    store = Store()
    for number in range(3):
        store.put("pods", make_pod(f"pod-{number}", "node", "10.0.0.1"))
    everything = Selection.parse("pods")
    tokens = [store.page(everything, 1, "")[2] for _ in range(SNAPSHOTS + 1)]
    assert len(store.page(everything, 1, tokens[1])[1]) == 1
    with pytest.raises(GoneError):
        store.page(everything, 1, tokens[0])


def test_the_watch_cache_answers_all_at_once(kube: Kube, core: Any) -> None:
    """The watch cache ignores the limit and reads nothing from etcd. Without a watch cache, a list has pages."""
    kube.put_pods("pod-1", "pod-2", "pod-3")
    assert len(core.list_namespaced_pod(NAMESPACE, limit=2, resource_version="0").items) == 3
    assert kube.server.etcd_reads == 0
    kube.server.watch_cache = False
    listing = core.list_namespaced_pod(NAMESPACE, limit=2, resource_version="0")
    assert len(listing.items) == 2
    assert kube.server.etcd_reads == 1
    following = core.list_namespaced_pod(NAMESPACE, limit=2, _continue=listing.metadata._continue)
    assert names(following) == ["pod-3"]
    assert kube.server.etcd_reads == 2


def test_a_version_that_is_not_there_yet_is_too_large(kube: Kube, core: Any) -> None:
    """A list of at least a future version is answered with 504 and Retry-After."""
    version = str(kube.server.store.version)
    options = {"resource_version_match": "NotOlderThan"}
    assert core.list_namespaced_pod(NAMESPACE, resource_version=version, **options).metadata.resource_version == version
    with pytest.raises(ApiException) as caught:
        core.list_namespaced_pod(NAMESPACE, resource_version=f"{version}0", **options)
    assert caught.value.status == 504
    assert (caught.value.headers or {}).get("Retry-After") == "1"


def test_a_continue_token_has_its_own_version(kube: Kube, core: Any) -> None:
    """A version beside a continue token is a bad request."""
    kube.put_pods("pod-1", "pod-2")
    listing = core.list_namespaced_pod(NAMESPACE, limit=1)
    with pytest.raises(ApiException) as caught:
        core.list_namespaced_pod(
            NAMESPACE, _continue=listing.metadata._continue, resource_version=listing.metadata.resource_version
        )
    assert caught.value.status == 400


@pytest.mark.parametrize("accepted", ["gzip", "br;q=1, gzip;q=0.5"])
def test_long_answers_are_packed_for_those_who_ask(kube: Kube, accepted: str) -> None:
    """An answer of over 128 KiB is packed if the client accepts gzip. All other answers are plain."""
    kube.put_pods(*(f"pod-{number}" for number in range(20)), size=8192)
    with urllib3.PoolManager(ca_certs=str(kube.authority.file), retries=False) as pool:

        def get(path: str, accept_encoding: str) -> tuple[str | None, bytes, int]:
            headers = {"Authorization": f"Bearer {TOKEN}", "Accept-Encoding": accept_encoding}
            before = kube.server.body_bytes
            response = pool.request("GET", f"{kube.server.url}{path}", headers=headers)
            return response.headers.get("Content-Encoding"), response.data, kube.server.body_bytes - before

        packed, plain, short = get(PODS, accepted), get(PODS, "identity"), get("/version", accepted)
    assert (packed[0], plain[0], short[0]) == ("gzip", None, None)
    assert packed[1] == plain[1]
    assert len(json.loads(plain[1])["items"]) == 20
    assert packed[2] * 5 < len(packed[1]) < plain[2]
