"""The agent's metrics as families of prometheus_client: the names, kinds, labels and help texts. Pure."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from checks import __version__
from checks.model import SKIPPED, Neighbourhood
from checks.report.histogram_text import HistogramFamily
from checks.report.state import TypeState

QUANTILES = (0.5, 0.9, 0.99)

Types = list[tuple[str, TypeState]]
Rows = Iterable[tuple[tuple[str, ...], float]]


def agent_families(
    neighbourhood: Neighbourhood,
    *,
    checked: int,
    callers: int,
    log_dropped: int,
    lateness: float,
    starved: bool,
    now: float,
) -> list[Metric]:
    """Return the families of the agent itself. ``lateness`` is seconds, ``now`` monotonic seconds."""
    neighbours = [("known", neighbourhood.known), ("checked", checked), ("cordoned", neighbourhood.cordoned)]
    if neighbourhood.own_pod_unselected:
        neighbours.append(("own_pod_not_selected", 1))
    families = [
        _gauge(
            "kubenurse_build_info",
            "The version of kubenurse and of the Python it runs on.",
            ("version", "python"),
            [((__version__, platform.python_version()), 1)],
        ),
        _gauge(
            "kubenurse_neighbourhood_incoming_checks",
            "Distinct neighbours that checked this one in the last minute.",
            (),
            [((), callers)],
        ),
        _gauge(
            "kubenurse_neighbours",
            "Neighbours that discovery knows, checks, and leaves out on cordoned nodes.",
            ("state",),
            [((state,), number) for state, number in neighbours],
        ),
        _counter(
            "kubenurse_log_dropped",
            "Lines of the log that were dropped, because nobody read the log in time.",
            (),
            [((), log_dropped)],
        ),
        _gauge(
            "kubenurse_agent_lateness_seconds",
            "How late this agent's own timers ran, worst of the last minute.",
            (),
            [((), lateness)],
        ),
        _gauge(
            "kubenurse_agent_starved",
            "Whether this agent waits for its CPU, so that its figures are not to be believed.",
            (),
            [((), float(starved))],
        ),
    ]
    if neighbourhood.synced_at is not None and neighbourhood.state != SKIPPED:
        families.append(
            _gauge(
                "kubenurse_discovery_age_seconds",
                "Seconds since the API server last confirmed the neighbours.",
                (),
                [((), max(0.0, now - neighbourhood.synced_at))],
            )
        )
    return families


def check_families(types: Types) -> list[Metric]:
    """Return what concerns single checks, histograms apart."""
    of_type = ("type",)
    summary = SummaryMetricFamily(
        "kubenurse_request_duration", "Seconds a check took, failed ones too, over the last minute.", labels=of_type
    )
    for name, state in types:
        for quantile, value in zip(QUANTILES, state.summary.quantiles(QUANTILES), strict=True):
            summary.add_sample(summary.name, {"type": name, "quantile": str(quantile)}, value)
        summary.add_metric((name,), state.summary.count, state.summary.sum)
    return [
        _counter(
            "kubenurse_errors",
            "Failed requests, by what they failed at.",
            ("type", "event"),
            [((name, event), n) for name, state in types for event, n in state.errors.items()],
        ),
        _counter(
            "kubenurse_httpclient_requests",
            "Requests, by the status code of the answer.",
            ("type", "code", "method"),
            [((name, code, "get"), n) for name, state in types for code, n in state.requests.items()],
        ),
        summary,
        _gauge(
            "kubenurse_check_success",
            "Whether the latest check succeeded.",
            of_type,
            [((name,), float(state.success)) for name, state in types],
        ),
        _gauge(
            "kubenurse_check_timestamp_seconds",
            "When the latest check ended, in seconds since 1970.",
            of_type,
            [((name,), state.timestamp) for name, state in types],
        ),
        _gauge(
            "kubenurse_tcp_rtt_seconds",
            "Round-trip time that the kernel measured on the latest connection.",
            of_type,
            [((name,), state.rtt) for name, state in types if state.rtt is not None],
        ),
        _gauge(
            "kubenurse_tcp_path_mtu_bytes",
            "Path MTU that the kernel knew on the latest connection.",
            of_type,
            [((name,), state.path_mtu) for name, state in types if state.path_mtu is not None],
        ),
        _counter(
            "kubenurse_tcp_retransmits",
            "Segments that the kernel had to send again.",
            of_type,
            [((name,), state.retransmits) for name, state in types if state.retransmits is not None],
        ),
        _gauge(
            "kubenurse_tls_not_after_timestamp_seconds",
            "When the certificate shown last ends, in seconds since 1970.",
            of_type,
            [((name,), state.not_after) for name, state in types if state.not_after is not None],
        ),
    ]


def discovery_errors(errors: Mapping[str, int]) -> Metric:
    """Return the failed requests of discovery by reason."""
    rows = [((reason,), count) for reason, count in errors.items()]
    return _counter("kubenurse_discovery_errors", "Failed requests to find the neighbours.", ("reason",), rows)


def histograms(types: Types) -> list[HistogramFamily]:
    """Copy the histograms of all types."""
    return [
        HistogramFamily(
            "kubenurse_httpclient_request_duration_seconds",
            "Seconds from the start of a request to its answer.",
            [({"type": name}, state.duration.snapshot()) for name, state in types if state.duration],
        ),
        HistogramFamily(
            "kubenurse_httpclient_trace_request_duration_seconds",
            "Seconds from the start of a request to the event.",
            [
                ({"event": event, "type": name}, histogram.snapshot())
                for name, state in types
                for event, histogram in state.trace.items()
            ],
        ),
    ]


def _counter(name: str, help_text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _gauge(name: str, help_text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family
