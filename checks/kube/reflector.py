"""Objects of the Kubernetes API, followed with one list and then watches.

Three layers, each with its failure policy: ``run`` goes on whatever happens, ``_list_then_watch`` decides whether a
list is needed, a request works or raises. The pattern is that of client-go's Reflector; "Kubernetes API Concepts"
describes the protocol (https://kubernetes.io/docs/reference/using-api/api-concepts/).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from checks.kube.client import Event, KubeApi, Object, section, text_of
from checks.kube.errors import CONNECTION, FORBIDDEN, GONE, PROTOCOL, SERVER_ERROR, TIMEOUT, UNAUTHORIZED, ApiError
from checks.kube.health import Health, Status
from checks.kube.pauses import LONGEST_RETRY_AFTER, Backoff, Sleeper
from checks.text import printable

log = logging.getLogger("kubenurse.discovery")

# After so many watches in a row that the server refused to open, the objects are listed again.
LIST_AGAIN_AFTER = 3
# What counts as a refusal. An API server that is away or overloaded gets no lists: they cost more than watches.
_REFUSALS = (FORBIDDEN, UNAUTHORIZED, SERVER_ERROR, PROTOCOL)
# Four times as many Pods as Kubernetes supports nodes. A server that adds more is not believed.
MOST_OBJECTS = 20_000
LONGEST_REASON = 300  # characters of what a watch ended with

Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Resource(Generic[Kept]):
    """What to follow.

    ``name`` is for messages, ``path`` and ``params`` are of the requests. ``convert`` makes of an object what is kept,
    or None to leave it out; ``hint`` is the remedy to show where access is forbidden.
    """

    name: str
    path: str
    params: Mapping[str, str]
    convert: Callable[[Object], Kept | None]
    hint: str = ""


class Reflector(Generic[Kept]):
    """Tells of all that ``convert`` makes of the selected objects, by name.

    ``replace`` takes a whole list: objects that are not in it are gone. ``put`` takes one object, None when it is gone,
    and returns the number of objects.
    ``on_update`` is called whenever something changed: an object, the status, or only its age. ``on_error`` is called
    with the kind of each failed request, ``on_answer`` when a request works again after one that failed. All three run
    in the reflector's thread. ``random`` returns a number from 0 to 1.

    ``last_lived`` is when the thread last showed that it lives, on ``clock``: at each event, request and step of a
    pause. A healthy watch brings a bookmark about every minute; the client ends one that is silent for 90 s.
    """

    def __init__(
        self,
        resource: Resource[Kept],
        api: KubeApi,
        *,
        replace: Callable[[Mapping[str, Kept]], None],
        put: Callable[[str, Kept | None], int],
        on_update: Callable[[], None],
        on_error: Callable[[str], None],
        on_answer: Callable[[], None] = lambda: None,
        clock: Callable[[], float],
        random: Callable[[], float],
        sleeper: Sleeper | None = None,
    ) -> None:
        self.name = resource.name
        self.last_lived = clock()
        self._resource = resource
        self._api = api
        self._replace = replace
        self._put = put
        self._on_update = on_update
        self._on_error = on_error
        self._on_answer = on_answer
        self._clock = clock
        self._sleeper = sleeper or Sleeper(self._lives)
        self._backoff = Backoff(random)
        self._health = Health()
        self._must_list = True
        # The version of the latest list or event. A list need not be newer than the API server's cache, but must not be
        # older than this one. Empty: a list must be the newest.
        self._version = "0"
        self._refused_watches = 0
        self._request_failed = False

    def status(self) -> Status:
        """Return what can be said now; may be called by any thread."""
        return self._health.status.at(self._clock())

    def run(self) -> None:
        """Follow until stopped.

        Raises:
            MemoryError: the thread must not go on half-blind; other errors are logged and followed by a list.
        """
        while not self._sleeper.stopped:
            self._lives()
            retry_after = 0.0
            try:
                self._list_then_watch()
            except ApiError as error:
                self._failed(error)
                retry_after = min(error.retry_after or 0.0, LONGEST_RETRY_AFTER)
            except MemoryError:
                raise
            except Exception:
                log.exception("following objects failed", extra={"facts": {"resource": self.name}})
                self._must_list = True
                self._backoff.failures += 1
            self._sleeper.sleep(retry_after, retry_after + self._backoff.pause())

    def wake_within(self, seconds: float) -> None:
        """End a pause within ``seconds``, though not before the time that the server asked for; for any thread."""
        if self._sleeper.wake_within(seconds):
            # A try that comes too early is followed by another one soon.
            self._backoff.failures = 0

    def stop(self) -> None:
        """End the thread's pauses; the caller closes ``api``, which ends its requests."""
        self._sleeper.stop()

    def _lives(self) -> None:
        self.last_lived = self._clock()

    def _list_then_watch(self) -> None:
        if self._must_list or self._refused_watches >= LIST_AGAIN_AFTER:
            self._refused_watches = 0
            self._list()
        self._watch()

    def _list(self) -> None:
        found: dict[str, Kept] = {}
        version = ""
        params = {**self._resource.params, "resourceVersion": self._version}
        try:
            for page in self._api.list_pages(self._resource.path, params):
                self._lives()
                if page.first:
                    found.clear()
                for item in page.items:
                    value = self._resource.convert(item)
                    if value is not None:
                        found[_name(item)] = value
                    if len(found) > MOST_OBJECTS:
                        raise _too_many()
                version = page.resource_version
        except ApiError as error:
            if error.kind == GONE:
                self._version = ""
            elif error.kind in (SERVER_ERROR, PROTOCOL):
                # A cluster that was restored from a backup may never reach the version known.
                self._version = "0"
            raise
        self._replace(found)
        self._must_list, self._version = False, version
        self._health.listed(self._clock())
        self._answered()

    def _watch(self) -> None:
        """Watch until the watch ends. A dropped watch is not an error; failing to reopen it is."""
        opened = False
        why = "ended by the server"
        try:
            with self._api.watch(self._resource.path, self._resource.params, self._version) as events:
                opened = True
                self._health.opened(self._clock())
                self._answered()
                for event in events:
                    self._take(event)
        except ApiError as error:
            dropped = opened and error.kind in (CONNECTION, TIMEOUT)
            if error.kind == GONE or (opened and not dropped):
                # The version expired, or the server reported an error within the watch: only a list is right for sure.
                self._must_list = True
            if error.kind != GONE and not dropped:
                if opened:
                    self._health.ended(self._clock(), str(error))
                elif error.kind in _REFUSALS:
                    self._refused_watches += 1
                raise
            self._count(error)
            why = str(error)
        self._refused_watches = 0
        self._ended(why)

    def _take(self, event: Event) -> None:
        self._lives()
        if event.type in ("ADDED", "MODIFIED", "DELETED"):
            value = self._resource.convert(event.object) if event.type != "DELETED" else None
            if self._put(_name(event.object), value) > MOST_OBJECTS:
                raise _too_many()
        self._version = event.resource_version or self._version
        self._health.heard(self._clock())
        self._on_update()

    def _answered(self) -> None:
        """Take a request that worked; the others that wait for the API server need not wait any longer."""
        self._lives()
        if self._request_failed:
            self._request_failed = False
            self._on_answer()
        self._on_update()

    def _ended(self, why: str) -> None:
        healthy = self._health.ended(self._clock(), printable(why, LONGEST_REASON))
        self._backoff.failures = 0 if healthy else self._backoff.failures + 1
        self._on_update()

    def _failed(self, error: ApiError) -> None:
        if self._sleeper.stopped:
            return
        self._count(error)
        self._request_failed = True
        self._backoff.failures += 1
        why = str(error)
        if error.kind == FORBIDDEN and self._resource.hint:
            why = f"{why.partition(':')[0]} ({self._resource.hint})"
        self._health.failed(self._clock(), why)
        self._on_update()

    def _count(self, error: ApiError) -> None:
        # A request that fails because this agent closes its connections says nothing about the API server.
        if not self._sleeper.stopped:
            self._on_error(error.kind)


def _too_many() -> ApiError:
    return ApiError(PROTOCOL, f"more than {MOST_OBJECTS} objects")


def _name(item: Object) -> str:
    return text_of(section(item, "metadata"), "name")
