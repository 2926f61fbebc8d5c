"""Metrics with a clock of their own, results to give them, and a scrape read back by prometheus_client's parsers."""

from __future__ import annotations

from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from checks.model import BUILT_IN_TYPES, TRACE_EVENTS, CheckResult, Neighbourhood, TcpFacts
from checks.report.metrics import Metrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
TRACE = {event: 0.001 * (number + 1) for number, event in enumerate(TRACE_EVENTS)}
Labels = frozenset[tuple[str, str]]


class Agent:
    """What the metrics read: a clock that stands still until told, and the neighbourhood."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.neighbourhood = Neighbourhood("ok", known=23, cordoned=2, synced_at=4990.0)
        self.log_dropped = 0

    def metrics(
        self,
        *,
        victoriametrics: bool = False,
        trace_events: frozenset[str] = frozenset(TRACE_EVENTS),
        expose_metadata: bool = True,
        lateness: float = 0.0,
        starved: bool = False,
    ) -> Metrics:
        """Make metrics that read this agent, configured by default as the contract says."""
        return Metrics(
            neighbourhood=lambda: self.neighbourhood,
            checked=lambda: 10,
            buckets=(0.005, 0.1, 1.0),
            victoriametrics=victoriametrics,
            trace_events=trace_events,
            expose_metadata=expose_metadata,
            log_dropped=lambda: self.log_dropped,
            lateness=lambda: lateness,
            starved=lambda: starved,
            clock=lambda: self.now,
        )


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
        metrics.take(good(check_type))
        metrics.take(bad(check_type=check_type))
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
