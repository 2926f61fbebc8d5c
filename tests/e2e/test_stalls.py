"""A failed test is repeated after a stall of the machine, and only then."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time

import pytest

from tests.e2e import stalls
from tests.e2e.stalls import ATTEMPTS, STALL, again_after_a_stall


class Trial:
    """A test that fails the first few times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.tried = 0

    def __call__(self) -> None:
        """Fail, or not."""
        self.tried += 1
        assert self.tried > self.failures


@pytest.fixture
def stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any delay counts as a stall."""
    monkeypatch.setattr(stalls, "STALL", 0.0)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """No delay counts as a stall."""
    monkeypatch.setattr(stalls, "STALL", math.inf)


def test_a_failure_on_a_steady_machine_is_one(steady: None) -> None:
    """A failure without a stall is not repeated."""
    trial = Trial(failures=1)
    with pytest.raises(AssertionError):
        again_after_a_stall(trial)()
    assert trial.tried == 1


def test_a_failure_during_a_stall_is_tried_again(stalled: None) -> None:
    """A test that failed during a stall is repeated until it succeeds."""
    trial = Trial(failures=ATTEMPTS - 1)
    again_after_a_stall(trial)()
    assert trial.tried == ATTEMPTS


def test_it_is_not_tried_for_ever(stalled: None) -> None:
    """A test that fails each time has failed."""
    trial = Trial(failures=ATTEMPTS)
    with pytest.raises(AssertionError):
        again_after_a_stall(trial)()
    assert trial.tried == ATTEMPTS


def test_a_success_is_not_tried_again(stalled: None) -> None:
    """A success is not repeated, even after a stall."""
    trial = Trial(failures=0)
    again_after_a_stall(trial)()
    assert trial.tried == 1


_PULSE = """
import sys
from tests.e2e.stalls import Pulse
with Pulse() as pulse:
    print("go", flush=True)
    sys.stdin.read()
print(pulse.longest)
"""


def test_a_process_that_stood_still_knows() -> None:
    """A stopped process notes at least the time for which it was stopped."""
    with subprocess.Popen([sys.executable, "-c", _PULSE], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(2 * STALL)
        process.send_signal(signal.SIGCONT)
        longest = float(process.communicate(timeout=60)[0])
    assert longest > STALL
