"""What a follower does about each failure: list again, watch on, wait, and for how long."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from checks.kube.client import KubeApi, Object, section, text_of
from checks.kube.reflector import FIRST_PAUSE, HEALTHY_WATCH, LONGEST_PAUSE, LONGEST_RETRY_AFTER, Follower
from tests.support.kube import PODS, Kube, Scripted, document_answer, stream_answer
from tests.support.servers import GENEROUS, answer
from tests.support.waiting import until

LOGGER = "kubenurse.discovery"
# How long the end of a follower may take, in seconds: far less than the timeouts of the requests it may be in.
PROMPT = 5.0


class Stopping(threading.Event):
    """Stops a follower, notes how long it pauses, and lets the first few pauses pass at once.

    The one with the number ``hold_at``, counted from 1, lasts until ``go_on`` is set.
    """

    def __init__(self, pass_at_once: int, hold_at: int) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self.pass_at_once = pass_at_once
        self.hold_at = hold_at
        self.go_on = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, or note that it was to wait."""
        self.pauses.append(timeout or 0.0)
        if len(self.pauses) == self.hold_at:
            self.go_on.wait(GENEROUS)
        return super().wait(0.0 if len(self.pauses) <= self.pass_at_once else timeout)


class Following:
    """A follower of Pods' phases in a thread of its own, and what it told."""

    def __init__(
        self,
        api: KubeApi,
        *,
        pass_at_once: int = 1000,
        hold_at: int = 0,
        chance: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        keep: Callable[[Object], str | None] | None = None,
        hint: str = "",
        on_update: Callable[[], None] = lambda: None,
    ) -> None:
        self.api = api
        self.stopping = Stopping(pass_at_once, hold_at)
        self.errors: list[str] = []
        self.on_update = on_update
        self.updates = 0
        self.pictures: list[set[str]] = []
        self.follower: Follower[str] = Follower(
            "pods",
            api,
            PODS,
            {"labelSelector": "app=kubenurse"},
            keep or (lambda item: text_of(section(item, "status"), "phase")),
            stopping=self.stopping,
            on_update=self.note_update,
            on_error=self.errors.append,
            clock=clock,
            random=lambda: chance,
            hint=hint,
        )
        self.thread = threading.Thread(target=self.follower.run, name="follower", daemon=True)
        self.thread.start()

    def note_update(self) -> None:
        """Count, and note what is kept."""
        self.updates += 1
        self.pictures.append(self.names)
        self.on_update()

    @property
    def names(self) -> set[str]:
        """The names of what is kept now."""
        return set(self.follower.kept)

    def stop(self) -> None:
        """End it, in bounded time."""
        self.stopping.set()
        self.api.close()
        self.thread.join(PROMPT)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def following(api: KubeApi, **options: object) -> Iterator[Following]:
    """Follow within the ``with`` block."""
    found = Following(api, **options)  # type: ignore[arg-type] # Following's own options
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster with two Pods."""
    kube = Kube(tmp_path, bookmark_seconds=0.1)
    kube.put_pods("pod-1", "pod-2")
    with kube.server:
        yield kube


def count(kube: Kube, verb: str) -> int:
    """Return how many lists or watches were asked for."""
    return sum(request.verb == verb for request in kube.server.requests)


def wait_for_watches(kube: Kube, how_many: int = 1) -> None:
    """Wait until so many watches were asked for, in all, and the last one is open."""
    assert kube.server.wait_for_request(lambda request: request.verb == "watch", count=how_many)
    until(lambda: kube.server.open_watches == 1)


def test_lists_once_and_then_watches(kube: Kube) -> None:
    """The picture is the list's, then follows additions, changes and deletions, all by one list and one watch."""
    with following(kube.client()) as found:
        until(lambda: found.names == {"pod-1", "pod-2"})
        wait_for_watches(kube)
        kube.put_pods("pod-3")
        kube.put_pods("pod-1", phase="Failed")
        kube.server.delete("pods", "pod-2")
        until(lambda: found.follower.kept == {"pod-1": "Failed", "pod-3": "Running"})
        assert found.follower.failure == ""
        assert found.errors == []
    assert (count(kube, "list"), count(kube, "watch")) == (1, 1)


def test_a_change_makes_a_new_mapping(kube: Kube) -> None:
    """What a reader holds does not change under it; what is the same stays the same object."""
    with following(kube.client()) as found:
        until(lambda: found.names == {"pod-1", "pod-2"})
        wait_for_watches(kube)
        before = found.follower.kept
        updates = found.updates
        until(lambda: found.updates > updates + 2)
        assert found.follower.kept is before
        kube.put_pods("pod-3")
        until(lambda: "pod-3" in found.follower.kept)
        assert set(before) == {"pod-1", "pod-2"}


