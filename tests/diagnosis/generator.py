"""Bundles of simulated clusters: every agent makes its requests of one minute in a World, and tells what it saw."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from typing import Any

from tests.diagnosis.world import API, GOOD, LATE, Node, Outcome, World, failed

NOW = 1_795_000_000.0
ROUNDS = 12
INTERVAL = 5.0
BUILT_IN = (*API, "me_ingress", "me_service")
Document = dict[str, Any]


def make_world(rng: random.Random, nodes: int, *, zones: int = 3, noise: float = 0.001, limit: int = 10) -> World:
    """Return a healthy cluster."""
    made = [
        Node(f"worker-{index:03}.{rng.randrange(16**4):04x}", f"zone-{chr(97 + index % zones)}", f"10.1.{index // 250}."
             f"{index % 250 + 2}", f"192.0.2.{index % 250}")
        for index in range(nodes)
    ]  # fmt: skip
    return World(
        rng=rng,
        nodes=made,
        extras=["db", "registry", "login"][: rng.choice((0, 1, 1, 2, 3))],
        servers=["10.96.0.10"] if rng.random() < 0.7 else ["10.96.0.10", "10.96.0.11"],
        noise=noise,
        limit=limit,
        dns_by_cluster_ip=rng.random() < 0.7,
        traced=rng.random() < 0.5,
    )


def place(name: str) -> int:
    """Return a node's place on the ring."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


