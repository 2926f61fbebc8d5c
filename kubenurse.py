"""The agent: wires configuration, discovery, checks, cache, endpoints and timer together, and starts and stops them."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import NoReturn

import checks
from checks.cli.configure import BAD_CONFIGURATION, configure
from checks.config.settings import Config
from checks.config.skips import NEIGHBOURHOOD, skips
from checks.kube.client import KubeApi
from checks.kube.credentials import Credentials, ServiceAccount
from checks.kube.discovery import Discovery
from checks.model import (
    BUILT_IN_TYPES,
    SKIPPED,
    CheckResult,
    Neighbour,
    Neighbourhood,
    Report,
    Target,
)
from checks.probe.http import Prober
from checks.probe.trust import TrustStore
from checks.report.metrics import Metrics
from checks.report.transitions import Transitions
from checks.schedule.endings import Endings
from checks.schedule.rounds import Rounds
from checks.targets import api_server, extra, me
from checks.targets import neighbours as neighbourhood
from checks.web.certificates import CertificateFiles
from checks.web.endpoints import respond
from checks.web.http1 import Request, Response
from checks.web.server import Server

logger = logging.getLogger("kubenurse.agent")

# How long a request for a verdict waits for the first list of neighbours, in seconds.
FIRST_SYNC_WAIT = 2.0
# Fewer than the server has connections: neighbours are answered however many wait to hear how this agent is.
MOST_WAITING = 24

NOT_DISCOVERED = Neighbourhood(state=SKIPPED)


class Agent:
    """One agent, from its configuration; ``start`` opens its ports and begins, ``close`` ends it.

    Args:
        config: where to look and what for.
        credentials: for the API server; None when there is none to talk to.
        clock: monotonic seconds, by which metrics and discovery tell how old something is.
    """

    def __init__(
        self, config: Config, credentials: Credentials | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config = config
        self._clock = clock
        self.pod_name = config.pod_name
        self._shutting_down = self._closing = False
        self._keeping = threading.Lock()
        self._may_wait = threading.BoundedSemaphore(MOST_WAITING)
        self._servers: list[Server] = []
        self._transitions = Transitions()
        self._chosen: tuple[Neighbourhood, tuple[Neighbour, ...]] = (NOT_DISCOVERED, ())
        self._made: tuple[tuple[Neighbour, ...], tuple[Target, ...], frozenset[Target]] | None = None
        self.metrics = Metrics(
            buckets=config.histogram_buckets,
            victoriametrics=config.victoriametrics_histogram,
            trace_events=config.trace_events,
            expose_metadata=config.expose_metadata,
            neighbourhood=self.neighbourhood,
            checked=lambda: len(self._neighbours_to_check()),
            clock=clock,
        )
        self._prober = Prober(
            timeout=config.check_timeout,
            trust=_trust(config),
            credentials=credentials,
            proxies=config.proxies,
            reuse_connections=config.reuse_connections,
        )
        self._fixed_targets = (
            *api_server.targets(config, credentials.base_url if credentials else ""),
            *me.targets(config),
            *extra.targets(config),
        )
        self.skips = skips(config, has_api_server=credentials is not None)
        self._discovery = self._make_discovery(credentials)
        self._rounds = Rounds(
            targets=self._targets,
            check=self._prober.check,
            on_result=self._on_result,
            on_round=lambda _: self._keep_only_current(),
            interval=config.check_interval,
            timeout=config.check_timeout,
            ttl=config.cache_ttl,
            is_wanted=self._is_wanted,
        )

    def _make_discovery(self, credentials: Credentials | None) -> Discovery | None:
        config = self.config
        if credentials is None or NEIGHBOURHOOD in self.skips:
            return None
        return Discovery(
            KubeApi(credentials),
            namespace=config.namespace,
            label_selector=config.neighbour_filter,
            own_pod=config.pod_name,
            node_name=config.node_name,
            allow_unschedulable=config.allow_unschedulable,
            on_change=lambda _: self._keep_only_current(),
            on_error=self.metrics.discovery_failed,
            clock=self._clock,
        )

    def start(self, on_death: Callable[[str, BaseException], None]) -> None:
        """Open the ports, then begin to discover, check and serve.

        ``on_death`` is called with a server's name and error when its thread dies.

        Raises:
            StartError: when a port cannot be bound; nothing is open then.
        """
        config = self.config
        self._servers.append(self._bind("KUBENURSE_PORT", config.port, None, on_death))
        if config.use_tls and config.cert_file and config.cert_key:
            files = CertificateFiles(config.cert_file, config.cert_key)
            self._servers.append(self._bind("KUBENURSE_TLS_PORT", config.tls_port, files, on_death))
        for server in self._servers:
            server.start()
        self.start_discovery()
        self._rounds.start()

    def start_discovery(self) -> None:
        """Begin to look for neighbours, if that is to be done."""
        if self._discovery is not None:
            self._discovery.start()

    def shut_down(self) -> None:
        """Say that this agent is going, and start no check any more; the endpoints go on."""
        self._shutting_down = True
        self._rounds.stop()

    def close(self) -> None:
        """End everything, in bounded time."""
        self.shut_down()
        for server in self._servers:
            server.stop()
        if self._discovery is not None:
            self._discovery.stop()
        self._closing = True
        self._prober.stop()
        self._rounds.close()
        self._prober.close()

    def _bind(
        self,
        variable: str,
        port: int,
        tls: CertificateFiles | None,
        on_death: Callable[[str, BaseException], None],
    ) -> Server:
        try:
            return Server(self._respond, self.config.listen_address, port, tls, on_death=on_death)
        except OSError as error:
            for server in self._servers:
                server.stop()
            why = error.strerror or error
            if error.errno == errno.EADDRNOTAVAIL:
                address = self.config.listen_address
                raise StartError(
                    f"KUBENURSE_LISTEN_ADDRESS='{address}': {why}, expected an address of this machine"
                ) from error
            raise StartError(f"{variable}='{port}': {why}, expected a free port that this user may bind") from error

    def _respond(self, request: Request) -> Response:
        return respond(request, self)

    # What the endpoints ask for: checks.endpoints.Agent.

    @property
    def node_name(self) -> str:
        """The node this Pod runs on, empty while unknown."""
        return self.config.node_name or self.neighbourhood().own_node

    def alive(self, wait_for_sync: float = FIRST_SYNC_WAIT) -> Report:
        """Report on results that are young enough, running those checks that have none.

        With ``MOST_WAITING`` callers waiting for that, who comes beside them gets the latest results there are.
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

    def not_ready(self) -> str:
        """Return why no traffic should come here, empty when it may."""
        if self._shutting_down:
            return "shutting down"
        return "the node is cordoned" if self.neighbourhood().own_node_cordoned else ""

    def neighbour_called(self, origin: str) -> None:
        """Count a check made by a neighbour."""
        self.metrics.neighbour_called(origin)

    def render_metrics(self, accept: str, accept_encoding: str) -> tuple[list[tuple[str, str]], bytes]:
        """Return headers and body of /metrics."""
        return self.metrics.render(accept, accept_encoding)

    def about(self) -> Mapping[str, object]:
        """Return what this agent is, for /state."""
        return {
            "version": checks.__version__,
            "python": platform.python_version(),
            "clock": self._prober.kernel_clock.source,
            "interval": self.config.check_interval,
            "timeout": self.config.check_timeout,
            "neighbour_limit": self.config.neighbour_limit,
        }

    # What is checked, and what becomes of the results.

    def neighbourhood(self) -> Neighbourhood:
        """Return what discovery knows now."""
        return self._discovery.snapshot() if self._discovery is not None else NOT_DISCOVERED

    def _neighbours_to_check(self) -> tuple[Neighbour, ...]:
        """Choose from the neighbours known, anew only when those have changed."""
        known = self.neighbourhood()
        chosen_from, chosen = self._chosen
        if known.neighbours is not chosen_from.neighbours or known.own_node != chosen_from.own_node:
            chosen = neighbourhood.choose(known.neighbours, self.node_name, self.config.neighbour_limit)
            self._chosen = (known, chosen)
        return chosen

    def _targets(self) -> tuple[Target, ...]:
        return self._targets_now()[1]

    def _is_wanted(self, target: Target) -> bool:
        return target in self._targets_now()[2]

    def _targets_now(self) -> tuple[tuple[Neighbour, ...], tuple[Target, ...], frozenset[Target]]:
        """The neighbours chosen, and all there is to check: in order, and to look up. Made anew with each choice."""
        chosen = self._neighbours_to_check()
        made = self._made
        if made is None or made[0] is not chosen:
            config = self.config
            scheme, port = ("https", config.tls_port) if config.use_tls else ("http", config.port)
            paths = neighbourhood.targets(chosen, scheme, port, self.pod_name)
            targets = (*self._fixed_targets, *paths)
            self._made = made = (chosen, targets, frozenset(targets))
        return made

    def _on_result(self, result: CheckResult) -> None:
        if self._closing and not result.ok:
            return  # the check was made to end: that says nothing about the network
        self.metrics.observe(result)
        self._transitions.note(result)

    def _keep_only_current(self) -> None:
        """Let a neighbour that left be forgotten in time however long the interval is."""
        # Within the lock, so that of two that come at once the last one's picture is the newest.
        with self._keeping:
            types = frozenset(target.type for target in self._targets())
            self.metrics.keep(types)
            self._transitions.keep_only(types)

    def _report(self, results: Mapping[str, CheckResult]) -> Report:
        return Report(
            results=results,
            neighbourhood=self.neighbourhood(),
            skipped=tuple(kind for kind in BUILT_IN_TYPES if kind in self.skips),
            checked=self._neighbours_to_check(),
            started_at=min((result.started_at for result in results.values()), default=0.0),
            finished_at=max((result.started_at + result.duration for result in results.values()), default=0.0),
        )


