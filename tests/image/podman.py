"""A base image made from Debian's packages, and podman with its own temporary storage."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.debian import search_path
from tools.image import ROOT, build_command

BASE = "localhost/debian-python:bookworm"
IMAGE = "localhost/kubenurse:test"
SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
DEBOOTSTRAP_SECONDS = 280.0
COMMAND_SECONDS = 120.0

# As in constrained clusters: a read-only file system, little memory, few files and processes, no privilege.
RUN = (
    "run", "--network=host", "--read-only", "--read-only-tmpfs=false", "--memory=64m",
    "--ulimit=nofile=1024:4096", "--ulimit=nproc=4096:4096", "--cap-drop=all", "--security-opt=no-new-privileges",
    # Podman needs systemd to run the health check, and there is none here.
    "--no-healthcheck",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Podman:
    """Podman with all its files below ``directory``."""

    directory: Path

    @property
    def command(self) -> list[str]:
        """The command with its global options."""
        storage = [f"--root={self.directory / 'storage'}", f"--runroot={self.directory / 'run'}"]
        return ["podman", *storage, "--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=file"]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a podman command; with ``check`` a failure shows podman's message."""
        return run([*self.command, *arguments], check=check)

    @property
    def wheels(self) -> Path:
        """The directory of the packages that a build uses instead of PyPI."""
        return self.directory / "wheels"

    @property
    def pip_settings(self) -> Path:
        """The configuration that makes pip in a build use that directory."""
        return self.directory / "pip.conf"

    def build(self, tag: str, base: str, *options: str) -> None:
        """Build as ``make image`` does, in a chroot."""
        mounts = [f"--volume={self.wheels}:/wheels:ro", f"--volume={self.pip_settings}:/etc/pip.conf:ro"]
        run(build_command(self.command, tag, "--isolation=chroot", f"--build-arg=BASE={base}", *mounts, *options))

    def inspect(self, name: str) -> dict[str, Any]:
        """Return podman's description of an image or a container."""
        found = json.loads(self.run("inspect", name).stdout)[0]
        assert isinstance(found, dict)
        return found

    def run_image(
        self,
        *arguments: str,
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        image: str = IMAGE,
    ) -> subprocess.CompletedProcess[str]:
        """Run an image as the constrained clusters do, with more options and arguments, and return how it ended."""
        variables = [f"--env={name}={value}" for name, value in (environ or {}).items()]
        return self.run(*RUN, *options, *variables, image, *arguments, check=False)


def run(
    command: Sequence[str], timeout: float = COMMAND_SECONDS, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command; with ``check`` a failure shows what it printed."""
    environ = {**os.environ, "PATH": search_path()}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environ)
    if check and done.returncode != 0:
        raise AssertionError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return done


@contextlib.contextmanager
def built_image() -> Iterator[Podman]:
    """Make the base, build the image on it, and remove both and all containers in the end."""
    with tempfile.TemporaryDirectory(prefix="kubenurse-image-") as name:
        podman = Podman(Path(name))
        try:
            _make_base(podman)
            _fetch_wheels(podman)
            podman.build(IMAGE, BASE)
            yield podman
        finally:
            podman.run("rm", "--all", "--force", "--time=1", check=False)
            podman.run("rmi", "--all", "--force", check=False)
            # The storage driver leaves its directory mounted on itself.
            run(["umount", "--quiet", str(podman.directory / "storage" / "overlay")], check=False)


def _make_base(podman: Podman) -> None:
    """Bootstrap a small Debian with Python and pip and tag it as an image."""
    tree = podman.directory / "tree"
    packages = "--include=python3,python3-pip"
    run(["debootstrap", "--variant=minbase", packages, SUITE, str(tree), MIRROR], timeout=DEBOOTSTRAP_SECONDS)
    archive = podman.directory / "base.tar"
    run(["tar", "-C", str(tree), "--exclude=./var/cache/apt/archives/*.deb", "-cf", str(archive), "."])
    shutil.rmtree(tree)
    podman.run("import", "--quiet", str(archive), BASE)
    archive.unlink()


def _fetch_wheels(podman: Podman) -> None:
    """Let this machine's pip fetch the pinned packages for the one in the build.

    A build without the machine's proxies and certificates would not reach PyPI everywhere; what pip takes is held to
    the same hashes either way.
    """
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps"]
    run([*fetch, f"--dest={podman.wheels}", f"--requirement={ROOT / 'requirements.txt'}"])
    podman.pip_settings.write_text("[global]\nno-index = true\nfind-links = /wheels\n", encoding="ascii")
