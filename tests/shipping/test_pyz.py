"""The single file: its contents, its reproducibility, and its start on every Python."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from sandbox.cluster import Cluster
from tests.support.waiting import until
from tools.pyz import FOR_COMMANDS, BuildError, build, module_name, write

ROOT = Path(__file__).resolve().parents[2]
OURS = {"kubenurse", "checks", "prometheus_client", "urllib3"}
THIS_VERSION = "{}.{}".format(*sys.version_info)


def pythons() -> dict[str, str]:
    """Return a Python of each version on this machine, by version: ``{"3.12": "/usr/bin/python3.12"}``."""
    found = {THIS_VERSION: sys.executable}
    directories = [Path(name) for name in os.environ.get("PATH", os.defpath).split(os.pathsep)]
    directories += sorted(Path("~/.pyenv/versions").expanduser().glob("*/bin"))
    for directory in directories:
        # A shim of pyenv can name a version that is not active.
        if directory.name == "shims":
            continue
        for file in sorted(directory.glob("python3.*")):
            if re.fullmatch(r"3\.\d+", file.name.removeprefix("python")) and os.access(file, os.X_OK):
                found.setdefault(file.name.removeprefix("python"), str(file))
    return found


PYTHONS = pythons()
SUPPORTED = {version: path for version, path in PYTHONS.items() if int(version.split(".")[1]) >= 11}
OTHERS = {version: path for version, path in SUPPORTED.items() if version != THIS_VERSION}


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the sources, so that every build uses the same ones."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("checks", "tools"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("kubenurse.py", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    return tree


@pytest.fixture(scope="session")
def archive(tree: Path) -> bytes:
    """Build the file with the Python that runs this."""
    return build(root=tree)[0]


@pytest.fixture(scope="session")
def pyz(archive: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the file where a test can start it."""
    file = tmp_path_factory.mktemp("pyz") / "kubenurse.pyz"
    write(file, archive)
    return file