class StartError(Exception):
    """The agent cannot start; the message says which variable is in the way."""


def make_agent(config: Config) -> Agent:
    """Make an agent that talks to the API server it is nearest to: the cluster's, or that of a kubeconfig."""
    if config.api_host:
        account = ServiceAccount(config.api_host, config.api_port, config.serviceaccount_dir, extra_ca=config.extra_ca)
        return Agent(config, account)
    if not config.kubeconfig:
        return Agent(config, None)
    from checks.kube import kubeconfig  # only here is the official client worth its memory

    try:
        found = kubeconfig.load(config.kubeconfig, config.extra_ca)
    except kubeconfig.KubeconfigError as error:
        logger.warning("kubeconfig not usable", extra={"facts": {"why": str(error)}})
        return Agent(config, None)
    if found is not None and not config.namespace:
        config = dataclasses.replace(config, namespace=found.namespace)
    return Agent(config, found)


def _trust(config: Config) -> TrustStore:
    """Whom the checks believe: the system's CAs, the cluster's and the user's."""
    files = [config.serviceaccount_dir / "ca.crt"]
    if config.extra_ca:
        files.append(config.extra_ca)
    return TrustStore(files, system=True, verify=not config.insecure)


def run(config: Config) -> int:
    """Run the agent until it is told to end; return the exit code."""
    # A plugin of a kubeconfig may let this wait: until it is over, signals end the process.
    agent = make_agent(config)
    with contextlib.closing(Endings()) as endings:
        return _run_until(endings, agent)


