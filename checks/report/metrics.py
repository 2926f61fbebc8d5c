"""The agent's metrics: check results in, Prometheus text or OpenMetrics out.

The state of a check type is a few small dicts and arrays, not prometheus_client's metric objects, which cost a lock and
an object for each of a hundred buckets. A scrape turns it into samples under the lock, and into text without.
Sources: https://prometheus.io/docs/instrumenting/exposition_formats/, https://prometheus.io/docs/specs/om/open_metrics_spec/.
"""

from __future__ import annotations

import gzip
import platform
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry
from prometheus_client.samples import Sample

from checks import __version__
from checks.model import SKIPPED, TRACE_EVENTS, CheckResult, Neighbourhood, TcpFacts
from checks.report.histogram import Histogram, LeHistogram, Snapshot, VmrangeHistogram
from checks.report.summary import Summary

QUANTILES = (0.5, 0.9, 0.99)
ERROR_EVENTS = frozenset(
    (
        "dns_done",
        "connect_done",
        "tls_handshake_done",
        "wrote_request",
        "got_first_resp_byte",
        "redirect",
        "timeout",
        "round_trip_error",
    )
)
DISCOVERY_REASONS = frozenset(
    (
        "forbidden",
        "unauthorized",
        "gone",
        "throttled",
        "server_error",
        "timeout",
        "connection",
        "tls",
        "credentials",
        "protocol",
    )
)
OTHER = "other"

# A type that left stays this long, so that a restarted Pod goes on with its counters.
DEPARTED_SECONDS = 45.0
# Different status codes shown for one type; an endpoint that answers ever new ones ends in "other".
MAX_CODES = 16
CALLER_SECONDS = 60.0
# As many neighbours as Kubernetes supports nodes; clients that make up names get no further.
MAX_CALLERS = 5000

_STATUS_EVENT = re.compile(r"status_code_[1-5][0-9]{2}")
_ORIGIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_METADATA = re.compile(rb"^# (?:HELP|TYPE|UNIT) .*\n", re.MULTILINE)
_OFFER = re.compile(
    r"[\w.+*-]+/[\w.+*-]+(;\s*(version=\d{1,3}(\.\d{1,3}){0,2}|(q|charset)=[\w.-]+|escaping=allow-utf-8)\s*)*", re.ASCII
)
_OTHER_ESCAPING = re.compile(r";\s*escaping=(?!allow-utf-8\b)[\w-]*", re.ASCII)
_REFUSED = re.compile(r";\s*q=0(\.0*)?\s*(;|$)", re.IGNORECASE)

Headers = list[tuple[str, str]]


