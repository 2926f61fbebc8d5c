"""Write the generated tables of README.md and docs/metrics.md: ``python -m tools.readme``.

Each table stands between ``<!-- generated ...: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from checks.config.variables import markdown_table
from checks.model import CheckResult, Neighbourhood, TcpFacts
from checks.report.metrics import Metrics

README = Path(__file__).resolve().parent.parent / "README.md"
PAGES = (README, README.parent / "docs" / "metrics.md")
_SECTION = re.compile(r"(<!-- generated [^\n]*: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_TYPE_OF_SAMPLES = {"le": "histogram", "quantile": "summary"}


def with_tables(text: str) -> str:
    """Return the text with its generated tables made anew from the code.

    Raises:
        KeyError: when the text asks for a table with an unknown name.
    """
    tables = {"configuration": markdown_table, "metrics": metrics_table}
    return _SECTION.sub(lambda found: f"{found[1]}\n{tables[found['name']]()}\n{found[3]}", text)


def metrics_table() -> str:
    """Return the agent's own metrics as a table, made from a scrape after a check that sets every metric."""
    rows = ["| name | kind | labels | meaning |", "|---|---|---|---|"]
    for family in sorted(_families(), key=lambda family: family.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = sorted({label for sample in family.samples for label in sample.labels} - _TYPE_OF_SAMPLES.keys())
        rows.append(f"| `{name}` | {family.type} | {', '.join(labels)} | {family.documentation} |")
    return "\n".join(rows) + "\n"


def _families() -> Iterator[Metric]:
    neighbourhood = Neighbourhood(state="ok", synced_at=0.0)
    metrics = Metrics(
        neighbourhood=lambda: neighbourhood,
        checked=lambda: 0,
        buckets=(1.0,),
        victoriametrics=False,
        trace_events=frozenset({"connect_done"}),
        expose_metadata=True,
    )
    facts = TcpFacts(rtt_seconds=0.0, path_mtu_bytes=0, retransmits=0)
    metrics.discovery_failed("timeout")
    metrics.take(
        CheckResult(
            type="me_ingress",
            state="404 Not Found",
            event="status_code_404",
            status_code=404,
            trace={"connect_done": 0.0},
            tcp=facts,
            not_after=0.0,
        )
    )
    scraped = metrics.render("", "")[1].decode()
    return (family for family in text_string_to_metric_families(scraped) if family.name.startswith("kubenurse_"))


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
