"""Write kubenurse's Grafana dashboards: ``python -m tools.dashboards``.

Each panel has a title, a description and queries. The labels cluster, node and pod come from scraping, see
docs/metrics.md. No query needs the recording rules, so dashboards and rules can be used separately.
"""

from __future__ import annotations

import json
from pathlib import Path

from tools.grafana import (
    GOOD_SHARE,
    GREEN,
    RED,
    SHARE,
    YELLOW,
    Json,
    Panel,
    Query,
    Row,
    dashboard,
    heat,
    lines,
    matrix,
    query_variable,
    stat,
    steps,
    table,
    timeline,
    words,
)

DIRECTORY = Path(__file__).resolve().parent.parent / "dashboards"
CLUSTER = 'cluster=~"$cluster"'
MANY = f'{CLUSTER},node=~"$node"'
ONE = f'{CLUSTER},node="$node"'
PATHS = 'type=~"path_.+"'
BUILT_IN = "api_server_direct|api_server_dns|me_ingress|me_service|path_.+"
RATE = "[$__rate_interval]"
# Grafana's units.
PERCENT, COUNT = "percentunit", "short"

HISTOGRAM = "kubenurse_httpclient_request_duration_seconds"
TRACE = "kubenurse_httpclient_trace_request_duration_seconds"

NONE_IS_GOOD = steps((None, GREEN), (1, RED))
AGE = steps((None, GREEN), (120, YELLOW), (300, RED))
LEFT = steps((None, RED), (3 * 86400, YELLOW), (14 * 86400, GREEN))

# Each phase: its name, the event at its end, and the event at its beginning.
PHASES = (
    ("look up", "dns_done", "dns_start"),
    ("connect", "connect_done", "connect_start"),
    ("TLS", "tls_handshake_done", "tls_handshake_start"),
    ("send", "wrote_request", "got_conn"),
    ("wait", "got_first_resp_byte", "wrote_request"),
)
OPTIONAL_PHASES = {"look up", "TLS"}


def neighbour(expr: str) -> str:
    """Return ``expr`` with the label neighbour on each path series: the node that the path leads to."""
    return f'label_replace({expr}, "neighbour", "$1", "type", "path_(.+)")'


def kind(expr: str) -> str:
    """Return ``expr`` with the label check on each series: its type, or ``path`` for every path."""
    return f'label_replace(label_replace({expr}, "check", "$1", "type", "(.+)"), "check", "path", "type", "path_.+")'


def own(metric: str, labels: str) -> str:
    """Return a metric that every process or target has, narrowed to kubenurse's."""
    return f"{metric} and on (job, instance) kubenurse_build_info{{{labels}}}"


def mean_offset(labels: str, event: str) -> str:
    """Return a query for the mean seconds from the start of a request to an event."""
    wanted = f'{{{labels},event="{event}"}}{RATE}'
    return f"sum(rate({TRACE}_sum{wanted})) / sum(rate({TRACE}_count{wanted}))"


def phases(labels: str) -> Panel:
    """Return a panel with the mean seconds of each phase, stacked. A check without lookup or TLS has 0 there."""
    queries = []
    for name, end, begin in PHASES:
        took = f"{mean_offset(labels, end)} - {mean_offset(labels, begin)}"
        queries.append(Query(f"{took} or vector(0)" if name in OPTIONAL_PHASES else took, name))
    return lines("Phases", "Mean seconds that each phase of a request takes.", *queries, unit="s", stacked=True)


def heat_map(labels: str, width: int = 8) -> Panel:
    """Return a heat map of the latencies."""
    expr = f"sum by (le) (increase({HISTOGRAM}_bucket{{{labels}}}{RATE}))"
    return heat("Latency", "Number of answers by their latency. Checks without an answer are not counted.", expr, width)


