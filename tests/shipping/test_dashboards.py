"""Dashboards and rules on a real Prometheus that scrapes a sandbox in trouble: every query returns data."""

from __future__ import annotations

import datetime
import itertools
import json
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from sandbox.agent import Agent
from sandbox.cluster import Cluster
from sandbox.ingress import Fault
from sandbox.service import Address, Service
from tests.shipping.test_metrics_page import examples
from tests.shipping.test_rules import RULES, rules
from tests.support.prometheus import Prometheus, needs_prometheus, scraping
from tests.support.waiting import until
from tools import dashboards
from tools.grafana import SCHEMA_VERSION, WIDTH

CLUSTER = "sandbox"
# Long enough for two samples a second apart, short enough to be a rate of now.
RATE_INTERVAL = "20s"
DASHBOARDS = {path.stem: json.loads(text) for path, text in dashboards.files().items()}
TYPES = {"stat", "timeseries", "heatmap", "table", "state-timeline"}

# The queries of the v1.15 dashboard, with its variable $request_type.
V1_15 = (
    'sum(rate(kubenurse_httpclient_request_duration_seconds_bucket{type=~"$request_type.*"}[5m])) by (le)',
    'irate(kubenurse_errors_total{type=~"$request_type.*"}[5m])',
    "histogram_quantile(0.95, sum(rate(kubenurse_httpclient_request_duration_seconds_bucket"
    '{type=~"$request_type.*"}[5m])) by (le, pod))',
    "histogram_quantile(0.95, sum(rate(kubenurse_httpclient_trace_request_duration_seconds_bucket"
    '{type=~"$request_type.*"}[5m])) by (le, event))',
    "histogram_quantile(0.95, sum(rate(kubenurse_httpclient_trace_request_duration_seconds_bucket"
    '{type=~"$request_type.*",event="dns_done"}[5m])) by (le)) - '
    "histogram_quantile(0.95, sum(rate(kubenurse_httpclient_trace_request_duration_seconds_bucket"
    '{type=~"$request_type.*",event="dns_start"}[5m])) by (le))',
    "sum(kubenurse_httpclient_requests_total) by (pod)",
    "process_resident_memory_bytes",
    "process_open_fds",
)
# The faults of the sandbox below raise these alerts at once. The others need minutes, or lost packets.
ALERTS_AT_ONCE = {
    "KubenurseNodeUnreachable",
    "KubenurseCheckFailing",
    "KubenurseIngressDown",
    "KubenurseDnsFailing",
    "KubenurseCertificateExpiring",
    "KubenurseDiscoveryStale",
}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all panels except the headings of rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each query with its panel."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    """Tell whether two places on a dashboard overlap."""
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_files_are_what_the_tool_makes() -> None:
    """The JSON files are those that python -m tools.dashboards writes, and no others."""
    made = dashboards.files()
    assert {path.name: path.read_text(encoding="utf-8") for path in made} == {p.name: text for p, text in made.items()}
    assert sorted(dashboards.DIRECTORY.glob("*.json")) == sorted(made)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_structure_is_grafanas(name: str) -> None:
    """Panels have unique numbers, do not overlap, stay inside the grid, and use the chosen data source."""
    dashboard = DASHBOARDS[name]
    assert (dashboard["uid"], dashboard["id"], dashboard["schemaVersion"]) == (name, None, SCHEMA_VERSION)
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= WIDTH for place in places)
    assert not [pair for pair in itertools.combinations(places, 2) if overlap(*pair)]
    for panel in panels(dashboard):
        assert panel["type"] in TYPES
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"].keys() == {"defaults", "overrides"}
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == list("ABCDEFGH"[: len(letters)])
        assert letters
        assert all(target["instant"] is not target["range"] for target in panel["targets"])


def lost(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Yield the paths whose values in one JSON value are missing or different in the other."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from lost(value, theirs.get(key), f"{path}/{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(one, other, f"{path}/{number}")
    elif ours != theirs:
        yield path


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafana_knows_every_field(name: str) -> None:
    """Grafana's own schema reads and writes a dashboard without loss, so no field is misspelt or misplaced."""
    register_default_plugins()
    theirs = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARDS[name])))
    # Grafana's variable editor writes this field beside the query; the schema omits it.
    assert [path for path in lost(DASHBOARDS[name], theirs) if not path.endswith("/definition")] == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_variables_are_there_and_used(name: str) -> None:
    """Data source, cluster and node are variables, and every variable that a query uses exists."""
    dashboard = DASHBOARDS[name]
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert {"datasource", "cluster", "node"} <= variables.keys()
    assert variables["datasource"]["type"] == "datasource"
    texts = [expr for _, expr in queries(dashboard)] + [
        v["definition"] for v in variables.values() if "definition" in v
    ]
    used = {found for text in texts for found in re.findall(r"\$([a-z]\w*)", text)}
    assert used == variables.keys() - {"datasource"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_queries_are_of_the_chosen_cluster(name: str) -> None:
    """Every query narrows every metric of ours to the chosen cluster."""
    for title, expr in queries(DASHBOARDS[name]):
        for labels in re.findall(r"kubenurse_\w+(\{[^}]*\})?", expr):
            assert 'cluster=~"$cluster"' in labels, f"{title}: {expr}"


# With so many unknown names beside four known ones, the lower quartile of failing lookups is high.
UNKNOWN_NAMES = 12


@dataclass(frozen=True, slots=True)
class Scraped:
    """A scraped cluster with faults, and its nodes by their fault."""

    prometheus: Prometheus
    healthy: str
    blind: str
    dead: str

    def finds(self, expr: str, nodes: Sequence[str]) -> bool:
        """Tell whether a query returns data for one of the nodes."""
        return any(self.prometheus.query(self.fill_in(expr, node)) for node in nodes)

    def fill_in(self, expr: str, node: str) -> str:
        """Replace the dashboards' variables, as Grafana does."""
        values = {"__rate_interval": RATE_INTERVAL, "cluster": CLUSTER, "node": node, "type": ".*", "request_type": ""}
        return re.sub(r"\$([a-z_]\w*)", lambda match: values[match[1]], expr)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """Run five agents with faults.

    One agent is killed, one gets a bad token, and none may read nodes. The Service resets every second connection. The
    ingress fails and has a certificate that ends soon. Most names are unknown.
    """
    with ExitStack() as stack:
        backends: list[Address] = []
        # The sandbox's own Service has an address only; this one has a name to look up.
        front = stack.enter_context(Service(lambda: backends, "127.0.0.1"))
        named = f"http://localhost:{front.port}"
        unknown = "|".join(f"unknown-{number}:http://unknown-{number}.invalid/" for number in range(UNKNOWN_NAMES))
        environ = {
            "KUBENURSE_CHECK_INTERVAL": "500ms",
            "KUBENURSE_SERVICE_URL": named,
            "KUBENURSE_EXTRA_CHECKS": f"front:{named}/alwayshappy|{unknown}",
        }
        cluster = stack.enter_context(Cluster(5, environ=environ))
        backends.append((cluster.service.address, cluster.service.port))
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)
        cluster.ingress.show(cluster.authority.issue("ending", "localhost", not_after=soon))
        directory = tmp_path_factory.mktemp("prometheus")
        targets = [("{}:{}".format(*agent.address), labels_of(agent)) for agent in cluster.agents]
        prometheus = stack.enter_context(scraping(directory, targets, RULES))
        *_, blind, dead = cluster.agents
        # Wait for one result of each check while it works: the built-in ones, the Service again, the unknown names and
        # the four neighbours.
        until(lambda: len(prometheus.query("kubenurse_check_success")) >= 5 * (4 + 1 + UNKNOWN_NAMES + 4), 30)
        blind.account.rotate(token="no longer good")
        blind.restart()
        dead.kill()
        cluster.api.faults.answer("/api/v1/nodes", 403)
        cluster.api.drop_watches()
        with socket.create_server(("127.0.0.1", 0)) as closed:
            backends.append(closed.getsockname())
        cluster.ingress.fault = Fault.BAD_GATEWAY
        yield Scraped(prometheus, healthy=cluster.agents[0].node, blind=blind.node, dead=dead.node)


