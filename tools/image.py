"""Build the image with docker or podman, whichever works: ``python -m tools.image [TAG] [-- BUILD OPTIONS]``."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from checks import __version__

ROOT = Path(__file__).resolve().parent.parent
# No registry serves this name, so nothing else can be pulled instead. Manifests and chart use the same name.
NAME = "localhost/kubenurse-python"
BUILDERS = ("docker", "podman")
ANSWER_SECONDS = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """Build the image; return the builder's exit code, or 1 when no builder works."""
    parser = argparse.ArgumentParser(description="Build the image with docker or podman, whichever works.")
    parser.add_argument("tag", nargs="?", default=f"{NAME}:{__version__}")
    parser.add_argument("options", nargs="*", help="after --: options for the builder, as in -- --build-arg BASE=...")
    options = parser.parse_args(argv)
    builder = working_builder()
    if not builder:
        print(
            "image: neither docker nor podman works here (`docker info` and `podman info` fail). "
            "Remedy: apt-get install podman, as root",
            file=sys.stderr,
        )
        return 1
    return subprocess.run(build_command([builder], options.tag, *options.options), check=False).returncode


def working_builder() -> str:
    """Return docker or podman: the first that is installed and whose engine answers. Empty when there is none."""
    return next((builder for builder in BUILDERS if shutil.which(builder) and _answers(builder)), "")


def build_command(builder: Sequence[str], tag: str, *options: str) -> list[str]:
    """Return the command that builds the image; ``builder`` is docker or podman with its global options."""
    special = _special_to_podman(builder) if Path(builder[0]).name == "podman" else []
    facts = [f"--build-arg=VERSION={__version__}", f"--build-arg=REVISION={revision()}"]
    return [*builder, "build", *special, *facts, f"--tag={tag}", *options, str(ROOT)]


def revision() -> str:
    """Return the checked-out commit, ``unknown`` outside a checkout."""
    return _said(["git", "-C", str(ROOT), "rev-parse", "HEAD"]) or "unknown"


def _special_to_podman(podman: Sequence[str]) -> list[str]:
    """Return options that podman needs and docker does not: a format with a health check, and the build platform.

    Podman 4 sets no BUILDPLATFORM, and would build every stage for the target's platform.
    """
    platform = _said([*podman, "info", "--format={{.Host.OS}}/{{.Host.Arch}}"])
    return ["--format=docker", *([f"--build-arg=BUILDPLATFORM={platform}"] if platform else [])]


def _said(command: Sequence[str]) -> str:
    """Return the output of a command, empty when the command fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _answers(builder: str) -> bool:
    """Tell whether the engine behind the command answers. The command alone can be installed without an engine."""
    try:
        subprocess.run([builder, "info"], capture_output=True, timeout=ANSWER_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
