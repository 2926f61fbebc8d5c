"""The agent's metrics: check results in, Prometheus text or OpenMetrics out.

The state of a check type is a few small dicts and arrays, not prometheus_client's metric objects, which cost a lock and
an object for each of a hundred buckets. A scrape copies it under the lock, and makes text of the copy without.
Sources: https://prometheus.io/docs/instrumenting/exposition_formats/, https://prometheus.io/docs/specs/om/open_metrics_spec/.
"""

from __future__ import annotations

import gzip
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable
from itertools import chain

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from checks.model import TRACE_EVENTS, CheckResult, Neighbourhood
from checks.report.callers import Callers
from checks.report.families import agent_families, check_families, discovery_errors, histograms
from checks.report.histogram import Histogram, LeHistogram, VmrangeHistogram
from checks.report.histogram_text import LE, VMRANGE, HistogramFamily, text_of
from checks.report.negotiation import acceptable, gzip_accepted
from checks.report.state import OTHER, TypeState

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
# A type that left stays this long, so that a restarted Pod goes on with its counters.
DEPARTED_SECONDS = 45.0

_METADATA = re.compile(rb"^# (?:HELP|TYPE|UNIT) .*\n", re.MULTILINE)
_EOF = b"# EOF\n"

Headers = list[tuple[str, str]]


class Metrics:
    """All metrics of one agent: a sink of results, rendered on request. Every method may be called from any thread.

    ``buckets`` are the ``le`` bounds in seconds, used unless ``victoriametrics`` asks for ``vmrange`` buckets.
    ``trace_events`` are the events kept in the trace histogram. ``expose_metadata`` False leaves out HELP and TYPE.
    ``neighbourhood``, ``checked`` (the number of neighbours checked) and ``log_dropped`` (lines of the log that were
    dropped so far) are asked at each scrape, as is ``own``, where given: how many seconds the agent's own timers were
    late, and whether it is starved. ``clock`` returns monotonic seconds.

    Series are bounded by the number of check types, which ``retain`` bounds: a type has at most 10 histograms, 18 codes
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
        log_dropped: Callable[[], int] = lambda: 0,
        lateness: Callable[[], float] = lambda: 0.0,
        starved: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._neighbourhood = neighbourhood
        self._checked = checked
        self._log_dropped = log_dropped
        self._lateness = lateness
        self._starved = starved
        self._new_histogram: Callable[[], Histogram] = (
            VmrangeHistogram if victoriametrics else lambda: LeHistogram(buckets)
        )
        self._bucket_label = VMRANGE if victoriametrics else LE
        self._trace_events = trace_events.intersection(TRACE_EVENTS)
        self._expose_metadata = expose_metadata
        self._clock = clock
        self._lock = threading.Lock()
        self._types: dict[str, TypeState] = {}
        self._discovery_errors: dict[str, int] = {}
        self._callers = Callers(clock)
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)

    def take(self, result: CheckResult) -> None:
        """Take in one finished check, failed or not."""
        name = _encodable(result.type)
        with self._lock:
            state = self._types.get(name)
            if state is None:
                state = self._types[name] = TypeState(self._clock)
            state.take(result, self._trace_events, self._new_histogram)

    def retain(self, types: Collection[str]) -> None:
        """Say which types are checked now. The others' series end 45 s after they were first missing here."""
        kept = {_encodable(name) for name in types}
        with self._lock:
            now = self._clock()
            for name, state in self._types.items():
                if name in kept:
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
        encoder, content_type = choose_encoder(acceptable(accept))
        families, histogram_families = self._collect()
        body = encoder(_Collected(chain(families, self._process.collect())))
        if not self._expose_metadata:
            body = _METADATA.sub(b"", body)
        openmetrics = body.endswith(_EOF)
        text = text_of(
            histogram_families, self._bucket_label, metadata=self._expose_metadata, openmetrics=openmetrics
        ).encode()
        body = body.removesuffix(_EOF) + text + _EOF if openmetrics else body + text
        headers = [("Content-Type", content_type), ("Vary", "Accept, Accept-Encoding")]
        if gzip_accepted(accept_encoding):
            body = gzip.compress(body, compresslevel=3, mtime=0)
            headers.append(("Content-Encoding", "gzip"))
        return headers, body

    def _collect(self) -> tuple[list[Metric], list[HistogramFamily]]:
        """Copy everything, so that one scrape is consistent."""
        families = agent_families(
            self._neighbourhood(),
            checked=self._checked(),
            callers=self._callers.count(),
            log_dropped=self._log_dropped(),
            lateness=self._lateness(),
            starved=self._starved(),
            now=self._clock(),
        )
        with self._lock:
            self._drop_departed()
            types = sorted(self._types.items())
            families += check_families(types)
            families.append(discovery_errors(self._discovery_errors))
            histogram_families = histograms(types)
        if not self._expose_metadata:
            for family in families:
                # Without TYPE each sample name is a family of its own, and the lines of a family have to be together.
                family.samples.sort(key=lambda sample: sample.name)
        return families, histogram_families

    def _drop_departed(self) -> None:
        now = self._clock()
        for name, state in list(self._types.items()):
            if state.departed_at is not None and now - state.departed_at >= DEPARTED_SECONDS:
                del self._types[name]


class _Collected(Collector):
    """Families as prometheus_client's encoders take them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        return self._families


def _encodable(name: str) -> str:
    """Return a label value that UTF-8 can express: a lone surrogate becomes its escape, so that names stay distinct."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()
