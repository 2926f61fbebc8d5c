"""What rendering a scrape costs the agent: CPU time of ``Metrics.render``, without the request around it.

    .venv/bin/python -m bench.render

Fourteen checks, as an agent with ten neighbours has them, each made twelve times. The time is the thread's CPU time, so
that other load on the machine does not count.
"""

from __future__ import annotations

import statistics
import time

from checks.config.load import load
from checks.model import TRACE_EVENTS, CheckResult, Neighbourhood, TcpFacts
from checks.report.metrics import Metrics

PLAIN = ("connect_start", "connect_done", "got_conn", "wrote_request", "got_first_resp_byte")
DNS = ("dns_start", "dns_done")
TLS = ("tls_handshake_start", "tls_handshake_done")
CHECKS = {
    **{f"path_node-{number}": PLAIN for number in range(10)},
    "me_service": PLAIN + DNS,
    "api_server_direct": PLAIN + TLS,
    "api_server_dns": PLAIN + DNS + TLS,
    "me_ingress": PLAIN + DNS + TLS,
}
FORMATS = {"text": "", "OpenMetrics": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"}
RENDERINGS = 60


def metrics() -> Metrics:
    """Metrics with twelve results of each check."""
    neighbourhood = Neighbourhood("ok", synced_at=0.0)
    made = Metrics(
        neighbourhood=lambda: neighbourhood,
        checked=lambda: 0,
        buckets=load({}).histogram_buckets,
        victoriametrics=False,
        trace_events=frozenset(TRACE_EVENTS),
        expose_metadata=True,
    )
    for number in range(12):
        for kind, events in CHECKS.items():
            made.take(
                CheckResult(
                    kind,
                    "ok",
                    status_code=200,
                    duration=0.003 * (number + 1),
                    trace={event: 0.001 * place for place, event in enumerate(events)},
                    tcp=TcpFacts(0.001, 1500, 0),
                    not_after=1.9e9 if "tls_handshake_done" in events else None,
                )
            )
    return made


def main() -> None:
    """Measure and print."""
    made = metrics()
    for name, accept in FORMATS.items():
        for encoding in ("", "gzip"):
            seconds = []
            for _ in range(RENDERINGS):
                begun = time.thread_time()
                size = len(made.render(accept, encoding)[1])
                seconds.append(time.thread_time() - begun)
            print(f"{name} {encoding or 'plain'}: {size / 1e3:.1f} kB, {statistics.median(seconds) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
