"""Bundles written by hand: a healthy cluster, in which single checks are then changed."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from checks.diagnosis import diagnose
from tests.diagnosis.faults import Verdict
from tests.diagnosis.score import verdicts_of

NOW = 1_795_000_000.0
NODES = ("a1", "b1", "a2", "b2", "a3", "b3")
NAMED = ("api_server_dns", "me_ingress", "me_service", "db")
LOST = "connect: timed out after 5s"
REFUSED = "connect: connection refused"
Document = dict[str, Any]


class Bundle:
    """A healthy cluster of six nodes in two zones, each checking all others, with an extra check ``db``."""

    def __init__(self, nodes: Iterable[str] = NODES) -> None:
        self.nodes = tuple(nodes)
        self.document: Document = {
            "kubenurse_bundle": 1,
            "collected_at": NOW,
            "by": f"kubenurse-{self.nodes[0]}",
            "states": [self._state(node) for node in self.nodes],
            "silent": [],
            "nodes": [
                {"name": node, "zone": f"zone-{node[0]}", "cordoned": False, "deleted": False} for node in self.nodes
            ],
            "leaving": [],
        }

    def _state(self, node: str) -> Document:
        others = [each for each in self.nodes if each != node]
        checks = {kind: check() for kind in ("api_server_direct", *NAMED)}
        checks |= {f"path_{each}": {**check(), "node": each} for each in others}
        return {
            "schema": 2,
            "pod_name": f"kubenurse-{node}",
            "node_name": node,
            "zone": f"zone-{node[0]}",
            "not_ready": "",
            "sampled_at": NOW,
            "own": {"starved": False, "lateness_seconds": 0.002, "throttled_ratio": None},
            "about": {"version": "2.1.0", "interval": 5.0, "timeout": 5.0},
            "checks": checks,
            "skipped": [],
            "neighbourhood": {
                "state": "ok",
                "known": len(others),
                "cordoned": 0,
                "own_node_cordoned": False,
                "checked": [{"pod_name": f"kubenurse-{each}", "node_name": each} for each in others],
            },
        }

    def state(self, node: str) -> Document:
        """Return a node's state."""
        return next(each for each in self.document["states"] if each["node_name"] == node)

    def check(self, node: str, kind: str) -> Document:
        """Return one check of a node."""
        found: Document = self.state(node)["checks"][kind]
        return found

    def fail(
        self,
        nodes: Iterable[str],
        kinds: Iterable[str],
        state: str,
        failed: int = 12,
        streak: int | None = None,
        witnesses: Iterable[Document] = (),
    ) -> None:
        """Let checks fail ``failed`` of 12 times, at the end of the minute unless a ``streak`` says otherwise."""
        for node in nodes:
            for kind in kinds:
                found = self.check(node, kind)
                run = -failed if streak is None else streak
                if run < 0:
                    found.update(state=state, phase=phase(state), status_code=None, duration=5.0)
                    found["witnesses"] = copy.deepcopy(list(witnesses))
                found["window"].update(failed={state: failed}, streak=run)

    def others(self, node: str) -> list[str]:
        """Return the nodes but one."""
        return [each for each in self.nodes if each != node]

    def silence(self, node: str, why: str = "connect: timed out after 1s", phase: str = "connect") -> None:
        """Take a node's state away."""
        self.document["states"] = [each for each in self.document["states"] if each["node_name"] != node]
        pod = f"kubenurse-{node}"
        silent = {"pod_name": pod, "node_name": node, "pod_ip": "", "host_ip": "", "why": why, "phase": phase}
        self.document["silent"].append(silent)

    def verdicts(self) -> set[Verdict]:
        """Judge the bundle."""
        return verdicts_of(diagnose(self.document))


def phase(state: str) -> str:
    """Return the phase that a state names."""
    if state[:3].isdigit():
        return "status"
    return state.partition(":")[0].partition(" ")[0]


def check() -> Document:
    """Return a check that is ok."""
    return {
        "state": "ok",
        "phase": "",
        "event": "",
        "status_code": 200,
        "duration": 0.001,
        "trace": {},
        "started_at": NOW - 2.0,
        "remote": "10.96.0.1",
        "tcp": {"rtt_seconds": 0.0004, "path_mtu_bytes": 1500, "retransmits": 0},
        "not_after": None,
        "window": {
            "seconds": 60,
            "made": 12,
            "failed": {},
            "streak": 12,
            "retransmits": 0,
            "median_seconds": 0.001,
            "slowest_seconds": 0.002,
        },
        "witnesses": [],
    }


def witness(kind: str, target: str, ok: bool, detail: str = "") -> Document:
    """Return one witness."""
    detail = detail or ("ok" if ok else "timed out")
    return {"kind": kind, "target": target, "name": "", "ok": ok, "seconds": 0.1, "detail": detail, "at": NOW}
