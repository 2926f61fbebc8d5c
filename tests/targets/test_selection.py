"""The selection is what is wanted now, and it stays the same object until that changes."""

from __future__ import annotations

from dataclasses import replace

from checks.config.load import load
from checks.model import API_SERVER_DIRECT, RUNNING, Neighbour, Neighbourhood, Target
from checks.targets.selection import Selection

ENVIRON = {
    "KUBENURSE_SERVICEACCOUNT_DIR": "/nonexistent",
    "KUBENURSE_SERVICE_URL": "http://kubenurse.example:8080",
    "KUBENURSE_EXTRA_CHECKS": "db:http://db.example/",
    "KUBENURSE_POD_NAME": "kubenurse-0",
}


def neighbour(number: int) -> Neighbour:
    """Return a neighbour on a node of its own."""
    return Neighbour(f"kubenurse-{number}", f"10.0.0.{number}", "192.0.2.1", f"node-{number}", RUNNING)


class World:
    """A neighbourhood that changes, and a selection from it."""

    def __init__(self, **variables: str) -> None:
        self.known = Neighbourhood("ok", own_node="node-0")
        self.selection = Selection(load(ENVIRON | variables), "", lambda: self.known)

    def types(self) -> list[str]:
        """Return the types wanted now, in order."""
        return [target.type for target in self.selection.now().targets]


def test_fixed_targets_come_before_the_neighbours() -> None:
    """The order is that of a round: own ways in, extra checks, paths."""
    world = World()
    world.known = replace(world.known, neighbours=(neighbour(1),))
    assert world.types() == ["me_service", "db", "path_node-1"]


def test_nothing_is_chosen_anew_while_the_neighbours_stay() -> None:
    """A newer picture of the same neighbours gives the same object."""
    world = World()
    world.known = replace(world.known, neighbours=(neighbour(1), neighbour(2)))
    wanted = world.selection.now()
    world.known = replace(world.known, synced_at=5.0)
    assert world.selection.now() is wanted


def test_a_neighbour_with_another_address_is_another_target() -> None:
    """The check of the old address is not wanted any more, although its type is."""
    world = World()
    world.known = replace(world.known, neighbours=(neighbour(1),))
    before = world.selection.now().targets[-1]
    world.known = replace(world.known, neighbours=(replace(neighbour(1), pod_ip="10.0.0.99"),))
    assert not world.selection.wants(before)
    assert world.types()[-1] == before.type


def test_the_own_node_decides_which_neighbours_are_chosen() -> None:
    """With a limit, a node that becomes known late changes the choice."""
    world = World(KUBENURSE_NEIGHBOUR_LIMIT="2")
    neighbours = tuple(neighbour(number) for number in range(1, 9))
    chosen = set()
    for node in ("node-0", "node-a", "node-b", "node-c"):
        world.known = Neighbourhood("ok", neighbours, own_node=node)
        found = world.selection.now().neighbours
        assert len(found) == 2
        chosen.add(found)
    assert len(chosen) > 1


def test_neighbours_are_asked_by_https_under_the_name_to_verify() -> None:
    """KUBENURSE_NEIGHBOUR_TLS_NAME goes with each path check, and so does the neighbour's node."""
    config = replace(load(ENVIRON), use_tls=True, neighbour_tls_name="kubenurse.example")
    known = Neighbourhood("ok", (neighbour(1),), own_node="node-0")
    target = Selection(config, "", lambda: known).now().targets[-1]
    assert (target.url, target.server_name, target.node) == (
        "https://10.0.0.1:8443/alwayshappy",
        "kubenurse.example",
        "node-1",
    )


def test_neighbours_are_asked_by_http_in_the_name_of_the_own_pod() -> None:
    """Without TLS a path check is plain HTTP to the agents' port, and it announces the own Pod."""
    world = World(KUBENURSE_SERVICE_URL="", KUBENURSE_EXTRA_CHECKS="")
    world.known = replace(world.known, neighbours=(neighbour(1),))
    wanted = world.selection.now()
    assert wanted.targets == (
        Target(
            "path_node-1",
            "http://10.0.0.1:8080/alwayshappy",
            origin="kubenurse-0",
            node="node-1",
            node_address="192.0.2.1",
        ),
    )
    assert wanted.types == {"path_node-1"}


def test_the_api_server_is_checked_first() -> None:
    """The API server's checks go to the address given, before all others."""
    selection = Selection(load(ENVIRON), "https://10.0.0.1:443", lambda: Neighbourhood("ok"))
    first = selection.now().targets[0]
    assert (first.type, first.url) == (API_SERVER_DIRECT, "https://10.0.0.1:443/version")