def quantiles(labels: str) -> Panel:
    """Return a panel with quantiles of the latency."""
    buckets = f"sum by (le) (rate({HISTOGRAM}_bucket{{{labels}}}{RATE}))"
    queries = [Query(f"histogram_quantile({q}, {buckets})", f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]
    return lines("Quantiles", "Seconds to an answer, over all selected nodes.", *queries, unit="s")


def failures(labels: str, by: str, legend: str, width: int = 8) -> Panel:
    """Return a panel with failed checks a second."""
    expr = f"sum by ({by}) (rate(kubenurse_errors_total{{{labels}}}{RATE}))"
    return lines("Failures", "Failed checks a second, by the event of the failure.", Query(expr, legend), width=width)


def slowest(labels: str) -> Panel:
    """Return a panel with the nodes that have the highest means."""
    expr = f"""topk(10, sum by (node) (rate({HISTOGRAM}_sum{{{labels}}}{RATE}))
      / sum by (node) (rate({HISTOGRAM}_count{{{labels}}}{RATE})))"""
    return lines("Slowest nodes", "The ten nodes with the highest mean latency.", Query(expr, "{{node}}"), unit="s")


def least_successful(labels: str) -> Panel:
    """Return a panel with the nodes on which checks fail most."""
    expr = f"bottomk(10, avg by (node) (avg_over_time(kubenurse_check_success{{{labels}}}[5m])))"
    about = "Share of good checks in five minutes, for the ten worst nodes."
    return lines("Worst nodes", about, Query(expr, "{{node}}"), unit="percentunit")


def check_row(title: str, types: str) -> Row:
    """Return the panels of one kind of check."""
    labels = f"{MANY},{types}"
    return Row(
        title,
        (
            heat_map(labels),
            quantiles(labels),
            phases(labels),
            failures(labels, "event", "{{event}}"),
            slowest(labels),
            least_successful(labels),
        ),
    )


def health() -> Row:
    """Return a row with the state of the fleet in a few numbers."""
    success = f"kubenurse_check_success{{{MANY}}}"
    unreachable = f"count(avg by (cluster, type) (kubenurse_check_success{{{MANY},{PATHS}}}) < 0.5) or vector(0)"
    failing = f"count by (check) ({kind(f'{success} == 0')})"
    errors = f"sum by (event) (rate(kubenurse_errors_total{{{MANY}}}{RATE}))"
    return Row(
        "Fleet",
        (
            stat("Agents", "Number of agents that report.", f"count(kubenurse_build_info{{{MANY}}})"),
            stat("Checks ok", "Share of all checks that are good now.", f"avg({success})", PERCENT, GOOD_SHARE),
            stat("Failing checks", "Checks that fail.", f"count({success} == 0) or vector(0)", COUNT, NONE_IS_GOOD),
            stat("Unreachable nodes", "Nodes that most agents fail to reach now.", unreachable, COUNT, NONE_IS_GOOD),
            stat("Oldest list", "The longest time since the API server confirmed the neighbours of an agent.",
                 f"max(kubenurse_discovery_age_seconds{{{MANY}}})", "s", AGE),
            stat("First certificate to end", "Time until the first of all certificates ends.",
                 f"min(kubenurse_tls_not_after_timestamp_seconds{{{MANY}}}) - time()", "s", LEFT),
            lines("Failing checks by kind", "Number of failing checks; all paths count as path.",
                  Query(failing, "{{check}}"), width=12),
            lines("Failures by event", "Failed checks a second, by the event of the failure.",
                  Query(errors, "{{event}}"), width=12),
        ),
    )  # fmt: skip


def reachability() -> Row:
    """Return a row with the paths that fail."""
    share = f"avg_over_time(kubenurse_check_success{{{MANY},{PATHS}}}[5m])"
    good = f"avg by (cluster, node, type) (avg_over_time(kubenurse_check_success{{{MANY}}}[1h]))"
    unreached = f"topk(10, 1 - avg by (neighbour) ({neighbour(f'kubenurse_check_success{{{MANY},{PATHS}}}')}) > 0)"
    return Row(
        "Failing paths",
        (
            matrix("From (row) to (column)", "Share of good checks in five minutes. A red column is a node that no "
                   "agent can reach; a red row is a node that can reach no other. With many nodes, choose some above.",
                   f"avg by (node, neighbour) ({neighbour(share)})", "node", "neighbour"),
            table("Worst checks of the last hour", "Checks that failed at least once, the worst first.",
                  f"sort(bottomk(25, {good} < 1))", SHARE),
            lines("Hard to reach", "Share of the agents that fail to reach a node, for the ten worst nodes.",
                  Query(unreached, "{{neighbour}}"), unit="percentunit", width=12),
        ),
    )  # fmt: skip


def kernel() -> Row:
    """Return a row with the kernel's figures and the certificates."""
    again = f"rate(kubenurse_tcp_retransmits_total{{{MANY}}}{RATE})"
    asked = f"rate(kubenurse_httpclient_requests_total{{{MANY}}}{RATE})"
    mtu = f"kubenurse_tcp_path_mtu_bytes{{{MANY}}}"
    return Row(
        "Packets and certificates",
        (
            lines("Retransmissions", "Retransmitted TCP segments per check, for the ten worst nodes.",
                  Query(f"topk(10, sum by (node) ({again}) / sum by (node) ({asked}))", "{{node}}")),
            lines("Round trip", "The kernel's smoothed round-trip time of a check, for the ten slowest checks.",
                  Query(f"topk(10, kubenurse_tcp_rtt_seconds{{{MANY}}})", "{{node}} {{type}}"), unit="s"),
            lines("Path MTU", "The smallest path MTU of a check's connection, by kind.",
                  Query(f"min by (check) ({kind(mtu)})", "{{check}}"), unit="bytes"),
            table("Certificates", "Time until the certificate that a check gets ends, the shortest first.",
                  f"sort(min by (type) (kubenurse_tls_not_after_timestamp_seconds{{{MANY}}}) - time())",
                  {"unit": "s", "color": {"mode": "thresholds"}, "thresholds": LEFT}, width=24),
        ),
    )  # fmt: skip


def cost(labels: str) -> Row:
    """Return a row with the agents' own health and cost."""
    cpu = own(f"rate(process_cpu_seconds_total{RATE})", labels)
    asked = f"kubenurse_httpclient_requests_total{{{labels}}}"
    ages = f"kubenurse_discovery_age_seconds{{{labels}}}"
    reasons = f"kubenurse_discovery_errors_total{{{labels}}}"
    results = f"kubenurse_check_timestamp_seconds{{{labels}}}"
    return Row(
        "The agents themselves",
        (
            lines("Memory", "Resident memory of the ten largest agents.",
                  Query(f"topk(10, {own('process_resident_memory_bytes', labels)})", "{{pod}}"), unit="bytes"),
            lines("CPU", "Cores used by the ten busiest agents.", Query(f"topk(10, {cpu})", "{{pod}}")),
            lines("CPU per check", "Seconds of CPU for each check, everything included.",
                  Query(f"sum({cpu}) / sum(rate({asked}{RATE}))", "mean"), unit="s"),
            lines("Open files", "File descriptors of the ten agents with most.",
                  Query(f"topk(10, {own('process_open_fds', labels)})", "{{pod}}")),
            lines("Scrapes", "Seconds that Prometheus needs for an agent's metrics, the maximum.",
                  Query(f"max({own('scrape_duration_seconds', labels)})", "longest"), unit="s"),
            lines("Samples", "Samples of an agent, the maximum.",
                  Query(f"max({own('scrape_samples_scraped', labels)})", "most")),
            lines("Age of the neighbours", "Seconds since the API server confirmed the neighbours, the ten oldest.",
                  Query(f"topk(10, {ages})", "{{node}}"), unit="s"),
            lines("Discovery errors", "Failed discovery requests a second, by reason.",
                  Query(f"sum by (reason) (rate({reasons}{RATE}))", "{{reason}}")),
            lines("Age of results", "Seconds since a check's latest result, the ten oldest.",
                  Query(f"topk(10, timestamp({results}) - {results})", "{{node}} {{type}}"), unit="s"),
            lines("Dropped log lines", "Log lines a second that an agent dropped, because nothing read them.",
                  Query(f"sum by (node) (rate(kubenurse_log_dropped_total{{{labels}}}{RATE}))", "{{node}}")),
            lines("Versions", "Agents by version.",
                  Query(f"count by (version, python) (kubenurse_build_info{{{labels}}})", "{{version}} on {{python}}")),
        ),
    )  # fmt: skip


def overview() -> Json:
    """Return the dashboard of the whole fleet."""
    return dashboard(
        "kubenurse-overview",
        "kubenurse / Overview",
        "Which connections of the cluster work, how long they take, and what fails where.",
        (
            query_variable("cluster", "Cluster", "kubenurse_build_info", many=True),
            query_variable("node", "Node", f"kubenurse_build_info{{{CLUSTER}}}", many=True),
        ),
        (
            health(),
            reachability(),
            check_row("API server, by address", 'type="api_server_direct"'),
            check_row("API server, by name", 'type="api_server_dns"'),
            check_row("Ingress", 'type="me_ingress"'),
            check_row("Service", 'type="me_service"'),
            check_row("Neighbours", PATHS),
            check_row("Extra checks", f'type!~"{BUILT_IN}"'),
            kernel(),
            cost(MANY),
        ),
    )


def node_now() -> Row:
    """Return a row with the state of one node in a few numbers."""
    success = f"kubenurse_check_success{{{ONE}}}"
    reached = f'avg(kubenurse_check_success{{{CLUSTER},type="path_$node"}})'
    return Row(
        "Now",
        (
            stat("Checks ok", "Share of this node's checks that are good now.", f"avg({success})", PERCENT, GOOD_SHARE),
            stat("Failing checks", "Checks that fail from this node now.",
                 f"count({success} == 0) or vector(0)", COUNT, NONE_IS_GOOD),
            stat("Reached by", "Share of the agents checking this node that reach it.", reached, PERCENT, GOOD_SHARE),
            stat("Incoming checks", "Neighbours that checked this node in the last minute.",
                 f"sum(kubenurse_neighbourhood_incoming_checks{{{ONE}}})"),
            stat("Age of the neighbours", "Time since the API server confirmed the neighbours of this agent.",
                 f"max(kubenurse_discovery_age_seconds{{{ONE}}})", "s", AGE),
            words("Agent", "The Pod and its version.", f"kubenurse_build_info{{{ONE}}}", "{{pod}} {{version}}"),
        ),
    )  # fmt: skip


def node_directions() -> tuple[Row, Row]:
    """Return the rows with the checks from a node and the checks of that node."""
    towards = f'{CLUSTER},type="path_$node"'
    answers = f"rate({HISTOGRAM}_bucket{{%s}}{RATE})"
    return (
        Row(
            "From this node",
            (
                timeline("Checks", "Each check of this node.", f"kubenurse_check_success{{{ONE}}}", "{{type}}"),
                lines("95% within", "Seconds within which 95% of the answers came.",
                      Query(f"histogram_quantile(0.95, sum by (le, type) ({answers % ONE}))", "{{type}}"),
                      unit="s", width=12),
                failures(ONE, "type, event", "{{type}} {{event}}", width=12),
            ),
        ),
        Row(
            "To this node",
            (
                timeline("Reached from", "The check of this node by each agent that makes it.",
                         f"kubenurse_check_success{{{towards}}}", "{{node}}"),
                lines("95% within", "Seconds within which 95% of the answers came.",
                      Query(f"histogram_quantile(0.95, sum by (le, node) ({answers % towards}))", "{{node}}"),
                      unit="s", width=12),
                failures(towards, "node, event", "{{node}} {{event}}", width=12),
            ),
        ),
    )  # fmt: skip


def node_kernel() -> Row:
    """Return a row with the kernel's figures, certificates and neighbours of one node."""
    neighbours = f"kubenurse_neighbours{{{ONE}}}"
    return Row(
        "Packets, certificates, neighbours",
        (
            lines("Round trip", "The kernel's smoothed round-trip time on each check's connection.",
                  Query(f"kubenurse_tcp_rtt_seconds{{{ONE}}}", "{{type}}"), unit="s"),
            lines("Retransmissions", "Retransmitted TCP segments a second.",
                  Query(f"sum by (type) (rate(kubenurse_tcp_retransmits_total{{{ONE}}}{RATE}))", "{{type}}")),
            lines("Path MTU", "The path MTU that the kernel knows for each path.",
                  Query(f"kubenurse_tcp_path_mtu_bytes{{{ONE}}}", "{{type}}"), unit="bytes"),
            table("Certificates", "Time until the certificate that each check gets ends.",
                  f"sort(min by (type) (kubenurse_tls_not_after_timestamp_seconds{{{ONE}}}) - time())",
                  {"unit": "s", "color": {"mode": "thresholds"}, "thresholds": LEFT}),
            lines("Neighbours", "Pods known, checked, and left out on cordoned nodes.",
                  Query(f"sum by (state) ({neighbours})", "{{state}}"), width=12),
        ),
    )  # fmt: skip


def node_detail() -> Json:
    """Return the dashboard of one node."""
    chosen = f'{ONE},type=~"$type"'
    return dashboard(
        "kubenurse-node",
        "kubenurse / Node",
        "The checks from one node, and the checks of that node by others.",
        (
            query_variable("cluster", "Cluster", "kubenurse_build_info", many=True),
            query_variable("node", "Node", f"kubenurse_build_info{{{CLUSTER}}}", many=False),
            query_variable("type", "Check", f"kubenurse_check_success{{{ONE}}}", many=True),
        ),
        (
            node_now(),
            *node_directions(),
            Row("Latency of the chosen checks", (heat_map(chosen), quantiles(chosen), phases(chosen))),
            node_kernel(),
            cost(ONE),
        ),
    )


def files() -> dict[Path, str]:
    """Return the text of each dashboard by its file."""
    made = {"kubenurse-overview.json": overview(), "kubenurse-node.json": node_detail()}
    return {DIRECTORY / name: json.dumps(content, indent=2) + "\n" for name, content in made.items()}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
        print(path)
