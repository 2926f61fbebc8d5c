"""How a reflector follows objects: one list, then watches, until it is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.kube.client import Object, section, text_of
from tests.support.following import Following, count, following, wait_for_watches
from tests.support.kube import PODS, Kube
from tests.support.waiting import until


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster with two Pods."""
    kube = Kube(tmp_path, bookmark_seconds=0.1)
    kube.put_pods("pod-1", "pod-2")
    with kube.server:
        yield kube


def test_lists_once_and_then_watches(kube: Kube) -> None:
    """The picture is the list's, then follows additions, changes and deletions, all by one list and one watch."""
    with following(kube.client()) as found:
        until(lambda: found.names == {"pod-1", "pod-2"})
        wait_for_watches(kube)
        kube.put_pods("pod-3")
        kube.put_pods("pod-1", phase="Failed")
        kube.server.delete("pods", "pod-2")
        until(lambda: found.kept == {"pod-1": "Failed", "pod-3": "Running"})
        assert found.failure == ""
        assert found.errors == []
    assert (count(kube, "list"), count(kube, "watch")) == (1, 1)


def test_an_object_that_converts_to_none_is_left_out(kube: Kube) -> None:
    """Objects that are of no interest are not kept, and go when they become so."""

    def running(item: Object) -> str | None:
        return "yes" if text_of(section(item, "status"), "phase") == "Running" else None

    kube.put_pods("pod-3", phase="Pending")
    with following(kube.client(), convert=running) as found:
        until(lambda: found.names == {"pod-1", "pod-2"})
        wait_for_watches(kube)
        kube.put_pods("pod-1", phase="Failed")
        until(lambda: found.names == {"pod-2"})


@pytest.mark.parametrize("as_status", [False, True])
def test_an_expired_version_lists_again(kube: Kube, as_status: bool) -> None:
    """After a 410, a list no older than the version known corrects the picture; nothing is failing."""
    kube.server.gone_as_status = as_status
    with following(kube.client()) as found:
        wait_for_watches(kube)
        kube.server.silence_watches()
        kube.server.delete("pods", "pod-1")
        kube.put_pods("pod-3")
        kube.server.compact()
        kube.server.drop_watches()
        until(lambda: found.names == {"pod-2", "pod-3"})
        assert found.errors == ["gone"]
        assert found.failure == ""
    lists = [request for request in kube.server.requests if request.verb == "list"]
    watches = [request for request in kube.server.requests if request.verb == "watch"]
    # The second list may come from the API server's cache, but is no older than what was known.
    assert [request.query.get("resourceVersion") for request in lists] == ["0", watches[0].query["resourceVersion"]]


def test_a_watch_that_ends_is_followed_by_the_next_without_a_list(kube: Kube) -> None:
    """A watch at its end is replaced by one from the latest version, that of a bookmark included."""
    with following(kube.client()) as found:
        wait_for_watches(kube)
        kube.server.put("nodes", {"metadata": {"name": "node-1"}, "spec": {}, "status": {}})
        latest = str(kube.server.store.version)
        updates = found.updates
        until(lambda: found.updates > updates + 2)
        kube.server.drop_watches()
        wait_for_watches(kube, 2)
        kube.put_pods("pod-3")
        until(lambda: "pod-3" in found.names)
        assert found.errors == []
    assert count(kube, "list") == 1
    watches = [request for request in kube.server.requests if request.verb == "watch"]
    assert watches[1].query["resourceVersion"] == latest


def test_a_cut_watch_is_followed_by_the_next_without_a_list(kube: Kube) -> None:
    """A connection that breaks under a watch is counted, but nothing is failing while the next one opens."""
    with following(kube.client()) as found:
        wait_for_watches(kube)
        kube.server.cut_watches()
        wait_for_watches(kube, 2)
        kube.put_pods("pod-3")
        until(lambda: "pod-3" in found.names)
        assert found.errors == ["connection"]
        assert found.failure == ""
    assert count(kube, "list") == 1


def test_a_silent_watch_is_replaced(kube: Kube) -> None:
    """A watch without events or bookmarks is given up; the next one brings what it had left out."""
    with following(kube.client(silence=0.4)) as found:
        wait_for_watches(kube)
        kube.server.silence_watches()
        kube.put_pods("pod-3")
        until(lambda: "pod-3" in found.names)
        assert found.failure == ""
    assert count(kube, "list") == 1


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_stops_in_the_middle_of_a_request(kube: Kube, verb: str) -> None:
    """A request that hangs does not hold up the end, which does not count as an error."""
    kube.server.faults.hang(PODS, verb=verb)
    found = Following(kube.client(request_timeout=60.0))
    assert kube.server.wait_for_request(lambda request: request.verb == verb)
    found.stop()
    assert found.errors == []
    assert found.failure == ""


def test_stops_in_the_middle_of_a_watch(kube: Kube) -> None:
    """A watch that waits for events does not hold up the end."""
    found = Following(kube.client())
    until(lambda: found.updates > 2)
    found.stop()
    assert found.errors == []


def test_stops_in_the_middle_of_a_pause(kube: Kube) -> None:
    """A long pause does not hold up the end."""
    kube.server.faults.answer(PODS, 429, retry_after=60)
    found = Following(kube.client(), pass_at_once=0, chance=1.0)
    until(lambda: found.pauses.noted)
    found.stop()
    assert found.pauses.noted == [62.0]


def test_a_thread_shows_that_it_lives(kube: Kube) -> None:
    """Each bookmark and each step of a pause is a sign of life."""
    moment = [100.0]
    with following(kube.client(), clock=lambda: moment[0]) as found:
        wait_for_watches(kube)
        moment[0] = 200.0
        until(lambda: found.reflector.last_lived == 200.0)
