"""What the metrics know of one check type: counters, histograms and the latest measurements."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from checks.model import HTTP, CheckResult
from checks.report.histogram import Histogram
from checks.report.summary import Summary

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
OTHER = "other"
# Different status codes shown for one type; an endpoint that answers ever new ones ends in "other".
MAX_CODES = 16

_STATUS_EVENT = re.compile(r"status_code_[1-5][0-9]{2}")


class TypeState:
    """The state of one check type, a few small dicts and arrays. Its owner locks.

    Times: ``timestamp`` and ``not_after`` are epoch seconds, ``departed_at`` is monotonic seconds: when the type was
    first missing from the checks wanted. ``retransmits`` is None until a connection was measured.
    """

    __slots__ = (
        "departed_at",
        "duration",
        "errors",
        "not_after",
        "path_mtu",
        "requests",
        "retransmits",
        "rtt",
        "success",
        "summary",
        "timestamp",
        "trace",
    )

    def __init__(self, clock: Callable[[], float]) -> None:
        self.errors: dict[str, int] = {}
        self.requests: dict[str, int] = {}
        self.summary = Summary(clock)
        self.duration: Histogram | None = None
        self.trace: dict[str, Histogram] = {}
        self.success = False
        self.timestamp = 0.0
        self.rtt: float | None = None
        self.path_mtu: int | None = None
        self.retransmits: int | None = None
        self.not_after: float | None = None
        self.departed_at: float | None = None

    def take(self, result: CheckResult, trace_events: Collection[str], new_histogram: Callable[[], Histogram]) -> None:
        """Add one result. ``trace_events`` are the events kept, ``new_histogram`` makes one at its first value."""
        self.success = result.ok
        self.timestamp = result.started_at + result.duration
        self.summary.observe(result.duration)
        self._count_request(result)
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
        self._take_connection(result)

    def _take_connection(self, result: CheckResult) -> None:
        """Keep what the connection showed. A check without a connection leaves what an earlier one showed.

        The end of an expired certificate is wanted most when handshakes fail because of it.
        """
        if result.tcp is not None:
            self.retransmits = (self.retransmits or 0) + result.tcp.retransmits
            # A connection that failed has retransmits, but perhaps no round trip and no path MTU.
            if result.tcp.rtt_seconds is not None:
                self.rtt = result.tcp.rtt_seconds
            if result.tcp.path_mtu_bytes is not None:
                self.path_mtu = result.tcp.path_mtu_bytes
        if result.not_after is not None:
            self.not_after = result.not_after
        elif result.event == "tls_handshake_done" and (self.not_after or 0.0) > result.started_at:
            # The certificate seen last is still good, so the refused one is another: its end is unknown.
            self.not_after = None

    def _count_request(self, result: CheckResult) -> None:
        """Count an HTTP request by its status; a check of another kind is no HTTP request and has no status."""
        status = result.status_code
        if status is not None:
            known = 100 <= status <= 599 and _has_room(self.requests, str(status))
            _add_one(self.requests, str(status) if known else OTHER)
        elif result.kind == HTTP and not result.ok:
            _add_one(self.requests, "round_trip_error")

    def _count_error(self, event: str) -> None:
        if event in ERROR_EVENTS:
            _add_one(self.errors, event)
        elif _STATUS_EVENT.fullmatch(event):
            _add_one(self.errors, event if _has_room(self.errors, event) else f"status_code_{OTHER}")
        else:
            _add_one(self.errors, "round_trip_error")


def _has_room(counts: dict[str, int], label: str) -> bool:
    return label in counts or len(counts) < MAX_CODES


def _add_one(counts: dict[str, int], label: str) -> None:
    counts[label] = counts.get(label, 0) + 1