def test_what_keep_makes_none_is_left_out(kube: Kube) -> None:
    """Objects that are of no interest are not kept, and go when they become so."""

    def running(item: Object) -> str | None:
        return "yes" if text_of(section(item, "status"), "phase") == "Running" else None

    kube.put_pods("pod-3", phase="Pending")
    with following(kube.client(), keep=running) as found:
        until(lambda: found.names == {"pod-1", "pod-2"})
        wait_for_watches(kube)
        kube.put_pods("pod-1", phase="Failed")
        until(lambda: found.names == {"pod-2"})


@pytest.mark.parametrize("as_status", [False, True])
def test_an_expired_version_lists_again(kube: Kube, as_status: bool) -> None:
    """410 is no failure to speak of: a new list, and the picture is right again, with what left gone."""
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
        assert found.follower.failure == ""
    assert count(kube, "list") == 2


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
    """A connection that breaks under a watch is counted, but nothing is failing as long as the next one opens."""
    with following(kube.client()) as found:
        wait_for_watches(kube)
        kube.server.cut_watches()
        wait_for_watches(kube, 2)
        kube.put_pods("pod-3")
        until(lambda: "pod-3" in found.names)
        assert found.errors == ["connection"]
        assert found.follower.failure == ""
    assert count(kube, "list") == 1


def test_a_silent_watch_is_replaced(kube: Kube) -> None:
    """A watch that says nothing, not even bookmarks, is given up, and what it kept silent about is seen."""
    with following(kube.client(silence=0.4)) as found:
        wait_for_watches(kube)
        kube.server.silence_watches()
        kube.put_pods("pod-3")
        until(lambda: "pod-3" in found.names)
        assert found.follower.failure == ""
    assert count(kube, "list") == 1