class Metrics:
    """All metrics of one agent, with a registry of their own. Every method may be called from any thread.

    ``buckets`` are the ``le`` bounds in seconds, used unless ``victoriametrics`` asks for ``vmrange`` buckets.
    ``trace_events`` are the events kept in the trace histogram. ``expose_metadata`` False leaves out HELP and TYPE.
    ``neighbourhood`` and ``checked`` (the number of neighbours checked) are asked at each scrape; ``clock`` returns
    monotonic seconds.

    Series are bounded by the number of check types, which ``keep`` bounds: a type has at most 10 histograms, 18 codes
    and 25 error events. A series of errors appears with its first error, as in v1.15: zeros for all that could happen
    would be more than a hundred lines a scrape. ``kubenurse_check_success`` shows a first failure.
    """

    def __init__(
        self,
        *,
        neighbourhood: Callable[[], Neighbourhood],
        checked: Callable[[], int],
        buckets: tuple[float, ...],
        victoriametrics: bool,
        trace_events: frozenset[str],
        expose_metadata: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._neighbourhood = neighbourhood
        self._checked = checked
        self._new_histogram: Callable[[], Histogram] = (
            VmrangeHistogram if victoriametrics else lambda: LeHistogram(buckets)
        )
        self._histogram_families = _vmrange_families if victoriametrics else _le_families
        self._trace_events = trace_events.intersection(TRACE_EVENTS)
        self._expose_metadata = expose_metadata
        self._clock = clock
        self._lock = threading.Lock()
        self._types: dict[str, _TypeState] = {}
        self._discovery_errors: dict[str, int] = {}
        self._callers = _Callers(clock)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def observe(self, result: CheckResult) -> None:
        """Take in one finished check, failed or not."""
        with self._lock:
            state = self._types.get(result.type)
            if state is None:
                state = self._types[result.type] = _TypeState(self._clock)
            state.observe(result, self._trace_events, self._new_histogram)

    def keep(self, types: Collection[str]) -> None:
        """Say which types are checked now. The others' series end 45 s after they were first missing here."""
        with self._lock:
            now = self._clock()
            for name, state in self._types.items():
                if name in types:
                    state.departed_at = None
                elif state.departed_at is None:
                    state.departed_at = now
            self._drop_departed()

    def neighbour_called(self, origin: str) -> None:
        """Count the neighbour that announced itself as ``origin``, a Pod name; anything else is ignored."""
        self._callers.add(origin)

    def discovery_failed(self, reason: str) -> None:
        """Count a failed request of discovery; ``reason`` is one of DISCOVERY_REASONS, else it counts as ``other``."""
        reason = reason if reason in DISCOVERY_REASONS else OTHER
        with self._lock:
            self._discovery_errors[reason] = self._discovery_errors.get(reason, 0) + 1

    def render(self, accept: str, accept_encoding: str) -> tuple[Headers, bytes]:
        """Return headers and body of a scrape, for the request's Accept and Accept-Encoding headers (or empty)."""
        encoder, content_type = choose_encoder(_acceptable(accept))
        body = encoder(self._registry)
        if not self._expose_metadata:
            body = _METADATA.sub(b"", body)
        headers = [("Content-Type", content_type), ("Vary", "Accept, Accept-Encoding")]
        if _gzip_accepted(accept_encoding):
            body = gzip.compress(body, compresslevel=3, mtime=0)
            headers.append(("Content-Encoding", "gzip"))
        return headers, body

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families, as prometheus_client's registry asks for them."""
        families = _agent_families(self._neighbourhood(), self._checked(), self._callers.count(), self._clock())
        with self._lock:
            self._drop_departed()
            types = sorted(self._types.items())
            families += _check_families(types)
            families.append(_discovery_errors(self._discovery_errors))
            histograms = _histograms(types)
        for name, help_text, snapshots in histograms:
            families += self._histogram_families(name, help_text, snapshots)
        for family in families:
            if not self._expose_metadata:
                # Without TYPE each sample name is a family of its own, and the lines of a family have to be together.
                family.samples.sort(key=lambda sample: sample.name)
            yield family

    def _drop_departed(self) -> None:
        now = self._clock()
        for name, state in list(self._types.items()):
            if state.departed_at is not None and now - state.departed_at >= DEPARTED_SECONDS:
                del self._types[name]


class _TypeState:
    """What is known of one check type. Its owner locks."""

    __slots__ = (
        "departed_at",
        "duration",
        "errors",
        "not_after",
        "requests",
        "retransmits",
        "success",
        "summary",
        "tcp",
        "trace",
    )

    def __init__(self, clock: Callable[[], float]) -> None:
        self.errors: dict[str, int] = {}
        self.requests: dict[str, int] = {}
        self.summary = Summary(clock)
        self.duration: Histogram | None = None
        self.trace: dict[str, Histogram] = {}
        self.success = False
        self.tcp: TcpFacts | None = None
        self.retransmits = 0
        self.not_after: float | None = None
        self.departed_at: float | None = None

    def observe(
        self, result: CheckResult, trace_events: Collection[str], new_histogram: Callable[[], Histogram]
    ) -> None:
        self.success = result.ok
        self.summary.observe(result.duration)
        self._count_request(result.status_code)
        if not result.ok:
            self._count_error(result.event)
        if result.status_code is not None:
            if self.duration is None:
                self.duration = new_histogram()
            self.duration.observe(result.duration)
        for event, offset in result.trace.items():
            if event in trace_events:
                if event not in self.trace:
                    self.trace[event] = new_histogram()
                self.trace[event].observe(offset)
        # A check that got no connection or certificate leaves what was seen last: the end of an expired certificate
        # is still wanted when handshakes fail because of it.
        if result.tcp is not None:
            self.tcp = result.tcp
            self.retransmits += result.tcp.retransmits
        if result.not_after is not None:
            self.not_after = result.not_after
        elif result.event == "tls_handshake_done" and (self.not_after or 0.0) > result.started_at:
            # Not the certificate that was seen last, or it would be good: nobody knows when this one ends.
            self.not_after = None

    def _count_request(self, status_code: int | None) -> None:
        code = "round_trip_error" if status_code is None else str(status_code)
        known = status_code is None or (100 <= status_code <= 599 and _has_room(self.requests, code))
        _add_one(self.requests, code if known else OTHER)

    def _count_error(self, event: str) -> None:
        if event in ERROR_EVENTS:
            _add_one(self.errors, event)
        elif _STATUS_EVENT.fullmatch(event):
            _add_one(self.errors, event if _has_room(self.errors, event) else f"status_code_{OTHER}")
        else:
            _add_one(self.errors, "round_trip_error")


class _Callers:
    """The neighbours that called in the last minute. Its own lock: answering a neighbour waits for no scrape."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._called_at: OrderedDict[str, float] = OrderedDict()

    def add(self, origin: str) -> None:
        if len(origin) > 253 or not _ORIGIN.fullmatch(origin):
            return
        with self._lock:
            self._forget()
            if origin in self._called_at or len(self._called_at) < MAX_CALLERS:
                self._called_at[origin] = self._clock()
                self._called_at.move_to_end(origin)

    def count(self) -> int:
        with self._lock:
            self._forget()
            return len(self._called_at)

    def _forget(self) -> None:
        oldest = self._clock() - CALLER_SECONDS
        while self._called_at and next(iter(self._called_at.values())) <= oldest:
            self._called_at.popitem(last=False)


def _has_room(counts: dict[str, int], label: str) -> bool:
    return label in counts or len(counts) < MAX_CODES


def _add_one(counts: dict[str, int], label: str) -> None:
    counts[label] = counts.get(label, 0) + 1


Types = list[tuple[str, _TypeState]]
Rows = Iterable[tuple[tuple[str, ...], float]]
Snapshots = list[tuple[dict[str, str], Snapshot]]


def _agent_families(neighbourhood: Neighbourhood, checked: int, callers: int, now: float) -> list[Metric]:
    """What concerns the agent, not one of its checks."""
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


def _check_families(types: Types) -> list[Metric]:
    """What concerns single checks, histograms apart."""
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
            "kubenurse_tcp_rtt_seconds",
            "Round-trip time that the kernel measured on the latest connection.",
            of_type,
            [((name,), state.tcp.rtt_seconds) for name, state in types if state.tcp],
        ),
        _gauge(
            "kubenurse_tcp_path_mtu_bytes",
            "Path MTU that the kernel knew on the latest connection.",
            of_type,
            [((name,), state.tcp.path_mtu_bytes) for name, state in types if state.tcp],
        ),
        _counter(
            "kubenurse_tcp_retransmits",
            "Segments that the kernel had to send again.",
            of_type,
            [((name,), state.retransmits) for name, state in types if state.tcp],
        ),
        _gauge(
            "kubenurse_tls_not_after_timestamp_seconds",
            "When the certificate shown last ends, in seconds since 1970.",
            of_type,
            [((name,), state.not_after) for name, state in types if state.not_after is not None],
        ),
    ]


def _discovery_errors(errors: dict[str, int]) -> Metric:
    rows = [((reason,), count) for reason, count in errors.items()]
    return _counter("kubenurse_discovery_errors", "Failed requests to find the neighbours.", ("reason",), rows)


def _histograms(types: Types) -> list[tuple[str, str, Snapshots]]:
    """Copy the histograms: metric name, help, and each one's labels and buckets."""
    return [
        (
            "kubenurse_httpclient_request_duration_seconds",
            "Seconds from the start of a request to its answer.",
            [({"type": name}, state.duration.snapshot()) for name, state in types if state.duration],
        ),
        (
            "kubenurse_httpclient_trace_request_duration_seconds",
            "Seconds from the start of a request to the event.",
            [
                ({"type": name, "event": event}, histogram.snapshot())
                for name, state in types
                for event, histogram in state.trace.items()
            ],
        ),
    ]


def _le_families(name: str, help_text: str, snapshots: Snapshots) -> list[Metric]:
    family = Metric(name, help_text, "histogram")
    for labels, snapshot in snapshots:
        family.samples += [Sample(f"{name}_bucket", {**labels, "le": le}, count) for le, count in snapshot.buckets]
        family.samples += [Sample(f"{name}_count", labels, snapshot.count), Sample(f"{name}_sum", labels, snapshot.sum)]
    return [family]


def _vmrange_families(name: str, help_text: str, snapshots: Snapshots) -> list[Metric]:
    """Three families of unknown type: without ``le`` they are no histogram to Prometheus or OpenMetrics."""
    buckets, count, total = (Metric(f"{name}_{part}", help_text, "unknown") for part in ("bucket", "count", "sum"))
    for labels, snapshot in snapshots:
        buckets.samples += [Sample(buckets.name, {**labels, "vmrange": span}, n) for span, n in snapshot.buckets]
        count.samples.append(Sample(count.name, labels, snapshot.count))
        total.samples.append(Sample(total.name, labels, snapshot.sum))
    return [buckets, count, total]


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


def _acceptable(accept: str) -> str:
    """Keep of an Accept header what is safe to choose by.

    prometheus_client compares versions as numbers and repeats them in its Content-Type; an offer with anything else in
    it, or refused with ``q=0``, is left out. No name here needs escaping; of the schemes only ``allow-utf-8``, which
    Prometheus 3 asks for, is passed on: with it prometheus_client renders OpenMetrics in half the time.
    """
    offers = (_OTHER_ESCAPING.sub("", offer).strip() for offer in accept.split(","))
    return ",".join(offer for offer in offers if _OFFER.fullmatch(offer) and not _REFUSED.search(offer))


def _gzip_accepted(accept_encoding: str) -> bool:
    """Tell whether gzip is asked for and not refused with ``q=0`` (RFC 9110, section 12.5.3)."""
    codings = (coding.strip().lower() for coding in accept_encoding.split(","))
    return any(coding.partition(";")[0].rstrip() == "gzip" and not _REFUSED.search(coding) for coding in codings)
