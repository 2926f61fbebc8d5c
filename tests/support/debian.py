"""Debian's packages for tests that need more than Python, installed where that can be done."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

APT_TIMEOUT = 300.0
POLICY = Path("/usr/sbin/policy-rc.d")


def search_path() -> str:
    """Return the search path with the directories where an administrator's commands are."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))


def install(packages: Sequence[str]) -> None:
    """Install packages where there are root and apt-get; where that fails, say why: the tests say what they lack."""
    if not packages or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    # It takes a while, and changes the machine.
    print(f"installing {', '.join(packages)}", file=sys.stderr, flush=True)  # noqa: T201
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ["-y", "-qq", "--no-install-recommends"]
    try:
        with _services_kept_from_starting():
            for command in (["apt-get", "update", "-qq"], ["apt-get", "install", *options, *packages]):
                subprocess.run(command, check=True, env=environ, timeout=APT_TIMEOUT, stdout=subprocess.DEVNULL)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"{', '.join(packages)} not installed: {error}", file=sys.stderr)  # noqa: T201


@contextlib.contextmanager
def _services_kept_from_starting() -> Iterator[None]:
    """Let packages install their services without starting them (policy-rc.d, Debian policy 9.3.3.2)."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
