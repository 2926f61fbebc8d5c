"""Who the neighbours are: the agents' Pods and the cordoned nodes, followed by threads and published as one picture."""

from __future__ import annotations

import dataclasses
import logging
import math
import random as random_module
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote

from checks.kube.changes import FailureLog, NeighbourLog, OddObjectLog
from checks.kube.client import KubeApi, Object, section, text_of
from checks.kube.objects import OddObjectError, is_cordoned, read_pod
from checks.kube.own_pod import OwnPod
from checks.kube.picture import Picture
from checks.kube.reflector import Reflector, Resource
from checks.model import NOT_SYNCED, OK, Neighbour, Neighbourhood

log = logging.getLogger("kubenurse.discovery")

PUBLISHER = "discovery-publisher"
PODS_HINT = "grant list and watch on pods"
NODES_HINT = "grant list and watch on nodes, or set KUBENURSE_ALLOW_UNSCHEDULABLE=true"
# Seconds. While events come by the hundred, a new picture is published this often; after a quiet while, at once.
COALESCE = 0.1
# Seconds. The publisher shows at least this often that it lives, and starts threads that could not be started.
LONGEST_REST = 30.0
START_AGAIN_AFTER = 1.0
# Seconds. When the API server is back, reflectors that pause ask it within this time, each at a random moment.
WAKE_WITHIN = 1.0
# Seconds. An API server that comes and goes shortens pauses only this often.
WAKE_AGAIN_AFTER = 10.0
# Seconds to wait at the end for threads whose connections are closed. One that hangs does not keep the process.
STOP_TIMEOUT = 1.0


def _log_death(name: str, error: BaseException) -> None:
    log.critical("discovery thread died", extra={"facts": {"thread": name, "why": repr(error)}})


