"""What ``python -m sandbox`` shows of its agents, on a terminal and elsewhere."""

from __future__ import annotations

import io
from typing import Any

from sandbox import table
from sandbox.__main__ import CHANGE_PAUSE, PAUSE, Screen


def state(results: dict[str, tuple[str, float]], neighbourhood: str = "ok", limit: int = 10) -> dict[str, Any]:
    """A /state document as far as the table reads it."""
    return {
        "about": {"neighbour_limit": limit},
        "checks": {kind: {"state": found, "duration": duration} for kind, (found, duration) in results.items()},
        "skipped": [],
        "neighbourhood": {"state": neighbourhood},
    }


def healthy(own: int, agents: int) -> dict[str, Any]:
    """The /state of one of so many agents that find everything well."""
    paths = {f"path_node-{number}": ("ok", 0.001) for number in range(1, agents + 1) if number != own}
    built_in = ("api_server_direct", "api_server_dns", "me_ingress", "me_service")
    return state(dict.fromkeys(built_in, ("ok", 0.0008)) | paths)


def test_four_healthy_agents_fit_the_width() -> None:
    """Four agents have a line each, a column for each check and every other agent, and nothing to complain about."""
    seen = {f"node-{number} (1234567)": healthy(number, 4) for number in range(1, 5)}
    lines = table.as_table(seen).splitlines()
    assert lines[0].split() == [
        "agent",
        "api",
        "direct",
        "api",
        "dns",
        "ingress",
        "service",
        "to",
        "node-1",
        "to",
        "node-2",
        "to",
        "node-3",
        "to",
        "node-4",
    ]
    assert lines[1].split("  ")[0] == "node-1 (1234567)"
    assert lines[1].count("ok 0.8 ms") == 4
    assert lines[1].count("ok 1.0 ms") == 3
    assert all(len(line) <= table.WIDTH for line in lines)
    assert len(lines) == 7
    assert table.failures(seen) == []


def test_failures_are_told_in_full_below() -> None:
    """A state that does not fit its cell is cut there and whole below, with the discovery's and the dead agents'."""
    found = state(
        {"api_server_direct": ("connect: connection refused", 0.1), "me_service": ("ok", 2.5)}, "pods: 403 Forbidden"
    )
    shown = table.as_table({"node-1": found, "node-2": None})
    assert "connect: c…" in shown
    assert "ok 2.50 s" in shown
    assert "\nnode-1 neighbourhood: pods: 403 Forbidden\n" in shown
    assert "\nnode-1 api direct: connect: connection refused\n" in shown
    assert "\nnode-2 agent: no answer\n" in shown


def test_many_failures_are_counted() -> None:
    """However much fails, the list of failures stays short."""
    seen = {f"node-{number}": None for number in range(50)}
    shown = table.as_table(seen)
    assert shown.count("agent: no answer") == table.MAX_FAILURES
    assert f"and {50 - table.MAX_FAILURES} more" in shown


def test_many_neighbours_are_summed_up() -> None:
    """With more neighbours than columns there is one column, which says how many fail, or the slowest time."""
    seen: dict[str, table.State | None] = {f"node-{number}": healthy(number, 12) for number in range(1, 13)}
    broken = healthy(1, 12)
    broken["checks"]["path_node-2"]["state"] = "connect: timed out after 5s"
    broken["checks"]["path_node-3"]["duration"] = 0.2
    lines = table.as_table(seen | {"node-1": broken, "node-3": state({})}).splitlines()
    assert lines[0].endswith("neighbours")
    assert lines[1].endswith("1/11 fail")
    assert lines[2].endswith("ok 1.0 ms")
    assert lines[3].split() == ["node-3", *"-----"]


def test_columns_are_in_natural_order() -> None:
    """node-10 comes after node-9."""
    shown = table.as_table({"node-1": state({"path_node-10": ("ok", 0.0), "path_node-9": ("ok", 0.0)})})
    assert shown.index("to node-9") < shown.index("to node-10")


def test_colours_take_no_width() -> None:
    """With its colours taken off, the coloured table is the plain one."""
    seen = {
        "node-1": state({"me_service": ("500 Internal Server Error", 0.1), "path_node-2": ("ok", 0.1)}),
        "node-2": None,
    }
    coloured = table.as_table(seen, colour=True)
    assert "\x1b[31m500 Intern" in coloured
    assert "\x1b[32mok 100.0 ms" in coloured
    for code in (0, 31, 32):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert [line.rstrip() for line in coloured.splitlines()] == table.as_table(seen).splitlines()


def test_complete_means_every_check_of_every_agent() -> None:
    """The picture is complete when no built-in check, no neighbour (LIMIT allows for) and no agent is missing."""
    whole = {"node-1": healthy(1, 2), "node-2": healthy(2, 2)}
    assert table.complete(whole)
    assert not table.complete(whole | {"node-2": None})
    assert not table.complete(whole | {"node-3": healthy(3, 2)})
    limited = healthy(3, 2)
    limited["about"]["neighbour_limit"] = 1
    assert not table.complete({"node-1": state({}), "node-2": healthy(2, 2)})
    assert table.complete({"a": limited | {"about": {"neighbour_limit": 1}}, "b": limited, "c": limited})


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_blocks_are_printed_when_something_changed_and_sometimes() -> None:
    """Without a terminal: first when all is known, then on a change, and otherwise only now and then."""
    out, now = io.StringIO(), [1000.0]
    screen = Screen(out, clock=lambda: now[0])

    def blocks_after(seconds: float, seen: dict[str, dict[str, Any] | None]) -> int:
        now[0] += seconds
        screen.show(seen)
        return out.getvalue().count("agent  ")

    whole: dict[str, dict[str, Any] | None] = {"node-1": healthy(1, 2), "node-2": healthy(2, 2)}
    assert blocks_after(0, {"node-1": None, "node-2": None}) == 0
    assert blocks_after(1, whole) == 1
    assert blocks_after(CHANGE_PAUSE + 1, whole) == 1
    assert blocks_after(0.1, whole | {"node-2": None}) == 2
    assert blocks_after(CHANGE_PAUSE / 2, whole) == 2, "changes that follow each other closely are shown together"
    assert blocks_after(CHANGE_PAUSE / 2, whole) == 3
    assert blocks_after(PAUSE - 0.1, whole) == 3
    assert blocks_after(0.2, whole) == 4
    assert "\x1b" not in out.getvalue()


def test_incomplete_picture_is_shown_after_a_while() -> None:
    """An agent that never answers does not keep the first table back for long."""
    out, now = io.StringIO(), [0.0]
    screen = Screen(out, clock=lambda: now[0])
    now[0] = PAUSE + 0.1
    screen.show({"node-1": None})
    assert "no answer" in out.getvalue()


def test_terminal_is_redrawn_in_place() -> None:
    """On a terminal each table takes the place of the one before."""
    out = Terminal()
    screen = Screen(out)
    seen: dict[str, dict[str, Any] | None] = {"node-1": healthy(1, 1)}
    screen.show(seen)
    assert "\x1b[J" not in out.getvalue()
    lines = table.as_table(seen).count("\n") + 1
    screen.show(seen)
    assert f"\x1b[{lines}F\x1b[J" in out.getvalue()