def run(
    python: str, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a Python with the given environment and nothing else."""
    return subprocess.run(
        [python, *arguments], env=dict(env or {}), cwd=cwd, capture_output=True, text=True, timeout=100, check=False
    )


def tool(tree: Path, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Build as ``make pyz`` does."""
    return run(sys.executable, "-m", "tools.pyz", *arguments, env=env, cwd=tree)


def test_the_same_sources_give_the_same_bytes(archive: bytes, tree: Path, tmp_path: Path) -> None:
    """Process, directory, time zone, locale, hash seed and file mode do not change the bytes."""
    elsewhere = shutil.copytree(tree, tmp_path / "elsewhere")
    (elsewhere / "kubenurse.py").chmod(0o600)
    target = tmp_path / "built" / "other.pyz"
    done = tool(elsewhere, str(target), env={"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C", "HOME": "/"})
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == archive
    assert os.access(target, os.X_OK)


def test_source_date_epoch_is_the_time_of_every_entry(archive: bytes, tree: Path) -> None:
    """Every entry has the time of SOURCE_DATE_EPOCH, or the zip format's first second if that is later."""
    dated = zipfile.ZipFile(io.BytesIO(build(root=tree, timestamp=1_700_000_000)[0]))
    assert {entry.date_time for entry in dated.infolist()} == {(2023, 11, 14, 22, 13, 20)}
    assert build(root=tree, timestamp=0)[0] == archive


def test_is_small_enough_for_a_configmap(archive: bytes, tree: Path) -> None:
    """The file has at most 700 kB; a larger build fails with the number of bytes."""
    assert len(archive) <= 700_000
    with pytest.raises(BuildError, match=f"{len(archive)} bytes are too many for a ConfigMap, expected at most 1000"):
        build(root=tree, largest=1000)


def test_has_all_of_ours_and_the_licences_of_all(archive: bytes, tree: Path) -> None:
    """The file contains every file of checks/, byte-code of each module that the agent needs, and all licences."""
    paths = set(zipfile.ZipFile(io.BytesIO(archive)).namelist())
    files = [file for file in (tree / "checks").rglob("*") if file.is_file()]
    assert {file.relative_to(tree).as_posix() for file in files} <= paths
    sources = {path for path in paths if path.endswith(".py")}
    compiled = {path[:-1] for path in paths if path.endswith(".pyc")}
    assert compiled <= sources
    assert all(path.startswith(FOR_COMMANDS) for path in sources - compiled)
    for licence in (
        "kubenurse/LICENSE",
        "prometheus_client/LICENSE",
        "prometheus_client/NOTICE",
        "urllib3/LICENSE.txt",
    ):
        assert f"licenses/{licence}" in paths
    top = {path.partition("/")[0] for path in paths} - {"licenses", "prometheus_client", "urllib3"}
    assert top == {"__main__.py", "__main__.pyc", "kubenurse.py", "kubenurse.pyc", "checks"}


def test_leaves_out_what_nothing_imports(archive: bytes) -> None:
    """Modules for browsers, proxies and frameworks that kubenurse does not use are left out."""
    modules = {module_name(path) for path in zipfile.ZipFile(io.BytesIO(archive)).namelist() if path.endswith(".py")}
    for absent in ("urllib3.contrib.emscripten", "urllib3.contrib.socks", "urllib3.contrib.pyopenssl"):
        assert absent not in modules
    for absent in ("prometheus_client.django", "prometheus_client.aiohttp", "prometheus_client.bridge.graphite"):
        assert absent not in modules


def test_no_module_is_imported_by_a_computed_name(archive: bytes) -> None:
    """All imports are statements, because the modules to leave out are found by reading statements."""
    opened = zipfile.ZipFile(io.BytesIO(archive))
    for path in filter(lambda name: name.endswith(".py"), opened.namelist()):
        calls = [node for node in ast.walk(ast.parse(opened.read(path))) if isinstance(node, ast.Call)]
        names = {ast.unparse(call.func).split(".")[-1] for call in calls}
        assert not names & {"__import__", "import_module", "run_module", "find_spec", "spec_from_file_location"}, path


def test_every_module_inside_finds_what_it_imports(archive: bytes, pyz: Path) -> None:
    """Each module imports with the standard library alone, except for other projects' modules."""
    names = [module_name(path) for path in zipfile.ZipFile(io.BytesIO(archive)).namelist() if path.endswith(".py")]
    script = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
missing = {}
for name in json.loads(sys.argv[2]):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing[name] = error.name
json.dump(missing, sys.stdout)
"""
    done = run(sys.executable, "-I", "-S", "-c", script, str(pyz), json.dumps([n for n in names if n != "__main__"]))
    assert done.returncode == 0, done.stderr
    missing = json.loads(done.stdout)
    assert not {module for module, name in missing.items() if name.partition(".")[0] in OURS}
    # These two are imported only where a kubeconfig is read, by the package that they miss here.
    for_kubeconfigs = {"checks.kube.kubeconfig_files", "checks.kube.kubeconfig_login"}
    ours = {module for module in missing if module.partition(".")[0] in ("kubenurse", "checks")}
    assert ours <= for_kubeconfigs
    assert {missing[module] for module in ours} <= {"kubernetes", "yaml"}


@pytest.mark.parametrize("version", SUPPORTED)
def test_runs_on_every_python_here_in_an_empty_environment(version: str, pyz: Path, tmp_path: Path) -> None:
    """With -I -S and no variables, --version, --help and a round of checks work on every Python."""
    python = SUPPORTED[version]
    said = run(python, "-I", "-S", str(pyz), "--version", cwd=tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("kubenurse ")
    assert "KUBENURSE_CHECK_INTERVAL" in run(python, "-I", "-S", str(pyz), "--help", cwd=tmp_path).stdout
    checked = run(python, "-I", "-S", str(pyz), "check", "--json", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["about"]["python"].startswith(version)
    assert list(tmp_path.iterdir()) == []


def loaded_from(python: str, pyz: Path) -> str:
    """Return the suffix of the file that a module was loaded from: py or pyc."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from checks.config import variables; print(variables.__file__)"
    )
    done = run(python, "-I", "-S", "-c", script, str(pyz))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rpartition(".")[2]


