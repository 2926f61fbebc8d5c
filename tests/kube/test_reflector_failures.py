"""What a reflector does about each failure: list again, watch on, wait, and for how long."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.kube.client import Object, section, text_of
from checks.kube.health import HEALTHY_WATCH
from checks.kube.pauses import FIRST_PAUSE, LONGEST_RETRY_AFTER
from checks.kube.reflector import LIST_AGAIN_AFTER, Reflector, Resource
from tests.support.following import count, following, wait_for_watches
from tests.support.kube import PODS, Kube, Scripted, document_answer, stream_answer
from tests.support.servers import Conversation, Server, answer
from tests.support.waiting import until


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster with two Pods."""
    kube = Kube(tmp_path, bookmark_seconds=0.1)
    kube.put_pods("pod-1", "pod-2")
    with kube.server:
        yield kube


@pytest.mark.parametrize("bad", [{"type": "ERROR", "object": {"code": 500, "message": "no"}}, {"type": "ADDED"}, []])
def test_a_watch_that_reports_an_error_is_followed_by_a_list(tmp_path: Path, bad: object) -> None:
    """After an error event or garbage in a watch the objects are listed again."""
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
        until(lambda: found.failure == "")
    asked = [b"watch=true" in heard for heard in scripted.server.heard]
    assert asked[:3] == [False, True, False]


@pytest.mark.parametrize(("asked", "granted"), [(7, 7.0), (3600, LONGEST_RETRY_AFTER)])
@pytest.mark.parametrize("verb", ["list", "watch"])
def test_retry_after_is_honoured_within_bounds(kube: Kube, verb: str, asked: int, granted: float) -> None:
    """The time that the server asks for comes on top of the pause, up to a minute."""
    kube.server.faults.answer(PODS, 429, verb=verb, retry_after=asked)
    with following(kube.client(), pass_at_once=1, chance=1.0) as found:
        until(lambda: len(found.pauses.noted) > 1)
        assert found.pauses.noted == [granted + 2.0, granted + 4.0]


@pytest.mark.parametrize(("lasted", "pause"), [(HEALTHY_WATCH + 1.0, FIRST_PAUSE), (0.0, 16 * FIRST_PAUSE)])
def test_only_a_watch_that_lasted_ends_the_growth_of_pauses(kube: Kube, lasted: float, pause: float) -> None:
    """After a watch of some length the pause is short again; one that ends at once counts as another failure."""
    moment = [0.0]
    kube.server.faults.answer(PODS, 503, verb="watch")
    with following(kube.client(), hold_at=3, chance=1.0, clock=lambda: moment[0]) as found:
        until(lambda: len(found.pauses.noted) == 3)
        kube.server.faults.clear()
        updates = found.updates
        found.pauses.go_on.set()
        # One for the list, one for the watch that opens.
        until(lambda: found.updates >= updates + 2)
        moment[0] = lasted
        kube.server.drop_watches()
        until(lambda: len(found.pauses.noted) >= 4)
        assert found.pauses.noted[3] == pause


def test_a_list_that_breaks_half_way_changes_nothing(tmp_path: Path) -> None:
    """The last complete list stays until another one is complete, however many of its pages have come."""

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
        until(lambda: found.failure == "")
        assert [sorted(names) for names, _ in itertools.groupby(found.pictures)] == [["pod-1"], ["pod-3"]]


def test_forbidden_comes_with_the_remedy(kube: Kube) -> None:
    """Where access is forbidden, the failure names the remedy; other failures do not."""
    kube.server.faults.answer(PODS, 403)
    with following(kube.client(), pass_at_once=0, hint="grant it") as found:
        until(lambda: found.failure)
        assert found.failure == "403 Forbidden (grant it)"
    kube.server.faults.clear()
    kube.server.faults.answer(PODS, 500)
    with following(kube.client(), pass_at_once=0, hint="grant it") as found:
        until(lambda: found.failure)
        assert "grant it" not in found.failure


def bookmark(version: int) -> object:
    """Return a bookmark's event."""
    return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}


