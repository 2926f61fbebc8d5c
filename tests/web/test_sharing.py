"""Work that callers share, and taking turns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from checks.web.sharing import BusyError, SharedWork, SharedWorkError, Turn
from tests.support.waiting import until
from tests.web.clients import PATIENCE


class Work:
    """Work that ends when it is let, and counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.started = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> int:
        """Return how often it was begun before."""
        self.begun += 1
        begun = self.begun
        self.started.set()
        assert self.go_on.wait(PATIENCE)
        return begun


def shared(most: int = 10, most_of_address: int = 10, seconds: float = PATIENCE) -> SharedWork[int]:
    """Work of which the limits do not matter unless they are given."""
    return SharedWork(most=most, most_of_address=most_of_address, seconds=seconds)


def start(
    pool: ThreadPoolExecutor, sharing: SharedWork[int], work: Callable[[], int], callers: int
) -> list[Future[int]]:
    """Let callers ask for the same."""
    return [pool.submit(sharing.result, "key", "10.0.0.1", work) for _ in range(callers)]


def test_callers_at_the_same_time_share_the_result_and_later_ones_do_not() -> None:
    """However many ask, work is done once; whoever asks afterwards gets work of its own."""
    sharing, work = shared(), Work()
    with ThreadPoolExecutor(10) as pool:
        asked = start(pool, sharing, work, 10)
        until(lambda: sharing.waiting == 10, PATIENCE)
        work.go_on.set()
        assert {one.result(PATIENCE) for one in asked} == {1}
    assert sharing.result("key", "10.0.0.1", work) == 2
    assert sharing.waiting == 0


def test_another_key_is_other_work() -> None:
    """Callers that ask for something else do not get the result of this."""
    sharing, work = shared(), Work()
    with ThreadPoolExecutor(1) as pool:
        asked = start(pool, sharing, work, 1)
        assert work.started.wait(PATIENCE)
        assert sharing.result("other", "10.0.0.1", lambda: 7) == 7
        work.go_on.set()
        assert asked[0].result(PATIENCE) == 1


def test_the_room_to_wait_is_bounded_for_all_and_for_each_address() -> None:
    """A caller without room is told at once; one address leaves room for others."""
    sharing, work = shared(most=4, most_of_address=3), Work()
    with ThreadPoolExecutor(4) as pool:
        start(pool, sharing, work, 3)
        until(lambda: sharing.waiting == 3, PATIENCE)
        with pytest.raises(BusyError):
            sharing.result("key", "10.0.0.1", work)
        last = pool.submit(sharing.result, "key", "10.0.0.2", work)
        until(lambda: sharing.waiting == 4, PATIENCE)
        with pytest.raises(BusyError):
            sharing.result("key", "10.0.0.3", work)
        work.go_on.set()
        assert last.result(PATIENCE) == 1


def test_waiting_for_the_work_of_others_is_bounded() -> None:
    """A caller that has waited long enough is told, and the work goes on."""
    sharing, work = shared(seconds=0.05), Work()
    with ThreadPoolExecutor(1) as pool:
        asked = start(pool, sharing, work, 1)
        assert work.started.wait(PATIENCE)
        with pytest.raises(BusyError):
            sharing.result("key", "10.0.0.1", work)
        work.go_on.set()
        assert asked[0].result(PATIENCE) == 1


@pytest.mark.parametrize(("error", "others"), [(ValueError("broken"), SharedWorkError), (BusyError("x"), BusyError)])
def test_work_that_fails_fails_for_all_and_is_done_again(error: Exception, others: type[Exception]) -> None:
    """The error reaches its own caller as it is, further callers with its words; the next caller begins anew."""
    sharing, work = shared(), Work()

    def fail() -> int:
        work()
        raise error

    with ThreadPoolExecutor(2) as pool:
        own = start(pool, sharing, fail, 1)
        assert work.started.wait(PATIENCE)
        joined = start(pool, sharing, fail, 1)
        until(lambda: sharing.waiting == 2, PATIENCE)
        work.go_on.set()
        wait([*own, *joined], PATIENCE)
    assert own[0].exception() is error
    assert isinstance(joined[0].exception(), others)
    assert sharing.result("key", "10.0.0.1", lambda: 5) == 5


def test_turns_are_taken_one_at_a_time() -> None:
    """While one thread has its turn, another one waits, and is told when that takes too long."""
    turn, work = Turn(0.05), Work()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(turn.take, work)
        assert work.started.wait(PATIENCE)
        with pytest.raises(BusyError):
            turn.take(work)
        work.go_on.set()
        assert asked.result(PATIENCE) == 1
    with pytest.raises(ZeroDivisionError):
        turn.take(lambda: 1 // 0)
    assert turn.take(work) == 2