def labels_of(agent: Agent) -> dict[str, str]:
    """Return the labels that scraping adds to an agent's series in a cluster."""
    return {"cluster": CLUSTER, "namespace": "kubenurse", "node": agent.node, "pod": agent.pod}


@needs_prometheus
def test_every_query_returns_data(scraped: Scraped) -> None:
    """Every query of the dashboards, of v1.15's dashboard, of docs/metrics.md and of the rules returns data."""
    one_node = (scraped.healthy, scraped.blind, scraped.dead)
    wanted = [
        (expr, one_node if name == "kubenurse-node" else (".*",))
        for name in DASHBOARDS
        for _, expr in queries(DASHBOARDS[name])
    ]
    wanted += [(expr, (".*",)) for expr in (*V1_15, *examples(), *recorded(), *asked_by_rules())]
    missing = wanted

    def look() -> bool:
        nonlocal missing
        missing = [(expr, nodes) for expr, nodes in missing if not scraped.finds(expr, nodes)]
        return not missing

    try:
        until(look, 45, every=0.5)
    except AssertionError:
        pytest.fail("no data for:\n" + "\n".join(expr for expr, _ in missing))


def recorded() -> set[str]:
    """Return the names of all recorded series."""
    return {rule["record"] for rule in rules() if "record" in rule}