LISTED = document_answer({"metadata": {"resourceVersion": "7"}, "items": []})
HALF_A_LINE = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n{"type":"MODIFIED"\r\n'


@pytest.mark.parametrize("status", [403, 500])
def test_a_watch_that_is_refused_is_replaced_by_lists(kube: Kube, status: int) -> None:
    """List allowed, watch refused: the state says why, and now and then a list brings what has changed."""
    kube.server.faults.answer(PODS, status, verb="watch")
    with following(kube.client(), pass_at_once=20) as found:
        until(lambda: found.failure.startswith(str(status)))
        kube.put_pods("pod-3")
        until(lambda: "pod-3" in found.names)
        assert found.failure.startswith(str(status))
        until(lambda: len(found.pauses.noted) > 20)
        lists, watches = count(kube, "list"), count(kube, "watch")
        assert watches // LIST_AGAIN_AFTER - 1 <= lists <= watches // LIST_AGAIN_AFTER + 2
        kube.server.faults.clear()
        until(lambda: found.failure == "")


@pytest.mark.parametrize("status", [None, 429])
def test_an_api_server_that_is_away_is_not_asked_for_lists(kube: Kube, status: int | None) -> None:
    """However long it is away or overloaded, the watch goes on from the version known once it is back."""
    with following(kube.client()) as found:
        wait_for_watches(kube)
        if status is None:
            kube.server.stop()
        else:
            kube.server.faults.answer(PODS, status, verb="watch")
            kube.server.drop_watches()
        until(lambda: len(found.errors) > 3 * LIST_AGAIN_AFTER)
        assert found.failure
        kube.put_pods("pod-3")
        kube.server.faults.clear()
        if status is None:
            kube.server.start()
        until(lambda: "pod-3" in found.names)
        until(lambda: found.failure == "")
        assert found.answers >= 1
    assert count(kube, "list") == 1


@pytest.mark.parametrize(
    ("watch", "why"),
    [
        (stream_answer(), "each watch ends at once: ended by the server"),
        (stream_answer(bookmark(8)), "each watch ends at once: ended by the server"),
        (HALF_A_LINE, "each watch ends at once: connection: closed too early"),
        (stream_answer({"type": "ERROR", "object": {"code": 410}}), "each watch ends at once: 410 Gone"),
        (stream_answer([]), "not a JSON object"),
    ],
)
def test_watches_that_end_at_once_are_a_failure(kube: Kube, watch: bytes, why: str) -> None:
    """Such a server is failing all the time, with the reason, and the pauses grow, whatever its lists say."""
    told: list[str] = []

    def serve(conversation: Conversation) -> None:
        head = conversation.read_head()
        conversation.send(watch if b"watch=true" in head else LISTED)

    with Server(serve, context=kube.server.context) as server:
        kube.server.port = server.port
        with following(kube.client(), pass_at_once=12) as found:
            found.on_update = lambda: told.append(found.failure)
            until(lambda: len(found.pauses.noted) > 12)
            assert found.reflector._backoff.failures > 12
    first = told.index(next(filter(None, told)))
    assert {failure.startswith(why) for failure in told[first:]} == {True}


def test_a_bug_does_not_end_it(kube: Kube, caplog: pytest.LogCaptureFixture) -> None:
    """An error raised by a conversion, or by what is told of updates, is logged and followed by a list."""
    wrong = ["convert", "update", "update"]

    def raise_at(place: str) -> None:
        if wrong and wrong[0] == place:
            wrong.pop(0)
            raise RuntimeError("a bug")

    def convert(item: Object) -> str:
        raise_at("convert")
        return text_of(section(item, "status"), "phase")

    with following(kube.client(), convert=convert, on_update=lambda: raise_at("update")) as found:
        until(lambda: found.names == {"pod-1", "pod-2"} and not wrong)
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == ["following objects failed"] * 3


@pytest.mark.parametrize("error", [MemoryError, SystemExit])
def test_an_error_that_ends_the_process_ends_it(kube: Kube, error: type[BaseException]) -> None:
    """Without memory, or when the interpreter is to exit, the thread does not go on as if nothing had happened."""

    def convert(item: Object) -> str:
        raise error

    reflector = Reflector(
        Resource("pods", PODS, {}, convert),
        kube.client(),
        replace=lambda objects: None,
        put=lambda name, value: 0,
        on_update=lambda: None,
        on_error=lambda kind: None,
        clock=time.monotonic,
        random=lambda: 0.0,
    )
    with pytest.raises(error):
        reflector.run()


def test_too_many_objects_are_an_error(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server adds without end is not kept: the state says so."""
    monkeypatch.setattr("checks.kube.reflector.MOST_OBJECTS", 5)
    with following(kube.client()) as found:
        wait_for_watches(kube)
        kube.put_pods(*(f"pod-{number}" for number in range(10, 20)))
        until(lambda: found.failure == "more than 5 objects")
        until(lambda: len(found.errors) > 3)
        assert len(found.kept) <= 6
