"""Requirements to build and run the image without a container service, from Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.support.debian import install, search_path

COMMANDS = {"podman": "podman", "runc": "runc", "debootstrap": "debootstrap", "tar": "tar"}


def missing_packages() -> list[str]:
    """Return the Debian packages of missing commands."""
    return sorted(package for command, package in COMMANDS.items() if not shutil.which(command, path=search_path()))


def reason_to_skip() -> str:
    """Return why the image cannot be tested here, empty when it can."""
    if not sys.platform.startswith("linux"):
        return f"needs Linux's containers, this is {sys.platform}"
    if os.geteuid() != 0:
        return "needs root, for debootstrap and runc"
    if missing := missing_packages():
        return f"needs Debian's packages {', '.join(missing)}"
    command = ["unshare", "--mount", "--pid", "--fork", "true"]
    probe = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if probe.returncode != 0:
        return f"needs the right to make namespaces: {probe.stderr.strip()}"
    return ""


if __name__ == "__main__":
    install(missing_packages())
