"""Lists and watches of a well-behaved API server, and how they end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from checks.kube.client import LIST_RESTARTS, Event, KubeApi
from checks.kube.credentials import ServiceAccount
from checks.kube.errors import (
    CONNECTION,
    CREDENTIALS,
    GONE,
    TLS,
    UNAUTHORIZED,
    ApiError,
)
from sandbox.objects import make_pod
from tests.support.kube import (
    PODS,
    TOKEN,
    Kube,
    Read,
    Scripted,
    document_answer,
    failure,
    pages,
    read,
    stream_answer,
    watched,
)
from tests.support.servers import BlackHole, Server, refusing, silent
from tests.support.waiting import until

EMPTY_LIST = {"metadata": {"resourceVersion": "7"}, "items": []}


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster."""
    kube = Kube(tmp_path, bookmark_seconds=0.1)
    with kube.server:
        yield kube


def names(page: Read) -> list[str]:
    """Return the names of a page's objects."""
    return [item["metadata"]["name"] for item in page.items]


def version(api: KubeApi) -> str:
    """Return the version to watch from."""
    return pages(api)[-1].resource_version


def test_the_first_list_is_one_request_that_spares_etcd_and_the_wire(kube: Kube) -> None:
    """The watch cache answers with all Pods at once, packed: a Pod of 8 kB takes at most 1 kB on the wire."""
    kube.put_pods(*(f"pod-{number}" for number in range(1200)), size=8192)
    (page,) = pages(kube.client(), labelSelector="app=kubenurse")
    assert len(page.items) == 1200
    assert page.resource_version
    (request,) = kube.server.requests
    assert request.query == {"resourceVersion": "0", "labelSelector": "app=kubenurse", "limit": "500"}
    assert request.user_agent.startswith("kubenurse/")
    assert kube.server.etcd_reads == 0
    assert kube.server.body_bytes < 1200 * 1000


def test_a_list_may_ask_for_a_version(kube: Kube) -> None:
    """An empty version selects the newest list. Another version selects a list that is at least as new."""
    kube.put_pods("pod-1")
    since = str(kube.server.store.version)
    assert pages(kube.client(), resourceVersion="")[0].resource_version == since
    assert kube.server.etcd_reads == 1
    assert pages(kube.client(), resourceVersion=since)[0].resource_version == since
    assert kube.server.etcd_reads == 1
    assert failure(lambda: pages(kube.client(), resourceVersion=f"{since}0")).retry_after == 1.0
    assert "resourceVersion" not in kube.server.requests[0].query
    assert kube.server.requests[1].query["resourceVersionMatch"] == "NotOlderThan"


def test_a_list_comes_in_pages_of_one_version(kube: Kube) -> None:
    """Without a watch cache, the client asks for all pages of a list. They have the version of the first page."""
    kube.server.watch_cache = False
    kube.put_pods(*(f"pod-{number}" for number in range(1, 6)))
    found = pages(kube.client(page_limit=2), labelSelector="app=kubenurse")
    assert [names(page) for page in found] == [["pod-1", "pod-2"], ["pod-3", "pod-4"], ["pod-5"]]
    assert [page.first for page in found] == [True, False, False]
    assert len({page.resource_version for page in found}) == 1
    assert [request.query["limit"] for request in kube.server.requests] == ["2", "2", "2"]
    assert [request.query.get("resourceVersion") for request in kube.server.requests] == ["0", None, None]
    assert {request.query["labelSelector"] for request in kube.server.requests} == {"app=kubenurse"}


def test_the_client_skips_items_that_the_caller_did_not_read(kube: Kube) -> None:
    """A caller that reads a part of a page gets the next page too."""
    kube.server.watch_cache = False
    kube.put_pods("pod-1", "pod-2", "pod-3")
    found = [next(page.items)["metadata"]["name"] for page in kube.client(page_limit=2).list_pages(PODS, {})]
    assert found == ["pod-1", "pod-3"]


def test_an_empty_list_has_one_page(kube: Kube) -> None:
    """An empty list is one page. It has a version to watch from."""
    (page,) = pages(kube.client())
    assert (page.items, page.first) == ([], True)
    assert page.resource_version


def test_parsing_keeps_the_fields_that_are_used(kube: Kube) -> None:
    """Parsing drops containers, annotations and managed fields, and keeps the fields that the agent uses."""
    kube.server.put("pods", make_pod("pod-1", "node-1", "10.0.0.1", size=20_000, terminating=True))
    (item,) = pages(kube.client())[0].items
    assert len(str(item)) < 1000
    assert item["metadata"].keys() == {"name", "deletionTimestamp", "resourceVersion"}
    assert item["spec"] == {"nodeName": "node-1"}
    assert item["status"]["podIP"] == "10.0.0.1"
    assert all(status.keys() <= {"name", "state"} for status in item["status"]["containerStatuses"])