class Bundler:
    """Lets a world's agents check for one minute.

    ``onset`` and ``end`` are the rounds between which what is broken in the world is broken. ``hidden`` agents are not
    asked, ``mute`` ones do not answer the collector although they live, and ``old`` ones are of version 1.15.
    """

    def __init__(
        self,
        world: World,
        *,
        onset: int = 0,
        end: int = ROUNDS,
        hidden: frozenset[str] = frozenset(),
        mute: frozenset[str] = frozenset(),
        old: frozenset[str] = frozenset(),
    ) -> None:
        self.world = world
        self.rng = world.rng
        self.onset, self.end = onset, end
        self.hidden, self.mute, self.old = hidden, mute, old
        ring = [each for each in world.nodes if each.name not in world.cordoned | world.deleted | world.leaving]
        self.ring = sorted(ring, key=lambda each: place(each.name))
        self.places = {each.name: place(each.name) for each in world.nodes}
        self.touched = self._touched()

    def bundle(self) -> Document:
        """Return the bundle."""
        world = self.world
        gone = world.deleted | self.mute | self.old
        if self.end == ROUNDS:
            gone = gone | world.down | world.killed | world.hung
        drained = {each for each in world.leaving if each in world.cordoned}
        speaking = [each for each in world.nodes if each.name not in gone | drained | self.hidden]
        return {
            "kubenurse_bundle": 1,
            "collected_at": NOW,
            "by": world.nodes[0].pod,
            "states": [self._state(each) for each in speaking],
            "silent": [self._silent(each) for each in world.nodes if each.name in gone - self.hidden - world.deleted],
            "nodes": [
                {
                    "name": each.name,
                    "zone": each.zone,
                    "cordoned": each.name in world.cordoned,
                    "deleted": each.name in world.deleted,
                }
                for each in world.nodes
            ],
            "leaving": [
                {"pod_name": each.pod, "node_name": each.name} for each in world.nodes if each.name in world.leaving
            ],
        }

    def _silent(self, node: Node) -> Document:
        world = self.world
        why = "connect: timed out after 1s"
        if node.name in self.old:
            why = "404 Not Found"
        elif node.name in world.killed:
            why = "connect: connection refused"
        elif node.name in world.hung:
            why = "response: timed out after 1s"
        return {
            "pod_name": node.pod,
            "node_name": node.name,
            "pod_ip": node.pod_ip,
            "host_ip": node.host_ip,
            "zone": node.zone,
            "why": why,
            "phase": failed(why).phase,
        }

    def _touched(self) -> set[str]:
        """Return the nodes whose paths may not be well, so that the many other requests need not be simulated."""
        world = self.world
        touched = world.down | world.killed | world.hung | world.narrow | world.starved | set(world.closed_in)
        touched |= set(world.closed_out)
        for each in (*world.blocked, *world.lossy, *world.narrow_pairs):
            touched |= set(each)
        zones = {zone for pair in world.split for zone in pair} | {each[5:] for each in touched if "zone:" in each}
        touched |= {each.name for each in world.nodes if each.zone in zones}
        if "neighbour" in world.certificates:
            touched |= {each.name for each in world.nodes}
        return touched

    def _state(self, node: Node) -> Document:
        world = self.world
        others = [each for each in self.ring if each.name != node.name]
        others.sort(key=lambda each: (self.places[each.name] - self.places[node.name]) % 2**64)
        checked = others[: world.limit] if world.limit else others
        checks: Document = {kind: self._check(node, kind) for kind in (*BUILT_IN, *world.extras)}
        for each in checked:
            checks[f"path_{each.name}"] = self._check(node, f"path_{each.name}", each)
        if others:
            checks["path_explore"] = self._explore(node, others)
        cordoned = node.name in world.cordoned
        return {
            "schema": 2,
            "pod_name": node.pod,
            "node_name": node.name,
            "zone": node.zone,
            "not_ready": "the node is cordoned" if cordoned else "",
            "sampled_at": NOW - self.rng.random(),
            "own": {
                "starved": node.name in world.starved,
                "lateness_seconds": 2.5 if node.name in world.starved else 0.002,
                "throttled_ratio": 0.8 if node.name in world.starved else 0.0,
            },
            "about": {"version": "2.1.0", "interval": INTERVAL, "timeout": 5.0, "neighbour_limit": world.limit},
            "checks": checks,
            "skipped": [],
            "neighbourhood": {
                "state": world.discovery.get(node.name, "ok"),
                "known": len(others),
                "cordoned": len(world.cordoned),
                "own_node_cordoned": cordoned,
                "checked": [
                    {
                        "pod_name": each.pod,
                        "pod_ip": each.pod_ip,
                        "host_ip": each.host_ip,
                        "node_name": each.name,
                        "zone": each.zone,
                    }
                    for each in checked
                ],
            },
        }

    def _is_calm(self, node: Node, target: Node | None) -> bool:
        if target is None:
            return False
        return not self.touched or not {node.name, target.name} & self.touched

    def _outcomes(self, node: Node, kind: str, target: Node | None) -> list[Outcome]:
        world, rng = self.world, self.rng
        calm = self._is_calm(node, target)
        found = [
            GOOD if calm or not self.onset <= each < self.end else world.request(node, kind, target, large=world.padded)
            for each in range(ROUNDS)
        ]
        if world.noise and rng.random() < ROUNDS * world.noise:
            found[rng.randrange(ROUNDS)] = self._chance(kind)
        return found

    def _chance(self, kind: str) -> Outcome:
        """Return a failure that means nothing."""
        states = [f"connect: {LATE}"] * 3 + [f"response: {LATE}", "connect: connection reset by peer"]
        if not kind.startswith("path_") and kind != API[0]:
            states.append(f"dns: {LATE}")
        return failed(self.rng.choice(states), again=self.rng.choice((0, 1, 2, 2)))

    def _check(self, node: Node, kind: str, target: Node | None = None) -> Document:
        outcomes = self._outcomes(node, kind, target)
        last = outcomes[-1]
        check = _latest(last, NOW - self.rng.uniform(0.1, INTERVAL), traced=self.world.traced)
        check["window"] = _window(outcomes)
        check["witnesses"] = self._witnesses(node, kind, target, last) if last.state != "ok" else []
        of = "neighbour" if target else {"me_ingress": "ingress", "me_service": "-"}.get(kind, kind)
        check["not_after"] = self.world.ends.get("api_server" if kind in API else of)
        if target is not None:
            check["node"] = target.name
            check["answered_by"] = target.pod if last.state == "ok" else ""
        return check

    def _explore(self, node: Node, others: list[Node]) -> Document:
        """Each round asks one more neighbour, in turn, with a large request for a large answer."""
        begin = self.rng.randrange(len(others))
        targets = [others[(begin + each) % len(others)] for each in range(ROUNDS)]
        outcomes = []
        for position, target in enumerate(targets):
            calm = self._is_calm(node, target) or not self.onset <= position < self.end
            outcomes.append(GOOD if calm else self.world.request(node, "path_explore", target, large=True))
            if self.rng.random() < self.world.noise:
                outcomes[-1] = self._chance("path_explore")
        check = _latest(outcomes[-1], NOW - 1.0, traced=False)
        check["node"] = targets[-1].name
        check["window"] = {**_window(outcomes), "retransmits": sum(each.again for each in outcomes)}
        check["witnesses"] = (
            self._witnesses(node, "path_explore", targets[-1], outcomes[-1]) if outcomes[-1].state != "ok" else []
        )
        check["explored"] = [
            {
                "node": target.name,
                "state": outcome.state,
                "phase": outcome.phase,
                "seconds": outcome.seconds,
                "at": NOW - INTERVAL * (ROUNDS - position),
            }
            for position, (target, outcome) in enumerate(zip(targets, outcomes, strict=True))
        ]
        return check

    def _witnesses(self, node: Node, kind: str, target: Node | None, last: Outcome) -> list[Document]:
        world = self.world
        found = []
        if last.phase == "dns":
            for server in world.servers:
                answers = self._asks(node, server)
                found += [_witness(f"dns_{way}", server, answers, "timed out") for way in ("udp", "tcp")]
            again = world.by_last_address(node, kind)
            found.append(_witness("last_address", "10.96.0.1", again.state == "ok", again.state))
        elif target is not None and last.phase == "connect":
            lives = target.name not in world.down and node.name not in world.closed_out
            lives = lives and frozenset((node.zone, target.zone)) not in world.split
            found.append(_witness("node", target.host_ip, lives, "timed out"))
        elif last.phase == "connect":
            again = world.request(node, kind)
            found.append(_witness("again", "10.96.0.1", again.state == "ok", again.state))
        if target is not None and last.phase in ("tls", "request", "response"):
            for size in ("small", "large"):
                sent = world.request(node, kind, target, large=size == "large")
                found.append(_witness(size, target.pod_ip, sent.state == "ok", sent.state))
        return found

    def _asks(self, node: Node, server: str) -> bool:
        world = self.world
        cut = world.closed_out.get(node.name) == "all" or (world.dns_by_cluster_ip and node.name in world.routing)
        return not (cut or world.dns or node.name in world.dns_on or server in world.dead_servers)


