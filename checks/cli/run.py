"""The command without arguments: the agent, run until something ends it."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable
from typing import Protocol

from checks import __version__
from checks.config.settings import Config
from checks.report import log
from checks.schedule.exits import ORDERLY, Exits, LastResort, leave
from checks.schedule.watchdog import LOOK_SECONDS, Watchdog, longest_silence
from checks.web.listen import StartError
from checks.web.view import View

logger = logging.getLogger("kubenurse.agent")

# Within this many seconds after the shutdown duration the process has ended, even while a thread hangs.
CLOSE_SECONDS = 3.0

OnDeath = Callable[[str, BaseException], None]


class RunningAgent(Protocol):
    """What running needs of an agent."""

    config: Config
    view: View

    def start(self) -> None:
        """Open the ports and begin; StartError when a port cannot be bound."""

    def watched_by(self, watchdog: Watchdog) -> None:
        """Let a watchdog look after the parts whose threads must live."""

    def shut_down(self) -> None:
        """Start no check any more; the endpoints go on."""

    def close(self) -> None:
        """End everything."""


def run(config: Config, make_agent: Callable[[Config, OnDeath], RunningAgent]) -> int:
    """Run the agent until something ends it; return the exit code.

    Raises:
        ConfigError: when KUBECONFIG is set and cannot be read for want of a package.
    """
    listening: list[Exits] = []

    def on_death(name: str, error: BaseException) -> None:
        for exits in listening:
            exits.report(f"{name} died: {error!r}")

    # A plugin of a kubeconfig may let this wait: until it is over, signals end the process.
    agent = make_agent(config, on_death)
    with contextlib.closing(Exits()) as exits:
        listening.append(exits)
        return _run_until(exits, agent, LastResort())


def _run_until(exits: Exits, agent: RunningAgent, last_resort: LastResort) -> int:
    try:
        agent.start()
    except StartError as error:
        logger.error("starting the agent failed", extra={"facts": {"why": str(error)}})  # noqa: TRY400 # the message says it all
        agent.close()
        return 1
    _log_start(agent)
    watchdog = Watchdog(longest_silence(agent.config.check_interval))
    agent.watched_by(watchdog)
    why = ""
    while not why:
        why = exits.wait(LOOK_SECONDS) or watchdog.silent()
    code = 0 if why in {number.name for number in ORDERLY} else 1
    wait = agent.config.shutdown_duration if why == signal.SIGTERM.name else 0.0
    last_resort.arm(wait + CLOSE_SECONDS, code)
    try:
        _end(exits, agent, why, code, wait)
    except MemoryError:
        leave(code)
    return code


def _end(exits: Exits, agent: RunningAgent, why: str, code: int, wait: float) -> None:
    if code:
        # Past the queue, whose thread may be the one that hangs.
        log.last_words("agent stopping", why=why)
    else:
        logger.info("agent stopping", extra={"facts": {"why": why}})
    agent.shut_down()
    # Load balancers learn of the end by /ready and by the Pod's state, and that takes a moment. Another signal ends it.
    exits.wait(wait)
    agent.close()
    logger.info("agent stopped")


def _log_start(agent: RunningAgent) -> None:
    config = agent.config
    for warning in config.warnings:
        logger.warning("configuration", extra={"facts": {"why": warning}})
    facts = {
        "version": __version__,
        "pod": config.pod_name,
        "port": config.port,
        "interval": config.check_interval,
    }
    logger.info("agent started", extra={"facts": facts})
    for kind, why in agent.view.skips.items():
        logger.info("check skipped", extra={"facts": {"type": kind, "why": why}})
