"""A reflector that runs in a thread of its own against a real API server, and what it told."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from checks.kube.client import KubeApi, Object, section, text_of
from checks.kube.pauses import Sleeper
from checks.kube.reflector import Reflector, Resource
from tests.support.kube import PODS, Kube
from tests.support.servers import GENEROUS
from tests.support.waiting import until

# How long the end of a reflector may take, in seconds: far less than the timeouts of the requests it may be in.
PROMPT = 5.0


class Pauses(Sleeper):
    """Notes how long a reflector is to pause, and lets the first few pauses pass at once.

    The one with the number ``hold_at``, counted from 1, lasts until ``go_on`` is set.
    """

    def __init__(self, pass_at_once: int, hold_at: int) -> None:
        super().__init__()
        self.noted: list[float] = []
        self.go_on = threading.Event()
        self._pass_at_once = pass_at_once
        self._hold_at = hold_at

    def sleep(self, at_least: float, seconds: float) -> None:
        """Note the pause, and make it unless it is to pass at once."""
        self.noted.append(seconds)
        if len(self.noted) == self._hold_at:
            self.go_on.wait(GENEROUS)
        if len(self.noted) > self._pass_at_once:
            super().sleep(at_least, seconds)


class Following:
    """A reflector of Pods' phases in a thread of its own, and what it told."""

    def __init__(
        self,
        api: KubeApi,
        *,
        pass_at_once: int = 1000,
        hold_at: int = 0,
        chance: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        convert: Callable[[Object], str | None] | None = None,
        hint: str = "",
        on_update: Callable[[], None] = lambda: None,
    ) -> None:
        self.api = api
        self.pauses = Pauses(pass_at_once, hold_at)
        self.errors: list[str] = []
        self.answers = 0
        self.on_update = on_update
        self.updates = 0
        self.pictures: list[set[str]] = []
        self.kept: dict[str, str] = {}
        convert = convert or (lambda item: text_of(section(item, "status"), "phase"))
        self.reflector = Reflector(
            Resource("pods", PODS, {"labelSelector": "app=kubenurse"}, convert, hint),
            api,
            replace=self.replace,
            put=self.put,
            on_update=self.note_update,
            on_error=self.errors.append,
            on_answer=self.note_answer,
            clock=clock,
            random=lambda: chance,
            sleeper=self.pauses,
        )
        self.thread = threading.Thread(target=self.reflector.run, name="reflector", daemon=True)
        self.thread.start()

    def replace(self, objects: Mapping[str, str]) -> None:
        """Take a whole list."""
        self.kept = dict(objects)

    def put(self, name: str, value: str | None) -> int:
        """Take one object."""
        others = {other: kept for other, kept in self.kept.items() if other != name}
        self.kept = others if value is None else {**others, name: value}
        return len(self.kept)

    def note_update(self) -> None:
        """Count, and note what is kept."""
        self.updates += 1
        self.pictures.append(self.names)
        self.on_update()

    def note_answer(self) -> None:
        """Count."""
        self.answers += 1

    @property
    def names(self) -> set[str]:
        """The names of what is kept now."""
        return set(self.kept)

    @property
    def failure(self) -> str:
        """Why requests fail now."""
        return self.reflector.status().failure

    def stop(self) -> None:
        """End it, in bounded time."""
        self.pauses.go_on.set()
        self.reflector.stop()
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


def count(kube: Kube, verb: str) -> int:
    """Return how many lists or watches were asked for."""
    return sum(request.verb == verb for request in kube.server.requests)


def wait_for_watches(kube: Kube, how_many: int = 1) -> None:
    """Wait until so many watches were asked for, in all, and the last one is open."""
    assert kube.server.wait_for_request(lambda request: request.verb == "watch", count=how_many)
    until(lambda: kube.server.open_watches == 1)
