"""The threads of discovery: how they start, show that they live, die and stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.kube.discovery import COALESCE, PUBLISHER
from checks.model import OK, Neighbourhood
from tests.support.discovering import (
    NODES,
    SOON,
    discovering,
    make_discovery,
    names,
    serving_agents,
    synced,
    wait_for_names,
    wait_for_state,
)
from tests.support.kube import PODS, Kube
from tests.support.waiting import until


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster of three agents on three nodes; the first is the own one."""
    with serving_agents(tmp_path) as kube:
        yield kube


def test_each_thread_shows_that_it_lives(kube: Kube) -> None:
    """Each thread has a time, by its name, that grows while the thread is well."""
    moment = [100.0]
    with discovering(kube, clock=lambda: moment[0]) as discovery:
        synced(discovery)
        assert set(discovery.last_lived()) == {"discovery-pods", "discovery-nodes", PUBLISHER}
        moment[0] = 200.0
        until(lambda: set(discovery.last_lived().values()) == {200.0}, SOON)


@pytest.mark.parametrize("error", [SystemExit, MemoryError])
def test_a_thread_that_dies_is_told(kube: Kube, error: type[BaseException]) -> None:
    """An end that is no stop reaches the one who can end the process, with the thread's name."""
    deaths: list[tuple[str, type[BaseException]]] = []

    def tell(picture: Neighbourhood) -> None:
        if picture.state == OK:
            raise error

    with discovering(kube, on_change=tell, on_death=lambda name, why: deaths.append((name, type(why)))):
        until(lambda: deaths, SOON)
    assert deaths == [(PUBLISHER, error)]


def test_a_death_is_logged_by_default(kube: Kube, caplog: pytest.LogCaptureFixture) -> None:
    """Also where nobody asked to be told, a thread does not end without a word."""

    def tell(picture: Neighbourhood) -> None:
        raise SystemExit("enough")

    with discovering(kube, on_change=tell):
        until(lambda: "discovery thread died" in [record.getMessage() for record in caplog.records], SOON)


def test_a_bug_of_a_receiver_does_not_end_the_publisher(kube: Kube, caplog: pytest.LogCaptureFixture) -> None:
    """An error raised by what is told of pictures is logged, and the next picture is published."""

    def tell(picture: Neighbourhood) -> None:
        raise RuntimeError("a bug")

    with discovering(kube, on_change=tell) as discovery:
        wait_for_names(discovery, "pod-1", "pod-2")
        kube.put_pods("pod-3")
        wait_for_names(discovery, "pod-1", "pod-2", "pod-3")
    errors = {record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR}
    assert errors == {"publishing neighbours failed"}


def test_threads_that_cannot_be_started_are_started_later(kube: Kube) -> None:
    """While the system has no thread to give, each is tried again until it runs."""
    refused = dict.fromkeys(("discovery-pods", "discovery-nodes", PUBLISHER), 1)

    def start(thread: threading.Thread) -> None:
        if refused[thread.name]:
            refused[thread.name] -= 1
            raise RuntimeError("can't start new thread")
        thread.start()

    with discovering(kube, start_thread=start) as discovery:
        wait_for_names(discovery, "pod-1", "pod-2")


def test_a_system_without_threads_is_an_error_of_the_start(kube: Kube) -> None:
    """Where no thread is to be had at all, the start fails with the remedy, instead of going on without discovery."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    discovery = make_discovery(kube, start_thread=start)
    with pytest.raises(RuntimeError, match="raise the limit of processes or memory"):
        discovery.start()
    discovery.stop()


def test_a_storm_of_events_makes_few_pictures(kube: Kube) -> None:
    """Events that come at once are published together; the last one is in the last picture."""
    told: list[list[str]] = []
    with discovering(kube, on_change=lambda picture: told.append(names(picture))) as discovery:
        wait_for_names(discovery, "pod-1", "pod-2")
        begun = time.monotonic()
        before = len(told)
        for number in range(100, 300):
            kube.put_pods(f"pod-{number}")
        until(lambda: discovery.snapshot().known == 202, 20.0)
        pictures = len(told) - before
        assert pictures <= (time.monotonic() - begun) / COALESCE + 1
    assert len(told[-1]) == 202


def test_a_receiver_that_hangs_does_not_stop_the_reflectors(kube: Kube) -> None:
    """Events are taken while the one who is told of pictures takes its time; the stop does not wait for it."""
    hanging, go_on = threading.Event(), threading.Event()

    def tell(picture: Neighbourhood) -> None:
        hanging.set()
        go_on.wait(60.0)

    with discovering(kube, on_change=tell) as discovery:
        assert hanging.wait(SOON)
        kube.put_pods("pod-3")
        until(lambda: discovery._picture.has_pod("pod-3"), SOON)
    go_on.set()


def test_a_failure_is_logged_when_it_begins_and_when_it_ends(kube: Kube, caplog: pytest.LogCaptureFixture) -> None:
    """However often requests are tried: one line when they begin to fail and one when they work again."""
    caplog.set_level(logging.INFO, "kubenurse.discovery")
    with discovering(kube) as discovery:
        synced(discovery)
        kube.server.faults.answer(PODS, 503, message="no")
        kube.server.drop_watches()
        wait_for_state(discovery, "pods: 503 Service Unavailable: no")
        kube.server.faults.clear()
        wait_for_state(discovery, OK)

        def lines() -> list[str]:
            return [record.getMessage() for record in caplog.records if record.getMessage().startswith("discovery")]

        until(lambda: lines() == ["discovery failing", "discovery recovered"], SOON)


@pytest.mark.parametrize("path", [PODS, NODES])
def test_stop_is_prompt_whatever_goes_on(kube: Kube, path: str) -> None:
    """A request that hangs does not hold up the end; nothing is asked after it."""
    kube.server.faults.hang(path)
    with discovering(kube):
        assert kube.server.wait_for_request(lambda request: request.path == path)
    asked = len(kube.server.requests)
    kube.server.drop_watches()
    assert len(kube.server.requests) == asked


def test_stop_without_start(kube: Kube) -> None:
    """What was never started can be stopped."""
    make_discovery(kube).stop()
