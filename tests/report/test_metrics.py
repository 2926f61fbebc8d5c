"""The metrics as a stranger scrapes them: names, labels, values, formats, and bounds."""

from __future__ import annotations

import gzip
import math
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families
from prometheus_client.samples import Sample

from checks import __version__
from checks.model import BUILT_IN_TYPES, SKIPPED, TRACE_EVENTS, CheckResult, Neighbourhood, TcpFacts
from checks.report.metrics import DISCOVERY_REASONS, ERROR_EVENTS, MAX_CALLERS, MAX_CODES, Metrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
TRACE = {event: 0.001 * (number + 1) for number, event in enumerate(TRACE_EVENTS)}
FAMILIES = {
    "kubenurse_errors": ("counter", {"type", "event"}),
    "kubenurse_request_duration": ("summary", {"type"}),
    "kubenurse_httpclient_request_duration_seconds": ("histogram", {"type"}),
    "kubenurse_httpclient_trace_request_duration_seconds": ("histogram", {"type", "event"}),
    "kubenurse_httpclient_requests": ("counter", {"type", "code", "method"}),
    "kubenurse_neighbourhood_incoming_checks": ("gauge", set()),
    "kubenurse_check_success": ("gauge", {"type"}),
    "kubenurse_tcp_rtt_seconds": ("gauge", {"type"}),
    "kubenurse_tcp_path_mtu_bytes": ("gauge", {"type"}),
    "kubenurse_tcp_retransmits": ("counter", {"type"}),
    "kubenurse_tls_not_after_timestamp_seconds": ("gauge", {"type"}),
    "kubenurse_neighbours": ("gauge", {"state"}),
    "kubenurse_discovery_age_seconds": ("gauge", set()),
    "kubenurse_discovery_errors": ("counter", {"reason"}),
    "kubenurse_build_info": ("gauge", {"version", "python"}),
}

Labels = frozenset[tuple[str, str]]


