"""A ``/state`` document as a table for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checks.text import printable


def as_table(document: Mapping[str, Any], skips: Mapping[str, str]) -> str:
    """Return the table: a line a check with its state, time and address, then the neighbourhood.

    ``skips`` gives the reason of a check that is not made, by its type; without one it says ``skipped``.
    """
    rows = [("CHECK", "STATE", "TIME", "ADDRESS")]
    rows += [_row(kind, found) for kind, found in document["checks"].items()]
    rows += [(kind, _skipped(skips.get(kind, "")), "", "") for kind in document["skipped"]]
    rows.append(("neighbourhood", _neighbourhood(document["neighbourhood"], skips), "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    where = f"{document['pod_name']} on {document['node_name'] or 'an unknown node'}"
    return "\n".join(printable(line) for line in (where, *lines))


def _row(kind: str, found: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return kind, found["state"], f"{found['duration'] * 1000:.1f} ms", found["remote"]


def _skipped(why: str) -> str:
    return f"skipped: {why}" if why else "skipped"


def _neighbourhood(found: Mapping[str, Any], skips: Mapping[str, str]) -> str:
    if found["state"] == "skipped":
        return _skipped(skips.get("neighbourhood", ""))
    return f"{found['state']} ({found['known']} known, {len(found['checked'])} checked, {found['cordoned']} cordoned)"
