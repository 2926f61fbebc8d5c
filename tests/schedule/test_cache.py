"""The TTL cache answers with what is young, remembers what is latest and forgets what is gone."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.schedule.cache import TTLCache

TTL = 3.0


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The cache's clock."""
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> TTLCache[str, str]:
    """A cache with values that are fresh for TTL seconds."""
    return TTLCache(TTL, clock)


@pytest.mark.parametrize(
    ("age", "fresh"), [(0.0, True), (TTL / 2, True), (TTL - 0.001, True), (TTL, False), (TTL * 100, False)]
)
def test_value_is_fresh_while_younger_than_the_ttl(
    cache: TTLCache[str, str], clock: Clock, age: float, fresh: bool
) -> None:
    """A value is fresh until exactly TTL seconds after it was put, and the latest known ever after."""
    cache.put("me_service", "ok")
    clock.now += age
    assert cache.fresh("me_service") == ("ok" if fresh else None)
    assert cache.latest("me_service") == "ok"


def test_ttl_of_zero_keeps_nothing_fresh(clock: Clock) -> None:
    """With a TTL of 0 no value is fresh, not even at the moment it is put, but the latest stays known."""
    cache: TTLCache[str, str] = TTLCache(0.0, clock)
    cache.put("me_service", "ok")
    assert cache.fresh("me_service") is None
    assert cache.latest("me_service") == "ok"


def test_new_value_replaces_the_old_one_and_its_age(cache: TTLCache[str, str], clock: Clock) -> None:
    """Putting a key again starts its age anew and keeps one value only."""
    cache.put("me_service", "ok")
    clock.now += TTL
    cache.put("me_service", "timeout")
    clock.now += TTL - 0.001
    assert cache.fresh("me_service") == "timeout"
    assert len(cache) == 1


def test_keys_age_apart(cache: TTLCache[str, str], clock: Clock) -> None:
    """One key's age says nothing of another's."""
    cache.put("old", "ok")
    clock.now += TTL - 1
    cache.put("young", "ok")
    clock.now += 1
    assert cache.fresh("old") is None
    assert cache.fresh("young") == "ok"


def test_unknown_key_has_no_value(cache: TTLCache[str, str]) -> None:
    """A key that was never put is neither fresh nor known."""
    assert cache.fresh("me_service") is None
    assert cache.latest("me_service") is None


@given(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)))
def test_retain_forgets_all_other_keys(put: set[int], kept: set[int]) -> None:
    """What remains is exactly what was put and is to be kept: the cache cannot outgrow the keys in use."""
    cache: TTLCache[int, int] = TTLCache(TTL)
    for key in put:
        cache.put(key, key)
    cache.retain(kept)
    assert len(cache) == len(put & kept)
    assert {key for key in put if cache.latest(key) is not None} == put & kept


def test_threads_may_use_it_at_once(cache: TTLCache[str, str]) -> None:
    """Threads that put, read and forget at once get no error and only values that were put."""
    rounds, workers = 300, 4
    together = threading.Barrier(workers)
    wrong: list[object] = []

    def work(number: int) -> None:
        together.wait(30)
        try:
            for turn in range(rounds):
                key = f"path_{(turn + number) % 7}"
                cache.put(key, key)
                if cache.fresh(key) not in (key, None):
                    wrong.append(cache.fresh(key))
                cache.retain([f"path_{other}" for other in range(turn % 7)])
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert len(cache) <= 7
