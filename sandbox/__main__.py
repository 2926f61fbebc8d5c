"""Run a cluster on this machine and show what its agents see: ``python -m sandbox``."""

from __future__ import annotations

import argparse
import http.client
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, TextIO

from sandbox import table
from sandbox.agent import Agent, ClusterError
from sandbox.cluster import KUBENURSE, MAX_AGENTS, Cluster

POLL = 0.5
ANSWER_TIMEOUT = 1.0
# Without a terminal: how often at most a table is printed when something changed, and when nothing did.
CHANGE_PAUSE = 1.0
PAUSE = 10.0
# As the kubelet does with a container that crashes a second time.
RESTART_AFTER = 10.0

Seen = dict[str, dict[str, Any] | None]


def main(argv: Sequence[str] | None = None, out: TextIO = sys.stdout) -> int:
    """Run until Ctrl-C, SIGTERM or the end of the given time.

    Returns:
        0, or 1 when something could not start.
    """
    options = _parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        print(f"Starting an API server, a Service, an ingress and {options.agents} agents on loopback ...", file=out)
        with Cluster(options.agents, environ={"KUBENURSE_CHECK_INTERVAL": f"{options.interval:g}s"}) as cluster:
            print(_where_to_look(cluster), file=out, flush=True)
            _watch(cluster, options.seconds, Screen(out))
    except KeyboardInterrupt:
        print("\nEnded.", file=out)
    except ClusterError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    return 0


def _end(*_signal: object) -> NoReturn:
    """Begin to end, once. The cleanup is bounded in time, and further signals do not interrupt it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _watch(cluster: Cluster, seconds: float | None, screen: Screen) -> None:
    """Ask all agents periodically and show their answers. Restart agents whose process has ended."""
    deadline = time.monotonic() + seconds if seconds is not None else None
    ended: dict[str, float] = {}
    with ThreadPoolExecutor(min(len(cluster.agents), 8), thread_name_prefix="sandbox-poll") as pool:
        while deadline is None or time.monotonic() < deadline:
            states = pool.map(_state, cluster.agents)
            screen.show({_label(agent): state for agent, state in zip(cluster.agents, states, strict=True)})
            _restart_ended(cluster.agents, ended)
            time.sleep(POLL if deadline is None else max(0.0, min(POLL, deadline - time.monotonic())))


def _label(agent: Agent) -> str:
    return f"{agent.node} ({agent.pid or 'ended'})"


def _state(agent: Agent) -> dict[str, Any] | None:
    try:
        return agent.state(ANSWER_TIMEOUT)
    except (OSError, ValueError, http.client.HTTPException):
        return None


def _restart_ended(agents: Sequence[Agent], ended: dict[str, float]) -> None:
    """Restart agents whose process has ended. ``ended`` holds the moment of each end (monotonic seconds) by node."""
    for agent in agents:
        if agent.pid is not None:
            ended.pop(agent.node, None)
        elif time.monotonic() - ended.setdefault(agent.node, time.monotonic()) > RESTART_AFTER:
            agent.restart()


class Screen:
    """Shows tables: on a terminal in one place, elsewhere one after another, at a bounded rate."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._live = out.isatty()
        self._lines = 0
        self._failures: list[tuple[str, str, str]] = []
        self._printed_at: float | None = None
        self._started = clock()

    def show(self, seen: Seen) -> None:
        """Show what the agents see, if it has changed."""
        if self._live:
            self._redraw(seen)
        elif self._is_worth_a_block(seen):
            self._failures = table.failures(seen)
            self._printed_at = self._clock()
            print(f"\n{time.strftime('%H:%M:%S')}\n{table.as_table(seen)}", file=self._out, flush=True)

    def _is_worth_a_block(self, seen: Mapping[str, table.State | None]) -> bool:
        now = self._clock()
        if self._printed_at is None:
            return table.complete(seen) or now - self._started > PAUSE
        pause = PAUSE if table.failures(seen) == self._failures else CHANGE_PAUSE
        return now - self._printed_at >= pause

    def _redraw(self, seen: Seen) -> None:
        columns = shutil.get_terminal_size((table.WIDTH, 24)).columns
        shown = table.as_table(seen, min(columns, table.WIDTH), colour=True)
        # ECMA-48: up to the first line of the table before (CPL) and clear from there (ED). Line wrap (DEC private
        # mode 7) is off meanwhile, so that each line of text stays one line of the screen.
        up = f"\x1b[{self._lines}F\x1b[J" if self._lines else "\n"
        self._lines = shown.count("\n") + 1
        print(f"{up}\x1b[?7l{shown}\x1b[?7h", file=self._out, flush=True)


def _where_to_look(cluster: Cluster) -> str:
    first, last = cluster.agents[0], cluster.agents[-1]
    command = Path(sys.executable).with_name("kubenurse")
    kubenurse = str(command) if command.exists() else f"{sys.executable} {KUBENURSE}"
    agents = "\n".join(f"  {agent.node}  {agent.url}  process {agent.pid}" for agent in cluster.agents)
    return f"""\
Each agent is a process that discovers the others through the API server and checks all that the table shows:
{agents}
Look:   curl {first.url}/alive
        curl -s {first.url}/metrics | grep ^kubenurse_
        {kubenurse} status --url {first.url}
Break:  kill -9 {last.pid}       ends {last.node}'s agent (it is started again after {RESTART_AFTER:g} s)
        kill -STOP {last.pid}    makes it hang, until kill -CONT {last.pid}
Logs:   {last.stderr_file.with_name("*.stderr")}
Ctrl-C ends everything."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="Run kubenurse on a cluster of its own.")
    parser.add_argument("--agents", type=_agents, default=4, metavar="N", help="how many agents (default: %(default)s)")
    parser.add_argument("--seconds", type=_seconds, metavar="S", help="end after so many seconds")
    parser.add_argument(
        "--interval", type=_seconds, default=2.0, metavar="S", help="seconds between rounds (default: %(default)g)"
    )
    return parser


def _agents(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_AGENTS:
        raise argparse.ArgumentTypeError(f"{number}: expected 1 to {MAX_AGENTS}")
    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a positive number of seconds")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