def _witness(kind: str, target: str, ok: bool, why: str) -> Document:
    return {
        "kind": kind,
        "target": target,
        "name": "",
        "ok": ok,
        "seconds": 0.002 if ok else 2.0,
        "detail": "ok" if ok else why,
        "at": NOW - 2.0,
    }


def _latest(last: Outcome, started_at: float, *, traced: bool) -> Document:
    ok = last.state == "ok"
    return {
        "state": last.state,
        "phase": last.phase,
        "event": last.event,
        "status_code": 200 if ok else int(last.state[:3]) if last.phase == "status" else None,
        "duration": last.seconds + last.resolving,
        "trace": {"dns_start": 0.0, "dns_done": last.resolving} if traced and ok else {},
        "started_at": started_at,
        "remote": "10.96.0.1" if ok else "",
        "tcp": {"rtt_seconds": 0.0004, "path_mtu_bytes": 1500, "retransmits": last.again} if ok else None,
        "not_after": None,
    }


def _window(outcomes: list[Outcome]) -> Document:
    kinds = [each.state == "ok" for each in outcomes]
    run = 1
    while run < len(kinds) and kinds[-1 - run] == kinds[-1]:
        run += 1
    times = sorted(each.seconds + each.resolving for each in outcomes)
    return {
        "seconds": 60,
        "made": len(outcomes),
        "failed": dict(Counter(each.state for each in outcomes if each.state != "ok")),
        "streak": run if kinds[-1] else -run,
        "retransmits": sum(each.again for each in outcomes),
        "median_seconds": times[len(times) // 2],
        "slowest_seconds": times[-1],
    }
