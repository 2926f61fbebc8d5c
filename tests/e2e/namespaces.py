"""Network namespaces: made, entered by threads, used by processes, and removed, those of a run that crashed too.

Source: ip-netns(8), setns(2). Names begin with ``PREFIX``; one run at a time has them all.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tests.support.debian import search_path

PREFIX = "kne2e-"
_MOUNTED = Path("/run/netns")
_ETC = Path("/etc/netns")
_LOCK = Path("/run/lock/kubenurse-e2e.lock")
_LOCK_TIMEOUT = 60.0
_COMMAND_TIMEOUT = 30.0
_CLONE_NEWNET = 0x40000000

Result = TypeVar("Result")


class Namespace:
    """A network namespace called ``name`` (without the prefix), with its loopback up; ``directory`` has its files."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.full_name = PREFIX + name
        self.directory = directory / name
        self.directory.mkdir()
        run("ip", "netns", "add", self.full_name)
        self.ip("link set lo up")
        # By default the kernel sends one ICMP error a second to a host (icmp(7)). The agents' checks of a Pod that a
        # firewall rejects are more, and would meet a silence that is none of the fault's.
        self.set_kernel("net.ipv4.icmp_ratelimit", "0")
        self.set_kernel("net.ipv6.icmp.ratelimit", "0")

    def ip(self, *lines: str) -> None:
        """Run lines of ``ip`` inside, all of them or up to the first that fails (RuntimeError)."""
        run("ip", "-n", self.full_name, "-batch", "-", stdin="\n".join(lines) + "\n")

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a command inside and return what it printed (RuntimeError when it fails)."""
        return run(*self.prefix(), *command, stdin=stdin)

    def prefix(self) -> tuple[str, ...]:
        """Return the words that put a command into this namespace, with its own /etc/resolv.conf."""
        return ("ip", "netns", "exec", self.full_name)

    def write_resolv_conf(self, text: str) -> None:
        """Give the processes started from now on in this namespace a resolv.conf of their own."""
        directory = _ETC / self.full_name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "resolv.conf").write_text(text, encoding="ascii")

    def set_kernel(self, parameter: str, value: str) -> None:
        """Set a kernel parameter of this namespace, as sysctl does."""
        path = Path("/proc/sys", *parameter.split("."))
        self.call(lambda: path.write_text(value, encoding="ascii"))

    def enter(self) -> None:
        """Move the calling thread into this namespace permanently: its new sockets are inside."""
        with (_MOUNTED / self.full_name).open("rb") as handle:
            library = ctypes.CDLL(None, use_errno=True)
            if library.setns(handle.fileno(), _CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), self.full_name)

    def call(self, action: Callable[[], Result]) -> Result:
        """Call something in a thread inside, and return what it returns or raise what it raises."""
        answers: queue.SimpleQueue[tuple[bool, Result | BaseException]] = queue.SimpleQueue()

        def work() -> None:
            try:
                self.enter()
                answers.put((True, action()))
            except BaseException as error:
                answers.put((False, error))

        thread = threading.Thread(target=work, name=f"in-{self.name}", daemon=True)
        thread.start()
        returned, answer = answers.get(timeout=_COMMAND_TIMEOUT)
        thread.join()
        if not returned:
            assert isinstance(answer, BaseException)
            raise answer
        return answer  # type: ignore[return-value]  # the flag tells which of the two it is


def run(*command: str, stdin: str = "") -> str:
    """Run a command of the machine and return its output; an exception holds the command's error message."""
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT,
        check=False,
        env={"PATH": search_path(), "LC_ALL": "C"},
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()} {stdin}")
    return done.stdout


@contextlib.contextmanager
def exclusively() -> Iterator[None]:
    """Have the prefix for oneself, and nothing of it left before and after.

    Raises:
        TimeoutError: when another run has it all the time.
    """
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK.open("w") as lock:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another run holds {_LOCK} for {_LOCK_TIMEOUT:g} s") from None
                time.sleep(1)
        remove_all()
        try:
            yield
        finally:
            remove_all()


def remove_all(prefix: str = PREFIX) -> None:
    """Remove every namespace of the prefix, with the processes inside and the files in /etc."""
    names = [path.name for path in _MOUNTED.glob(prefix + "*")]
    for name in names:
        for pid in run("ip", "netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                # This process itself is never in there as a whole: only threads of it are.
                if int(pid) != os.getpid():
                    os.kill(int(pid), signal.SIGKILL)
    for name in names:
        run("ip", "netns", "del", name)
    for directory in _ETC.glob(prefix + "*"):
        shutil.rmtree(directory)
    with contextlib.suppress(OSError):  # it stays when somebody else's files are in it
        _ETC.rmdir()
