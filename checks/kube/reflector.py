"""A local picture of some Kubernetes objects, kept equal to the API server's with one list and then watches.

Three layers with a failure policy each: forever (whatever happens, wait and go on), list then watch (what is known of
the version decides which), one request (works or raises). The pattern is that of client-go's Reflector; the protocol
is described in "Kubernetes API Concepts" (https://kubernetes.io/docs/reference/using-api/api-concepts/).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from checks.kube.client import KubeApi, Object, section, text_of
from checks.kube.errors import CONNECTION, FORBIDDEN, GONE, PROTOCOL, TIMEOUT, ApiError

log = logging.getLogger("kubenurse.discovery")

# Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), in seconds.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
LONGEST_RETRY_AFTER = 60.0
# A watch that lives shorter than this, in seconds, counts as a failure where the pause before the next is concerned.
HEALTHY_WATCH = 5.0

Kept = TypeVar("Kept")


class Follower(Generic[Kept]):
    """Keeps ``kept``, by name, equal to what ``keep`` makes of the selected objects; what it makes None is left out.

    ``on_update`` is called whenever one of these changed, ``on_error`` with the kind of every request that failed:

    - ``kept``: a mapping that never changes; every change makes a new one, so any thread may read it.
    - ``synced_at``: when the API server last confirmed it (monotonic), None before the first time.
    - ``failure``: why requests fail now, in words, or empty. ``hint`` is the remedy to add where access is forbidden.
    """

    def __init__(
        self,
        name: str,
        api: KubeApi,
        path: str,
        params: Mapping[str, str],
        keep: Callable[[Object], Kept | None],
        *,
        stopping: threading.Event,
        on_update: Callable[[], None],
        on_error: Callable[[str], None],
        clock: Callable[[], float],
        random: Callable[[], float],
        hint: str = "",
    ) -> None:
        self.name = name
        self.kept: Mapping[str, Kept] = {}
        self.synced_at: float | None = None
        self.failure = ""
        self._api = api
        self._path = path
        self._params = params
        self._keep = keep
        self._stopping = stopping
        self._on_update = on_update
        self._on_error = on_error
        self._clock = clock
        self._random = random
        self._hint = hint
        self._version = ""
        self._failures = 0

    def run(self) -> None:
        """Follow until stopped."""
        while not self._stopping.is_set():
            retry_after = 0.0
            try:
                retry_after = self._attempt()
            except Exception:
                # A bug, of whoever is told of changes too: a list is the best chance to get past it.
                log.exception("discovery raised", extra={"facts": {"resource": self.name}})
                self._version = ""
                self._failures += 1
            self._stopping.wait(retry_after + self._pause())

    def _attempt(self) -> float:
        """Follow until something ends that; return for how many seconds the server wants to be left alone."""
        try:
            self._list_then_watch()
        except ApiError as error:
            self._failed(error)
            return min(error.retry_after or 0.0, LONGEST_RETRY_AFTER)
        return 0.0

    def _pause(self) -> float:
        """How long to wait, at random. Also without a failure: a server that stops ends all agents' watches at once."""
        return self._random() * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 10))

    def _list_then_watch(self) -> None:
        if not self._version:
            self._list()
        self._watch()

    def _list(self) -> None:
        found: dict[str, Kept] = {}
        version = ""
        for page in self._api.list_pages(self._path, self._params):
            if page.first:
                found.clear()
            for item in page.items:
                value = self._keep(item)
                if value is not None:
                    found[_name(item)] = value
            version = page.resource_version
        self.kept, self._version = found, version
        self._confirmed()

    def _watch(self) -> None:
        """Watch until the watch ends. One that is cut or expires is no failure: that the next cannot be opened is."""
        opened_at = None
        try:
            with self._api.watch(self._path, self._params, self._version) as events:
                opened_at = self._clock()
                self._confirmed()
                for event in events:
                    if event.type != "BOOKMARK":
                        self._apply(_name(event.object), self._keep(event.object) if event.type != "DELETED" else None)
                    self._version = event.resource_version or self._version
                    self._confirmed()
        except ApiError as error:
            cut = opened_at is not None and error.kind in (CONNECTION, TIMEOUT)
            if error.kind == GONE or (opened_at is not None and not cut):
                # Expired, or the server told inside the watch of something wrong: only a list is sure to be right.
                self._version = ""
            if error.kind != GONE and not cut:
                raise
            self._count(error)
        healthy = opened_at is not None and self._clock() - opened_at >= HEALTHY_WATCH
        self._failures = 0 if healthy else self._failures + 1

    def _apply(self, name: str, value: Kept | None) -> None:
        if value != self.kept.get(name):
            others = {other: kept for other, kept in self.kept.items() if other != name}
            self.kept = others if value is None else {**others, name: value}

    def _confirmed(self) -> None:
        if self.failure:
            log.info("discovery recovered", extra={"facts": {"resource": self.name}})
        self.failure = ""
        self.synced_at = self._clock()
        self._on_update()

    def _failed(self, error: ApiError) -> None:
        if self._stopping.is_set():
            return
        self._count(error)
        self._failures += 1
        if error.kind == PROTOCOL:
            # What cannot be understood may be a matter of where the watch began.
            self._version = ""
        why = str(error)
        if error.kind == FORBIDDEN and self._hint:
            why = f"{why.partition(':')[0]} ({self._hint})"
        if why != self.failure:
            log.warning("discovery failing", extra={"facts": {"resource": self.name, "why": why}})
        self.failure = why
        self._on_update()

    def _count(self, error: ApiError) -> None:
        # What fails because this agent ends its connections says nothing about the API server.
        if not self._stopping.is_set():
            self._on_error(error.kind)


def _name(item: Object) -> str:
    return text_of(section(item, "metadata"), "name")
