"""What an agent forgets of neighbours that left, and when: a whole agent on a clock that the test sets forward."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import pytest

from checks.config.load import load
from checks.report.metrics import DEPARTED_SECONDS
from kubenurse import Agent
from sandbox.objects import make_node, make_pod
from tests.support.kube import Kube
from tests.support.process import free_port
from tests.support.recorder import Recorder
from tests.support.waiting import until

ADDRESS = "127.0.0.1"
NEIGHBOURS = MappingProxyType({"go-1": ("node-1", "127.0.1.221"), "go-2": ("node-2", "127.0.1.222")})


class Clock:
    """Monotonic seconds, and as many more as the test says."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return time.monotonic() + self.ahead


class Watched:
    """An agent of this process that discovers its neighbours through an API server and checks them only if asked."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube
        self.clock = Clock()
        self.deaths: list[str] = []
        self.port = free_port()
        config = load(
            {
                "KUBERNETES_SERVICE_HOST": kube.server.address,
                "KUBERNETES_SERVICE_PORT": str(kube.server.port),
                "KUBENURSE_SERVICEACCOUNT_DIR": str(kube.account.path),
                "KUBENURSE_NEIGHBOUR_FILTER": "app=kubenurse",
                "KUBENURSE_CHECK_API_SERVER_DNS": "false",
                "KUBENURSE_LISTEN_ADDRESS": ADDRESS,
                "KUBENURSE_PORT": str(self.port),
                "KUBENURSE_POD_NAME": "kubenurse-0",
                "KUBENURSE_NODE_NAME": "node-0",
                # A neighbour is to be forgotten in time however long a round takes to come.
                "KUBENURSE_CHECK_INTERVAL": "24h",
                "KUBENURSE_CACHE_TTL": "0s",
            }
        )
        self.agent = Agent(
            config, kube.credentials(), self.clock, lambda name, error: self.deaths.append(f"{name}: {error}")
        )

    def series(self, kind: str) -> list[str]:
        """The lines of /metrics that concern one check."""
        _, body = self.agent.view.render_metrics("", "")
        return [line for line in body.decode().splitlines() if f'type="{kind}"' in line]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """An agent that has checked both of its neighbours once."""
    kube = Kube(tmp_path)
    for pod, (node, ip) in NEIGHBOURS.items():
        kube.server.put("pods", make_pod(pod, node, ip))
    with kube.server:
        found = Watched(kube)
        recorders = [Recorder(ip, found.port) for _, ip in NEIGHBOURS.values()]
        with closing(found.agent), recorders[0], recorders[1]:
            found.agent.start()
            until(lambda: len(found.agent.view.neighbourhood().neighbours) == len(NEIGHBOURS))
            report = found.agent.view.alive()
            assert report.ok, report
            assert found.series("path_node-1")
            assert found.series("path_node-2")
            yield found
    assert found.deaths == []


def leave(watched: Watched, how: str) -> None:
    """Let node-1's Pod be no neighbour any more, and wait until the agent knows and has told its metrics."""
    if how == "deleted":
        watched.kube.server.delete("pods", "go-1")
    elif how == "terminating":
        watched.kube.server.put("pods", make_pod("go-1", "node-1", "127.0.1.221", terminating=True))
    else:
        watched.kube.server.put("nodes", make_node("node-1", unschedulable=True))
    until(lambda: len(watched.agent.view.neighbourhood().neighbours) == len(NEIGHBOURS) - 1)
    # News are told one after the other, so whoever knows of this Pod is done with the one before.
    known = watched.agent.view.neighbourhood().known
    watched.kube.server.put("pods", make_pod("marker", "node-9", "", phase="Pending"))
    until(lambda: watched.agent.view.neighbourhood().known == known + 1)


@pytest.mark.parametrize("how", ["deleted", "terminating", "cordoned"])
def test_series_of_a_neighbour_that_left_end_within_a_minute(watched: Watched, how: str) -> None:
    """They stay for a while, so that a restarted Pod goes on with its counters, and then all of them are gone."""
    leave(watched, how)
    assert "path_node-1" not in watched.agent.view.latest().results
    watched.clock.ahead += DEPARTED_SECONDS / 2
    assert watched.series("path_node-1")
    watched.clock.ahead += DEPARTED_SECONDS / 2
    assert watched.series("path_node-1") == []
    assert watched.series("path_node-2")
    # From the moment the API server tells it: the rest of the minute is for the scrape.
    assert DEPARTED_SECONDS <= 50


def test_a_round_that_began_before_a_neighbour_left_does_not_bring_it_back(watched: Watched) -> None:
    """What a round took for its targets just before says nothing of who is a neighbour by the time it says so."""
    before = watched.agent._selection.now().targets
    leave(watched, "deleted")
    watched.agent._rounds._begin_round(before)
    watched.clock.ahead += DEPARTED_SECONDS
    assert watched.series("path_node-1") == []


def test_a_neighbour_that_comes_back_goes_on_with_its_series(watched: Watched) -> None:
    """One that is back in time keeps its counters, however much later that is looked at."""
    leave(watched, "deleted")
    watched.clock.ahead += DEPARTED_SECONDS / 2
    watched.kube.server.put("pods", make_pod("go-1", "node-1", "127.0.1.221"))
    until(lambda: len(watched.agent.view.neighbourhood().neighbours) == len(NEIGHBOURS))
    watched.clock.ahead += 10 * DEPARTED_SECONDS
    assert watched.agent.view.alive().ok
    count = 'kubenurse_request_duration_count{type="path_node-1"} 2.0'
    assert count in watched.series("path_node-1")


def test_discovery_age_is_told_by_the_same_clock(watched: Watched) -> None:
    """The age of what discovery knows grows with the clock while nothing is heard of the API server."""
    watched.kube.server.silence_watches()
    watched.clock.ahead += 1000
    _, body = watched.agent.view.render_metrics("", "")
    (line,) = [one for one in body.decode().splitlines() if one.startswith("kubenurse_discovery_age_seconds ")]
    assert 1000 <= float(line.split()[1]) < 1100
