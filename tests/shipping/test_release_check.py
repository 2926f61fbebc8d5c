"""Each problem that prevents a release, made in a small repository."""

from __future__ import annotations

import configparser
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from checks import __version__
from tools import release_check
from tools.pyz import VENDORED, BuildError

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "requirements.txt"
IGNORED = shutil.ignore_patterns("__pycache__", ".*", "*.pyz")


def git(tree: Path, *arguments: str) -> None:
    """Run git in the repository, with a made-up author."""
    somebody = {
        f"GIT_{role}_{fact}": "tester@example.org" for role in ("AUTHOR", "COMMITTER") for fact in ("NAME", "EMAIL")
    }
    environ = {**os.environ, **somebody, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", "-C", str(tree), *arguments], check=True, capture_output=True, timeout=60, env=environ)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Commit the files of a release, ready to be released."""
    tree = tmp_path / "tree"
    for name in ("checks", "tools", "manifests", "helm"):
        shutil.copytree(ROOT / name, tree / name, ignore=IGNORED)
    for name in ("kubenurse.py", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    (tree / "requirements.txt").write_text("".join(f"{name}=={metadata.version(name)}\n" for name in VENDORED))
    (tree / ".gitignore").write_text("__pycache__/\n")
    (tree / "CHANGELOG.md").write_text(
        f"# Changelog\n\n## {__version__} (2026-01-31)\n\nAll.\n\n## 1.0.0 (2020-01-01)\n"
    )
    git(tree, "init", "--quiet")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "--message", "all")
    return tree


def rewrite(file: Path, old: str, new: str) -> None:
    """Replace text that must be in the file."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_tree_in_order_can_be_released(tree: Path) -> None:
    """A committed, consistent and reproducible tree gives exit code 0, also with the tag on this commit."""
    git(tree, "tag", "--annotate", f"v{__version__}", "--message", "it")
    command = [sys.executable, "-m", "tools.release_check"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"kubenurse {__version__} can be released" in done.stdout


def test_every_problem_is_reported_at_once(tree: Path) -> None:
    """The exit code is 1, and stderr has a line for each problem."""
    rewrite(tree / "CHANGELOG.md", f"## {__version__}", "## 0.0.1")
    rewrite(tree / "helm/kubenurse/Chart.yaml", f"version: {__version__}\n", "version: 0.0.1\n")
    command = [sys.executable, "-m", "tools.release_check"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("release-check: ") for line in lines)


@pytest.mark.parametrize("name", ["kubenurse.py", "checks/new.py"])
def test_refuses_what_is_not_committed(tree: Path, name: str) -> None:
    """A changed file and an untracked file are named."""
    with (tree / name).open("a") as file:
        file.write("# changed\n")
    assert list(release_check.dirty(tree)) == [
        f"the tree is not clean, expected every file to be committed or ignored: {name}"
    ]


def test_a_long_list_of_changes_is_cut(tree: Path) -> None:
    """At most ten names are shown, with the number of the others."""
    for number in range(14):
        (tree / f"file-{number:02}").touch()
    assert next(release_check.dirty(tree)).endswith("file-09 and 4 more")


def test_refuses_a_version_that_was_released(tree: Path) -> None:
    """A version whose tag is on another commit is refused."""
    git(tree, "tag", f"v{__version__}")
    git(tree, "commit", "--quiet", "--allow-empty", "--message", "more")
    assert list(release_check.already_released(tree, __version__)) == [
        f"the tag v{__version__} is on another commit, "
        "expected a version that is not released: change checks.__version__"
    ]


@pytest.mark.parametrize("version", ["", "2.0", "2.0.0.dev1", "2.0.0-rc1"])
def test_refuses_a_version_that_is_no_release(tree: Path, version: str) -> None:
    """A version that is not three numbers is refused."""
    assert "expected MAJOR.MINOR.PATCH" in next(release_check.already_released(tree, version))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("## 0.0.1 (2026-01-31)", "CHANGELOG.md has no entry for"),
        (f"## {__version__} (unreleased)", "expected the day"),
        (f"## {__version__}", "expected the day"),
        (f"## {__version__}1 (2026-01-31)", "CHANGELOG.md has no entry for"),
    ],
)
def test_refuses_a_version_without_its_day_in_the_changelog(tree: Path, entry: str, said: str) -> None:
    """A missing entry, an entry of another version and an entry without its day are refused."""
    rewrite(tree / "CHANGELOG.md", f"## {__version__} (2026-01-31)", entry)
    found = list(release_check.changelog(tree, __version__))
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("line", "name"), [(f"\nversion: {__version__}\n", "version"), (f'\nappVersion: "{__version__}"\n', "appVersion")]
)
def test_refuses_a_chart_of_another_version(tree: Path, line: str, name: str) -> None:
    """A chart, or an image in it, with another version is refused."""
    rewrite(tree / release_check.CHART, line, f'\n{name}: "0.0.1"\n')
    assert list(release_check.chart(tree, __version__)) == [
        f"helm/kubenurse/Chart.yaml: {name}='0.0.1', expected '{__version__}'"
    ]


def test_refuses_manifests_with_another_image(tree: Path) -> None:
    """A manifest with another version of our image is named."""
    rewrite(tree / "manifests/base/daemonset.yaml", f"kubenurse-python:{__version__}", "kubenurse-python:0.0.1")
    assert list(release_check.manifests(tree, __version__)) == [
        f"manifests/base/daemonset.yaml: the image's tag is '0.0.1', expected '{__version__}'"
    ]


def test_refuses_pins_that_are_not_what_was_tested(tree: Path) -> None:
    """A pin that differs from the tested version is refused."""
    rewrite(tree / "requirements.txt", "urllib3==", "urllib3==0.")
    found = list(release_check.pins(tree))
    assert len(found) == 1
    assert found[0].startswith("requirements.txt: urllib3=='0.")


def differing() -> Callable[[Path], bytes]:
    """Return a build that gives different bytes each time."""
    numbers: Iterator[int] = itertools.count()
    return lambda _: str(next(numbers)).encode()


def test_refuses_a_single_file_that_differs_from_build_to_build(tree: Path) -> None:
    """Two builds of a commit with different bytes are refused."""
    assert list(release_check.single_file(tree, differing())) == [
        "the single file is not reproducible: a second build of the same commit gave other bytes"
    ]


def test_refuses_a_single_file_that_cannot_be_built(tree: Path) -> None:
    """A build that fails is reported with its reason."""

    def fail(_: Path) -> bytes:
        raise BuildError("too large")

    assert list(release_check.single_file(tree, fail)) == ["the single file cannot be built: too large"]


def test_the_single_file_is_built_from_what_is_committed(tree: Path) -> None:
    """An uncommitted change is not part of the single file."""
    committed = (tree / "kubenurse.py").read_text()
    (tree / "kubenurse.py").write_text("changed")
    seen: list[str] = []

    def build(root: Path) -> bytes:
        seen.append((root / "kubenurse.py").read_text())
        return b""

    assert list(release_check.single_file(tree, build)) == []
    assert seen == [committed] * 2


def test_the_pins_are_what_the_package_asks_for() -> None:
    """The pins are exactly the image's packages, by version and hash, within the ranges of setup.cfg."""
    pinned = re.findall(r"^([\w-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}$", PINS.read_text(), re.MULTILINE)
    assert [name for name, _ in pinned] == list(VENDORED)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = [Requirement(line) for line in setup["options"]["install_requires"].split("\n") if line]
    ranges = {requirement.name: requirement.specifier for requirement in asked}
    assert all(version in ranges[name] for name, version in pinned)
    assert sum(line[0] not in "# " for line in PINS.read_text().splitlines()) == len(pinned)
