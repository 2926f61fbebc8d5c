"""Who the neighbours are: the agents' Pods and the cordoned nodes, followed and put together."""

from __future__ import annotations

import dataclasses
import logging
import math
import random as random_module
import threading
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import quote

from checks.kube.client import KubeApi, Object, section, text_of
from checks.kube.errors import ApiError
from checks.kube.reflector import Follower
from checks.kube.starting import NOT_READY, Starting, epoch_seconds
from checks.model import NOT_SYNCED, OK, RUNNING, Neighbour, Neighbourhood

log = logging.getLogger("kubenurse.discovery")

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
# What kubectl shows for a Pod with a deletionTimestamp, whatever its phase.
TERMINATING = "Terminating"
NODES_HINT = "grant list and watch on nodes, or set KUBENURSE_ALLOW_UNSCHEDULABLE=true"
# While Pods come and go by the hundred, one line in so many seconds says which.
SECONDS_BETWEEN_LOGS = 5.0
NAMES_LOGGED = 10
STOP_TIMEOUT = 2.0


class Discovery:
    """Follows the neighbours until stopped, in two threads: one for Pods, one for nodes; at times a timer's beside.

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
        self._on_error = on_error
        self._clock = clock
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._publishing = threading.Lock()
        self._snapshot = Neighbourhood(NOT_SYNCED, own_node=node_name)
        self._starting = Starting(clock)
        self._logged_names: frozenset[str] = frozenset()
        self._logged_at = -math.inf
        # Looks again when time alone changes the picture, or lets a line be logged. There is at most one.
        self._timer: threading.Timer | None = None
        # Who is chosen depends on the own node: until it was sought, Pods are as good as not known.
        self._sought_own_node = self._own_pod_answered = False
        self._pods_path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"
        self._pods = Follower(
            "pods",
            api,
            self._pods_path,
            {"labelSelector": label_selector},
            partial(_keep_pod, schedulable=None if allow_unschedulable else True),
            stopping=self._stopping,
            on_update=self._publish_pods,
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
        with self._publishing:
            self._look_again(math.inf)
            changes = self._changes_to_log(self._snapshot)
        _log(changes)
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

    def _publish_pods(self) -> None:
        if self._pods.synced_at is not None:
            if not (self._node_name or self._own_pod in self._pods.kept or self._own_pod_answered):
                # Where it fails it is tried again with the next event or bookmark.
                try:
                    self._node_name = self._node_of_own_pod()
                    self._own_pod_answered = True
                except ApiError as error:
                    self._on_error(error.kind)
            self._sought_own_node = True
        self._publish()

    def _node_of_own_pod(self) -> str:
        """Ask for the own Pod, which the selector need not select, by a list: reading one Pod takes another right."""
        for page in self._api.list_pages(self._pods_path, {"fieldSelector": f"metadata.name={self._own_pod}"}):
            for item in page.items:
                if text_of(section(item, "metadata"), "name") == self._own_pod:
                    return text_of(section(item, "spec"), "nodeName")
        return ""

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
            may_log = self._clock() >= self._logged_at + SECONDS_BETWEEN_LOGS
            changes = self._changes_to_log(after) if may_log else {}
            self._look_again(min(self._starting.next_end(), self._next_log()))
        _log(changes)

    def _publish_on_time(self) -> None:
        try:
            self._publish()
        except Exception:
            log.exception("neighbours not looked at again")

    def _look_again(self, moment: float) -> None:
        """Publish at a moment on the clock, unless that is infinity; any other moment is forgotten."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if moment < math.inf and not self._stopping.is_set():
            self._timer = threading.Timer(max(0.0, moment - self._clock()), self._publish_on_time)
            self._timer.name = "discovery-timer"
            self._timer.daemon = True
            self._timer.start()

    def _picture(self) -> Neighbourhood:
        """Put together what both threads know now."""
        pods = self._pods.kept if self._sought_own_node else {}
        cordoned = self._nodes.kept if self._nodes else {}
        own = pods.get(self._own_pod)
        own_node = self._node_name or (own.node_name if own else "")
        started = self._starting.started(pods)
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

    def _failures(self) -> str:
        followers = (self._pods, self._nodes)
        return "; ".join(f"{each.name}: {each.failure}" for each in followers if each and each.failure)

    def _synced_at(self) -> float | None:
        """When the older half of the picture was confirmed; nodes that could never be read are no half."""
        pods = self._pods.synced_at if self._sought_own_node else None
        if pods is None or self._nodes is None:
            return pods
        if self._nodes.synced_at is None:
            return pods if self._nodes.failure else None
        return min(pods, self._nodes.synced_at)

    def _next_log(self) -> float:
        """Return when the changes that are still to be logged may be, infinity when there are none."""
        return math.inf if _names(self._snapshot) == self._logged_names else self._logged_at + SECONDS_BETWEEN_LOGS

    def _changes_to_log(self, picture: Neighbourhood) -> dict[str, str | int]:
        """Return what to say of the neighbours that came and left since the last time, empty for nothing."""
        names = _names(picture)
        added, removed = names - self._logged_names, self._logged_names - names
        if not (added or removed):
            return {}
        self._logged_names, self._logged_at = names, self._clock()
        return {"added": _some(added), "removed": _some(removed), "neighbours": len(names)}


def _log(changes: dict[str, str | int]) -> None:
    # Never within a lock: whoever reads the log may be slow.
    if changes:
        log.info("neighbours changed", extra={"facts": changes})


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
        started_at=_started_at(status),
    )


def _phase(status: Object) -> str:
    phase = text_of(status, "phase")
    conditions = status.get("conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        if isinstance(condition, dict) and condition.get("type") == "Ready" and condition.get("status") == "False":
            return NOT_READY if phase == RUNNING else phase
    return phase


def _started_at(status: Object) -> float | None:
    """Return when the last of its containers was started, or, where that is not told, the Pod."""
    containers = status.get("containerStatuses")
    times = [
        text_of(section(section(container, "state"), "running"), "startedAt")
        for container in (containers if isinstance(containers, list) else ())
        if isinstance(container, dict)
    ]
    moments = [epoch_seconds(text) for text in times or [text_of(status, "startTime")]]
    return max((moment for moment in moments if moment is not None), default=None)


def _keep_node(item: Object) -> bool | None:
    """Tell whether a node is cordoned; None when not. The selector is the server's, the definition is ours."""
    spec = section(item, "spec")
    taints = spec.get("taints") or ()
    tainted = any(isinstance(taint, dict) and taint.get("key") == UNSCHEDULABLE_TAINT for taint in taints)
    return True if spec.get("unschedulable") is True or tainted else None


def _names(picture: Neighbourhood) -> frozenset[str]:
    return frozenset(neighbour.pod_name for neighbour in picture.neighbours)


def _some(names: frozenset[str]) -> str:
    shown = sorted(names)[:NAMES_LOGGED]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ",".join(shown) + more