def _run_until(endings: Endings, agent: Agent) -> int:
    try:
        agent.start(lambda server, error: endings.report(f"server {server} died: {error}"))
    except StartError as error:
        logger.error("agent not started", extra={"facts": {"why": str(error)}})  # noqa: TRY400 # a traceback tells nothing more
        agent.close()
        return 1
    _log_start(agent)
    why = endings.wait()
    logger.info("agent stopping", extra={"facts": {"why": why}})
    agent.shut_down()
    if why == signal.SIGTERM.name:
        # Whoever routes traffic here learns of the end by /ready and by the Pod's state, and that takes a moment.
        endings.wait(agent.config.shutdown_duration)
    agent.close()
    logger.info("agent stopped")
    return 0 if why in (signal.SIGTERM.name, signal.SIGINT.name) else 1


def _log_start(agent: Agent) -> None:
    config = agent.config
    for warning in config.warnings:
        logger.warning("configuration", extra={"facts": {"why": warning}})
    facts = {
        "version": checks.__version__,
        "pod": config.pod_name,
        "port": config.port,
        "interval": config.check_interval,
    }
    logger.info("agent started", extra={"facts": facts})
    for kind, why in agent.skips.items():
        logger.info("check skipped", extra={"facts": {"type": kind, "why": why}})


def _end_at_once(_number: int, _frame: FrameType | None) -> NoReturn:
    """End before anything has begun."""
    sys.exit(0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent, or with arguments one of the commands of ``kubenurse --help``; return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments:
        from checks.cli import commands as commandline  # what the agent itself does not need on every node

        return commandline.main(arguments, make_agent)
    # As process 1 of a container it would not get the signals that it does not handle (pid_namespaces(7)).
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_at_once)
    config = configure()
    return run(config) if config is not None else BAD_CONFIGURATION


if __name__ == "__main__":
    sys.exit(main())
