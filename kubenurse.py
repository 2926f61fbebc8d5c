"""The agent: builds its parts, joins them, and starts and stops them; or one of the commands for a person."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from checks.early import heed_signals  # before the imports below, which take a moment

    heed_signals()

import dataclasses
import logging
import signal
import time
from collections.abc import Callable, Sequence

from checks.cli.configure import BAD_CONFIGURATION, configure, print_problems
from checks.cli.run import run
from checks.config.settings import Config, ConfigError
from checks.config.skips import NEIGHBOURHOOD, skips
from checks.early import heed_signals
from checks.kube.access import find_access
from checks.kube.client import KubeApi
from checks.kube.credentials import Credentials
from checks.kube.discovery import Discovery
from checks.kube.recovery import Recovery
from checks.model import Neighbourhood
from checks.probe.following import Following
from checks.probe.prober import Prober
from checks.probe.trust import TrustStore
from checks.probe.witness import Examiner
from checks.probe.witnesses import Witnesses
from checks.report import log
from checks.report.history import History
from checks.report.metrics import Metrics
from checks.report.sinks import Sink, Sinks
from checks.report.transitions import Transitions
from checks.report.window import Windows
from checks.schedule.exits import leave
from checks.schedule.own import Own
from checks.schedule.rounds import Rounds
from checks.schedule.watchdog import WATCH_SECONDS, Watchdog
from checks.targets.selection import Selection
from checks.web.endpoints import respond
from checks.web.listen import open_servers
from checks.web.server import SWITCH_INTERVAL_SECONDS, Server
from checks.web.state import witness_facts
from checks.web.view import NOT_DISCOVERED, View

logger = logging.getLogger("kubenurse.agent")

OnDeath = Callable[[str, BaseException], None]


class Agent:
    """One agent, from its configuration; ``start`` opens its ports and begins, ``close`` ends it.

    Results flow one way: selection → rounds → prober → result → sinks; the view shows what they hold.

    Args:
        config: where to look and what for.
        credentials: for the API server; None without an API server.
        clock: monotonic seconds, by which metrics and discovery tell how old something is.
        on_death: called with a part's name and the error that ended it; the agent does not work without that part.
    """

    def __init__(
        self,
        config: Config,
        credentials: Credentials | None,
        clock: Callable[[], float] = time.monotonic,
        on_death: OnDeath = lambda _name, _error: None,
    ) -> None:
        self.config = config
        self._clock = clock
        self._on_death = on_death
        self._servers: list[Server] = []
        why_skipped = skips(config, has_api_server=credentials is not None)
        discovers = credentials is not None and NEIGHBOURHOOD not in why_skipped
        self._discovery = self._make_discovery(credentials) if credentials is not None and discovers else None
        self._selection = Selection(config, credentials.base_url if credentials else "", self._neighbourhood)
        own = self._own = Own(clock=clock)
        self.metrics = Metrics(
            buckets=config.histogram_buckets,
            victoriametrics=config.victoriametrics_histogram,
            trace_events=config.trace_events,
            expose_metadata=config.expose_metadata,
            neighbourhood=self._neighbourhood,
            checked=lambda: len(self._selection.now().neighbours),
            log_dropped=log.dropped,
            lateness=lambda: own.lateness,
            starved=lambda: own.starved,
            clock=clock,
        )
        windows = Windows()
        history = History(config.history, starved=lambda: own.starved)
        self._prober = Prober(
            timeout=config.check_timeout,
            trust=_trust(config),
            credentials=credentials,
            proxies=config.proxies,
            reuse_connections=config.reuse_connections,
        )
        self._witnesses = Witnesses(
            Examiner(self._prober.shared, node_port=config.node_witness_port).by_kind,
            on_made=lambda kind, made: history.witnessed(kind, [witness_facts(each) for each in made]),
        )
        sinks: list[Sink] = [self.metrics, Transitions(), windows, history]
        sinks.append(Following(self._witnesses, lambda kind: self._selection.now().by_type.get(kind)))
        if self._discovery is not None:
            sinks.append(Recovery(self._discovery.api_server_answered))
        self._sinks = Sinks(sinks, lambda: self._selection.now().types)
        self._rounds = Rounds(
            targets=lambda: self._selection.now().targets,
            wants=self._selection.wants,
            check=self._prober.check,
            take=self._sinks.take,
            begin=self._begin_round,
            interval=config.check_interval,
            timeout=config.check_timeout,
            ttl=config.cache_ttl,
            note=own.note,
            on_death=on_death,
        )
        self.view = View(
            config,
            selection=self._selection,
            rounds=self._rounds,
            metrics=self.metrics,
            windows=windows,
            history=history,
            own=own,
            witnesses=self._witnesses,
            discovery=self._discovery,
            skips=why_skipped,
            clock_source=self._prober.kernel_clock.source,
        )

    def _neighbourhood(self) -> Neighbourhood:
        return self._discovery.snapshot() if self._discovery is not None else NOT_DISCOVERED

    def _make_discovery(self, credentials: Credentials) -> Discovery:
        config = self.config
        return Discovery(
            KubeApi(credentials),
            namespace=config.namespace,
            label_selector=config.neighbour_filter,
            own_pod=config.pod_name,
            node_name=config.node_name,
            listen_address=config.listen_address,
            allow_unschedulable=config.allow_unschedulable,
            on_change=lambda _: self._sinks.prune(),
            on_error=lambda kind: self.metrics.discovery_failed(kind),
            on_death=self._on_death,
            clock=self._clock,
        )

    def _begin_round(self) -> None:
        self._own.sample()
        self._sinks.prune()

    def start(self) -> None:
        """Open the ports, then begin to discover, check and serve.

        Raises:
            StartError: when a port cannot be bound; nothing is open then.
        """
        self._servers = open_servers(self.config, lambda request: respond(request, self.view), self._on_death)
        for server in self._servers:
            server.start()
        self.start_discovery()
        self._rounds.start()

    def start_discovery(self) -> None:
        """Begin to look for neighbours, if that is to be done."""
        if self._discovery is not None:
            self._discovery.start()

    def watched_by(self, watchdog: Watchdog) -> None:
        """Let a watchdog look after the parts whose threads must live."""
        watchdog.watch("rounds", self._rounds.last_lived)
        watchdog.watch("log", log.last_lived)
        for server in self._servers:
            watchdog.watch(server.name, server.last_lived)
        if self._discovery is not None:
            watchdog.watch_all(self._discovery.last_lived, WATCH_SECONDS)

    def shut_down(self) -> None:
        """Say that this agent is going, and start no check any more; the endpoints go on."""
        self.view.shut_down()
        self._rounds.stop()

    def close(self) -> None:
        """End everything, in bounded time."""
        self.shut_down()
        for server in self._servers:
            server.stop()
        if self._discovery is not None:
            self._discovery.stop()
        self._rounds.abandon()
        self._witnesses.stop()
        self._prober.stop()
        self._witnesses.close()
        self._rounds.close()
        self._prober.close()


def make_agent(config: Config, on_death: OnDeath = lambda _name, _error: None) -> Agent:
    """Make an agent that talks to the nearest API server: the cluster's, or that of a kubeconfig; see find_access."""
    credentials, namespace = find_access(config)
    return Agent(dataclasses.replace(config, namespace=namespace), credentials, on_death=on_death)


def _trust(config: Config) -> TrustStore:
    """The certificate authorities that the checks trust: the system's, the cluster's and the user's."""
    files = [config.serviceaccount_dir / "ca.crt", *([config.extra_ca] if config.extra_ca else [])]
    return TrustStore(files, system=True, verify=not config.insecure)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent, or with arguments one of the commands of ``kubenurse --help``; return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments:
        from checks.cli import commands  # what the agent itself does not need on every node

        signal.signal(signal.SIGINT, signal.default_int_handler)
        return commands.main(arguments, make_agent)
    heed_signals()
    config = configure()
    if config is None:
        return BAD_CONFIGURATION
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    try:
        leave(run(config, make_agent))
    except ConfigError as error:
        print_problems(error)
        return BAD_CONFIGURATION
    except MemoryError:
        leave(1)


if __name__ == "__main__":
    sys.exit(main())
