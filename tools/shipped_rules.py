"""Carry rules/kubenurse.rules.yml to where it is shipped: ``python -m tools.shipped_rules``.

A kustomization and a chart cannot reach files outside their directories, so the rules stand there a second time: as a
PrometheusRule (https://prometheus-operator.dev/docs/api-reference/api/) in the one, as they are in the other. A test
holds them equal.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RULES = Path("rules/kubenurse.rules.yml")
PROMETHEUS_RULE = Path("manifests/components/prometheus-rule/prometheus-rule.yaml")
CHART_COPY = Path("helm/kubenurse/files/kubenurse.rules.yml")

_HEAD = """\
# Made from rules/kubenurse.rules.yml by `python -m tools.shipped_rules`; change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: kubenurse
  namespace: kube-system
  labels:
    app.kubernetes.io/name: kubenurse
spec:
"""


def shipped(rules: str) -> Iterator[tuple[Path, str]]:
    """Yield the path, from the project's directory, and the text of each file made from the rules' text."""
    yield PROMETHEUS_RULE, _HEAD + textwrap.indent(rules[rules.index("groups:\n") :], "  ")
    yield CHART_COPY, rules


def main() -> int:
    """Write the files."""
    for path, text in shipped((ROOT / RULES).read_text(encoding="utf-8")):
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