class Agent:
    """What the metrics read: a clock that stands still until told, and the neighbourhood."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.neighbourhood = Neighbourhood("ok", known=23, cordoned=2, synced_at=4990.0)

    def metrics(
        self,
        *,
        victoriametrics: bool = False,
        trace_events: frozenset[str] = frozenset(TRACE_EVENTS),
        expose_metadata: bool = True,
    ) -> Metrics:
        """Make metrics that read this agent, configured by default as the contract says."""
        return Metrics(
            neighbourhood=lambda: self.neighbourhood,
            checked=lambda: 10,
            buckets=(0.005, 0.1, 1.0),
            victoriametrics=victoriametrics,
            trace_events=trace_events,
            expose_metadata=expose_metadata,
            clock=lambda: self.now,
        )


@pytest.fixture
def agent() -> Agent:
    """An agent with some neighbours."""
    return Agent()


@pytest.fixture
def metrics(agent: Agent) -> Metrics:
    """Metrics with the default options."""
    return agent.metrics()


def good(check_type: str = "me_ingress", duration: float = 0.05) -> CheckResult:
    """Make the result of a check that went well, with everything measured."""
    return CheckResult(
        check_type,
        "ok",
        status_code=200,
        duration=duration,
        trace=TRACE,
        tcp=TcpFacts(0.0007, 1450, 3),
        not_after=1.9e9,
    )


def bad(event: str = "connect_done", *, code: int | None = None, check_type: str = "me_ingress") -> CheckResult:
    """Make the result of a check that failed."""
    return CheckResult(check_type, "connect: connection refused", event=event, status_code=code, duration=2.0)


def parse_text(text: str) -> list[Metric]:
    """Read the text format."""
    return list(text_families(text))


def parse_openmetrics(text: str) -> list[Metric]:
    """Read OpenMetrics, strictly."""
    return list(openmetrics_families(text))  # type: ignore[no-untyped-call]  # prometheus_client's has no annotations


def fill(metrics: Metrics) -> None:
    """Give every family a sample, and several types to the ones that have a type."""
    for check_type in (*BUILT_IN_TYPES, "path_node-1.example", "extra"):
        metrics.observe(good(check_type))
        metrics.observe(bad(check_type=check_type))
    metrics.neighbour_called("kubenurse-abcde")
    metrics.discovery_failed("throttled")


def scrape(metrics: Metrics, accept: str = "") -> str:
    """Return the body of a scrape as text."""
    return metrics.render(accept, "")[1].decode()


def samples(metrics: Metrics) -> dict[tuple[str, Labels], float]:
    """Scrape, and return the value of each series by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(scrape(metrics))
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Scrape one series, None when it is not there."""
    return samples(metrics).get((name, frozenset(labels.items())))


def label_values(metrics: Metrics, name: str, label: str) -> set[str]:
    """Scrape the values that a label has in the series of one name."""
    return {dict(labels)[label] for found, labels in samples(metrics) if found == name}


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
    one.observe(good())
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
    metrics.observe(good(duration=0.05))
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
    metrics.observe(
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


def test_check_with_a_bad_answer(metrics: Metrics) -> None:
    """A check answered with another status than 200 is one error and still has a duration."""
    metrics.observe(bad("status_code_404", code=404))
    assert value(metrics, "kubenurse_errors_total", type="me_ingress", event="status_code_404") == 1
    assert value(metrics, "kubenurse_httpclient_requests_total", type="me_ingress", code="404", method="get") == 1
    assert value(metrics, "kubenurse_httpclient_request_duration_seconds_count", type="me_ingress") == 1


@pytest.mark.parametrize(("ends", "shown"), [(999.0, 999.0), (1001.0, None)], ids=["expired", "another"])
def test_the_end_of_a_refused_certificate(metrics: Metrics, ends: float, shown: float | None) -> None:
    """A certificate that has expired since keeps its date; one that should be good is not the one that was refused."""
    name = "kubenurse_tls_not_after_timestamp_seconds"
    metrics.observe(CheckResult("me_ingress", "ok", status_code=200, started_at=900.0, not_after=ends))
    metrics.observe(CheckResult("me_ingress", "timed out", "timeout", started_at=950.0))
    assert value(metrics, name, type="me_ingress") == ends
    metrics.observe(CheckResult("me_ingress", "tls: refused", "tls_handshake_done", started_at=1000.0))
    assert value(metrics, name, type="me_ingress") == shown


def test_latest_value_and_sums(metrics: Metrics) -> None:
    """Gauges show the latest measurement, also while checks get no connection; retransmits add up."""
    metrics.observe(good())
    metrics.observe(CheckResult("me_ingress", "ok", status_code=200, tcp=TcpFacts(0.0009, 1400, 2), not_after=2.0e9))
    metrics.observe(bad())
    metrics.observe(CheckResult("me_ingress", "connect: timed out after 5s", "timeout", tcp=TcpFacts(None, None, 4)))
    assert value(metrics, "kubenurse_check_success", type="me_ingress") == 0
    assert value(metrics, "kubenurse_tcp_rtt_seconds", type="me_ingress") == 0.0009
    assert value(metrics, "kubenurse_tcp_path_mtu_bytes", type="me_ingress") == 1400
    assert value(metrics, "kubenurse_tcp_retransmits_total", type="me_ingress") == 9
    assert value(metrics, "kubenurse_tls_not_after_timestamp_seconds", type="me_ingress") == 2.0e9
    metrics.observe(good())
    assert value(metrics, "kubenurse_check_success", type="me_ingress") == 1


def test_summary_is_of_the_last_minute(agent: Agent, metrics: Metrics) -> None:
    """After a minute without checks the quantiles are NaN, the count stays."""
    metrics.observe(good())
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
    metrics.observe(good())
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


def test_discovery_errors(metrics: Metrics) -> None:
    """Failures of discovery are counted by reason; a reason out of the set counts as other."""
    metrics.discovery_failed("forbidden")
    metrics.discovery_failed("forbidden")
    metrics.discovery_failed("pods is forbidden: User ...")
    metrics.discovery_failed("another one")
    assert value(metrics, "kubenurse_discovery_errors_total", reason="forbidden") == 2
    assert value(metrics, "kubenurse_discovery_errors_total", reason="other") == 2
    assert label_values(metrics, "kubenurse_discovery_errors_total", "reason") <= DISCOVERY_REASONS | {"other"}


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


# Bounds


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(min_value=-10, max_value=100_000)),
            st.one_of(st.text(), st.sampled_from(sorted(ERROR_EVENTS)), st.from_regex(r"status_code_\d{3}")),
        ),
        max_size=60,
    )
)
def test_hostile_answers_make_few_series(answers: list[tuple[int | None, str]]) -> None:
    """Whatever codes and events come, each request and each error counts once and labels stay few and well-formed."""
    metrics = Agent().metrics()
    for code, event in answers:
        metrics.observe(bad(event, code=code))
    got = samples(metrics)
    requests = {dict(labels)["code"]: n for (name, labels), n in got.items() if name.endswith("_requests_total")}
    errors = {dict(labels)["event"]: n for (name, labels), n in got.items() if name == "kubenurse_errors_total"}
    assert sum(requests.values()) == sum(errors.values()) == len(answers)
    assert len(requests) <= MAX_CODES + 2
    assert len(errors) <= MAX_CODES + len(ERROR_EVENTS) + 1
    assert all(re.fullmatch(r"[1-5]\d\d|round_trip_error|other", code) for code in requests)
    assert all(event in ERROR_EVENTS or re.fullmatch(r"status_code_([1-5]\d\d|other)", event) for event in errors)


def test_every_status_code_at_once(metrics: Metrics) -> None:
    """An endpoint that answers every possible status makes a few series; the rest counts as other."""
    for code in range(100, 600):
        metrics.observe(bad(f"status_code_{code}", code=code))
    metrics.observe(bad("timeout"))
    codes = label_values(metrics, "kubenurse_httpclient_requests_total", "code")
    events = label_values(metrics, "kubenurse_errors_total", "event")
    assert len(codes) == MAX_CODES + 2
    assert {"100", "other", "round_trip_error"} <= codes
    assert len(events) == MAX_CODES + 2
    assert {"status_code_100", "status_code_other", "timeout"} <= events
    assert value(metrics, "kubenurse_errors_total", type="me_ingress", event="status_code_other") == 500 - MAX_CODES


def test_series_of_a_neighbour_that_left_are_gone(agent: Agent, metrics: Metrics) -> None:
    """A type no longer checked keeps its series for a while and loses them all within a minute, without a new round."""
    metrics.observe(good("me_ingress"))
    metrics.observe(good("path_node-1"))
    metrics.observe(bad(check_type="path_node-1"))
    metrics.keep({"me_ingress"})
    agent.now += 30
    assert value(metrics, "kubenurse_check_success", type="path_node-1") == 0
    agent.now += 25
    text = scrape(metrics)
    assert "path_node-1" not in text
    assert value(metrics, "kubenurse_check_success", type="me_ingress") == 1


def test_restarted_neighbour_goes_on_counting(agent: Agent, metrics: Metrics) -> None:
    """A Pod that is away for less than 45 s does not reset its node's counters, however often."""
    for _ in range(5):
        metrics.observe(good("path_node-1"))
        metrics.keep({"path_node-1"})
        metrics.keep(set())
        agent.now += 30
    assert value(metrics, "kubenurse_request_duration_count", type="path_node-1") == 5


