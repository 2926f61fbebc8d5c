"""What the endpoints and commands show: the parts' latest facts, put together when somebody asks."""

from __future__ import annotations

import platform
import threading
from collections.abc import Mapping

from checks import __version__
from checks.config.settings import Config
from checks.kube.discovery import Discovery
from checks.model import BUILT_IN_TYPES, SKIPPED, CheckResult, Neighbourhood, Report
from checks.report.history import History
from checks.report.metrics import Metrics
from checks.report.window import Windows
from checks.schedule.own import Own
from checks.schedule.rounds import Rounds
from checks.targets.selection import Selection

# How long a request for a report waits for the first list of neighbours, in seconds.
FIRST_SYNC_WAIT = 2.0
# Fewer than the server has connections: neighbours are answered however many callers wait at /alive.
MOST_WAITING = 48

NOT_DISCOVERED = Neighbourhood(state=SKIPPED)


class View:
    """The agent as its endpoints see it; every method may be called from any thread.

    ``skips`` gives the reason of each check that is not made, by type. ``discovery`` is None where neighbours are not
    discovered. ``clock_source`` names the clock that measures the checks.
    """

    def __init__(
        self,
        config: Config,
        *,
        selection: Selection,
        rounds: Rounds,
        metrics: Metrics,
        windows: Windows,
        history: History,
        own: Own,
        discovery: Discovery | None,
        skips: Mapping[str, str],
        clock_source: str,
    ) -> None:
        self._config = config
        self._selection = selection
        self._rounds = rounds
        self._metrics = metrics
        self._windows = windows
        self._history = history
        self._own = own
        self._discovery = discovery
        self._clock_source = clock_source
        self._may_wait = threading.BoundedSemaphore(MOST_WAITING)
        self._shutting_down = False
        self.pod_name = config.pod_name
        self.skips = skips

    @property
    def node_name(self) -> str:
        """The node this Pod runs on, empty while unknown."""
        return self._config.node_name or self.neighbourhood().own_node

    def neighbourhood(self) -> Neighbourhood:
        """Return what discovery knows now."""
        return self._discovery.snapshot() if self._discovery is not None else NOT_DISCOVERED

    def alive(self, wait_for_sync: float = FIRST_SYNC_WAIT) -> Report:
        """Report on results that are young enough, running the checks that have none.

        With ``MOST_WAITING`` callers waiting for that, further callers get the latest results.
        """
        if not self._may_wait.acquire(blocking=False):
            return self.latest()
        try:
            if self._discovery is not None:
                self._discovery.wait_synced(wait_for_sync)
            return self._report(self._rounds.fresh())
        finally:
            self._may_wait.release()

    def latest(self) -> Report:
        """Report on the latest results and run nothing."""
        return self._report(self._rounds.latest())

    def shut_down(self) -> None:
        """Be not ready from here on."""
        self._shutting_down = True

    def not_ready(self) -> str:
        """Return why no traffic should come here, empty when it may."""
        if self._shutting_down:
            return "shutting down"
        if self._config.ready_when_cordoned or not self.neighbourhood().own_node_cordoned:
            return ""
        return "the node is cordoned"

    def neighbour_called(self, origin: str) -> None:
        """Count a check made by a neighbour."""
        self._metrics.neighbour_called(origin)

    def render_metrics(self, accept: str, accept_encoding: str) -> tuple[list[tuple[str, str]], bytes]:
        """Return headers and body of /metrics."""
        return self._metrics.render(accept, accept_encoding)

    @property
    def zone(self) -> str:
        """The zone of the own node, empty while unknown."""
        return self.neighbourhood().own_zone

    def own(self) -> Mapping[str, object]:
        """Return how well this agent itself runs."""
        return self._own.document()

    def window(self, kind: str) -> Mapping[str, object]:
        """Return the last minute of a check type."""
        return self._windows.window(kind)

    def history(self) -> Mapping[str, object]:
        """Return what this agent remembers."""
        return self._history.document()

    def about(self) -> Mapping[str, object]:
        """Return what this agent is, for /state."""
        config = self._config
        return {
            "version": __version__,
            "python": platform.python_version(),
            "clock": self._clock_source,
            "interval": config.check_interval,
            "timeout": config.check_timeout,
            "neighbour_limit": config.neighbour_limit,
        }

    def _report(self, results: Mapping[str, CheckResult]) -> Report:
        wanted = self._selection.now()
        return Report(
            results=results,
            neighbourhood=self.neighbourhood(),
            skipped=tuple(kind for kind in BUILT_IN_TYPES if kind in self.skips),
            targets=wanted.targets,
            missing=tuple(target.type for target in wanted.targets if target.type not in results),
            checked=wanted.neighbours,
            started_at=min((result.started_at for result in results.values()), default=0.0),
            finished_at=max((result.started_at + result.duration for result in results.values()), default=0.0),
        )
