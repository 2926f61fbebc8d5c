"""The direction in which modules know each other, read from their imports: DESIGN.md's picture, held."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
AGENT = "kubenurse"

# From the bottom up: a module imports only from layers below its own.
LAYERS: tuple[frozenset[str], ...] = (
    # Facts, and tools that know nothing of checks.
    frozenset(
        {
            "model",
            "durations",
            "selector",
            "urls",
            "certificate",
            "log",
            "cache",
            "summary",
            "histogram",
            "http1",
            "connections",
        }
    ),
    # What is closest to the system.
    frozenset({"resolver", "proxies", "trust", "endings"}),
    frozenset({"failures", "sockets", "credentials", "convert", "served_certificate"}),
    frozenset({"channel", "kubeapi_errors", "kubeconfig", "config"}),
    # What is to be checked, and the ways to the network.
    frozenset({"api_server", "me", "neighbourhood", "extra", "skips", "startup", "keeper", "kubeapi"}),
    frozenset({"probe", "follow", "starting"}),
    # When it is checked, and what becomes of the results.
    frozenset({"rounds", "discovery", "metrics", "transitions", "endpoints", "terminal"}),
    # What faces the outside: clients, and the person at a terminal.
    frozenset({"server", "commandline"}),
)

# No sockets, threads, files or clocks of their own: plain data in, plain data out.
PURE = frozenset(
    {
        "model",
        "durations",
        "urls",
        "selector",
        "api_server",
        "me",
        "neighbourhood",
        "extra",
        "skips",
        "http1",
        "endpoints",
        "terminal",
        "failures",
    }
)
NOT_PURE = frozenset(
    {
        "asyncio",
        "concurrent",
        "http.server",
        "io",
        "multiprocessing",
        "os",
        "pathlib",
        "queue",
        "selectors",
        "socketserver",
        "subprocess",
        "threading",
        "time",
        "urllib.request",
    }
)
# failures translates the errors that these two raise, and takes nothing else from them.
ERRORS_OF = frozenset({"socket", "ssl", "os"})

# Which packages that are not Python's own are imported where; the official client only when it is called for.
PACKAGES = {
    "prometheus_client": frozenset({"metrics", "histogram"}),
    "urllib3": frozenset({"urls", "channel", "kubeapi", "kubeapi_errors", "commandline"}),
    "kubernetes": frozenset({"kubeconfig"}),
}
LATE_PACKAGES = frozenset({"kubernetes"})


@dataclass(frozen=True)
class Import:
    """One name that a file imports; ``late`` when only a function that is called does."""

    name: str
    late: bool
    line: int


def checks_files() -> dict[str, Path]:
    """The modules of checks/ by their names."""
    return {path.stem: path for path in sorted((ROOT / "checks").glob("*.py")) if path.stem != "__init__"}


@cache
def tree_of(path: Path) -> ast.Module:
    """A file as Python reads it."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_of(path: Path) -> list[Import]:
    """Every import of a file; ``from checks import me`` counts as one of checks.me."""
    return list(_imports(tree_of(path), late=False))


