"""Sources without comments and docstrings, as the single file contains them."""

from __future__ import annotations

import ast
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tools.slim import docstrings, slim

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [ROOT / "checks"]
PACKAGES += [Path(str(distribution(name).locate_file(name))) for name in ("prometheus_client", "urllib3")]


def shape(source: bytes) -> str:
    """Return the syntax tree with its line numbers, columns aside, and without the text of docstrings."""
    tree = ast.parse(source)
    for text in docstrings(tree):
        text.value, text.end_lineno = "", text.lineno
    for node in ast.walk(tree):
        for name in ("col_offset", "end_col_offset", "end_lineno"):
            if hasattr(node, name):
                setattr(node, name, 0)
    return ast.dump(tree, include_attributes=True)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_only_comments_and_docstrings_go(package: Path) -> None:
    """Every module keeps its statements and their line numbers."""
    for file in sorted(package.rglob("*.py")):
        source = file.read_bytes()
        assert shape(slim(source)) == shape(source), file
        assert slim(source).count(b"\n") == source.replace(b"\r\n", b"\n").count(b"\n"), file


@pytest.mark.parametrize(
    ("source", "slimmed"),
    [
        ('"""Über\nalles."""  # why\nx = "# no"  # yes\n', '" "\n\nx = "# no"\n'),
        ('def f():\n    "é"; return 1\n', 'def f():\n    " "; return 1\n'),
        ('class C:\n    ("a"\n     "b")\n    x = """#\n#"""\n', 'class C:\n    (" ")\n\n    x = """#\n#"""\n'),
        (
            "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n# gone\n",
            "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n\n",
        ),
        ("x = 1\n'text that is no docstring'\n", "x = 1\n'text that is no docstring'\n"),
    ],
)
def test_strings_stay_and_comments_go(source: str, slimmed: str) -> None:
    """Other strings stay unchanged, also with a # inside; the shell's line and the encoding stay."""
    assert slim(source.encode()).decode() == slimmed
