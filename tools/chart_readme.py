"""Write the table of values into the chart's README: ``python -m tools.chart_readme``.

The table comes from values.yaml. A key with a comment right above it, at the same indentation, is a value, and the
comment is its meaning. A key without a comment is a group of values.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent.parent / "helm" / "kubenurse"
_KEY = re.compile(r"(?P<indent> *)(?P<name>\w+):")
_TABLE = re.compile(r"(?<=<!-- values -->\n).*?(?=<!-- end -->)", re.DOTALL)


def with_table(readme: str, values: str) -> str:
    """Return the README with a new table, made from ``values``, a YAML text."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    defaults = yaml.safe_load(values)
    for path, meaning in documented(values):
        default: Any = defaults
        for name in path:
            default = default[name]
        cells = (f"`{'.'.join(path)}`", f"`{json.dumps(default)}`", meaning)
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    table = "\n".join(rows)
    return _TABLE.sub(lambda _: f"\n{table}\n\n", readme)


def documented(values: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path and the meaning of each value that has a comment."""
    groups: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in values.splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.removeprefix("#").strip())
            continue
        if found := _KEY.match(line):
            indent = len(found["indent"])
            groups = [group for group in groups if group[0] < indent]
            if comment:
                yield (*(name for _, name in groups), found["name"]), " ".join(comment)
            groups.append((indent, found["name"]))
        comment = []


def main() -> int:
    """Write the table into the chart's README."""
    readme = CHART / "README.md"
    text = with_table(readme.read_text(encoding="utf-8"), (CHART / "values.yaml").read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
