"""The formats of a scrape and what a client asks for by its headers."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric

from checks.report.metrics import Metrics
from checks.report.negotiation import acceptable, gzip_accepted
from tests.report.scraping import (
    OPENMETRICS,
    PROMETHEUS_3,
    Agent,
    Labels,
    fill,
    good,
    label_values,
    parse_openmetrics,
    parse_text,
    scrape,
    value,
)


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
    metrics.take(good(duration=0.05))
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
    metrics.take(good())
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
    """Label values with quotes, backslashes and newlines come out of the parsers as they went in, in all families."""
    hostile = 'a"b\\c\nd} 1 # e'
    metrics.take(good(hostile))
    for name in ("kubenurse_check_success", "kubenurse_httpclient_request_duration_seconds_count"):
        assert value(metrics, name, type=hostile) == 1
        assert any(
            (sample.name, sample.labels.get("type"), sample.value) == (name, hostile, 1)
            for family in parse_openmetrics(scrape(metrics, OPENMETRICS))
            for sample in family.samples
        )


def test_a_type_that_utf_8_cannot_express_breaks_no_scrape(metrics: Metrics) -> None:
    """A lone surrogate becomes its escape, so two such types stay apart, and they are retained by their names."""
    types = ("path_\ud800", "path_\ud801", "path_ä")
    for name in types:
        metrics.take(good(name))
    metrics.retain(types)
    assert scrape(metrics, OPENMETRICS)
    assert label_values(metrics, "kubenurse_check_success", "type") == {r"path_\ud800", r"path_\ud801", "path_ä"}


BEGINNINGS = ("", "a/b;escaping=allow-utf-8", "a/b;q=0.0", "a/b;version=1.0", "a/b;q=0", "gzip;q=0.0", "gzip", ";")
REPEATED = (" ", ";", "; ", "0", ".", "a", "/", ",", ", ;", ";q=0", ";q=0.0 ", "; escaping= ", "\t;", "version=1.")


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("repeated", REPEATED)
def test_headers_take_time_in_proportion_to_their_length(beginning: str, repeated: str) -> None:
    """A header 16 times as long takes about 16 times as long, whatever it repeats: no expression is quadratic."""

    def seconds(size: int) -> float:
        header = beginning + repeated * (size // len(repeated)) + "!"
        best = float("inf")
        for _ in range(5):
            begun = time.thread_time()
            acceptable(header)
            gzip_accepted(header)
            best = min(best, time.thread_time() - begun)
        return best

    # Quadratic time gives 256 and more; the floor leaves out what is too short to be measured.
    assert seconds(16_384) / max(seconds(1_024), 100e-6) < 96


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
