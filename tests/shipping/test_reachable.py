"""Which modules a program can import, so that the single file can leave out the others."""

from __future__ import annotations

import pytest

from tools.reachable import Source, imported_names, reachable


def module(text: str, *, is_package: bool = False) -> Source:
    """Return a module with this text."""
    return Source(text.encode(), is_package)


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("import a.b", "a.b"),
        ("import a.b as c", "a.b"),
        ("from a import b", "a.b"),
        ("def f():\n    from a import b", "a.b"),
        ("try:\n    import a\nexcept ImportError:\n    import b.c", "b.c"),
        ("if sys.version_info < (3, 12):\n    import a", "a"),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", "b"),
        ("from . import sibling", "outer.package.sibling"),
        ("from .sibling import thing", "outer.package.sibling"),
        ("from ..other import thing", "outer.other"),
    ],
)
def test_finds_an_import_wherever_it_stands(statement: str, name: str) -> None:
    """Each import counts: absolute or relative, at the top, in a function or behind a condition."""
    assert name in imported_names(module(statement), "outer.package.module")


@pytest.mark.parametrize("condition", ["TYPE_CHECKING", "typing.TYPE_CHECKING", 'sys.platform == "emscripten"'])
def test_leaves_out_what_never_runs(condition: str) -> None:
    """Imports in branches for type checkers or for a browser do not count."""
    assert imported_names(module(f"if {condition}:\n    import a"), "m") == set()


def test_relative_imports_of_a_package_start_in_it() -> None:
    """One dot is the package itself in an __init__.py, and the package around it in a module."""
    assert "p.a" in imported_names(module("from .a import x", is_package=True), "p")
    assert "p.a" in imported_names(module("from .a import x"), "p.b")


def test_follows_imports_and_takes_the_packages_around() -> None:
    """Imports of a reached module are reached, with their packages; a module that nothing imports is not."""
    sources = {
        "start": module("from a.b import f"),
        "a": module("", is_package=True),
        "a.b": module("from . import c"),
        "a.c": module("import start"),
        "a.unused": module("import a.b"),
        "d": module("", is_package=True),
    }
    assert reachable(sources, "start") == {"start", "a", "a.b", "a.c"}
