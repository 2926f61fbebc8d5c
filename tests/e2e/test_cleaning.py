"""A new run removes the remains of a crashed run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.namespaces import remove_all, run
from tests.e2e.requirements import reason_to_skip
from tests.support.waiting import PROCESS_START, until

# Different from the prefix of a cluster that may be running.
PREFIX = "kne2e.test-"
NAME = f"{PREFIX}left"
FILES = Path("/etc/netns") / NAME


@pytest.fixture
def leftovers() -> Iterator[subprocess.Popen[bytes]]:
    """A namespace, a process in it and its file, as a killed run leaves them."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    run("ip", "netns", "add", NAME)
    FILES.mkdir(parents=True)
    (FILES / "resolv.conf").write_text("nameserver 192.0.2.1\n", encoding="ascii")
    with subprocess.Popen(["ip", "netns", "exec", NAME, "sleep", "600"]) as process:
        until(lambda: run("ip", "netns", "pids", NAME).split() == [str(process.pid)], PROCESS_START)
        yield process
        process.kill()
    remove_all(PREFIX)


def test_processes_namespaces_and_files_are_removed(leftovers: subprocess.Popen[bytes]) -> None:
    """The process is killed, the namespace and its files are removed, and doing it again does nothing."""
    remove_all(PREFIX)
    assert leftovers.wait(10) == -9
    assert NAME not in run("ip", "netns", "list")
    assert not FILES.exists()
    remove_all(PREFIX)
