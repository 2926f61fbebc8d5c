"""The metrics as a stranger scrapes them: names, labels and values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from checks import __version__
from checks.model import SKIPPED, TRACE_EVENTS, CheckResult, Neighbourhood, TcpFacts
from checks.report.metrics import DISCOVERY_REASONS, Metrics
from tests.report.scraping import (
    OPENMETRICS,
    PROMETHEUS_3,
    TRACE,
    Agent,
    bad,
    fill,
    good,
    label_values,
    parse_openmetrics,
    parse_text,
    samples,
    scrape,
    value,
)

FAMILIES = {
    "kubenurse_errors": ("counter", {"type", "event"}),
    "kubenurse_request_duration": ("summary", {"type"}),
    "kubenurse_httpclient_request_duration_seconds": ("histogram", {"type"}),
    "kubenurse_httpclient_trace_request_duration_seconds": ("histogram", {"type", "event"}),
    "kubenurse_httpclient_requests": ("counter", {"type", "code", "method"}),
    "kubenurse_neighbourhood_incoming_checks": ("gauge", set()),
    "kubenurse_check_success": ("gauge", {"type"}),
    "kubenurse_check_timestamp_seconds": ("gauge", {"type"}),
    "kubenurse_log_dropped": ("counter", set()),
    "kubenurse_agent_lateness_seconds": ("gauge", set()),
    "kubenurse_agent_starved": ("gauge", set()),
    "kubenurse_tcp_rtt_seconds": ("gauge", {"type"}),
    "kubenurse_tcp_path_mtu_bytes": ("gauge", {"type"}),
    "kubenurse_tcp_retransmits": ("counter", {"type"}),
    "kubenurse_tls_not_after_timestamp_seconds": ("gauge", {"type"}),
    "kubenurse_neighbours": ("gauge", {"state"}),
    "kubenurse_discovery_age_seconds": ("gauge", set()),
    "kubenurse_discovery_errors": ("counter", {"reason"}),
    "kubenurse_build_info": ("gauge", {"version", "python"}),
}


# The contract's names


@pytest.mark.parametrize(("parse", "accept"), [(parse_text, ""), (parse_openmetrics, OPENMETRICS)])
def test_families_are_those_of_the_contract(
    parse: Callable[[str], list[Metric]], accept: str, metrics: Metrics
) -> None:
    """In both formats each family has its name, type and labels, and kubenurse has no others."""
    fill(metrics)
    found = {}
    for family in parse(scrape(metrics, accept)):
        if family.name.startswith("kubenurse_"):
            labels = {name for sample in family.samples for name in sample.labels} - {"le", "quantile"}
            found[family.name] = (family.type, labels)
    assert found == FAMILIES


def test_process_and_python_metrics_are_there(metrics: Metrics) -> None:
    """The metrics of prometheus-client about the process and the interpreter are exposed too."""
    names = {name for name, _ in samples(metrics)}
    assert {"process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"} <= names
    assert {"python_info", "python_gc_collections_total"} <= names


def test_two_agents_in_one_process_do_not_share(agent: Agent) -> None:
    """Each instance has its own registry: nothing is global."""
    one, other = agent.metrics(), agent.metrics()
    one.take(good())
    assert value(one, "kubenurse_check_success", type="me_ingress") == 1
    assert value(other, "kubenurse_check_success", type="me_ingress") is None


def test_text_has_no_created_series(metrics: Metrics) -> None:
    """The text format has no ``_created`` samples."""
    fill(metrics)
    assert "_created" not in scrape(metrics)


DASHBOARD = [
    ("kubenurse_httpclient_request_duration_seconds_bucket", {"type", "le"}),
    ("kubenurse_errors_total", {"type", "event"}),
    ("kubenurse_httpclient_trace_request_duration_seconds_bucket", {"type", "le", "event"}),
    ("kubenurse_httpclient_requests_total", {"type", "code", "method"}),
    ("process_resident_memory_bytes", set()),
    ("process_open_fds", set()),
]


@pytest.mark.parametrize("accept", ["", OPENMETRICS, PROMETHEUS_3])
@pytest.mark.parametrize("expose_metadata", [True, False])
def test_dashboard_queries_find_their_series(agent: Agent, accept: str, *, expose_metadata: bool) -> None:
    """Each series that the v1.15 dashboard asks for is there, with the labels it groups by, in each format."""
    metrics = agent.metrics(expose_metadata=expose_metadata)
    fill(metrics)
    parse = parse_openmetrics if accept else parse_text
    found: dict[str, list[Sample]] = {}
    for family in parse(scrape(metrics, accept)):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    for name, labels in DASHBOARD:
        assert {frozenset(sample.labels) for sample in found[name]} == {frozenset(labels)}
    trace = found["kubenurse_httpclient_trace_request_duration_seconds_bucket"]
    assert {sample.labels["event"] for sample in trace} == set(TRACE_EVENTS)


# What a check does to its series


def test_good_check(metrics: Metrics) -> None:
    """A check that succeeds is one request, one duration, its trace, and no error."""
    metrics.take(good(duration=0.05))
    got = samples(metrics)
    of_type = {("type", "me_ingress")}

    def of(name: str, *labels: tuple[str, str]) -> float:
        return got[name, frozenset(of_type | set(labels))]

    assert of("kubenurse_httpclient_requests_total", ("code", "200"), ("method", "get")) == 1
    assert of("kubenurse_httpclient_request_duration_seconds_count") == 1
    assert of("kubenurse_httpclient_request_duration_seconds_sum") == pytest.approx(0.05)
    assert of("kubenurse_httpclient_request_duration_seconds_bucket", ("le", "0.005")) == 0
    assert of("kubenurse_httpclient_request_duration_seconds_bucket", ("le", "0.1")) == 1
    assert of("kubenurse_httpclient_request_duration_seconds_bucket", ("le", "+Inf")) == 1
    for event, seconds in TRACE.items():
        name = "kubenurse_httpclient_trace_request_duration_seconds"
        assert of(f"{name}_count", ("event", event)) == 1
        assert of(f"{name}_sum", ("event", event)) == pytest.approx(seconds)
    assert of("kubenurse_check_success") == 1
    assert of("kubenurse_tcp_rtt_seconds") == 0.0007
    assert of("kubenurse_tcp_path_mtu_bytes") == 1450
    assert of("kubenurse_tcp_retransmits_total") == 3
    assert of("kubenurse_tls_not_after_timestamp_seconds") == 1.9e9
    for quantile in ("0.5", "0.9", "0.99"):
        assert of("kubenurse_request_duration", ("quantile", quantile)) == 0.05
    assert of("kubenurse_request_duration_count") == 1
    assert not any(name == "kubenurse_errors_total" for name, _ in got)


def test_check_without_an_answer(metrics: Metrics) -> None:
    """A check that got no answer counts one error and a ``round_trip_error`` request, and only what it reached."""
    metrics.take(
        CheckResult(
            "me_service",
            "connect: connection refused",
            event="connect_done",
            duration=0.2,
            trace={"dns_start": 0.0, "dns_done": 0.01},
        )
    )
    errors = {key: n for key, n in samples(metrics).items() if key[0] == "kubenurse_errors_total"}
    assert list(errors.values()) == [1]
    assert value(metrics, "kubenurse_errors_total", type="me_service", event="connect_done") == 1
    assert (
        value(metrics, "kubenurse_httpclient_requests_total", type="me_service", code="round_trip_error", method="get")
        == 1
    )
    assert value(metrics, "kubenurse_httpclient_request_duration_seconds_count", type="me_service") is None
    assert label_values(metrics, "kubenurse_httpclient_trace_request_duration_seconds_count", "event") == {
        "dns_start",
        "dns_done",
    }
    assert value(metrics, "kubenurse_check_success", type="me_service") == 0
    assert value(metrics, "kubenurse_request_duration_count", type="me_service") == 1
    assert value(metrics, "kubenurse_request_duration_sum", type="me_service") == pytest.approx(0.2)
    assert value(metrics, "kubenurse_tcp_rtt_seconds", type="me_service") is None
    assert value(metrics, "kubenurse_tls_not_after_timestamp_seconds", type="me_service") is None


def test_a_good_check_without_a_status_is_no_http_request(metrics: Metrics) -> None:
    """A check of another kind than HTTP is no HTTP request, good or bad; its success and quantiles are kept."""
    metrics.take(CheckResult("name", "ok", duration=0.25, kind="dns"))
    metrics.take(CheckResult("name", "ok", duration=0.25))
    assert value(metrics, "kubenurse_check_success", type="name") == 1
    metrics.take(CheckResult("name", "dns: timed out", event="timeout", duration=0.25, kind="dns"))
    assert not label_values(metrics, "kubenurse_httpclient_requests_total", "code")
    assert value(metrics, "kubenurse_httpclient_request_duration_seconds_count", type="name") is None
    assert value(metrics, "kubenurse_request_duration_count", type="name") == 3
    assert value(metrics, "kubenurse_errors_total", type="name", event="timeout") == 1


def test_timestamp_is_the_end_of_the_latest_check(metrics: Metrics) -> None:
    """A check that is no longer made shows it: its time stands still while the clock goes on."""
    metrics.take(dataclasses.replace(good(duration=0.5), started_at=1.7e9))
    assert value(metrics, "kubenurse_check_timestamp_seconds", type="me_ingress") == 1.7e9 + 0.5
    metrics.take(dataclasses.replace(bad(), started_at=1.7e9 + 5))
    assert value(metrics, "kubenurse_check_timestamp_seconds", type="me_ingress") == 1.7e9 + 7


def test_a_connection_that_failed_adds_its_retransmits(metrics: Metrics) -> None:
    """Without a round trip or a path MTU the kernel still counted segments sent again; what was known stays."""
    unmeasured: Any = (None, None, 3)
    metrics.take(dataclasses.replace(bad(), tcp=TcpFacts(*unmeasured)))
    assert value(metrics, "kubenurse_tcp_retransmits_total", type="me_ingress") == 3
    assert value(metrics, "kubenurse_tcp_rtt_seconds", type="me_ingress") is None
    metrics.take(good())
    metrics.take(dataclasses.replace(bad(), tcp=TcpFacts(*unmeasured)))
    assert value(metrics, "kubenurse_tcp_retransmits_total", type="me_ingress") == 9
    assert value(metrics, "kubenurse_tcp_rtt_seconds", type="me_ingress") == 0.0007
    assert value(metrics, "kubenurse_tcp_path_mtu_bytes", type="me_ingress") == 1450


def test_check_with_a_bad_answer(metrics: Metrics) -> None:
    """A check answered with another status than 200 is one error and still has a duration."""
    metrics.take(bad("status_code_404", code=404))
    assert value(metrics, "kubenurse_errors_total", type="me_ingress", event="status_code_404") == 1
    assert value(metrics, "kubenurse_httpclient_requests_total", type="me_ingress", code="404", method="get") == 1
    assert value(metrics, "kubenurse_httpclient_request_duration_seconds_count", type="me_ingress") == 1


@pytest.mark.parametrize(("ends", "shown"), [(999.0, 999.0), (1001.0, None)], ids=["expired", "another"])
def test_the_end_of_a_refused_certificate(metrics: Metrics, ends: float, shown: float | None) -> None:
    """A certificate that has expired since keeps its date; one that should be good is not the one that was refused."""
    name = "kubenurse_tls_not_after_timestamp_seconds"
    metrics.take(CheckResult("me_ingress", "ok", status_code=200, started_at=900.0, not_after=ends))
    metrics.take(CheckResult("me_ingress", "timed out", "timeout", started_at=950.0))
    assert value(metrics, name, type="me_ingress") == ends
    metrics.take(CheckResult("me_ingress", "tls: refused", "tls_handshake_done", started_at=1000.0))
    assert value(metrics, name, type="me_ingress") == shown


def test_latest_value_and_sums(metrics: Metrics) -> None:
    """Gauges show the latest measurement, also while checks get no connection; retransmits add up."""
    metrics.take(good())
    metrics.take(CheckResult("me_ingress", "ok", status_code=200, tcp=TcpFacts(0.0009, 1400, 2), not_after=2.0e9))
    metrics.take(bad())
    metrics.take(CheckResult("me_ingress", "connect: timed out after 5s", "timeout", tcp=TcpFacts(None, None, 4)))
    assert value(metrics, "kubenurse_check_success", type="me_ingress") == 0
    assert value(metrics, "kubenurse_tcp_rtt_seconds", type="me_ingress") == 0.0009
    assert value(metrics, "kubenurse_tcp_path_mtu_bytes", type="me_ingress") == 1400
    assert value(metrics, "kubenurse_tcp_retransmits_total", type="me_ingress") == 9
    assert value(metrics, "kubenurse_tls_not_after_timestamp_seconds", type="me_ingress") == 2.0e9
    metrics.take(good())
    assert value(metrics, "kubenurse_check_success", type="me_ingress") == 1


def test_summary_is_of_the_last_minute(agent: Agent, metrics: Metrics) -> None:
    """After a minute without checks the quantiles are NaN, the count stays."""
    metrics.take(good())
    agent.now += 61
    quantile = value(metrics, "kubenurse_request_duration", type="me_ingress", quantile="0.99")
    assert quantile is not None
    assert math.isnan(quantile)
    assert value(metrics, "kubenurse_request_duration_count", type="me_ingress") == 1
    assert parse_openmetrics(scrape(metrics, OPENMETRICS))


@pytest.mark.parametrize("events", [(), ("dns_done",), ("connect_done", "got_conn", "no such event")])
def test_only_the_wanted_trace_events_are_kept(agent: Agent, events: tuple[str, ...]) -> None:
    """The trace histogram has the events configured, no others, none of its own making."""
    metrics = agent.metrics(trace_events=frozenset(events))
    metrics.take(good())
    found = label_values(metrics, "kubenurse_httpclient_trace_request_duration_seconds_count", "event")
    assert found == set(events) & set(TRACE_EVENTS)


# What the agent tells about itself


def test_neighbours_and_build(metrics: Metrics) -> None:
    """Neighbours by state, the age of their list, and the version are exposed."""
    assert value(metrics, "kubenurse_neighbours", state="known") == 23
    assert value(metrics, "kubenurse_neighbours", state="checked") == 10
    assert value(metrics, "kubenurse_neighbours", state="cordoned") == 2
    assert value(metrics, "kubenurse_discovery_age_seconds") == 10
    assert label_values(metrics, "kubenurse_build_info", "version") == {__version__}


@pytest.mark.parametrize("neighbourhood", [Neighbourhood("not synced yet"), Neighbourhood(SKIPPED, synced_at=1.0)])
def test_no_age_without_discovery(agent: Agent, metrics: Metrics, neighbourhood: Neighbourhood) -> None:
    """Before the first list, and with discovery skipped, there is no age to alert on."""
    agent.neighbourhood = neighbourhood
    assert value(metrics, "kubenurse_discovery_age_seconds") is None


def test_whether_the_agent_is_starved(agent: Agent) -> None:
    """The agent's own lateness and want of CPU are shown as they are at the scrape."""
    assert value(agent.metrics(), "kubenurse_agent_starved") == 0
    metrics = agent.metrics(lateness=0.75, starved=True)
    assert value(metrics, "kubenurse_agent_lateness_seconds") == 0.75
    assert value(metrics, "kubenurse_agent_starved") == 1


def test_dropped_lines_of_the_log(agent: Agent) -> None:
    """Lines of the log that were dropped are counted, from 0 on."""
    metrics = agent.metrics()
    assert value(metrics, "kubenurse_log_dropped_total") == 0
    agent.log_dropped = 7
    assert value(metrics, "kubenurse_log_dropped_total") == 7


def test_discovery_errors(metrics: Metrics) -> None:
    """Failures of discovery are counted by reason; a reason out of the set counts as other."""
    metrics.discovery_failed("forbidden")
    metrics.discovery_failed("forbidden")
    metrics.discovery_failed("pods is forbidden: User ...")
    metrics.discovery_failed("another one")
    assert value(metrics, "kubenurse_discovery_errors_total", reason="forbidden") == 2
    assert value(metrics, "kubenurse_discovery_errors_total", reason="other") == 2
    assert label_values(metrics, "kubenurse_discovery_errors_total", "reason") <= DISCOVERY_REASONS | {"other"}
