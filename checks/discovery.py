"""Who the neighbours are: the agents' Pods and the cordoned nodes, followed and put together."""

from __future__ import annotations

import dataclasses
import logging
import random as random_module
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import quote

from checks.follow import Follower
from checks.kubeapi import KubeApi, Object, section, text_of
from checks.model import NOT_SYNCED, OK, Neighbour, Neighbourhood

log = logging.getLogger("kubenurse.discovery")

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
RUNNING = "Running"
# What kubectl shows for a Pod with a deletionTimestamp, whatever its phase.
TERMINATING = "Terminating"
# A running Pod that is not ready. One that never was is starting, and is not checked for so many seconds: it has an
# address before its process listens on it.
NOT_READY = "NotReady"
START_GRACE = 30.0
NODES_HINT = "grant list and watch on nodes, or set KUBENURSE_ALLOW_UNSCHEDULABLE=true"
# While Pods come and go by the hundred, one line in so many seconds says which.
SECONDS_BETWEEN_LOGS = 5.0
NAMES_LOGGED = 10
STOP_TIMEOUT = 2.0


class Discovery:
    """Follows the neighbours until stopped, in at most two threads: one for Pods, one for nodes.

    ``label_selector`` selects the agents' Pods in ``namespace``; ``own_pod`` is this one's name. ``node_name`` is the
    own node; when empty, it is taken from the own Pod. With ``allow_unschedulable`` nodes are not read. ``api`` is
    closed by ``stop``.

    ``on_change`` is called with each new picture (not for a newer ``synced_at`` alone), by one thread at a time, the
    latest last; it must not block. While the neighbours stay the same, ``neighbours`` stays the same tuple.
    ``on_error`` is called with the kind of each request that failed, one of ``kubeapi_errors.KINDS``. What is kept
    grows with the number of selected Pods, a few hundred bytes each.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        namespace: str,
        label_selector: str,
        own_pod: str,
        node_name: str = "",
        allow_unschedulable: bool = False,
        on_change: Callable[[Neighbourhood], None] = lambda _: None,
        on_error: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._api = api
        self._own_pod = own_pod
        self._node_name = node_name
        self._on_change = on_change
        self._clock = clock
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._publishing = threading.Lock()
        self._snapshot = Neighbourhood(NOT_SYNCED, own_node=node_name)
        # By the names of Pods: until when a Pod may be starting (on the clock), in the past for one that was ready.
        self._starting_until: dict[str, float] = {}
        self._logged_names: frozenset[str] = frozenset()
        self._logged_at = float("-inf")
        self._pods = Follower(
            "pods",
            api,
            f"/api/v1/namespaces/{quote(namespace, safe='')}/pods",
            {"labelSelector": label_selector},
            partial(_keep_pod, schedulable=None if allow_unschedulable else True),
            stopping=self._stopping,
            on_update=self._publish,
            on_error=on_error,
            clock=clock,
            random=random,
        )
        self._nodes = None
        if not allow_unschedulable:
            self._nodes = Follower(
                "nodes",
                api,
                "/api/v1/nodes",
                {"fieldSelector": "spec.unschedulable=true"},
                _keep_node,
                stopping=self._stopping,
                on_update=self._publish,
                on_error=on_error,
                clock=clock,
                random=random,
                hint=NODES_HINT,
            )
        self._threads = [threading.Thread(target=self._pods.run, name="discovery-pods", daemon=True)]
        if self._nodes:
            self._threads.append(threading.Thread(target=self._nodes.run, name="discovery-nodes", daemon=True))

    def start(self) -> None:
        """Begin to follow."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the requests under way and wait at most ``STOP_TIMEOUT`` seconds for the threads."""
        self._stopping.set()
        self._api.close()
        deadline = time.monotonic() + STOP_TIMEOUT
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def snapshot(self) -> Neighbourhood:
        """Return the latest picture, at once."""
        return self._snapshot

    def wait_synced(self, timeout: float) -> bool:
        """Wait for the first picture, at most ``timeout`` seconds; False too as soon as it is known to fail."""
        return self._settled.wait(timeout) and self._snapshot.synced_at is not None

    def _publish(self) -> None:
        """Make the new picture the one that is seen, and tell who wants to know; one of the two threads at a time."""
        with self._publishing:
            before, after = self._snapshot, self._picture()
            if after.neighbours == before.neighbours:
                # The same tuple, so that whoever chose from it sees that there is nothing to choose anew.
                after = dataclasses.replace(after, neighbours=before.neighbours)
            self._snapshot = after
            if after.state != NOT_SYNCED:
                self._settled.set()
            if dataclasses.replace(before, synced_at=after.synced_at) != after:
                self._on_change(after)
            changes = self._changes_to_log(after)
        if changes:
            log.info("neighbours changed", extra={"facts": changes})

    def _picture(self) -> Neighbourhood:
        """Put together what both threads know now."""
        pods = self._pods.kept
        cordoned = self._nodes.kept if self._nodes else {}
        own = pods.get(self._own_pod)
        own_node = self._node_name or (own.node_name if own else "")
        started = self._started(pods)
        reachable = [
            pod
            for name, pod in sorted(started.items())
            if name != self._own_pod and pod.phase == RUNNING and pod.pod_ip
        ]
        neighbours = [pod for pod in reachable if pod.node_name not in cordoned]
        if self._nodes and self._nodes.synced_at is None:
            # Until nodes are known, or known to fail, nobody is blamed for being on one that may be cordoned.
            unsure = reachable if self._nodes.failure else []
            neighbours = [dataclasses.replace(pod, schedulable=None) for pod in unsure]
        synced_at = self._synced_at()
        return Neighbourhood(
            state=self._failures() or (NOT_SYNCED if synced_at is None else OK),
            neighbours=tuple(neighbours),
            known=len(pods) - (own is not None),
            cordoned=sum(pod.node_name in cordoned for pod in reachable),
            own_node=own_node,
            own_node_cordoned=own_node in cordoned,
            synced_at=synced_at,
        )

    def _started(self, pods: Mapping[str, Neighbour]) -> dict[str, Neighbour]:
        """Return the Pods that are not just starting; those that are not ready for another reason are running Pods.

        Looked at again with every event and bookmark, so that the grace may last up to a minute longer.
        """
        now = self._clock()
        self._starting_until = {name: until for name, until in self._starting_until.items() if name in pods}
        started = {}
        for name, pod in pods.items():
            if pod.phase != NOT_READY:
                started[name] = pod
                if pod.phase == RUNNING:
                    self._starting_until[name] = float("-inf")
            elif now >= self._starting_until.setdefault(name, now + START_GRACE):
                started[name] = dataclasses.replace(pod, phase=RUNNING)
        return started

    def _failures(self) -> str:
        followers = (self._pods, self._nodes)
        return "; ".join(f"{each.name}: {each.failure}" for each in followers if each and each.failure)

    def _synced_at(self) -> float | None:
        """When the older half of the picture was confirmed; nodes that could never be read are no half."""
        pods = self._pods.synced_at
        if pods is None or self._nodes is None:
            return pods
        if self._nodes.synced_at is None:
            return pods if self._nodes.failure else None
        return min(pods, self._nodes.synced_at)

    def _changes_to_log(self, picture: Neighbourhood) -> dict[str, str | int]:
        """Return what to say of the neighbours that came and left since the last time, empty for nothing (yet)."""
        names = frozenset(neighbour.pod_name for neighbour in picture.neighbours)
        now = self._clock()
        if names == self._logged_names or now - self._logged_at < SECONDS_BETWEEN_LOGS:
            return {}
        added, removed = names - self._logged_names, self._logged_names - names
        self._logged_names, self._logged_at = names, now
        return {"added": _some(added), "removed": _some(removed), "neighbours": len(names)}


