"""Find the modules that a program can import, by reading its import statements without running it.

Every import statement counts: in a function, in a ``try``, behind a condition. Branches that never run where kubenurse
runs are left out: ``if TYPE_CHECKING`` and ``if sys.platform == "emscripten"``. Imports by a computed name are not
found; a test makes sure that there are none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# Conditions that are false in every CPython on Linux, as ast.unparse writes them.
NEVER_TRUE = {"TYPE_CHECKING", "typing.TYPE_CHECKING", "sys.platform == 'emscripten'"}


@dataclass(frozen=True, slots=True)
class Source:
    """A module's source text, and whether it is a package (an ``__init__.py``)."""

    text: bytes
    is_package: bool


def reachable(sources: Mapping[str, Source], start: str) -> set[str]:
    """Return the names of the modules of ``sources`` that ``start`` imports, directly or indirectly, and ``start``.

    Importing a module imports the packages around it, so these are included.

    Raises:
        SyntaxError: when a module's source is not valid Python.
        KeyError: when ``start`` is not among ``sources``.
    """
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        named = imported_names(sources[name], name)
        waiting += [module for module in _with_packages(named) if module in sources]
    return found


def imported_names(source: Source, name: str) -> set[str]:
    """Return the full names in the import statements of module ``name``: modules, and names inside modules."""
    package = name if source.is_package else name.rpartition(".")[0]
    names: set[str] = set()
    for node in _statements_that_can_run(ast.parse(source.text)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def _statements_that_can_run(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in NEVER_TRUE:
            yield from _statements_that_can_run(ast.Module(body=child.orelse, type_ignores=[]))
        else:
            yield child
            yield from _statements_that_can_run(child)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """Return the absolute name of ``..x`` in ``from ..x import y`` inside ``package``, as importlib does."""
    if node.level == 0:
        return node.module or ""
    parents = package.split(".")
    base = parents[: len(parents) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _with_packages(names: set[str]) -> Iterator[str]:
    for name in names:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            yield ".".join(parts[:length])