def test_a_list_whose_version_expires_begins_again(kube: Kube) -> None:
    """If the version expires between two pages, the next page is the first of a new list."""
    kube.server.watch_cache = False
    kube.put_pods("pod-1", "pod-2", "pod-3")
    following = read(kube.client(page_limit=2))
    assert names(next(following)) == ["pod-1", "pod-2"]
    kube.server.delete("pods", "pod-1")
    kube.server.compact()
    again = next(following)
    assert again.first
    assert names(again) == ["pod-2", "pod-3"]
    assert list(following) == []


def test_a_list_that_keeps_expiring_fails(kube: Kube) -> None:
    """A list begins again at most ``LIST_RESTARTS`` times."""
    kube.server.watch_cache = False
    kube.put_pods("pod-1", "pod-2")
    following = read(kube.client(page_limit=1))

    def take_all() -> None:
        for _ in following:
            kube.server.compact()

    assert failure(take_all).kind == GONE
    begun = [request.query for request in kube.server.requests if "continue" not in request.query]
    # After the version has expired, the client asks for the newest one, which expires last.
    assert [query.get("resourceVersion") for query in begun] == ["0", *[None] * LIST_RESTARTS]


def test_each_page_may_need_a_connection_of_its_own(tmp_path: Path) -> None:
    """If the server closes the connection after each page, each page gets a new one."""
    first = {"metadata": {"resourceVersion": "7", "continue": "more"}, "items": [{}]}
    close = "Connection: close"
    scripted = Scripted(tmp_path, document_answer(first, close), document_answer(EMPTY_LIST, close))
    with scripted.server:
        assert [page.first for page in pages(scripted.client())] == [True, False]
    assert b"continue=more" in scripted.server.heard[1]


def test_a_watch_yields_the_events_after_its_version(kube: Kube) -> None:
    """A watch yields additions, changes and deletions since its version in their order, each with a version."""
    kube.put_pods("pod-1")
    api = kube.client(silence=20.0)
    since = version(api)
    with api.watch(PODS, {"labelSelector": "app"}, since) as events:
        kube.put_pods("pod-2")
        kube.put_pods("pod-2", phase="Failed")
        kube.server.delete("pods", "pod-1")
        found = [event for event in (next(events) for _ in range(20)) if event.type != "BOOKMARK"][:3]
    assert [(event.type, event.object["metadata"]["name"]) for event in found] == [
        ("ADDED", "pod-2"),
        ("MODIFIED", "pod-2"),
        ("DELETED", "pod-1"),
    ]
    versions = [int(event.resource_version) for event in found]
    assert int(since) < versions[0] < versions[1] < versions[2]


def test_a_watch_asks_for_bookmarks_and_a_random_length(kube: Kube) -> None:
    """A watch asks for bookmarks, for events after its version and for a random length within two bounds."""
    chance = iter([0.0, 1.0])
    api = kube.client(watch_seconds=(120.0, 240.0), random=lambda: next(chance))
    since = version(api)
    for _ in range(2):
        with api.watch(PODS, {}, since) as events:
            bookmark = next(events)
            assert (bookmark.type, bookmark.resource_version) == ("BOOKMARK", since)
    watches = [request.query for request in kube.server.requests if request.verb == "watch"]
    assert [query["timeoutSeconds"] for query in watches] == ["120", "240"]
    assert [(query["allowWatchBookmarks"], query["resourceVersion"]) for query in watches] == [("true", since)] * 2


def test_a_watch_that_the_server_ends_is_no_error(kube: Kube) -> None:
    """A watch that the server ends yields the events before its end and raises no error."""
    api = kube.client()
    with api.watch(PODS, {}, version(api)) as events:
        next(events)
        kube.server.drop_watches()
        assert all(event.type == "BOOKMARK" for event in events)


def test_a_silent_watch_ends_without_an_error(kube: Kube) -> None:
    """The client ends a watch that stays silent for too long, without an error."""
    api = kube.client(silence=0.3)
    with api.watch(PODS, {}, version(api)) as events:
        next(events)
        kube.server.silence_watches()
        kube.put_pods("pod-1")
        assert all(event.type == "BOOKMARK" for event in events)


@pytest.mark.parametrize("as_status", [False, True])
def test_a_watch_of_an_old_version_is_gone(kube: Kube, as_status: bool) -> None:
    """410 has a kind of its own, as the status of an answer and as an event."""
    api = kube.client()
    since = version(api)
    kube.server.gone_as_status = as_status
    kube.server.compact()
    error = failure(lambda: watched(api, since))
    assert error.kind == GONE
    assert str(error).startswith("410 Gone: too old resource version")


def test_a_connection_that_closes_inside_an_event_is_an_error(kube: Kube) -> None:
    """A connection that closes inside an event is an error."""
    api = kube.client()
    with api.watch(PODS, {}, version(api)) as events:
        kube.server.cut_watches()
        error = failure(lambda: list(events))
    assert (error.kind, str(error)) == (CONNECTION, "connection: closed too early")


@pytest.mark.parametrize("headers", ["", "Connection: close\r\n"])
def test_a_watch_may_be_the_last_on_its_connection(tmp_path: Path, headers: str) -> None:
    """A server that is stopping announces that it closes the connection after the watch. Its events are read."""
    event = {"type": "ADDED", "object": {"metadata": {"name": "pod-1"}}}
    scripted = Scripted(tmp_path, stream_answer(event, headers=headers))
    with scripted.server:
        assert watched(scripted.client()) == [Event("ADDED", {"metadata": {"name": "pod-1"}})]


