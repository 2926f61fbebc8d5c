"""What one discovery event costs: CPU time from the event to the published picture, by the number of Pods.

    python -m bench.discovery_events [--pods 100,1000,5000] [--events 300] [--choose]

One agent's Pod after the other changes, as in a rolling update. The events come from a scripted API instead of a
socket, so that only the agent's own work is measured: reading the object, the picture, its publication. With --choose
the receiver of pictures chooses the neighbours, as the agent does. CPU time is of the whole process.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, cast

from checks.kube.client import Event, KubeApi, Object
from checks.kube.discovery import Discovery
from checks.model import Neighbourhood
from checks.targets.neighbours import choose

RATES = (10.0, 100.0)  # events a second


class Page:
    """A list of one page."""

    first = True
    resource_version = "1"

    def __init__(self, items: list[Object]) -> None:
        self.items = iter(items)


class ScriptedApi:
    """Lists Pods and no nodes, and passes on the events that are put."""

    def __init__(self, pods: list[Object]) -> None:
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._pods = pods
        self._closed = threading.Event()

    def list_pages(self, path: str, _params: Mapping[str, str]) -> Iterator[Page]:
        """Yield one page."""
        yield Page(self._pods if path.endswith("pods") else [])

    @contextlib.contextmanager
    def watch(self, path: str, _params: Mapping[str, str], _version: str) -> Iterator[Iterator[Event]]:
        """Open a watch that lasts until the end."""
        yield iter(self.events.get, None) if path.endswith("pods") else self._nothing()

    def _nothing(self) -> Iterator[Event]:
        self._closed.wait()
        yield from ()

    def close(self) -> None:
        """End the watches."""
        self._closed.set()
        self.events.put(None)


def make_pod(number: int, phase: str = "Running") -> Object:
    """Return a Pod as the client passes it on."""
    return {
        "metadata": {"name": f"kubenurse-{number:05}", "resourceVersion": "2"},
        "spec": {"nodeName": f"node-{number}"},
        "status": {"phase": phase, "podIP": f"10.1.{number // 250}.{number % 250 + 1}", "hostIP": "10.0.0.1"},
    }


def measure(pods: int, events: int, rate: float, *, choosing: bool) -> tuple[float, int]:
    """Return the CPU time of an event in milliseconds, and the number of pictures that were published."""
    api = ScriptedApi([make_pod(number) for number in range(pods)])
    pictures: list[int] = []

    def receive(picture: Neighbourhood) -> None:
        if choosing:
            choose(picture.neighbours, picture.own_node, 10)
        pictures.append(len(picture.neighbours))

    discovery = Discovery(
        cast("KubeApi", cast("Any", api)),
        namespace="kubenurse",
        label_selector="app=kubenurse",
        own_pod="kubenurse-00000",
        node_name="node-0",
        on_change=receive,
    )
    discovery.start()
    while not discovery.wait_synced(1.0):
        pass
    time.sleep(0.5)
    before, begun, published = time.process_time(), time.monotonic(), len(pictures)
    for number in range(events):
        phase = "Failed" if number % 2 == 0 else "Running"
        api.events.put(Event("MODIFIED", make_pod(1 + number // 2 % (pods - 1), phase)))
        time.sleep(max(0.0, begun + (number + 1) / rate - time.monotonic()))
    time.sleep(0.3)
    spent = time.process_time() - before
    discovery.stop()
    return 1000.0 * spent / events, len(pictures) - published


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", default="100,1000,5000")
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--choose", action="store_true", help="choose the neighbours from each picture")
    options = parser.parse_args()
    print("  Pods   events/s   CPU ms an event   share of a core   pictures")
    for pods in map(int, options.pods.split(",")):
        for rate in RATES:
            events = options.events if rate > 10 else options.events // 5
            cost, pictures = measure(pods, events, rate, choosing=options.choose)
            print(f"{pods:6}   {rate:8.0f}   {cost:15.2f}   {cost * rate / 1000:15.1%}   {pictures:8}")


if __name__ == "__main__":
    main()
