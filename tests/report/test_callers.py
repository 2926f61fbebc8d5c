"""The neighbours that called: distinct Pod names of the last minute."""

from __future__ import annotations

import pytest

from checks.report.callers import MAX_CALLERS
from checks.report.metrics import Metrics
from tests.report.scraping import Agent, samples, value


def test_incoming_checks_are_distinct_neighbours_of_a_minute(agent: Agent, metrics: Metrics) -> None:
    """A neighbour counts once however often it calls, and until a minute after its last call."""
    name = "kubenurse_neighbourhood_incoming_checks"
    assert value(metrics, name) == 0
    for pod in ("kubenurse-a", "kubenurse-b", "kubenurse-a"):
        metrics.neighbour_called(pod)
    assert value(metrics, name) == 2
    agent.now += 40
    metrics.neighbour_called("kubenurse-a")
    agent.now += 30
    assert value(metrics, name) == 1
    agent.now += 31
    assert value(metrics, name) == 0


@pytest.mark.parametrize(
    "origin",
    ["", "UPPER", "a b", "-a", "a-", "a..b", ".a", "a.", "a\n", "a\x00", "ä", 'x"} 1', "a" * 254, "a" * 10_000, "a_b"],
)
def test_what_is_no_pod_name_is_no_neighbour(metrics: Metrics, origin: str) -> None:
    """A header that cannot be a Pod's name is ignored."""
    metrics.neighbour_called(origin)
    assert value(metrics, "kubenurse_neighbourhood_incoming_checks") == 0


@pytest.mark.parametrize("origin", ["a", "0", "kubenurse-x7k2p", "a.b-c.d", "a" * 253])
def test_pod_names_are_neighbours(metrics: Metrics, origin: str) -> None:
    """Every DNS-1123 subdomain is a possible Pod name."""
    metrics.neighbour_called(origin)
    assert value(metrics, "kubenurse_neighbourhood_incoming_checks") == 1


def test_made_up_neighbours_are_bounded(agent: Agent, metrics: Metrics) -> None:
    """A client that makes up names fills the count to its limit, adds no series, and is gone a minute later."""
    series = len(samples(metrics))
    for number in range(MAX_CALLERS + 1000):
        metrics.neighbour_called(f"made-up-{number}")
    assert value(metrics, "kubenurse_neighbourhood_incoming_checks") == MAX_CALLERS
    assert len(samples(metrics)) == series
    agent.now += 60
    metrics.neighbour_called("real")
    assert value(metrics, "kubenurse_neighbourhood_incoming_checks") == 1