def test_rare_rounds_do_not_end_series(agent: Agent, metrics: Metrics) -> None:
    """What is still checked keeps its series however long the interval between rounds is."""
    metrics.observe(good())
    metrics.keep({"me_ingress"})
    agent.now += 24 * 3600
    assert value(metrics, "kubenurse_request_duration_count", type="me_ingress") == 1


def test_cluster_that_rolls_does_not_grow(agent: Agent, metrics: Metrics) -> None:
    """With ever new nodes the number of series is that of the latest ones."""
    highest = 0
    for number in range(60):
        current = {f"path_node-{number + offset}" for offset in range(3)}
        for check_type in current:
            metrics.observe(good(check_type))
        metrics.keep(current)
        agent.now += 30
        highest = max(highest, len(label_values(metrics, "kubenurse_check_success", "type")))
    assert highest <= 5


# Formats


@pytest.mark.parametrize("victoriametrics", [False, True])
@pytest.mark.parametrize("expose_metadata", [False, True])
def test_both_formats_parse_to_the_same_samples(agent: Agent, *, victoriametrics: bool, expose_metadata: bool) -> None:
    """Text and OpenMetrics, with metadata and without, are read by the strict parsers and say the same."""
    metrics = agent.metrics(victoriametrics=victoriametrics, expose_metadata=expose_metadata)
    fill(metrics)

    def own(families: list[Metric]) -> dict[tuple[str, Labels], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
            if sample.name.startswith("kubenurse_")
        }

    text = own(parse_text(scrape(metrics)))
    assert len(text) > 100
    for accept in (OPENMETRICS, PROMETHEUS_3):
        assert own(parse_openmetrics(scrape(metrics, accept))) == text


