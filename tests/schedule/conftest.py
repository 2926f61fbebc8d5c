"""Rounds in a world of their own, ended after each test, and what they log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from checks.schedule.rounds import Rounds, log
from tests.schedule.world import LONG, PATIENCE, Make, World


@pytest.fixture
def make() -> Iterator[Make]:
    """Make rounds in a world: without settings they never start by themselves, and their results last."""
    made: list[tuple[World, Rounds]] = []

    def make_rounds(
        world: World, *, interval: float = LONG, timeout: float = PATIENCE, ttl: float = LONG, phase: float | None = 0.0
    ) -> Rounds:
        rounds = Rounds(
            targets=world.targets,
            check=world.check,
            wants=lambda _: True,
            take=world.take,
            begin=world.prune,
            interval=interval,
            timeout=timeout,
            ttl=ttl,
            phase=phase,
        )
        made.append((world, rounds))
        return rounds

    yield make_rounds
    for world, rounds in made:
        rounds.stop()
        world.release()
        rounds.close()


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the rounds log, whatever other tests did to the loggers above theirs."""
    caplog.set_level(logging.INFO, logger=log.name)
    log.addHandler(caplog.handler)
    yield caplog
    log.removeHandler(caplog.handler)
