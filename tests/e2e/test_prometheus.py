"""A real Prometheus scrapes the agents in both formats, and every shipped query finds data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.cluster import AGENTS, Cluster
from tests.e2e.faults_network import rules as firewall
from tests.e2e.network import INTERFACE, PODS_V4
from tests.e2e.nodes import PORT
from tests.e2e.prometheus import OPENMETRICS, TEXT, Scraper, scraping
from tests.shipping.test_dashboards import DASHBOARDS, V1_15, asked_by_rules, queries, recorded
from tests.shipping.test_metrics_page import examples
from tests.support.waiting import until

ACCEPT_OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
# The dashboard that shows one node at a time.
ONE_NODE = "kubenurse-node"
TROUBLED = "node-1"
# Seconds. A new Prometheus finds its targets within 5 s, scrapes each second, and shares the machine.
SCRAPED_WITHIN = 30.0


@pytest.fixture(scope="module")
def scraper(cluster: Cluster) -> Iterator[Scraper]:
    """Prometheus, started while the cluster is calm."""
    cluster.wait_calm()
    with scraping(cluster) as scraper:
        yield scraper


def test_promtool_has_no_complaint(cluster: Cluster) -> None:
    """The metrics of each agent are clean to promtool check metrics."""
    for node in cluster.nodes:
        assert cluster.prometheus_member.namespace.run("promtool", "check", "metrics", stdin=node.metrics()) == ""


def test_both_formats_are_scraped_from_all_agents(cluster: Cluster, scraper: Scraper) -> None:
    """Each agent is up in both formats, with the same series, and Prometheus accepts all samples."""
    status, body = cluster.nodes[0].ask("/metrics", ACCEPT_OPENMETRICS)
    assert status == 200
    assert body.endswith(b"# EOF\n")
    assert not cluster.nodes[0].metrics().endswith("# EOF\n")
    for name in (TEXT, OPENMETRICS):
        until(lambda name=name: len(scraper.query(f'up{{cluster="{name}"}} == 1')) == AGENTS, SCRAPED_WITHIN)  # type: ignore[misc]
    same = f'count by (__name__, node, type, event, le) ({{cluster="{TEXT}",__name__=~"kubenurse_.+_(bucket|total)"}})'
    other = same.replace(TEXT, OPENMETRICS)
    until(lambda: bool(scraper.query(same)) and not scraper.query(f"{same} unless {other}"), SCRAPED_WITHIN)
    assert not scraper.query(f"{other} unless {same}")
    log = scraper.process.tail()
    assert "ingesting" not in log, log
    assert "append" not in log.lower(), log


def test_every_shipped_query_returns_data(cluster: Cluster, scraper: Scraper) -> None:
    """While names are unknown, a Pod rejects connections and tokens are refused, every shipped query returns data."""
    wanted = [
        (expr, cluster_name, node)
        for cluster_name in (TEXT, OPENMETRICS)
        for expr, node in (
            *(
                (expr, TROUBLED if name == ONE_NODE else ".*")
                for name in DASHBOARDS
                for _, expr in queries(DASHBOARDS[name])
            ),
            *((expr, ".*") for expr in (*V1_15, *examples(), *recorded(), *asked_by_rules())),
        )
    ]
    assert wanted
    missing = wanted

    def look() -> bool:
        nonlocal missing
        missing = [each for each in missing if not scraper.finds(*each)]
        return not missing

    with ExitStack() as stack:
        stack.callback(cluster.wait_calm, 60)
        # The other agents' Pods are rejected, Prometheus is not.
        line = f"INPUT -i {INTERFACE} -s {PODS_V4}.0.0/16 -p tcp --dport {PORT} -j REJECT"
        stack.enter_context(firewall(cluster.by_name[TROUBLED].member, line, versions=(4,)))
        stack.callback(cluster.dns.publish)
        cluster.dns.publish({})
        stack.callback(cluster.api.faults.clear)
        cluster.api.faults.answer("*", 403)
        cluster.api.drop_watches()
        try:
            until(look, 60, every=0.5)
        except AssertionError:
            pytest.fail("no data for:\n" + "\n".join(f"{name} {expr}" for expr, name, _ in missing))


def test_every_shipped_rule_is_evaluated(scraper: Scraper) -> None:
    """Prometheus evaluates all rules without an error."""
    until(lambda: all(rule["health"] == "ok" for rule in scraper.rules()), 20)
    assert scraper.rules()