@pytest.mark.parametrize("bad", [{"type": "ERROR", "object": {"code": 500, "message": "no"}}, {"type": "ADDED"}, []])
def test_a_watch_that_says_it_is_broken_is_followed_by_a_list(tmp_path: Path, bad: object) -> None:
    """After an error that the server put into the watch, or garbage, its version is not relied on any more."""
    listed = {"metadata": {"resourceVersion": "7"}, "items": []}
    added = {"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "pod-1"}, "status": {}}]}
    scripted = Scripted(
        tmp_path,
        document_answer(listed),
        stream_answer(bad),
        document_answer(added),
        stream_answer(end=False),
        wait=True,
    )
    with scripted.server, following(scripted.client()) as found:
        until(lambda: found.names == {"pod-1"})
        assert len(found.errors) == 1
        until(lambda: found.follower.failure == "")
    asked = [b"watch=true" in heard for heard in scripted.server.heard]
    assert asked[:3] == [False, True, False]


def test_pauses_grow_up_to_a_bound(kube: Kube) -> None:
    """From failure to failure the pause doubles, up to a bound."""
    kube.server.faults.answer(PODS, 503)
    with following(kube.client(), pass_at_once=8, chance=1.0) as found:
        until(lambda: len(found.stopping.pauses) > 8)
        assert found.stopping.pauses == [2.0, 4.0, 8.0, 16.0] + [LONGEST_PAUSE] * 5
        assert found.follower.failure == "503 Service Unavailable: injected fault"
        assert set(found.errors) == {"server_error"}


def test_pauses_are_random(kube: Kube) -> None:
    """A pause is chance's part of the longest one, so that a fleet's agents come back one by one."""
    kube.server.faults.answer(PODS, 503)
    with following(kube.client(), pass_at_once=3, chance=0.25) as found:
        until(lambda: len(found.stopping.pauses) > 3)
        assert found.stopping.pauses == [0.5, 1.0, 2.0, 4.0]


@pytest.mark.parametrize(("asked", "granted"), [(7, 7.0), (3600, LONGEST_RETRY_AFTER)])
@pytest.mark.parametrize("verb", ["list", "watch"])
def test_retry_after_is_honoured_within_bounds(kube: Kube, verb: str, asked: int, granted: float) -> None:
    """The server's wish comes on top of the pause, but nobody is sent away for longer than a minute."""
    kube.server.faults.answer(PODS, 429, verb=verb, retry_after=asked)
    with following(kube.client(), pass_at_once=1, chance=1.0) as found:
        until(lambda: len(found.stopping.pauses) > 1)
        assert found.stopping.pauses == [granted + 2.0, granted + 4.0]


@pytest.mark.parametrize(("lasted", "pause"), [(HEALTHY_WATCH + 1.0, FIRST_PAUSE), (0.0, 32 * FIRST_PAUSE)])
def test_only_a_watch_that_lasted_ends_the_failures(kube: Kube, lasted: float, pause: float) -> None:
    """After a watch of some length the pause is short again; one that ends at once counts as another failure."""
    moment = [0.0]
    kube.server.faults.answer(PODS, 503, verb="watch")
    with following(kube.client(), hold_at=4, chance=1.0, clock=lambda: moment[0]) as found:
        until(lambda: len(found.stopping.pauses) == 4)
        kube.server.faults.clear()
        updates = found.updates
        found.stopping.go_on.set()
        until(lambda: found.updates > updates)
        moment[0] = lasted
        kube.server.drop_watches()
        until(lambda: len(found.stopping.pauses) >= 5)
        assert found.stopping.pauses[4] == min(pause, LONGEST_PAUSE)


def test_a_list_that_breaks_half_way_changes_nothing(tmp_path: Path) -> None:
    """The last whole picture stays until another is whole, however many pages of it have come."""

    def listed(name: str, *headers: str, more: str = "") -> bytes:
        metadata = {"resourceVersion": "7", "continue": more}
        return document_answer({"metadata": metadata, "items": [{"metadata": {"name": name}}]}, *headers)

    gone = stream_answer({"type": "ERROR", "object": {"code": 410}})
    scripted = Scripted(
        tmp_path,
        listed("pod-1"),
        gone,
        listed("pod-2", "Connection: close", more="more"),
        answer("503 Service Unavailable"),
        listed("pod-3"),
        stream_answer(end=False),
        wait=True,
    )
    with scripted.server, following(scripted.client()) as found:
        until(lambda: found.names == {"pod-3"})
        until(lambda: len(scripted.server.heard) == 6)
        assert found.errors == ["gone", "server_error"]
        assert found.follower.failure == ""
        assert [sorted(names) for names, _ in itertools.groupby(found.pictures)] == [["pod-1"], ["pod-3"]]


def test_a_failure_is_logged_once_for_each_reason(kube: Kube, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is tried: a line when it begins to fail, one when the reason changes, one when it recovers."""
    caplog.set_level(logging.INFO, LOGGER)
    kube.server.faults.answer(PODS, 503, message="first")
    with following(kube.client()) as found:
        until(lambda: len(found.errors) > 5)
        kube.server.faults.clear()
        kube.server.faults.answer(PODS, 500, message="second")
        # Between the two faults a list may come through, which is a recovery.
        seen = len(found.errors)
        until(lambda: len(found.errors) > seen + 5)
        kube.server.faults.clear()
        wait_for_watches(kube)
        until(lambda: found.follower.failure == "")
    lines = [(record.getMessage(), getattr(record, "facts", {}).get("why", "")) for record in caplog.records]
    assert lines[0] == ("discovery failing", "503 Service Unavailable: first")
    assert lines[-2:] == [
        ("discovery failing", "500 Internal Server Error: second"),
        ("discovery recovered", ""),
    ]
    assert len(lines) <= 4


def test_forbidden_comes_with_the_remedy(kube: Kube) -> None:
    """Where access is forbidden, the failure says what to do about it; other failures do not."""
    kube.server.faults.answer(PODS, 403)
    with following(kube.client(), pass_at_once=0, hint="grant it") as found:
        until(lambda: found.follower.failure)
        assert found.follower.failure == "403 Forbidden (grant it)"
    kube.server.faults.clear()
    kube.server.faults.answer(PODS, 500)
    with following(kube.client(), pass_at_once=0, hint="grant it") as found:
        until(lambda: found.follower.failure)
        assert "grant it" not in found.follower.failure


def test_an_error_of_its_own_does_not_end_it(kube: Kube, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is raised in its thread is logged, and followed by a list."""
    wrong = [True]

    def keep(item: Object) -> str:
        if wrong.pop() if wrong else False:
            raise RuntimeError("a bug")
        return text_of(section(item, "status"), "phase")

    with following(kube.client(), keep=keep) as found:
        until(lambda: found.names == {"pod-1", "pod-2"})
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == ["discovery raised"]


def test_an_error_of_whom_it_tells_does_not_end_it(kube: Kube, caplog: pytest.LogCaptureFixture) -> None:
    """What is raised by those who are told of a change or of a failure does not end the thread either."""
    wrong = [True] * 3

    def tell() -> None:
        if wrong:
            wrong.pop()
            raise RuntimeError("a bug")

    kube.server.faults.answer(PODS, 503)
    with following(kube.client(), on_update=tell) as found:
        until(lambda: not wrong)
        kube.server.faults.clear()
        until(lambda: found.names == {"pod-1", "pod-2"})
    assert "discovery raised" in {record.getMessage() for record in caplog.records}


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_stops_in_the_middle_of_a_request(kube: Kube, verb: str) -> None:
    """A request that hangs does not hold up the end, which is neither counted nor logged as an error."""
    kube.server.faults.hang(PODS, verb=verb)
    found = Following(kube.client(request_timeout=60.0))
    assert kube.server.wait_for_request(lambda request: request.verb == verb)
    found.stop()
    assert found.errors == []
    assert found.follower.failure == ""


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
    until(lambda: found.stopping.pauses)
    found.stop()
    assert found.stopping.pauses == [62.0]
