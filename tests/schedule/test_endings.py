"""What ends the agent reaches the one who waits for it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from checks.schedule.endings import Endings

# The main thread does not want the signal, so the kernel gives it to the other one.
_ANOTHER_THREADS_SIGNAL = """
import os, signal, threading
from checks.schedule.endings import Endings

endings = Endings()
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
print(endings.wait(), flush=True)
os._exit(0)
"""


@pytest.fixture
def endings() -> Iterator[Endings]:
    """Endings of a signal that nobody else sends; once closed, one that comes late does nothing."""
    before = signal.getsignal(signal.SIGUSR1)
    with contextlib.closing(Endings([signal.SIGUSR1])) as made:
        yield made
    signal.raise_signal(signal.SIGUSR1)  # by default it would end this process
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_another_thread_took_is_not_lost() -> None:
    """Whichever thread the kernel chooses to handle SIGTERM, the main thread learns of it while it is blocked."""
    done = subprocess.run(
        [sys.executable, "-c", _ANOTHER_THREADS_SIGNAL], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("SIGTERM\n", "")


def test_signals_and_reports_come_one_by_one(endings: Endings) -> None:
    """Each signal and each report ends one wait, in the order they came."""
    signal.raise_signal(signal.SIGUSR1)
    endings.report("server http died")
    signal.raise_signal(signal.SIGUSR1)
    assert [endings.wait(20) for _ in range(3)] == ["SIGUSR1", "server http died", "SIGUSR1"]


def test_a_report_from_another_thread_wakes(endings: Endings) -> None:
    """Who waits without a timeout is woken by a report made meanwhile."""
    threading.Timer(0.05, endings.report, ("server https died",)).start()
    assert endings.wait() == "server https died"


@pytest.mark.parametrize("timeout", [0.0, 0.01])
def test_nothing_comes(endings: Endings, timeout: float) -> None:
    """With nothing to tell, the wait ends after its timeout, which may be none."""
    assert endings.wait(timeout) == ""


def test_reports_never_block(endings: Endings) -> None:
    """However many reports nobody waits for, making one takes no time, and the first of them are there."""
    for number in range(5000):
        endings.report(str(number))
    assert [endings.wait(1) for _ in range(3)] == ["0", "1", "2"]
