"""Reads an agent's /state periodically and notes each result once."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.e2e.nodes import Node, request

LOOK_EVERY = 0.15
MOST_NOTED = 20_000
# The type under which the state of discovery is noted.
DISCOVERY = "discovery"


@dataclass(frozen=True, slots=True)
class Seen:
    """One result of one agent; times are epoch seconds, by the agent's own clock (less its offset) but ``seen_at``."""

    node: str
    pod: str
    type: str
    state: str
    event: str
    started_at: float
    ended_at: float
    seen_at: float
    facts: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """True when the result is ok."""
        return self.state == "ok"


class Timeline:
    """All results of all agents, oldest first, and the latest ones by node and type."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._all: deque[Seen] = deque(maxlen=MOST_NOTED)
        self._latest: dict[str, dict[str, Seen]] = {}

    def note(self, node: str, results: Mapping[str, Seen]) -> None:
        """Note the current results of an agent; known results are not noted again."""
        with self.changed:
            before = self._latest.get(node, {})
            for kind, result in results.items():
                known = before.get(kind)
                if known is None or (known.started_at, known.state) != (result.started_at, result.state):
                    self._all.append(result)
            self._latest[node] = dict(results)
            self.changed.notify_all()

    def forget(self, node: str) -> None:
        """Remove a node's latest results, as when it has no agent."""
        with self.changed:
            self._latest.pop(node, None)

    def latest(self) -> dict[tuple[str, str], Seen]:
        """Return the latest results by node and type."""
        with self.changed:
            return {(node, kind): seen for node, results in self._latest.items() for kind, seen in results.items()}

    def since(self, moment: float) -> list[Seen]:
        """Return the results that ended after a moment (epoch)."""
        with self.changed:
            return [seen for seen in self._all if seen.ended_at >= moment]

    def wait_for(self, holds: Callable[[], bool], timeout: float) -> bool:
        """Wait until something holds, looking again with every note; False after ``timeout`` seconds."""
        with self.changed:
            return self.changed.wait_for(holds, timeout)


class Watcher:
    """A thread in the node's namespace that reads /state. An agent that does not answer has no results."""

    def __init__(self, node: Node, timeline: Timeline) -> None:
        self._node = node
        self._timeline = timeline
        self._stopping = threading.Event()
        self._discovery: Seen | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch-{node.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        self._node.member.namespace.enter()
        while not self._stopping.wait(LOOK_EVERY):
            try:
                document = json.loads(request("/state")[1])
            except (OSError, http.client.HTTPException, ValueError):
                self._timeline.forget(self._node.name)
                continue
            self._timeline.note(self._node.name, self._results(document))

    def _results(self, document: Mapping[str, Any]) -> dict[str, Seen]:
        now, name, pod = time.time(), self._node.name, document["pod_name"]
        results = {}
        for kind, facts in document["checks"].items():
            started_at = facts["started_at"]
            # A result from before the clock was stepped is of the right time.
            if abs(started_at - now) > abs(self._node.clock_offset) / 2:
                started_at -= self._node.clock_offset
            results[kind] = Seen(
                node=name,
                pod=pod,
                type=kind,
                state=facts["state"],
                event=facts["event"],
                started_at=started_at,
                ended_at=started_at + facts["duration"],
                seen_at=now,
                facts=facts,
            )
        state = document["neighbourhood"]["state"]
        if self._discovery is None or (self._discovery.state, self._discovery.pod) != (state, pod):
            self._discovery = Seen(name, pod, DISCOVERY, state, "", now, now, now, document["neighbourhood"])
        results[DISCOVERY] = self._discovery
        return results
