"""docs/faults.md: each fault, the agents' reports, and how fast they came."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.cluster import AGENTS, INTERVAL, TIMEOUT
from tests.e2e.trial import Record

FILE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
# `make e2e FAULTS=write` sets this variable to WRITE. Every other run leaves the page alone: its times differ each run.
VARIABLE = "KUBENURSE_E2E_FAULTS"
WRITE = "write"

NOTHING = "-"

_HEAD = f"""# What the agents say when something breaks

`make e2e` builds a cluster of network namespaces: {AGENTS} real agents on nodes of their own, a neighbour that answers
like kubenurse v1.15, an API server, kube-proxy's rules (iptables), cluster DNS (dnsmasq), an ingress (nginx) and
Prometheus, on IPv4 and IPv6. Then it breaks one thing after the other, for real, and holds every result of every agent
against what was to be expected. The run passes only if nothing else failed anywhere, for a single check, in the states
and in `kubenurse_errors_total`. It also wrote this page.

Agents check every {INTERVAL:g} s here, with a timeout of {TIMEOUT:g} s (by default 5 s both). *Said after* is when the
last of the agents that had to said it, *taken back after* when the last of them was ok again, in seconds from the
moment the fault came or went, by the agents' own time stamps. A check that waits for its timeout takes that long, and
the next one starts at its next turn. Of checks that are no longer made, as of a drained node, the times are upper
bounds. What fails *now and then* depends on which backend a Service chose. Discovery is no check: the neighbours known
last go on being checked, and it asks again after pauses that grow.

| fault | what the agents said | said after | taken back after |
|---|---|---|---|
"""


def is_wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether this run writes the page anew."""
    return environ.get(VARIABLE, "") == WRITE


def write(records: Sequence[Record], file: Path = FILE) -> None:
    """Write the page."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(_HEAD + "".join(map(_row, records)), encoding="utf-8")


def _row(record: Record) -> str:
    words = "<br>".join(record.words) or "nothing: all ok"
    cells = (record.fault.name, words, _seconds(record.detected), _seconds(record.recovered))
    return f"| {' | '.join(cells)} |\n"


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f} s"