class Discovery:
    """Follows the neighbours until stopped, in three threads: one for Pods, one for nodes, one that publishes.

    ``label_selector`` selects the agents' Pods in ``namespace``; ``own_pod`` is this one's name. ``node_name`` is the
    own node; when empty, it is taken from the own Pod. With ``allow_unschedulable`` nodes are not read.
    ``listen_address`` is the address that agents listen on: Pods with loopback or link-local addresses are checked only
    where it is such an address. ``api`` is closed by ``stop``.

    The publisher thread calls ``on_change`` with each new picture, the latest last, but not for a newer ``synced_at``
    alone. While the neighbours stay the same, ``neighbours`` stays the same tuple. ``on_error`` is called with the kind
    of each failed request, one of ``errors.KINDS``; ``on_death`` with the name and error of a thread that ends by an
    error. What is kept grows with the number of selected Pods, a few hundred bytes each, up to
    ``reflector.MOST_OBJECTS`` Pods. ``clock`` is monotonic; ``random`` returns a number from 0 to 1.
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
        listen_address: str = "",
        on_change: Callable[[Neighbourhood], None] = lambda _: None,
        on_error: Callable[[str], None] = lambda _: None,
        on_death: Callable[[str, BaseException], None] = _log_death,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
        start_thread: Callable[[threading.Thread], None] = threading.Thread.start,
    ) -> None:
        self._api = api
        self._own_pod = own_pod
        self._node_name = node_name
        self._listen_address = listen_address
        self._on_change = on_change
        self._on_death = on_death
        self._clock = clock
        self._random = random
        self._start_thread = start_thread
        self._stopping = threading.Event()
        self._settled = threading.Event()
        # Set whenever there is something to publish.
        self._news = threading.Event()
        self._snapshot = Neighbourhood(NOT_SYNCED, own_node=node_name)
        self._picture = Picture(own_pod, clock, schedulable=None)
        self._neighbour_log = NeighbourLog(clock)
        self._odd_objects = OddObjectLog(clock)
        self._woken_at = -math.inf
        pods_path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"
        self._own = OwnPod(api, pods_path, own_pod, label_selector, on_error, clock)
        pods = Resource("pods", pods_path, {"labelSelector": label_selector}, self._convert_pod, PODS_HINT)
        fields = {"fieldSelector": "spec.unschedulable=true"}
        nodes = Resource("nodes", "/api/v1/nodes", fields, self._convert_node, NODES_HINT)
        self._pods = Reflector(
            pods,
            api,
            replace=self._picture.replace_pods,
            put=self._picture.put_pod,
            on_update=self._pods_updated,
            on_error=on_error,
            on_answer=self.api_server_answered,
            clock=clock,
            random=random,
        )
        self._nodes: Reflector[bool] | None = None
        if not allow_unschedulable:
            self._nodes = Reflector(
                nodes,
                api,
                replace=self._picture.replace_nodes,
                put=self._picture.put_node,
                on_update=self._news.set,
                on_error=on_error,
                on_answer=self.api_server_answered,
                clock=clock,
                random=random,
            )
        self._reflectors: tuple[Reflector[Neighbour] | Reflector[bool], ...] = (
            (self._pods, self._nodes) if self._nodes else (self._pods,)
        )
        self._failure_logs = {each.name: FailureLog(each.name, clock) for each in self._reflectors}
        self._publisher_lived = clock()
        # One thread for each reflector, and the publisher's.
        self._threads: dict[str, threading.Thread] = {}

    def start(self) -> None:
        """Begin to follow: start the publisher, which starts the other threads.

        Raises:
            RuntimeError: when the system has no thread to give, also not after some tries.
        """
        for _ in range(3):
            if self._start(PUBLISHER, self._run_publisher):
                return
            time.sleep(START_AGAIN_AFTER / 4)
        raise RuntimeError("no thread for discovery could be started: raise the limit of processes or memory")

    def stop(self) -> None:
        """End the requests under way and wait at most ``STOP_TIMEOUT`` seconds for the threads."""
        self._stopping.set()
        self._news.set()
        for reflector in self._reflectors:
            reflector.stop()
        self._api.close()
        deadline = time.monotonic() + STOP_TIMEOUT
        for thread in tuple(self._threads.values()):
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def snapshot(self) -> Neighbourhood:
        """Return the latest picture, at once."""
        return self._snapshot

    def wait_synced(self, timeout: float) -> bool:
        """Wait for the first picture, at most ``timeout`` seconds; False too as soon as it is known to fail."""
        return self._settled.wait(timeout) and self._snapshot.synced_at is not None

    def last_lived(self) -> Mapping[str, float]:
        """Return when each thread last showed that it lives, on the clock, by the thread's name.

        A healthy thread does so every ``LONGEST_REST`` seconds or, in a watch, with each bookmark: about once a minute,
        at the latest when the client gives up a silent watch (90 s) and has made the next request.
        """
        lived = {_thread_name(reflector.name): reflector.last_lived for reflector in self._reflectors}
        return {**lived, PUBLISHER: self._publisher_lived}

    def api_server_answered(self) -> None:
        """Take the news that the API server answers again: pausing threads ask it within ``WAKE_WITHIN`` seconds.

        May be called by any thread, at any time, and returns at once.
        """
        now = self._clock()
        if now >= self._woken_at + WAKE_AGAIN_AFTER:
            self._woken_at = now
            for reflector in self._reflectors:
                reflector.wake_within(self._random() * WAKE_WITHIN)

    def _start(self, name: str, run: Callable[[], None]) -> bool:
        """Start a thread unless it was started; False when the system has none to give."""
        if name in self._threads:
            return True
        thread = threading.Thread(target=self._run, args=(name, run), name=name, daemon=True)
        try:
            self._start_thread(thread)
        except RuntimeError as error:
            log.warning("starting a thread failed", extra={"facts": {"thread": name, "why": str(error)}})
            return False
        self._threads[name] = thread
        return True

    def _run(self, name: str, run: Callable[[], None]) -> None:
        """Run a thread to its end; an end by an error is told, whatever the error is."""
        try:
            run()
        except BaseException as error:  # SystemExit would otherwise end the thread without a word
            self._on_death(name, error)

    def _run_publisher(self) -> None:
        rest = 0.0
        while not self._stopping.is_set():
            started = [self._start(_thread_name(each.name), each.run) for each in self._reflectors]
            self._news.wait(rest if all(started) else min(rest, START_AGAIN_AFTER))
            self._news.clear()
            self._publisher_lived = self._clock()
            try:
                self._publish()
            except MemoryError:
                raise
            except Exception:
                log.exception("publishing neighbours failed")
            rest = min(LONGEST_REST, max(0.0, self._next_moment() - self._clock()))
            self._stopping.wait(COALESCE)
        self._neighbour_log.flush()

    def _pods_updated(self) -> None:
        if self._pods.status().synced_at is not None and not self._picture.has_pod(self._own_pod):
            self._own.ask()
        self._news.set()

    def _publish(self) -> None:
        """Make the newest picture the one that is seen, and tell who wants to know."""
        before, after = self._snapshot, self._newest()
        self._snapshot = after
        if after.state != NOT_SYNCED:
            self._settled.set()
        if dataclasses.replace(before, synced_at=after.synced_at) != after:
            self._on_change(after)
        self._neighbour_log.note(after.neighbours)
        for reflector in self._reflectors:
            self._failure_logs[reflector.name].note(reflector.status().failure)

    def _next_moment(self) -> float:
        """Return when time alone changes the picture or lets a line be logged, on the clock."""
        steady = min(reflector.status().steady_at for reflector in self._reflectors)
        failure_line = min(each.next_line() for each in self._failure_logs.values())
        return min(self._picture.next_end(), steady, failure_line, self._neighbour_log.next_line())

    def _newest(self) -> Neighbourhood:
        """Put together what all threads know now."""
        pods = self._pods.status()
        nodes = self._nodes.status() if self._nodes else None
        # The choice of neighbours depends on the own node. Until that was looked for, the Pods count as unknown.
        pods_known = pods.synced_at is not None and (self._picture.has_pod(self._own_pod) or self._own.asked)
        nodes_known = nodes is None or nodes.synced_at is not None
        # Where nodes cannot be read all Pods are neighbours. While they may still be read no Pod is.
        usable = pods_known and (nodes_known or bool(nodes and nodes.failure))
        self._picture.mark_schedulable(True if nodes and nodes_known else None)
        self._picture.end_starts()
        counts = self._picture.counts()
        own_node = self._node_name or self._picture.node_of(self._own_pod) or self._own.node
        moments = [each.synced_at for each in (pods, nodes) if each and each.synced_at is not None]
        failures = [f"{each.name}: {why}" for each in self._reflectors if (why := each.status().failure)]
        return Neighbourhood(
            state="; ".join(failures) or (OK if usable else NOT_SYNCED),
            neighbours=self._picture.neighbours() if usable else (),
            known=counts.known if pods_known else 0,
            cordoned=counts.cordoned if usable else 0,
            own_node=own_node,
            own_zone=self._picture.zone_of(self._own_pod),
            own_node_cordoned=self._picture.is_cordoned(own_node),
            # The picture is as old as the half that was confirmed longest ago.
            synced_at=min(moments) if usable else None,
            own_pod_unselected=self._own.exists and not self._picture.has_pod(self._own_pod),
        )

    def _convert_pod(self, item: Object) -> Neighbour | None:
        try:
            pod = read_pod(item, listen_address=self._listen_address)
        except OddObjectError as error:
            self._note_odd("pods", item, str(error))
            return None
        if pod.unusable:
            self._note_odd("pods", item, f"{pod.unusable}: not checked")
        return pod.neighbour

    def _convert_node(self, item: Object) -> bool | None:
        try:
            return is_cordoned(item) or None
        except OddObjectError as error:
            self._note_odd("nodes", item, str(error))
            return None

    def _note_odd(self, resource: str, item: Object, why: str) -> None:
        self._odd_objects.note(resource, text_of(section(item, "metadata"), "name"), why)


def _thread_name(resource: str) -> str:
    return f"discovery-{resource}"