@pytest.mark.parametrize("headers", ["", "Connection: close\r\n"])
def test_silence_is_bounded_on_any_connection(tmp_path: Path, headers: str) -> None:
    """The bound on silence holds for the last answer of a connection too."""
    scripted = Scripted(tmp_path, stream_answer(headers=headers, end=False), wait=True)
    with scripted.server:
        assert watched(scripted.client(silence=0.2)) == []


def test_proxies_are_not_used(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client ignores the proxy variables, so no proxy sees the token."""
    with refusing() as (_, address):
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{address[1]}")
        assert len(pages(kube.client())) == 1


def test_the_token_is_read_again_as_it_rotates(kube: Kube) -> None:
    """A request after a rotation carries the new token. A missing file is an error that names the file."""
    api = kube.client()
    pages(api)
    kube.server.tokens = {"a-new-token"}
    assert failure(lambda: pages(api)).kind == UNAUTHORIZED
    kube.account.rotate(token="a-new-token")
    assert len(pages(api)) == 1
    (kube.account.path / "token").unlink()
    error = failure(lambda: pages(api))
    assert error.kind == CREDENTIALS
    assert str(error) == f"token file {kube.account.path / 'token'}: No such file or directory"


def test_a_replaced_ca_is_trusted(tmp_path: Path) -> None:
    """After the cluster's CA is replaced, new connections trust the new CA."""
    before, after = Kube(tmp_path / "before"), Kube(tmp_path / "after")
    with after.server:
        api = KubeApi(ServiceAccount("127.0.0.1", after.server.port, before.account.path))
        assert failure(lambda: pages(api)).kind == TLS
        before.account.rotate(ca=after.authority.pem)
        assert len(pages(api)) == 1


def test_a_base_url_with_a_path_and_another_name(tmp_path: Path) -> None:
    """The base URL's path is a prefix of all requests, and the credentials give the server name to verify."""
    scripted = Scripted(tmp_path, document_answer(EMPTY_LIST))
    scripted.credentials.base_url += "/k8s/clusters/c-1/"
    scripted.credentials.server_name = "api.example"
    with scripted.server:
        pages(scripted.client())
        scripted.credentials.server_name = "another.example"
        assert failure(lambda: pages(scripted.client())).kind == TLS
    assert scripted.server.heard[0].startswith(f"GET /k8s/clusters/c-1{PODS}?resourceVersion=0&limit=".encode())
    assert f"Authorization: Bearer {TOKEN}\r\n".encode() in scripted.server.heard[0]


def test_ipv6(tmp_path: Path) -> None:
    """An API server with an IPv6 address works."""
    kube = Kube(tmp_path, "::1")
    with kube.server:
        assert len(pages(kube.client())) == 1


class Caller(threading.Thread):
    """Makes a call and keeps the error that it ends with."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(name="caller", daemon=True)
        self.call = call
        self.outcome: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        """Call."""
        try:
            self.outcome.put(self.call())
        except ApiError as error:
            self.outcome.put(error)


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_close_ends_requests_under_way_and_refuses_new_ones(kube: Kube, verb: str) -> None:
    """Closing the client ends a request that waits for its answer, and later requests fail."""
    kube.server.faults.hang(PODS)
    api = kube.client(request_timeout=60.0)
    caller = Caller(lambda: pages(api) if verb == "list" else watched(api))
    assert kube.server.wait_for_request(lambda request: request.path == PODS)
    api.close()
    error = caller.outcome.get(timeout=10)
    assert isinstance(error, ApiError)
    assert error.kind == CONNECTION
    assert str(failure(lambda: pages(api))) == "this client is closed"


@pytest.mark.parametrize("headers", ["", "Connection: close\r\n"])
def test_close_ends_a_watch_that_waits(tmp_path: Path, headers: str) -> None:
    """Closing the client ends a watch that waits for an event."""
    scripted = Scripted(tmp_path, stream_answer(headers=headers, end=False), wait=True)
    with scripted.server:
        api = scripted.client(silence=60.0)
        caller = Caller(lambda: watched(api))
        until(lambda: scripted.server.heard)
        api.close()
        assert isinstance(caller.outcome.get(timeout=10), ApiError)


@pytest.mark.parametrize("place", ["connect", "handshake"])
def test_close_ends_a_connection_that_is_being_made(tmp_path: Path, place: str) -> None:
    """Closing the client ends a TCP connect and a TLS handshake that wait for the server."""
    with BlackHole() as hole, Server(silent) as server:
        port = hole.port if place == "connect" else server.port
        account = Kube(tmp_path).account
        api = KubeApi(ServiceAccount("127.0.0.1", port, account.path), connect_timeout=60.0)
        caller = Caller(lambda: pages(api))
        until(lambda: place == "connect" or server.connections)
        api.close()
        error = caller.outcome.get(timeout=5)
    assert isinstance(error, ApiError)
    assert error.kind == CONNECTION
