"""Check before and after the tests that this tree can be released: ``make release-check``.

The tree must be clean and its version new. Changelog, chart and manifests must name that version. The single file must
contain the pinned packages and be reproducible. Every problem is reported, not only the first.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from tools import pyz
from tools.image import NAME

ROOT = Path(__file__).resolve().parent.parent
CHART = "helm/kubenurse/Chart.yaml"
PINS = "requirements.txt"
SHOWN = 10
GIT_SECONDS = 60.0

Build = Callable[[Path], bytes]


def main() -> int:
    """Print each problem on a line of stderr; return 1 when there is one, else 0."""
    found = list(problems(ROOT))
    for problem in found:
        print(f"release-check: {problem}", file=sys.stderr)
    if not found:
        print(f"kubenurse {version(ROOT)} can be released: its files are in order.")
    return 1 if found else 0


def problems(root: Path) -> Iterator[str]:
    """Yield each problem that prevents a release of the tree at ``root``."""
    released = version(root)
    yield from dirty(root)
    yield from already_released(root, released)
    yield from changelog(root, released)
    yield from chart(root, released)
    yield from manifests(root, released)
    yield from pins(root)
    yield from single_file(root)


def version(root: Path) -> str:
    """Return the version in the sources, read without running them."""
    named = re.search(r'^__version__ = "([^"]*)"$', (root / "checks" / "__init__.py").read_text("utf-8"), re.MULTILINE)
    return named[1] if named else ""


def dirty(root: Path) -> Iterator[str]:
    """Yield a problem for uncommitted files: the release would contain them and its history would not."""
    changed = _git(root, "status", "--porcelain").splitlines()
    if changed:
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        names = ", ".join(line[3:] for line in changed[:SHOWN])
        yield f"the tree is not clean, expected every file to be committed or ignored: {names}{more}"


def already_released(root: Path, released: str) -> Iterator[str]:
    """Yield a problem for a version that was released before, or that is no release."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", released):
        yield f"checks.__version__='{released}': not a released version, expected MAJOR.MINOR.PATCH"
        return
    tag = f"v{released}"
    tagged = _git(root, "tag", "--list", "--format=%(objectname) %(*objectname)", tag).split()
    if tagged and _git(root, "rev-parse", "HEAD").strip() not in tagged:
        yield f"the tag {tag} is on another commit, expected a version that is not released: change checks.__version__"


def changelog(root: Path, released: str) -> Iterator[str]:
    """Yield a problem when the changelog has no dated entry for the version."""
    text = (root / "CHANGELOG.md").read_text("utf-8")
    entry = re.search(rf"^## {re.escape(released)}(?: \((.*)\))?\s*$", text, re.MULTILINE)
    if not entry:
        yield f"CHANGELOG.md has no entry for {released}, expected '## {released} (YYYY-MM-DD)'"
    elif not re.fullmatch(r"\d{4}-\d\d-\d\d", entry[1] or ""):
        yield f"CHANGELOG.md says '{entry[0].strip()}', expected the day: '## {released} (YYYY-MM-DD)'"


def chart(root: Path, released: str) -> Iterator[str]:
    """Yield a problem when the chart, or the image that it runs, has another version."""
    facts = yaml.safe_load((root / CHART).read_text("utf-8"))
    for name in ("version", "appVersion"):
        if facts.get(name) != released:
            yield f"{CHART}: {name}='{facts.get(name)}', expected '{released}'"


def manifests(root: Path, released: str) -> Iterator[str]:
    """Yield a problem for each manifest that names our image with another version."""
    for file in sorted((root / "manifests").rglob("*.yaml")):
        for tag in re.findall(rf"{re.escape(NAME)}:([\w.-]+)", file.read_text("utf-8")):
            if tag != released:
                yield f"{file.relative_to(root)}: the image's tag is '{tag}', expected '{released}'"


def pins(root: Path) -> Iterator[str]:
    """Yield a problem for each package whose pin for the image differs from the tested version."""
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", (root / PINS).read_text("utf-8"), re.MULTILINE))
    for name in pyz.VENDORED:
        installed = importlib.metadata.version(name)
        if pinned.get(name) != installed:
            yield f"{PINS}: {name}=='{pinned.get(name)}', expected '{installed}', which is installed here and tested"


def single_file(root: Path, build: Build = lambda root: pyz.build(root=root)[0]) -> Iterator[str]:
    """Yield a problem when the committed sources give no single file, or two different ones."""
    try:
        if _build_export(root, build) != _build_export(root, build):
            yield "the single file is not reproducible: a second build of the same commit gave other bytes"
    except pyz.BuildError as error:
        yield f"the single file cannot be built: {error}"


def _build_export(root: Path, build: Build) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        _export(root, Path(name))
        return build(Path(name))


def _export(root: Path, target: Path) -> None:
    """Write the committed sources to ``target``."""
    archive = _git_bytes(root, "archive", "--format=tar", "HEAD")
    subprocess.run(["tar", "-x", "-C", str(target)], input=archive, check=True, timeout=GIT_SECONDS)


def _git(root: Path, *arguments: str) -> str:
    return _git_bytes(root, *arguments).decode()


def _git_bytes(root: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=GIT_SECONDS).stdout


if __name__ == "__main__":
    sys.exit(main())