def test_without_metadata_only_samples_are_left(agent: Agent) -> None:
    """Without metadata no comment is left, but OpenMetrics still ends with its EOF."""
    metrics = agent.metrics(expose_metadata=False)
    fill(metrics)
    assert "#" not in scrape(metrics)
    openmetrics = scrape(metrics, OPENMETRICS)
    assert openmetrics.count("#") == 1
    assert openmetrics.endswith("\n# EOF\n")


def test_vmrange_buckets(agent: Agent) -> None:
    """On request histograms have the buckets of VictoriaMetrics, with sample names and other labels unchanged."""
    metrics = agent.metrics(victoriametrics=True)
    metrics.observe(good(duration=0.05))
    name = "kubenurse_httpclient_request_duration_seconds"
    assert value(metrics, f"{name}_bucket", type="me_ingress", vmrange="4.642e-02...5.275e-02") == 1
    assert value(metrics, f"{name}_count", type="me_ingress") == 1
    assert value(metrics, f"{name}_sum", type="me_ingress") == pytest.approx(0.05)
    trace = "kubenurse_httpclient_trace_request_duration_seconds"
    assert value(metrics, f"{trace}_count", type="me_ingress", event="dns_start") == 1
    assert value(metrics, f"{trace}_bucket", type="me_ingress", event="dns_start", vmrange="8.799e-04...1.000e-03") == 1
    assert not re.search(r"[{,]le=", scrape(metrics))


def content_type(metrics: Metrics, accept: str) -> str:
    """Return the Content-Type of a scrape that asks for ``accept``."""
    return dict(metrics.render(accept, "")[0])["Content-Type"]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (PROMETHEUS_3, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"),
        ("application/openmetrics-text;version=0.0.1", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0;q=0", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_content_negotiation(metrics: Metrics, accept: str, expected: str) -> None:
    """The format is OpenMetrics when asked for and not refused, else the text format."""
    assert content_type(metrics, accept) == expected


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=evil",
        "application/openmetrics-text;version=1.x",
        "application/openmetrics-text;version=" + "9" * 5000,
        "application/openmetrics-text;version=1.0.0\r\nX-Evil: yes",
        "application/openmetrics-text;version=1.0.0 evil",
        "text/plain;version=;",
        ";;;,,,=",
    ],
)
def test_hostile_accept_gets_plain_text(metrics: Metrics, accept: str) -> None:
    """An Accept header that makes no sense is no error and is not repeated in the answer."""
    assert content_type(metrics, accept) == "text/plain; version=0.0.4; charset=utf-8"


@given(st.text(), st.text())
def test_no_header_breaks_a_scrape(accept: str, accept_encoding: str) -> None:
    """Whatever the headers are, the answer's headers are clean and the body parses."""
    headers, body = Agent().metrics().render(accept, accept_encoding)
    assert all(re.fullmatch(r"[ -~]+", text) for pair in headers for text in pair)
    if ("Content-Encoding", "gzip") in headers:
        body = gzip.decompress(body)
    assert parse_text(body.decode())


