"""docs/metrics.md says what the code does, and its queries are queries."""

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
    """All queries that a text shows."""
    return [" ".join(found.split()) for found in re.findall(r"```promql\n(.*?)```", text, re.DOTALL)]


def test_table_is_in_step() -> None:
    """The table of all metrics is the one that the code gives: run ``make docs`` when this fails."""
    assert with_tables(TEXT) == TEXT
    assert metrics_table() in TEXT


@pytest.mark.parametrize("name", NAMES)
def test_each_metric_is_explained_with_a_query(name: str) -> None:
    """Each metric has a section of its own that explains it and has a query for it."""
    section = TEXT.partition(f"\n### {name}\n")[2].partition("\n##")[0]
    assert any(name in query for query in examples(section))
    assert len(section.partition("```")[0].split()) > 10


def test_no_section_without_its_metric() -> None:
    """Nothing is explained that is not there."""
    assert sorted(re.findall(r"^### (kubenurse_\w+)$", TEXT, re.MULTILINE)) == sorted(NAMES)


@needs_promtool
def test_scrape_configuration_is_prometheus_own(tmp_path: Path) -> None:
    """The scrape configuration shown is one that Prometheus takes, and it sets the labels that dashboards go by."""
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
