"""The commands a person types: ``check``, ``status``, ``--help`` and ``--version``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import urllib3

from checks import __version__
from checks.addresses import host_port
from checks.cli.configure import BAD_CONFIGURATION, configure
from checks.cli.table import render
from checks.config import convert
from checks.config.settings import Config
from checks.config.variables import help_text
from checks.model import OK, SKIPPED, Report
from checks.probe.trust import TrustStore
from checks.web.endpoints import Agent, state_document

# As shells report a program that SIGINT ended: 128 and its number.
INTERRUPTED = 130
STATUS_TIMEOUT_SECONDS = 10.0
LARGEST_STATE_BYTES = 16 * 1024 * 1024


class CheckingAgent(Agent, Protocol):
    """What ``kubenurse check`` needs of an agent."""

    skips: dict[str, str]

    def start_discovery(self) -> None:
        """Begin to look for neighbours."""
        ...

    def alive(self, wait_for_sync: float = ...) -> Report:
        """Run the checks."""
        ...

    def close(self) -> None:
        """End everything."""
        ...


def main(arguments: Sequence[str], make_agent: Callable[[Config], CheckingAgent]) -> int:
    """Carry out a command; return the exit code: 0 all is ok, 1 something is not, 2 the command or setting is wrong."""
    options = _parser().parse_args(arguments)
    config = configure()
    if config is None:
        return BAD_CONFIGURATION
    try:
        if options.command == "check":
            return check(config, make_agent, as_json=options.json)
        return status(config, options.url or _local_url(config))
    except KeyboardInterrupt:
        return INTERRUPTED


def check(config: Config, make_agent: Callable[[Config], CheckingAgent], *, as_json: bool) -> int:
    """Run one round of all checks in the foreground and print what they found."""
    agent = make_agent(config)
    try:
        agent.start_discovery()
        report = agent.alive(wait_for_sync=config.check_timeout)
        document = state_document(agent, report)
    finally:
        agent.close()
    print(json.dumps(document, indent=1) if as_json else render(document, agent.skips))
    return 0 if report.ok else 1


def status(config: Config, url: str) -> int:
    """Ask a running agent for its latest round and print it."""
    try:
        shown, states = _read(_fetch(config, url.rstrip("/") + "/state"))
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        print(f"kubenurse: no agent answers at {url}: {why}", file=sys.stderr)
        return 1
    print(shown)
    return 0 if all(state in (OK, SKIPPED) for state in states) else 1


def _read(document: Any) -> tuple[str, list[str]]:
    """Return the table of a /state document and all states in it.

    Raises:
        ValueError: when it is none.
    """
    try:
        states = [document["neighbourhood"]["state"], *(found["state"] for found in document["checks"].values())]
        return render(document, {}), states
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError("the answer is not kubenurse's /state") from error


def _fetch(config: Config, url: str) -> Any:
    trust = TrustStore([config.extra_ca] if config.extra_ca else [], system=True, verify=not config.insecure)
    context = trust.context() if url.lower().startswith("https:") else None
    with urllib3.PoolManager(ssl_context=context) as pool:
        response = pool.request("GET", url, timeout=STATUS_TIMEOUT_SECONDS, retries=False, preload_content=False)
        with response:
            if response.status != 200:
                raise ValueError(f"{response.status} {response.reason}, expected kubenurse's /state")
            try:
                return json.loads(response.read(LARGEST_STATE_BYTES))
            except RecursionError as error:
                raise ValueError("the answer is not kubenurse's /state") from error


def _local_url(config: Config) -> str:
    address = config.listen_address
    return f"http://{host_port(address if address not in ('', '0.0.0.0', '::') else '127.0.0.1', config.port)}"  # noqa: S104 # compared, not bound


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubenurse",
        description="Without arguments: run the agent, configured by the environment variables below.",
        epilog=help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kubenurse {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    command = commands.add_parser(
        "check", help="run all checks once, print what they found; exit 0 if all is ok, else 1"
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command = commands.add_parser("status", help="ask a running agent what it sees; exit 0 if all is ok, else 1")
    command.add_argument("--url", type=_url, help="where it listens (default: this Pod's own agent)")
    return parser


def _url(text: str) -> str:
    try:
        return convert.base_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{convert.redact(text)}': {error}") from error