def _keep_pod(item: Object, schedulable: bool | None) -> Neighbour:
    """Take what is used of a Pod. It is schedulable for as long as its node is not among the cordoned ones."""
    metadata, status = section(item, "metadata"), section(item, "status")
    return Neighbour(
        pod_name=text_of(metadata, "name"),
        pod_ip=text_of(status, "podIP"),
        host_ip=text_of(status, "hostIP"),
        node_name=text_of(section(item, "spec"), "nodeName"),
        phase=TERMINATING if metadata.get("deletionTimestamp") else _phase(status),
        schedulable=schedulable,
    )


def _phase(status: Object) -> str:
    phase = text_of(status, "phase")
    conditions = status.get("conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        if isinstance(condition, dict) and condition.get("type") == "Ready" and condition.get("status") == "False":
            return NOT_READY if phase == RUNNING else phase
    return phase


def _keep_node(item: Object) -> bool | None:
    """Tell whether a node is cordoned; None when not. The selector is the server's, the definition is ours."""
    spec = section(item, "spec")
    taints = spec.get("taints") or ()
    tainted = any(isinstance(taint, dict) and taint.get("key") == UNSCHEDULABLE_TAINT for taint in taints)
    return True if spec.get("unschedulable") is True or tainted else None


def _some(names: frozenset[str]) -> str:
    shown = sorted(names)[:NAMES_LOGGED]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ",".join(shown) + more
