"""What an agent of the sandbox shows of its checks: state, metrics and log."""

from __future__ import annotations

import json
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from sandbox.agent import Agent
from tests.support.waiting import PATIENCE, until

# Rounds are short. A check's timeout is long enough for a busy machine. The log is JSON, which tests can read.
TIMEOUT = "5s"
TIMEOUT_SECONDS = 5.0
# A check that waits for its timeout ends this late; its result is shown within PATIENCE of that.
_CHECK_PATIENCE = TIMEOUT_SECONDS + PATIENCE
# Discovery tries again after pauses of up to 30 s. A cluster whose API server was away is well again after one more.
OUTAGE_PATIENCE = 40.0
ENVIRON = {
    "KUBENURSE_CHECK_INTERVAL": "200ms",
    "KUBENURSE_CHECK_TIMEOUT": TIMEOUT,
    "KUBENURSE_CACHE_TTL": "100ms",
    "KUBENURSE_LOG_FORMAT": "json",
    "KUBENURSE_SHUTDOWN_DURATION": "300ms",
}


def checks(agent: Agent) -> dict[str, dict[str, Any]]:
    """The latest result of each check, by type."""
    found: dict[str, dict[str, Any]] = agent.state()["checks"]
    return found


def states(agent: Agent) -> dict[str, str]:
    """The state of each check, by type."""
    return {kind: found["state"] for kind, found in checks(agent).items()}


def failing(agent: Agent) -> dict[str, str]:
    """The states that are not ok, the neighbourhood's too."""
    document = agent.state()
    found = {"neighbourhood": document["neighbourhood"]["state"]}
    found |= {kind: result["state"] for kind, result in document["checks"].items()}
    return {kind: state for kind, state in found.items() if state != "ok"}


def wait_for_state(agent: Agent, kind: str, state: str) -> dict[str, Any]:
    """Wait until a check has this state and return its result."""
    until(lambda: states(agent).get(kind) == state, _CHECK_PATIENCE)
    return checks(agent)[kind]


def wait_until_well(agent: Agent, *paths: str, timeout: float = _CHECK_PATIENCE) -> None:
    """Wait until each built-in check and each of these paths, and no other path, has a result, and all are ok."""
    built_in = {"api_server_direct", "api_server_dns", "me_ingress", "me_service"}
    until(lambda: states(agent).keys() == built_in | set(paths) and not failing(agent), timeout)


def wait_for_rounds(agent: Agent, kind: str, count: int = 2) -> None:
    """Wait until a check has been made so many times more."""
    goal = value(agent, "kubenurse_request_duration_count", type=kind) + count
    until(lambda: value(agent, "kubenurse_request_duration_count", type=kind) >= goal)


def is_one_failure(events: list[str]) -> bool:
    """Whether the log told of one failure and its end, once each.

    A check that was under way as it came, or as it went, may have met another failure than the rest.
    """
    first, *between, last = events
    told = (first, last) == ("check failing", "check recovered")
    return told and len(between) <= 2 and set(between) <= {"check reason changed"}


def value(agent: Agent, name: str, **labels: str) -> float:
    """The value of a sample of /metrics, 0 while there is none."""
    for family in text_string_to_metric_families(agent.metrics()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return 0.0


class Log:
    """What an agent logs from now on, but not of what it did before."""

    def __init__(self, agent: Agent) -> None:
        self._file = agent.stderr_file
        self._start = self._file.stat().st_size

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """The lines so far that are whole, those of one check type if asked for."""
        text = self._file.read_bytes()[self._start :].decode()
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in lines if not kind or line.get("type") == kind]
