"""What a reflector says of its requests: by a clock that the test sets."""

from __future__ import annotations

from checks.kube.health import HEALTHY_WATCH, SHORT_WATCHES, STEADY, Health


def failing(health: Health, now: float) -> str:
    """Return the failure at a moment."""
    return health.status.at(now).failure


def test_a_list_confirms_and_a_watch_that_stays_ends_a_failure() -> None:
    """After a failure a list confirms the objects at once; requests count as working once a watch has stayed."""
    health = Health()
    assert health.status.at(0.0).synced_at is None
    health.failed(1.0, "403")
    health.listed(2.0)
    assert (failing(health, 2.0), health.status.synced_at) == ("403", 2.0)
    health.opened(3.0)
    assert failing(health, 3.0 + STEADY - 0.1) == "403"
    status = health.status.at(3.0 + STEADY)
    assert (status.failure, status.synced_at) == ("", 3.0 + STEADY)


def test_an_event_confirms_and_does_not_end_a_failure_at_once() -> None:
    """An event makes the objects young; a failure ends with an event only once the watch has stayed."""
    health = Health()
    health.failed(0.0, "503")
    health.opened(10.0)
    health.heard(10.1)
    assert (failing(health, 10.1), health.status.synced_at) == ("503", 10.1)
    health.heard(10.0 + STEADY)
    assert (health.status.failure, health.status.synced_at) == ("", 10.0 + STEADY)


def test_watches_that_open_and_are_refused_in_turn_stay_failing() -> None:
    """A watch that opens for a moment between refusals ends no failure and confirms nothing: the age grows."""
    health = Health()
    health.listed(0.0)
    for second in range(10, 100, 10):
        health.failed(second, "503")
        health.opened(second + 5.0)
        health.ended(second + 5.5, "closed")
        assert failing(health, second + 9.0)
        assert health.status.synced_at == 0.0


def test_watches_that_end_at_once_are_a_failure_with_the_reason() -> None:
    """Some short watches in a row are a failure; from then on only a watch of some length ends it."""
    health = Health()
    health.listed(0.0)
    now = 0.0
    for number in range(1, SHORT_WATCHES + 3):
        now += 10.0
        health.opened(now)
        assert not health.ended(now + STEADY / 2, "cut")
        expected = "each watch ends at once: cut" if number >= SHORT_WATCHES else ""
        assert failing(health, now + 9.0) == expected
    assert health.status.synced_at == 0.0
    health.opened(now)
    assert failing(health, now + STEADY) != ""
    assert failing(health, now + HEALTHY_WATCH) == ""
    assert health.ended(now + HEALTHY_WATCH, "cut")
    assert failing(health, now + 1000.0) == ""


def test_a_watch_that_ended_is_not_steady_later() -> None:
    """Time after the end of a watch confirms nothing."""
    health = Health()
    health.failed(0.0, "503")
    health.opened(1.0)
    health.ended(1.0 + STEADY / 2, "cut")
    assert failing(health, 100.0) == "503"
    health.opened(200.0)
    health.ended(200.0 + STEADY, "cut")
    assert (failing(health, 300.0), health.status.at(300.0).synced_at) == ("", 200.0 + STEADY)
