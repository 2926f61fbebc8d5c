"""Write kubenurse's Grafana dashboards: ``python -m tools.dashboards``.

Each panel is a line or two here: title, what it tells, query. The labels cluster, node and pod come from scraping, see
docs/metrics.md. No query needs the recording rules, so that dashboards and rules can be used apart.
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

# The phase's name, the event it ends with, and the one it begins with.
PHASES = (
    ("look up", "dns_done", "dns_start"),
    ("connect", "connect_done", "connect_start"),
    ("TLS", "tls_handshake_done", "tls_handshake_start"),
    ("send", "wrote_request", "got_conn"),
    ("wait", "got_first_resp_byte", "wrote_request"),
)
OPTIONAL_PHASES = {"look up", "TLS"}


def neighbour(expr: str) -> str:
    """Give each path series the label of the node it leads to."""
    return f'label_replace({expr}, "neighbour", "$1", "type", "path_(.+)")'


def kind(expr: str) -> str:
    """Give each series the label check: its type, and ``path`` for all paths together."""
    return f'label_replace(label_replace({expr}, "check", "$1", "type", "(.+)"), "check", "path", "type", "path_.+")'


def own(metric: str, labels: str) -> str:
    """Return a metric that every process or target has, of kubenurse's only."""
    return f"{metric} and on (job, instance) kubenurse_build_info{{{labels}}}"


def mean_offset(labels: str, event: str) -> str:
    """Return the mean seconds from the start of a request to an event."""
    wanted = f'{{{labels},event="{event}"}}{RATE}'
    return f"sum(rate({TRACE}_sum{wanted})) / sum(rate({TRACE}_count{wanted}))"


def phases(labels: str) -> Panel:
    """Mean seconds of each phase, stacked. Checks without a name to look up or without TLS have 0 there."""
    queries = []
    for name, end, begin in PHASES:
        took = f"{mean_offset(labels, end)} - {mean_offset(labels, begin)}"
        queries.append(Query(f"{took} or vector(0)" if name in OPTIONAL_PHASES else took, name))
    return lines("Phases", "Mean seconds that each phase of a request takes.", *queries, unit="s", stacked=True)


def heat_map(labels: str, width: int = 8) -> Panel:
    """How many answers took how long."""
    expr = f"sum by (le) (increase({HISTOGRAM}_bucket{{{labels}}}{RATE}))"
    return heat("Latency", "How many answers took how long. Checks without an answer are not in it.", expr, width)


def quantiles(labels: str) -> Panel:
    """Quantiles of the latency."""
    buckets = f"sum by (le) (rate({HISTOGRAM}_bucket{{{labels}}}{RATE}))"
    queries = [Query(f"histogram_quantile({q}, {buckets})", f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)]
    return lines("Quantiles", "Seconds to an answer, over all selected nodes.", *queries, unit="s")


def failures(labels: str, by: str, legend: str, width: int = 8) -> Panel:
    """Failed checks a second."""
    expr = f"sum by ({by}) (rate(kubenurse_errors_total{{{labels}}}{RATE}))"
    return lines("Failures", "Failed checks a second, by what they failed at.", Query(expr, legend), width=width)


def slowest(labels: str) -> Panel:
    """The nodes with the highest means."""
    expr = f"""topk(10, sum by (node) (rate({HISTOGRAM}_sum{{{labels}}}{RATE}))
      / sum by (node) (rate({HISTOGRAM}_count{{{labels}}}{RATE})))"""
    return lines("Slowest nodes", "The ten nodes with the longest mean.", Query(expr, "{{node}}"), unit="s")


def least_successful(labels: str) -> Panel:
    """The nodes on which checks fail most."""
    expr = f"bottomk(10, avg by (node) (avg_over_time(kubenurse_check_success{{{labels}}}[5m])))"
    about = "The share of good checks in five minutes, of the ten worst nodes."
    return lines("Worst nodes", about, Query(expr, "{{node}}"), unit="percentunit")


def check_row(title: str, types: str) -> Row:
    """All about one kind of check."""
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
    """The state of the fleet in a few numbers."""
    success = f"kubenurse_check_success{{{MANY}}}"
    unreachable = f"count(avg by (cluster, type) (kubenurse_check_success{{{MANY},{PATHS}}}) < 0.5) or vector(0)"
    failing = f"count by (check) ({kind(f'{success} == 0')})"
    errors = f"sum by (event) (rate(kubenurse_errors_total{{{MANY}}}{RATE}))"
    return Row(
        "Fleet",
        (
            stat("Agents", "Agents that report.", f"count(kubenurse_build_info{{{MANY}}})"),
            stat("Checks ok", "Share of all checks that are good now.", f"avg({success})", PERCENT, GOOD_SHARE),
            stat("Failing checks", "Checks that fail now.", f"count({success} == 0) or vector(0)", COUNT, NONE_IS_GOOD),
            stat("Unreachable nodes", "Nodes that most agents fail to reach now.", unreachable, COUNT, NONE_IS_GOOD),
            stat("Oldest picture", "The longest time since the API server told an agent its neighbours.",
                 f"max(kubenurse_discovery_age_seconds{{{MANY}}})", "s", AGE),
            stat("First certificate to end", "Time left for the first to end of all certificates shown.",
                 f"min(kubenurse_tls_not_after_timestamp_seconds{{{MANY}}}) - time()", "s", LEFT),
            lines("Failing checks by kind", "How many checks fail; all paths count as path.",
                  Query(failing, "{{check}}"), width=12),
            lines("Failures by event", "Failed checks a second, by what they failed at.",
                  Query(errors, "{{event}}"), width=12),
        ),
    )  # fmt: skip