def test_names_are_never_escaped(metrics: Metrics) -> None:
    """A client that asks for an escaping scheme gets the names as they are: they need none."""
    metrics.observe(good())
    for scheme in ("dots", "values", "underscores", "allow-utf-8", "allow-utf-8x"):
        text = scrape(metrics, f"application/openmetrics-text;version=1.0.0;escaping={scheme}")
        assert '\nkubenurse_check_success{type="me_ingress"} 1.0\n' in text


@pytest.mark.parametrize("accept_encoding", ["gzip", "deflate, gzip;q=0.5", "GZIP ; q=1", "br,gzip"])
def test_gzip_when_accepted(metrics: Metrics, accept_encoding: str) -> None:
    """A client that accepts gzip gets it, and caches are told what the answer depends on."""
    fill(metrics)
    headers, body = metrics.render("", accept_encoding)
    assert dict(headers)["Content-Encoding"] == "gzip"
    assert dict(headers)["Vary"] == "Accept, Accept-Encoding"
    assert b"kubenurse_check_success" in gzip.decompress(body)


@pytest.mark.parametrize("accept_encoding", ["", "identity", "gzip;q=0", "gzip; q=0.000", "gzipped", "x, gzip ;q=0"])
def test_no_gzip_when_not_accepted(metrics: Metrics, accept_encoding: str) -> None:
    """A client that does not accept gzip, or refuses it with q=0, gets plain bytes."""
    headers, body = metrics.render("", accept_encoding)
    assert "Content-Encoding" not in dict(headers)
    assert dict(headers)["Vary"] == "Accept, Accept-Encoding"
    assert b"\nkubenurse_neighbours{" in body


def test_any_type_name_survives(metrics: Metrics) -> None:
    """Label values with quotes, backslashes and newlines come out of the parser as they went in."""
    hostile = 'a"b\\c\nd} 1 # e'
    metrics.observe(good(hostile))
    assert value(metrics, "kubenurse_check_success", type=hostile) == 1


# Threads


def test_threads_write_while_others_scrape(agent: Agent) -> None:
    """With threads that write, come and go and scrape at once, nothing is lost and each scrape is consistent."""
    metrics, rounds, writers = agent.metrics(), 200, 4
    start, done = threading.Barrier(writers + 2), threading.Event()

    def write(writer: int) -> None:
        start.wait(timeout=30)
        for number in range(rounds):
            metrics.observe(good("shared"))
            metrics.observe(good(f"path_{writer}_{number % 7}"))
            metrics.neighbour_called(f"pod-{number}")
            metrics.discovery_failed("timeout")
            metrics.keep({"shared"})

    def read() -> int:
        start.wait(timeout=30)
        scrapes = 0
        while not done.is_set() or not scrapes:
            # The parser checks each histogram: buckets in order, +Inf equal to the count.
            assert parse_openmetrics(scrape(metrics, OPENMETRICS))
            scrapes += 1
        return scrapes

    with ThreadPoolExecutor(writers + 2, thread_name_prefix="metrics-test") as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for writing in [pool.submit(write, writer) for writer in range(writers)]:
                writing.result(timeout=60)
        finally:
            done.set()
        assert all(reader.result(timeout=60) for reader in readers)
    assert value(metrics, "kubenurse_request_duration_count", type="shared") == rounds * writers
    assert value(metrics, "kubenurse_discovery_errors_total", reason="timeout") == rounds * writers
    assert value(metrics, "kubenurse_neighbourhood_incoming_checks") == rounds


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of the Prometheus server, is not installed")
@pytest.mark.parametrize("victoriametrics", [False, True])
def test_promtool_finds_nothing(agent: Agent, *, victoriametrics: bool) -> None:
    """Prometheus's own linter can read the text format."""
    metrics = agent.metrics(victoriametrics=victoriametrics)
    fill(metrics)
    lint = subprocess.run(
        ["promtool", "check", "metrics", "--extended"],
        input=metrics.render("", "")[1],
        capture_output=True,
        timeout=60,
        check=False,
    )
    # Exit code 3 is style: the names are the contract's, and older than the linter's opinion of them.
    assert lint.returncode in (0, 3), lint.stderr.decode()
