"""docs/metrics.md explains the metrics that the code has, with valid queries."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.prometheus import PROMTOOL, needs_promtool
from tools.readme import metrics_table, with_tables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
TEXT = PAGE.read_text(encoding="utf-8")
NAMES = re.findall(r"^\| `(kubenurse_\w+)` \|", metrics_table(), re.MULTILINE)


def examples(text: str = TEXT) -> list[str]:
    """Return all queries in a text."""
    return [" ".join(found.split()) for found in re.findall(r"```promql\n(.*?)```", text, re.DOTALL)]


def test_table_is_in_step() -> None:
    """The table of metrics is the generated one: run ``make docs`` when this fails."""
    assert with_tables(TEXT) == TEXT
    assert metrics_table() in TEXT


@pytest.mark.parametrize("name", NAMES)
def test_each_metric_is_explained_with_a_query(name: str) -> None:
    """Each metric has a section with a query for it."""
    section = TEXT.partition(f"\n### {name}\n")[2].partition("\n##")[0]
    assert any(name in query for query in examples(section))


def test_no_section_without_its_metric() -> None:
    """Every section explains a metric that exists."""
    assert sorted(re.findall(r"^### (kubenurse_\w+)$", TEXT, re.MULTILINE)) == sorted(NAMES)


@needs_promtool
def test_scrape_configuration_is_prometheus_own(tmp_path: Path) -> None:
    """Prometheus accepts the scrape configuration of the page, which sets the labels that dashboards need."""
    shown = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert len(shown) == 1
    configuration = yaml.safe_load(shown[0])
    job = configuration["scrape_configs"][0]
    # Debian builds Prometheus without Kubernetes.
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "config", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"namespace", "pod", "node"} <= {rule.get("target_label") for rule in job["relabel_configs"]}
