"""Copy rules/kubenurse.rules.yml into the kustomization and the chart: ``python -m tools.shipped_rules``.

A kustomization and a chart cannot read files outside their directories, so each has a copy: the kustomization as a
PrometheusRule (https://prometheus-operator.dev/docs/api-reference/api/), the chart unchanged. Tests keep the copies
equal.
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
# Generated from rules/kubenurse.rules.yml by `python -m tools.shipped_rules`: change that file.
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
    """Yield path (relative to the project) and text of each copy of ``rules``, the text of the rule file."""
    yield PROMETHEUS_RULE, _HEAD + textwrap.indent(rules[rules.index("groups:\n") :], "  ")
    yield CHART_COPY, rules


def main() -> int:
    """Write the copies."""
    for path, text in shipped((ROOT / RULES).read_text(encoding="utf-8")):
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
