"""The watchdog names the part that no longer works, and blames nobody for a process that stood still."""

from __future__ import annotations

import pytest

from checks.schedule.watchdog import LOOK_SECONDS, Watchdog, longest_silence

LIMIT = 60.0


class World:
    """A fake clock, and a watchdog that looks after two parts."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lived = {"rounds": 1000.0, "server": 1000.0}
        self.watchdog = Watchdog(LIMIT, lambda: self.now)
        for name in self.lived:
            self.watchdog.watch(name, lambda name=name: self.lived[name])  # type: ignore[misc] # mypy cannot infer it

    def pass_time(self, seconds: float, *alive: str) -> list[str]:
        """Let time pass, with a look every LOOK_SECONDS; return what the looks found."""
        found = []
        end = self.now + seconds
        while self.now < end:
            self.now += LOOK_SECONDS
            self.lived.update(dict.fromkeys(alive, self.now))
            found.append(self.watchdog.silent())
        return found


def test_parts_at_work_are_left_alone() -> None:
    """While each part shows life, no look finds anything."""
    assert set(World().pass_time(3600, "rounds", "server")) == {""}


def test_a_silent_part_is_named_after_its_limit() -> None:
    """The look after the limit names the part and its silence, and none before does."""
    found = World().pass_time(LIMIT + LOOK_SECONDS, "server")
    assert found[:-1] == [""] * (len(found) - 1)
    assert found[-1] == "rounds has shown no life for 65 s, expected at most 60 s"


def test_a_part_that_comes_back_in_time_is_no_fault() -> None:
    """Silence shorter than the limit is forgotten."""
    world = World()
    world.pass_time(LIMIT - LOOK_SECONDS, "server")
    assert set(world.pass_time(LIMIT, "rounds", "server")) == {""}


def test_a_process_that_stood_still_blames_no_part() -> None:
    """After a stop of the whole process each part has its full time again; a part that stays silent is still found."""
    world = World()
    world.now += 600.0
    assert world.watchdog.silent() == ""
    found = world.pass_time(LIMIT + LOOK_SECONDS, "server")
    assert found[:-1] == [""] * (len(found) - 1)
    assert found[-1].startswith("rounds ")


@pytest.mark.parametrize(("gap", "blamed"), [(2 * LOOK_SECONDS, True), (2 * LOOK_SECONDS + 1, False)])
def test_only_a_look_that_comes_later_than_two_looks_starts_anew(gap: float, *, blamed: bool) -> None:
    """Looks that come somewhat late still find a silent part; a gap of more than two looks counts as a stop."""
    world = World()
    found = []
    while world.now < 1000.0 + 3 * LIMIT:
        world.now += gap
        found.append(world.watchdog.silent())
    assert any(found) == blamed


def test_a_group_has_its_own_limit() -> None:
    """A part that is quiet by nature is named after the longer limit of its group."""
    world = World()
    world.watchdog.watch_all(lambda: {"discovery-pods": 1000.0}, 2 * LIMIT)
    assert set(world.pass_time(2 * LIMIT, "rounds", "server")) == {""}
    found = world.pass_time(LOOK_SECONDS, "rounds", "server")
    assert found == ["discovery-pods has shown no life for 125 s, expected at most 120 s"]


@pytest.mark.parametrize(("interval", "limit"), [(0.01, 60.0), (5.0, 60.0), (30.0, 300.0)])
def test_limit_is_ten_intervals_and_at_least_a_minute(interval: float, limit: float) -> None:
    """Long intervals have a longer limit."""
    assert longest_silence(interval) == limit
