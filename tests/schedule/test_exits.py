"""What ends the agent reaches the one who waits for it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from checks.schedule.exits import Exits

# The main thread does not want the signal, so the kernel gives it to the other one.
_ANOTHER_THREADS_SIGNAL = """
import os, signal, threading
from checks.schedule.exits import Exits

exits = Exits()
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
print(exits.wait(), flush=True)
os._exit(0)
"""


@pytest.fixture
def exits() -> Iterator[Exits]:
    """Exits of a signal that nobody else sends; once closed, one that comes late does nothing."""
    before = signal.getsignal(signal.SIGUSR1)
    with contextlib.closing(Exits([signal.SIGUSR1])) as made:
        yield made
    signal.raise_signal(signal.SIGUSR1)  # by default it would end this process
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_another_thread_took_is_not_lost() -> None:
    """Whichever thread the kernel chooses to handle SIGTERM, the main thread learns of it while it is blocked."""
    done = subprocess.run(
        [sys.executable, "-c", _ANOTHER_THREADS_SIGNAL], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("SIGTERM\n", "")


def test_signals_and_reports_come_one_by_one(exits: Exits) -> None:
    """Each signal and each report ends one wait, in the order they came."""
    signal.raise_signal(signal.SIGUSR1)
    exits.report("server http died")
    signal.raise_signal(signal.SIGUSR1)
    assert [exits.wait(20) for _ in range(3)] == ["SIGUSR1", "server http died", "SIGUSR1"]


def test_a_report_from_another_thread_wakes(exits: Exits) -> None:
    """Who waits without a timeout is woken by a report made meanwhile."""
    threading.Timer(0.05, exits.report, ("server https died",)).start()
    assert exits.wait() == "server https died"


@pytest.mark.parametrize("timeout", [0.0, 0.01])
def test_nothing_comes(exits: Exits, timeout: float) -> None:
    """With nothing to tell, the wait ends after its timeout, which may be none."""
    assert exits.wait(timeout) == ""


def test_reports_never_block(exits: Exits) -> None:
    """However many reports nobody waits for, making one takes no time, and the first of them are there."""
    for number in range(5000):
        exits.report(str(number))
    assert [exits.wait(1) for _ in range(3)] == ["0", "1", "2"]


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program of Python and return what it did."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    """``leave`` ends the process with its code although a thread that Python waits for never ends."""
    done = run_program("""
import threading
from checks.schedule.exits import leave
threading.Thread(target=threading.Event().wait).start()
leave(7, seconds=0.1)
""")
    assert done.returncode == 7


def test_an_end_that_hangs_is_cut_short() -> None:
    """The last resort ends the process with its code while the main thread is blocked."""
    done = run_program("""
import threading
from checks.schedule.exits import LastResort
LastResort().arm(0.1, 5)
threading.Event().wait()
""")
    assert done.returncode == 5
