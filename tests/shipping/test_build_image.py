"""Which program builds the image, and with which arguments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from checks import __version__

ROOT = Path(__file__).resolve().parents[2]


def command(directory: Path, name: str, script: str) -> None:
    """Write an executable into a directory of the search path."""
    file = directory / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def build(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Build with only the commands of ``directory`` on the search path."""
    return subprocess.run(
        [sys.executable, "-m", "tools.image", *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": str(directory)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_docker_is_passed_over_when_its_engine_does_not_answer(tmp_path: Path) -> None:
    """When docker's engine does not answer, podman builds, with the options that only podman needs."""
    command(tmp_path, "docker", 'test "$1" != info')
    command(tmp_path, "podman", 'if test "$1" = info; then echo linux/any; else echo "$@"; fi')
    done = build(tmp_path, "name:tag", "--", "--build-arg", "BASE=python")
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[:3] == ["build", "--format=docker", "--build-arg=BUILDPLATFORM=linux/any"]
    assert {f"--build-arg=VERSION={__version__}", "--tag=name:tag"} <= set(words)
    assert words[-3:] == ["--build-arg", "BASE=python", str(ROOT)]


def test_docker_is_taken_when_it_works(tmp_path: Path) -> None:
    """Docker gets no podman options, and the image has the name that the manifests use."""
    command(tmp_path, "docker", 'test "$1" = info || echo "$@"')
    command(tmp_path, "podman", "exit 1")
    words = build(tmp_path).stdout.split()
    assert words[0] == "build"
    assert "--format=docker" not in words
    assert f"--tag=localhost/kubenurse-python:{__version__}" in words


def test_reports_the_remedy_when_neither_works(tmp_path: Path) -> None:
    """Without a working builder the exit code is 1, and stderr has the remedy."""
    command(tmp_path, "docker", "exit 1")
    done = build(tmp_path)
    assert done.returncode == 1
    assert "neither docker nor podman works here" in done.stderr
    assert "Remedy: apt-get install podman" in done.stderr


@pytest.mark.parametrize("code", [1, 125])
def test_a_failed_build_is_a_failure(tmp_path: Path, code: int) -> None:
    """The exit code of a failed build is the builder's."""
    command(tmp_path, "podman", f'test "$1" = info || exit {code}')
    assert build(tmp_path).returncode == code
