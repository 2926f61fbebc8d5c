"""One text table of what all agents see, made from their /state documents. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 120
MAX_FAILURES = 12
_GAP = "  "
_GREEN, _RED, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"
_COLUMNS = {
    "api_server_direct": "api direct",
    "api_server_dns": "api dns",
    "me_ingress": "ingress",
    "me_service": "service",
}
_PATH = "path_"
_NO_ANSWER = "no answer"
LEGEND = "A line is what one agent sees: ok and the time from start to first byte, or the failure. -: no check"

State = Mapping[str, Any]


def failures(seen: Mapping[str, State | None]) -> list[tuple[str, str, str]]:
    """Return (agent, what, reason) of all that is not well, an agent that does not answer included.

    ``seen`` maps what to call an agent to its /state document, None when it gave none; so it is for all of this file.
    """
    found = []
    for node, document in seen.items():
        if document is None:
            found.append((node, "agent", _NO_ANSWER))
            continue
        checks = {"neighbourhood": document["neighbourhood"], **document["checks"]}
        found += [(node, kind, facts["state"]) for kind, facts in checks.items() if _fails(facts["state"])]
    return found


def complete(seen: Mapping[str, State | None]) -> bool:
    """Tell whether every agent has a result for each built-in check and as many neighbours as its LIMIT allows."""
    others = len(seen) - 1
    return all(
        document is not None
        and all(kind in document["checks"] or kind in document["skipped"] for kind in _COLUMNS)
        and len(_paths(document)) >= min(others, document["about"]["neighbour_limit"] or others)
        for document in seen.values()
    )


def as_table(seen: Mapping[str, State | None], width: int = WIDTH, *, colour: bool = False) -> str:
    """Return the table: a line an agent, a column a check, then the failures in full and a legend.

    When there are too many neighbours for a column each within ``width`` characters, one column sums them up. With
    ``colour``, failures are red and the rest is green, by ANSI sequences (ECMA-48, SGR) that take no width.
    """
    answers = [document for document in seen.values() if document is not None]
    kinds = [kind for kind in _COLUMNS if any(kind in document["checks"] for document in answers)]
    paths = sorted({kind for document in answers for kind in _paths(document)}, key=_natural)
    first = max(map(len, ("agent", *seen)))
    column = max(len("ok 000.0 ms"), *(len(_title(kind)) for kind in (*_COLUMNS, *paths)))
    summed = first + (len(kinds) + len(paths)) * (column + len(_GAP)) > width
    titles = ["agent", *map(_title, kinds), *(["neighbours"] if summed else map(_title, paths))]
    lines = [_line(titles, first, column)]
    for node, document in seen.items():
        cells = [_NO_ANSWER] if document is None else _cells(document, kinds, paths, summed=summed)
        lines.append(_line([node, *cells], first, column, colour=colour))
    return "\n".join([*lines, "", *_told(failures(seen), width), LEGEND[:width]])


def _told(found: Sequence[tuple[str, str, str]], width: int) -> list[str]:
    """The failures in full, one on each line, at most ``MAX_FAILURES``."""
    if not found:
        return []
    lines = [f"{node} {_title(what)}: {reason}"[:width] for node, what, reason in found[:MAX_FAILURES]]
    if len(found) > MAX_FAILURES:
        lines.append(f"and {len(found) - MAX_FAILURES} more")
    return [*lines, ""]


def _line(cells: Sequence[str], first: int, column: int, *, colour: bool = False) -> str:
    shown = [cells[0].ljust(first)]
    for cell in cells[1:]:
        fitted = (cell if len(cell) <= column else cell[: column - 1] + "…").ljust(column)
        shown.append(_painted(fitted) if colour else fitted)
    return _GAP.join(shown).rstrip()


def _painted(cell: str) -> str:
    if cell.startswith("-"):
        return cell
    return f"{_GREEN if cell.startswith('ok ') else _RED}{cell}{_PLAIN}"


def _cells(document: State, kinds: Sequence[str], paths: Sequence[str], *, summed: bool) -> list[str]:
    cells = [_cell(document, kind) for kind in kinds]
    return cells + ([_sum(document)] if summed else [_cell(document, kind) for kind in paths])


def _cell(document: State, kind: str) -> str:
    facts = document["checks"].get(kind)
    if facts is None:
        return "-"
    return facts["state"] if _fails(facts["state"]) else _ok(facts["duration"])


def _sum(document: State) -> str:
    """All neighbours in one cell: the number that fail, or the slowest time when all are ok."""
    checks = [document["checks"][kind] for kind in _paths(document)]
    failing = sum(_fails(facts["state"]) for facts in checks)
    if failing:
        return f"{failing}/{len(checks)} fail"
    return _ok(max(facts["duration"] for facts in checks)) if checks else "-"


def _ok(seconds: float) -> str:
    return f"ok {seconds * 1000:.1f} ms" if seconds < 1 else f"ok {seconds:.2f} s"


def _fails(state: str) -> bool:
    return state not in ("ok", "skipped")


def _paths(document: State) -> list[str]:
    return [kind for kind in document["checks"] if kind.startswith(_PATH)]


def _title(kind: str) -> str:
    return _COLUMNS.get(kind) or kind.replace(_PATH, "to ", 1)


def _natural(kind: str) -> tuple[int, str]:
    """Sort ``node-10`` after ``node-9``."""
    return len(kind), kind