def reachability() -> Row:
    """Who fails to reach whom."""
    share = f"avg_over_time(kubenurse_check_success{{{MANY},{PATHS}}}[5m])"
    good = f"avg by (cluster, node, type) (avg_over_time(kubenurse_check_success{{{MANY}}}[1h]))"
    unreached = f"topk(10, 1 - avg by (neighbour) ({neighbour(f'kubenurse_check_success{{{MANY},{PATHS}}}')}) > 0)"
    return Row(
        "Who fails to reach whom",
        (
            matrix("From (row) to (column)", "Share of good checks in five minutes. A red column is a node that nobody "
                   "reaches, a red row one that reaches nobody. Choose some nodes above when there are many.",
                   f"avg by (node, neighbour) ({neighbour(share)})", "node", "neighbour"),
            table("Worst checks of the last hour", "Checks that failed at least once, the worst first.",
                  f"sort(bottomk(25, {good} < 1))", SHARE),
            lines("Hard to reach", "Share of the agents that fail to reach a node, of the ten worst.",
                  Query(unreached, "{{neighbour}}"), unit="percentunit", width=12),
        ),
    )  # fmt: skip


def kernel() -> Row:
    """What the kernel and TLS tell."""
    again = f"rate(kubenurse_tcp_retransmits_total{{{MANY}}}{RATE})"
    asked = f"rate(kubenurse_httpclient_requests_total{{{MANY}}}{RATE})"
    mtu = f"kubenurse_tcp_path_mtu_bytes{{{MANY}}}"
    return Row(
        "Packets and certificates",
        (
            lines("Segments sent again", "TCP segments sent again per check, of the ten worst nodes.",
                  Query(f"topk(10, sum by (node) ({again}) / sum by (node) ({asked}))", "{{node}}")),
            lines("Round trip", "The kernel's smoothed round-trip time on a check's connection, of the ten longest.",
                  Query(f"topk(10, kubenurse_tcp_rtt_seconds{{{MANY}}})", "{{node}} {{type}}"), unit="s"),
            lines("Path MTU", "The smallest path MTU that a check's connection had, by kind.",
                  Query(f"min by (check) ({kind(mtu)})", "{{check}}"), unit="bytes"),
            table("Certificates", "Time left for the certificate that a check is shown, the shortest first.",
                  f"sort(min by (type) (kubenurse_tls_not_after_timestamp_seconds{{{MANY}}}) - time())",
                  {"unit": "s", "color": {"mode": "thresholds"}, "thresholds": LEFT}, width=24),
        ),
    )  # fmt: skip


def cost(labels: str) -> Row:
    """What the agents themselves use."""
    cpu = own(f"rate(process_cpu_seconds_total{RATE})", labels)
    asked = f"kubenurse_httpclient_requests_total{{{labels}}}"
    ages = f"kubenurse_discovery_age_seconds{{{labels}}}"
    reasons = f"kubenurse_discovery_errors_total{{{labels}}}"
    return Row(
        "The agents' own cost",
        (
            lines("Memory", "Resident memory of the ten largest.",
                  Query(f"topk(10, {own('process_resident_memory_bytes', labels)})", "{{pod}}"), unit="bytes"),
            lines("CPU", "Cores used by the ten busiest.", Query(f"topk(10, {cpu})", "{{pod}}")),
            lines("CPU per check", "Seconds of CPU for each check, everything included.",
                  Query(f"sum({cpu}) / sum(rate({asked}{RATE}))", "mean"), unit="s"),
            lines("Open files", "File descriptors of the ten with most.",
                  Query(f"topk(10, {own('process_open_fds', labels)})", "{{pod}}")),
            lines("Scrapes", "Seconds that Prometheus needs for an agent's metrics, the longest.",
                  Query(f"max({own('scrape_duration_seconds', labels)})", "longest"), unit="s"),
            lines("Samples", "Samples that an agent has, the most.",
                  Query(f"max({own('scrape_samples_scraped', labels)})", "most")),
            lines("Age of the neighbours' picture", "Seconds since the API server confirmed it, of the ten oldest.",
                  Query(f"topk(10, {ages})", "{{node}}"), unit="s"),
            lines("Discovery errors", "Failed requests for the neighbours a second, by reason.",
                  Query(f"sum by (reason) (rate({reasons}{RATE}))", "{{reason}}")),
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
    """The state of one node in a few numbers."""
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
            stat("Picture's age", "Time since the API server told the agent its neighbours.",
                 f"max(kubenurse_discovery_age_seconds{{{ONE}}})", "s", AGE),
            words("Agent", "The Pod and its version.", f"kubenurse_build_info{{{ONE}}}", "{{pod}} {{version}}"),
        ),
    )  # fmt: skip


def node_directions() -> tuple[Row, Row]:
    """Return what the node reaches, and who reaches it."""
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
    """What the kernel and TLS tell on one node."""
    neighbours = f"kubenurse_neighbours{{{ONE}}}"
    return Row(
        "Packets, certificates, neighbours",
        (
            lines("Round trip", "The kernel's smoothed round-trip time on each check's connection.",
                  Query(f"kubenurse_tcp_rtt_seconds{{{ONE}}}", "{{type}}"), unit="s"),
            lines("Segments sent again", "TCP segments a second that were sent again.",
                  Query(f"sum by (type) (rate(kubenurse_tcp_retransmits_total{{{ONE}}}{RATE}))", "{{type}}")),
            lines("Path MTU", "What the kernel knows of each path.",
                  Query(f"kubenurse_tcp_path_mtu_bytes{{{ONE}}}", "{{type}}"), unit="bytes"),
            table("Certificates", "Time left for the certificate that each check is shown.",
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
        "What one node reaches and who reaches it.",
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