def asked_by_rules() -> set[str]:
    """Return each metric in a rule, with its label matchers."""
    return {found for rule in rules() for found in re.findall(r"(?:\w+:)?kubenurse_[\w:]+(?:\{[^}]*\})?", rule["expr"])}


@needs_prometheus
def test_matrix_and_phases_are_right(scraped: Scraped) -> None:
    """The matrix shows a dead node's column as bad and another as good; the phases add up to a whole check."""
    rows = {panel["title"]: panel["targets"] for panel in panels(DASHBOARDS["kubenurse-overview"])}
    matrix = rows["From (row) to (column)"][0]["expr"]

    def good(neighbour: str) -> float:
        found = scraped.prometheus.query(scraped.fill_in(matrix, scraped.healthy))
        return min(float(each["value"][1]) for each in found if each["metric"]["neighbour"] == neighbour)

    until(lambda: good(scraped.dead) < 0.5 < good("node-2"), 45, every=0.5)
    asked = 'cluster=~"$cluster",node=~"$node",type="api_server_dns"'
    phases = " + ".join(f"({query.target('A')['expr']})" for query in dashboards.phases(asked).queries)
    name = "kubenurse_httpclient_request_duration_seconds"
    whole = f"sum(rate({name}_sum{{{asked}}}[$__rate_interval])) / sum(rate({name}_count{{{asked}}}[$__rate_interval]))"
    share = scraped.prometheus.query(scraped.fill_in(f"({phases}) / ({whole})", scraped.healthy))
    # The rest is the time between phases.
    assert 0.5 < float(share[0]["value"][1]) < 1.01


@needs_prometheus
@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_variable_has_values(scraped: Scraped, name: str) -> None:
    """Each variable offers the clusters, nodes and checks that exist."""
    found = {}
    for variable in DASHBOARDS[name]["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert asked
            selector = scraped.fill_in(asked[1], scraped.healthy)
            found[variable["name"]] = scraped.prometheus.label_values(asked[2], selector)
    assert found.pop("cluster") == [CLUSTER]
    assert found.pop("node") == [f"node-{number}" for number in range(1, 6)]
    assert all({"me_ingress", "me_service", "path_node-2"} <= set(values) for values in found.values())


@needs_prometheus
def test_rules_are_evaluated_without_errors_and_notice_what_is_wrong(scraped: Scraped) -> None:
    """Prometheus evaluates all rules, and each alert with a cause in the sandbox is pending or firing."""

    def noticed() -> set[str]:
        return {rule["name"] for rule in scraped.prometheus.rules() if rule["type"] == "alerting" and rule["alerts"]}

    until(lambda: noticed() >= ALERTS_AT_ONCE, 45, every=0.5)
    assert "KubenurseAbsent" not in noticed()
    assert not {rule["name"]: rule["lastError"] for rule in scraped.prometheus.rules() if rule["health"] == "err"}
