"""Histograms as text of a scrape. Nine in ten lines of a scrape are their buckets.

prometheus_client makes an object of each bucket and escapes its labels again in each scrape; here a histogram's labels
are written once for all of its buckets. Figures: docs/decisions/41-histograms-as-text.md.
Sources: https://prometheus.io/docs/instrumenting/exposition_formats/, https://prometheus.io/docs/specs/om/open_metrics_spec/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from checks.report.histogram import Snapshot, go_string

LE = "le"
VMRANGE = "vmrange"


class HistogramFamily(NamedTuple):
    """A metric's name and help, and each of its histograms: labels in the order of their names, and buckets."""

    name: str
    help: str
    histograms: list[tuple[Mapping[str, str], Snapshot]]


def text_of(families: Iterable[HistogramFamily], bucket_label: str, *, metadata: bool, openmetrics: bool) -> str:
    """Return the families' lines, for Prometheus's text format or for OpenMetrics.

    ``bucket_label`` is LE or VMRANGE. Buckets by range are no histogram to either format: they become three families
    of unknown type. Without ``metadata`` each sample name is a family of its own too. The lines of a family stand
    together, as both formats demand.
    """
    unknown = "unknown" if openmetrics else "untyped"
    return "".join(
        piece
        for family in families
        for piece in (
            _one_family(family)
            if metadata and bucket_label == LE
            else _three_families(family, bucket_label, unknown if metadata else "")
        )
    )


def _one_family(family: HistogramFamily) -> Iterator[str]:
    yield _metadata(family.name, family.help, "histogram")
    for labels, snapshot in family.histograms:
        text = _labels(labels)
        yield from _buckets(family.name, labels, snapshot, LE)
        yield f"{family.name}_count{{{text}}} {snapshot.count}.0\n"
        yield f"{family.name}_sum{{{text}}} {go_string(snapshot.sum)}\n"


def _three_families(family: HistogramFamily, bucket_label: str, kind: str) -> Iterator[str]:
    name = family.name
    for part in ("bucket", "count", "sum"):
        if kind:
            yield _metadata(f"{name}_{part}", family.help, kind)
        for labels, snapshot in family.histograms:
            if part == "bucket":
                yield from _buckets(name, labels, snapshot, bucket_label)
            else:
                value = f"{snapshot.count}.0" if part == "count" else go_string(snapshot.sum)
                yield f"{name}_{part}{{{_labels(labels)}}} {value}\n"


def _buckets(name: str, labels: Mapping[str, str], snapshot: Snapshot, bucket_label: str) -> Iterator[str]:
    """Yield a histogram's buckets; the labels stand in the order of their names, as prometheus_client has it."""
    before = _labels({key: value for key, value in labels.items() if key < bucket_label})
    after = _labels({key: value for key, value in labels.items() if key > bucket_label})
    head = f'{name}_bucket{{{before}{"," if before else ""}{bucket_label}="'
    tail = f'"{"," if after else ""}{after}}} '
    for bound, count in snapshot.buckets:
        yield f"{head}{bound}{tail}{count}.0\n"


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _metadata(name: str, help_text: str, kind: str) -> str:
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"