def _imports(node: ast.AST, *, late: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, late, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: a relative import"
            module = child.module or ""
            names = [f"{module}.{alias.name}" if module == "checks" else module for alias in child.names]
            yield from (Import(name, late, child.lineno) for name in dict.fromkeys(names))
        else:
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _imports(child, late=late or function)


def own_modules(path: Path) -> set[str]:
    """Which modules of checks/ a file imports, anywhere in it."""
    names = {found.name.removeprefix("checks.") for found in imports_of(path) if found.name.startswith("checks.")}
    return names & checks_files().keys()


def top_level(name: str) -> str:
    """``urllib3.exceptions`` -> ``urllib3``."""
    return name.partition(".")[0]


def layer_of(module: str) -> int:
    """How far up a module is."""
    return next(number for number, layer in enumerate(LAYERS) if module in layer)


def agent_files() -> dict[str, Path]:
    """All that runs on a node."""
    return {AGENT: ROOT / f"{AGENT}.py", **checks_files()}


def test_every_module_has_its_place() -> None:
    """The table names each module of checks/ once, and no other."""
    named = sorted(module for layer in LAYERS for module in layer)
    assert named == sorted(checks_files())
    assert checks_files().keys() >= PURE


@pytest.mark.parametrize("module", checks_files())
def test_imports_point_down(module: str) -> None:
    """A module imports only from the layers below."""
    for imported in own_modules(checks_files()[module]):
        assert layer_of(imported) < layer_of(module), f"checks/{module}.py imports checks/{imported}.py"


def test_there_are_no_cycles() -> None:
    """Taking away, again and again, the modules that import none of the rest takes all of them away."""
    left = {module: own_modules(path) for module, path in checks_files().items()}
    while left:
        free = {module for module, imported in left.items() if not imported & left.keys()}
        assert free, f"a cycle among {sorted(left)}"
        left = {module: imported for module, imported in left.items() if module not in free}


@pytest.mark.parametrize("module", checks_files())
def test_checks_know_neither_the_agent_nor_its_surroundings(module: str) -> None:
    """checks/ imports neither kubenurse.py nor the sandbox, tests or benchmarks."""
    imported = {top_level(found.name) for found in imports_of(checks_files()[module])}
    assert imported.isdisjoint({AGENT, "sandbox", "tests", "bench", "tools"})


@pytest.mark.parametrize("module", agent_files())
def test_packages_are_imported_where_they_belong(module: str) -> None:
    """Besides Python's own modules a file imports those packages that the table grants it, the official client late."""
    for found in imports_of(agent_files()[module]):
        name = top_level(found.name)
        if name in sys.stdlib_module_names or name == "checks":
            continue
        assert module in PACKAGES.get(name, ()), f"{module}.py:{found.line} imports {found.name}"
        assert found.late or name not in LATE_PACKAGES, f"{module}.py:{found.line} imports {name} when it is imported"


@pytest.mark.parametrize("module", agent_files())
def test_threads_not_asyncio(module: str) -> None:
    """Nothing imports asyncio or defines a coroutine."""
    path = agent_files()[module]
    assert "asyncio" not in {top_level(found.name) for found in imports_of(path)}
    kinds = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    assert not [node.lineno for node in ast.walk(tree_of(path)) if isinstance(node, kinds)]


@pytest.mark.parametrize("module", sorted(set(agent_files()) - {"config"}))
def test_only_the_configuration_reads_the_environment(module: str) -> None:
    """Neither os.environ nor os.getenv appears outside config.py, whatever os is called there."""
    names = {"environ", "environb", "getenv", "getenvb"}
    for node in ast.walk(tree_of(agent_files()[module])):
        attribute = isinstance(node, ast.Attribute) and node.attr in names and isinstance(node.value, ast.Name)
        imported = isinstance(node, ast.ImportFrom) and node.module == "os" and {one.name for one in node.names} & names
        assert not attribute, f"{module}.py:{getattr(node, 'lineno', 0)} reads the environment"
        assert not imported, f"{module}.py:{getattr(node, 'lineno', 0)} reads the environment"


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_touch_nothing(module: str) -> None:
    """A pure module imports nothing that opens, waits, starts or tells the time, and no module that is not pure."""
    path = checks_files()[module]
    allowed = ERRORS_OF if module == "failures" else frozenset()
    touching = (NOT_PURE | {"socket", "ssl"}) - allowed
    imported = {found.name for found in imports_of(path)}
    assert imported.isdisjoint(touching)
    assert {top_level(name) for name in imported}.isdisjoint(touching)
    # The configuration is data that has been read by the time they see it.
    assert own_modules(path) <= PURE | {"config"}
    names = {node.id for node in ast.walk(tree_of(path)) if isinstance(node, ast.Name)}
    assert names.isdisjoint({"open", "print", "input", "__import__"})


def test_an_agent_in_a_cluster_loads_neither_the_official_client_nor_the_command_line() -> None:
    """What the agent imports on each node holds nothing that only a person at a terminal or a kubeconfig needs."""
    program = "import sys, kubenurse; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"checks.discovery", "urllib3", "prometheus_client"} <= loaded
    assert loaded.isdisjoint(
        {"kubernetes", "yaml", "requests", "argparse", "asyncio", "checks.commandline", "checks.kubeconfig"}
    )