def test_byte_code_is_used_where_it_fits(pyz: Path) -> None:
    """The Python that built the file uses its byte-code."""
    assert loaded_from(sys.executable, pyz) == "pyc"


@pytest.mark.parametrize(
    "version", OTHERS or [pytest.param("", marks=pytest.mark.skip("no other Python >= 3.11 here"))]
)
def test_another_python_takes_the_source_or_byte_code_of_its_own(
    version: str, pyz: Path, tree: Path, tmp_path: Path
) -> None:
    """Another Python uses the source, and the byte-code of a file that was built for it."""
    assert loaded_from(OTHERS[version], pyz) == "py"
    own = tmp_path / "own.pyz"
    done = tool(tree, str(own), "--python", OTHERS[version])
    assert done.returncode == 0, done.stderr
    assert f"starts fastest on Python {version}" in done.stdout
    assert loaded_from(OTHERS[version], own) == "pyc"


@pytest.mark.skipif(not PYTHONS.keys() - SUPPORTED.keys(), reason="no Python older than 3.11 on this machine")
def test_an_old_python_is_refused(pyz: Path) -> None:
    """An old Python prints one line and exits with 2; a build for it is refused."""
    for version in PYTHONS.keys() - SUPPORTED.keys():
        done = run(PYTHONS[version], str(pyz))
        assert (done.returncode, done.stderr) == (
            2,
            f"kubenurse: Python {version} is too old, expected 3.11 or newer\n",
        )
        with pytest.raises(BuildError, match=r"expected Python 3\.11 or newer"):
            build(PYTHONS[version])


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["--python", "/nowhere/python3"], {}, "/nowhere/python3 does not run, expected Python 3.11 or newer"),
        (["--python", "/bin/false"], {}, "/bin/false does not compile kubenurse"),
        ([], {"SOURCE_DATE_EPOCH": "today"}, "SOURCE_DATE_EPOCH='today': not a time, expected seconds"),
    ],
)
def test_a_build_that_cannot_work_reports_the_reason(
    arguments: list[str], env: dict[str, str], said: str, tree: Path, tmp_path: Path
) -> None:
    """The exit code is 1, stderr has the reason, and no file is left."""
    done = tool(tree, str(tmp_path / "x.pyz"), *arguments, env=env)
    assert done.returncode == 1
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_agents_of_the_single_file_make_a_healthy_cluster(pyz: Path) -> None:
    """Agents of the single file, with nothing installed: all checks are ok, and /metrics is served."""
    command = (sys.executable, "-I", "-S", str(pyz))
    with Cluster(2, environ={"KUBENURSE_CHECK_INTERVAL": "300ms"}, command=command) as cluster:
        for agent in cluster.agents:
            until(lambda agent=agent: agent.alive()[0] == 200 and len(agent.state()["checks"]) == 5)  # type: ignore[misc] # bound at once
            assert {check["state"] for check in agent.state()["checks"].values()} == {"ok"}
            assert "kubenurse_check_success{" in agent.metrics()


def test_a_kubeconfig_is_read_with_the_installed_package(pyz: Path, tmp_path: Path) -> None:
    """The file contains no official client; an installed one works beside the vendored urllib3."""
    with Cluster(1) as cluster:
        kubeconfig = tmp_path / "config"
        kubeconfig.write_text(
            json.dumps(
                {
                    "current-context": "it",
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                    "clusters": [
                        {
                            "name": "it",
                            "cluster": {
                                "server": f"https://{cluster.api.address}:{cluster.api.port}",
                                "certificate-authority": str(cluster.authority.file),
                            },
                        }
                    ],
                    "users": [{"name": "it", "user": {"token": cluster.token}}],
                }
            )
        )
        done = run(sys.executable, str(pyz), "check", "--json", env={"KUBECONFIG": str(kubeconfig)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["checks"]["api_server_direct"]["state"] == "ok"
