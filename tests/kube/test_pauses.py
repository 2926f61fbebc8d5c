"""Pauses: how long, and how they end early."""

from __future__ import annotations

import threading
import time

from checks.kube.pauses import LONGEST_PAUSE, Backoff, Sleeper


def test_pauses_grow_up_to_a_bound() -> None:
    """From failure to failure the longest pause doubles, up to a bound."""
    backoff = Backoff(lambda: 1.0)
    pauses = []
    for failures in (0, 1, 2, 3, 4, 5, 5000):
        backoff.failures = failures
        pauses.append(backoff.pause())
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE, LONGEST_PAUSE]


def test_pauses_are_random() -> None:
    """A pause is a random part of the longest one, so that a fleet's agents come back one by one."""
    backoff = Backoff(lambda: 0.25)
    backoff.failures = 3
    assert backoff.pause() == 2.0


class Sleep:
    """A sleep in a thread of its own."""

    def __init__(self, at_least: float, seconds: float) -> None:
        self.steps = 0
        self.sleeper = Sleeper(self._step)
        self._thread = threading.Thread(target=self.sleeper.sleep, args=(at_least, seconds), daemon=True)
        self._thread.start()

    def _step(self) -> None:
        self.steps += 1

    def wake(self, seconds: float) -> None:
        """Wake it, once it sleeps."""
        deadline = time.monotonic() + 5.0
        while not self.sleeper.wake_within(seconds):
            assert time.monotonic() < deadline

    def ends(self, within: float) -> bool:
        """Tell whether it ends in time."""
        self._thread.join(within)
        return not self._thread.is_alive()


def test_a_sleep_is_cut_short() -> None:
    """A sleep of an hour ends soon after it is woken."""
    sleep = Sleep(0.0, 3600.0)
    sleep.wake(0.01)
    assert sleep.ends(5.0)
    assert sleep.steps


def test_a_sleep_lasts_for_what_the_server_asked() -> None:
    """Waking does not shorten a sleep below the time that the server asked for; stopping does, and for good."""
    sleep = Sleep(3600.0, 3600.0)
    sleep.wake(0.0)
    assert not sleep.ends(0.2)
    sleep.sleeper.stop()
    assert sleep.ends(5.0)
    sleep.sleeper.sleep(3600.0, 3600.0)
    assert sleep.sleeper.stopped


def test_a_thread_that_does_not_sleep_is_not_woken() -> None:
    """Waking has no effect beforehand, nor after the end."""
    sleeper = Sleeper()
    assert not sleeper.wake_within(0.0)
    sleeper.sleep(0.0, 0.0)
    assert not sleeper.wake_within(0.0)
