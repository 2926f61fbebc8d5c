"""The neighbours, put together from Pods and cordoned nodes; kept up to date one object at a time. Pure.

The cost of a change does not depend on the number of Pods, except for moving references within one sorted list of
names (microseconds at 5,000). Only ``neighbours`` walks over all of them, and only when something changed.
"""

from __future__ import annotations

import dataclasses
import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from checks.kube.objects import NOT_READY
from checks.kube.starting import Starting
from checks.model import RUNNING, Neighbour


@dataclass(frozen=True, slots=True)
class Counts:
    """What a picture counts: ``known`` Pods beside the own one, and those left out because their node is cordoned."""

    known: int
    cordoned: int


class Picture:
    """The Pods of the selection, the cordoned nodes, and the neighbours that follow. Any thread may call its methods.

    ``own_pod`` is no neighbour. ``schedulable`` is what is said of the neighbours: True while the cordoned nodes are
    known, None while they are not. Its size is bounded by the Pods and nodes that it is told of.
    """

    def __init__(self, own_pod: str, clock: Callable[[], float], *, schedulable: bool | None) -> None:
        self._own_pod = own_pod
        self._schedulable = schedulable
        self._starting = Starting(clock)
        # Guards all below. It is held for computations only.
        self._lock = threading.Lock()
        self._pods: dict[str, Neighbour] = {}
        self._cordoned_nodes: set[str] = set()
        # The Pods that can be checked, on cordoned nodes too, as they are shown, and their names by node.
        self._reachable: dict[str, Neighbour] = {}
        self._by_node: dict[str, set[str]] = {}
        self._cordoned = 0
        # Those of them that are on other nodes: names, sorted, and the tuple made of them when it was last asked for.
        self._names: list[str] = []
        self._neighbours: tuple[Neighbour, ...] = ()
        self._changed = False

    def put_pod(self, name: str, pod: Neighbour | None) -> int:
        """Take a Pod's newest version, None when it is gone; return the number of Pods."""
        with self._lock:
            self._put_pod(name, pod)
            return len(self._pods)

    def replace_pods(self, pods: Mapping[str, Neighbour]) -> None:
        """Take a whole list of Pods; those that are not in it are gone."""
        with self._lock:
            for name in self._pods.keys() - pods.keys():
                self._put_pod(name, None)
            for name, pod in pods.items():
                self._put_pod(name, pod)

    def put_node(self, name: str, cordoned: bool | None) -> int:
        """Take a node's newest version: whether it is cordoned; return the number of cordoned nodes."""
        with self._lock:
            self._put_node(name, bool(cordoned))
            return len(self._cordoned_nodes)

    def replace_nodes(self, nodes: Mapping[str, bool]) -> None:
        """Take a whole list of the cordoned nodes."""
        with self._lock:
            for name in self._cordoned_nodes - nodes.keys():
                self._put_node(name, cordoned=False)
            for name in nodes:
                self._put_node(name, cordoned=True)

    def mark_schedulable(self, schedulable: bool | None) -> None:
        """Change what is said of all neighbours: a walk over all of them."""
        with self._lock:
            if schedulable is not self._schedulable:
                self._schedulable = schedulable
                shown = {name: self._shown(pod) for name, pod in self._reachable.items()}
                self._reachable = shown
                self._changed = True

    def end_starts(self) -> None:
        """Let the Pods whose time to start has ended be neighbours."""
        with self._lock:
            for name in self._starting.ended():
                self._put_pod(name, self._pods[name])

    def next_end(self) -> float:
        """Return when the next Pod's time to start ends, on the clock; infinity when there is none."""
        with self._lock:
            return self._starting.next_end()

    def neighbours(self) -> tuple[Neighbour, ...]:
        """Return the neighbours sorted by name; the same tuple as before while they are the same."""
        with self._lock:
            if self._changed:
                self._changed = False
                neighbours = tuple(self._reachable[name] for name in self._names)
                if neighbours != self._neighbours:
                    self._neighbours = neighbours
            return self._neighbours

    def counts(self) -> Counts:
        """Return the counts."""
        with self._lock:
            return Counts(known=len(self._pods) - (self._own_pod in self._pods), cordoned=self._cordoned)

    def has_pod(self, name: str) -> bool:
        """Tell whether a Pod is in the selection."""
        return name in self._pods

    def node_of(self, pod: str) -> str:
        """Return a Pod's node, empty when that is not known."""
        found = self._pods.get(pod)
        return found.node_name if found else ""

    def zone_of(self, pod: str) -> str:
        """Return the zone that a Pod's label names, empty when that is not known."""
        found = self._pods.get(pod)
        return found.zone if found else ""

    def is_cordoned(self, node: str) -> bool:
        """Tell whether a node is cordoned."""
        return node in self._cordoned_nodes

    def _put_pod(self, name: str, pod: Neighbour | None) -> None:
        after = self._reachable_version(name, pod)
        if pod is None:
            self._pods.pop(name, None)
        else:
            self._pods[name] = pod
        before = self._reachable.get(name)
        if before == after:
            return
        if before is not None:
            self._take_out(name, before)
        if after is not None:
            self._put_in(name, after)

    def _reachable_version(self, name: str, pod: Neighbour | None) -> Neighbour | None:
        """Return a Pod as it is shown, None when it cannot be checked."""
        if pod is None:
            self._starting.forget(name)
            return None
        starting = self._starting.is_starting(pod)
        if starting or name == self._own_pod or pod.phase not in (RUNNING, NOT_READY) or not pod.pod_ip:
            return None
        return self._shown(pod)

    def _shown(self, pod: Neighbour) -> Neighbour:
        return dataclasses.replace(pod, phase=RUNNING, schedulable=self._schedulable)

    def _put_in(self, name: str, pod: Neighbour) -> None:
        self._reachable[name] = pod
        self._by_node.setdefault(pod.node_name, set()).add(name)
        if pod.node_name in self._cordoned_nodes:
            self._cordoned += 1
        else:
            insort(self._names, name)
            self._changed = True

    def _take_out(self, name: str, pod: Neighbour) -> None:
        del self._reachable[name]
        on_node = self._by_node[pod.node_name]
        on_node.discard(name)
        if not on_node:
            del self._by_node[pod.node_name]
        if pod.node_name in self._cordoned_nodes:
            self._cordoned -= 1
        else:
            del self._names[bisect_left(self._names, name)]
            self._changed = True

    def _put_node(self, name: str, cordoned: bool) -> None:
        if cordoned == (name in self._cordoned_nodes):
            return
        # Out by the old state, in by the new one.
        moved = {pod: self._reachable[pod] for pod in self._by_node.get(name, ())}
        for pod, version in moved.items():
            self._take_out(pod, version)
        (self._cordoned_nodes.add if cordoned else self._cordoned_nodes.discard)(name)
        for pod, version in moved.items():
            self._put_in(pod, version)
