"""The table that ``kubenurse check`` and ``kubenurse status`` print."""

from __future__ import annotations

from typing import Any

import pytest

from checks.cli.table import as_table


def check(state: str = "ok", duration: float = 0.0012, remote: str = "10.0.0.1") -> dict[str, Any]:
    """What /state says of a check."""
    return {
        "state": state,
        "event": "" if state == "ok" else "connect_done",
        "status_code": 200 if state == "ok" else None,
        "duration": duration,
        "trace": {"connect_start": 0.0001},
        "started_at": 1735689600.0,
        "tcp": None,
        "not_after": None,
        "remote": remote,
    }


def document(**changes: object) -> dict[str, Any]:
    """A /state document of an agent without checks, with changes."""
    return {
        "pod_name": "kubenurse-x7k2p",
        "node_name": "node-1",
        "not_ready": "",
        "about": {"version": "1"},
        "started_at": 1735689600.0,
        "finished_at": 1735689601.0,
        "checks": {},
        "skipped": [],
        "neighbourhood": neighbourhood(),
    } | changes


def neighbourhood(state: str = "ok", known: int = 0, cordoned: int = 0, checked: int = 0) -> dict[str, Any]:
    """What /state says of the neighbourhood."""
    neighbours = [{"pod_name": f"kubenurse-{number}", "pod_ip": "10.0.0.2"} for number in range(checked)]
    return {
        "state": state,
        "known": known,
        "cordoned": cordoned,
        "own_node_cordoned": False,
        "checked": neighbours,
    }


def test_whole_table() -> None:
    """Checks, skipped ones with their reason and the neighbourhood stand in aligned columns below the agent's name."""
    shown = as_table(
        document(
            checks={
                "api_server_direct": check(),
                "path_node-2": check("connect: connection refused", 0.25, "fd00::1"),
                "me_service": check("dns: name not known", 5.0, ""),
            },
            skipped=["me_ingress"],
            neighbourhood=neighbourhood(known=12, cordoned=1, checked=10),
        ),
        {"me_ingress": "KUBENURSE_INGRESS_URL is not set"},
    )
    assert shown.splitlines() == [
        "kubenurse-x7k2p on node-1",
        "CHECK              STATE                                      TIME       ADDRESS",
        "api_server_direct  ok                                         1.2 ms     10.0.0.1",
        "path_node-2        connect: connection refused                250.0 ms   fd00::1",
        "me_service         dns: name not known                        5000.0 ms",
        "me_ingress         skipped: KUBENURSE_INGRESS_URL is not set",
        "neighbourhood      ok (12 known, 10 checked, 1 cordoned)",
    ]


def test_checks_keep_the_order_of_the_document() -> None:
    """The lines come in the order in which the agent names its checks."""
    kinds = ["path_z", "api_server_dns", "path_a"]
    lines = as_table(document(checks={kind: check() for kind in kinds}), {}).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == kinds


def test_skipped_without_a_known_reason() -> None:
    """Of another agent, whose configuration is not known, it says only that a check is skipped."""
    found = document(skipped=["me_ingress"], neighbourhood=neighbourhood("skipped"))
    lines = as_table(found, {}).splitlines()
    assert lines[-2:] == ["me_ingress     skipped", "neighbourhood  skipped"]


def test_reason_of_a_skipped_neighbourhood() -> None:
    """A neighbourhood that is not looked for says why, and shows no counts."""
    found = document(neighbourhood=neighbourhood("skipped"))
    last = as_table(found, {"neighbourhood": "KUBENURSE_NEIGHBOUR_FILTER is not set"}).splitlines()[-1]
    assert last == "neighbourhood  skipped: KUBENURSE_NEIGHBOUR_FILTER is not set"


def test_failing_discovery_shows_the_reason_and_what_is_still_checked() -> None:
    """While discovery fails the last known neighbours count on."""
    found = document(neighbourhood=neighbourhood("pods: 403 Forbidden", known=3, checked=3))
    assert as_table(found, {}).endswith("pods: 403 Forbidden (3 known, 3 checked, 0 cordoned)")


def test_unknown_node_is_said_in_words() -> None:
    """An agent that does not know its node yet says so instead of showing a hole."""
    assert as_table(document(node_name=""), {}).startswith("kubenurse-x7k2p on an unknown node\n")


def test_agent_without_checks() -> None:
    """With no check made yet there is still a heading and the neighbourhood."""
    assert len(as_table(document(), {}).splitlines()) == 3


def test_no_line_ends_in_blanks() -> None:
    """Cells that are empty leave nothing behind at the end of a line."""
    shown = as_table(document(checks={"me_service": check(remote="")}, skipped=["me_ingress"]), {})
    assert all(line == line.rstrip() for line in shown.splitlines())


@pytest.mark.parametrize("hostile", ["\x1b[2Jok", "ok\r\nme_ingress  ok", "ok\x9b31m", "ok\u2028\u202e"])
def test_document_cannot_steer_the_terminal(hostile: str) -> None:
    """Control characters in a document, which may come from anywhere, are neither printed nor do they make a line."""
    found = document(pod_name=hostile, checks={"me_service": check(hostile, remote=hostile)})
    lines = as_table(found, {}).split("\n")
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
    assert "ok" in lines[2]
