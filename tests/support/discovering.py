"""A discovery that runs against the sandbox's API server, and what tests look at."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checks.kube.discovery import Discovery
from checks.model import Neighbourhood
from sandbox.objects import NAMESPACE, make_node
from tests.support.kube import Kube
from tests.support.waiting import until

NODES = "/api/v1/nodes"
# How long a stop may take, in seconds.
PROMPT = 5.0
# Seconds: far less than any timer of discovery that would make a test pass by itself, but for the steps named there.
SOON = 5.0


class Clock:
    """Monotonic seconds that a test can put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        """Return now."""
        return time.monotonic() + self.ahead


@contextlib.contextmanager
def serving_agents(directory: Path, how_many: int = 3) -> Iterator[Kube]:
    """Serve a cluster of some agents on as many nodes."""
    kube = Kube(directory, bookmark_seconds=0.1)
    kube.put_pods(*(f"pod-{number}" for number in range(how_many)))
    kube.server.put("nodes", *(make_node(f"node-{number}") for number in range(how_many)))
    with kube.server:
        yield kube


def make_discovery(kube: Kube, **options: Any) -> Discovery:
    """Return a discovery for pod-0 that makes no pauses between its tries."""
    defaults = {"namespace": NAMESPACE, "label_selector": "app=kubenurse", "own_pod": "pod-0", "random": lambda: 0.0}
    return Discovery(kube.client(request_timeout=60.0), **{**defaults, **options})


@contextlib.contextmanager
def discovering(kube: Kube, **options: Any) -> Iterator[Discovery]:
    """Discover within the ``with`` block, as pod-0."""
    found = make_discovery(kube, **options)
    found.start()
    try:
        yield found
    finally:
        before = time.monotonic()
        found.stop()
        assert time.monotonic() - before < PROMPT


def names(picture: Neighbourhood) -> list[str]:
    """Return the names of the neighbours."""
    return [neighbour.pod_name for neighbour in picture.neighbours]


def synced(discovery: Discovery) -> Neighbourhood:
    """Return the first picture."""
    assert discovery.wait_synced(20.0)
    return discovery.snapshot()


def wait_for_names(discovery: Discovery, *expected: str) -> Neighbourhood:
    """Wait until these are the neighbours."""
    until(lambda: names(discovery.snapshot()) == list(expected), SOON)
    return discovery.snapshot()


def wait_for_state(discovery: Discovery, state: str) -> Neighbourhood:
    """Wait until the state begins with these words."""
    until(lambda: discovery.snapshot().state.startswith(state), SOON)
    return discovery.snapshot()
