"""Remove comments and docstrings from Python sources, and keep everything else, line numbers included.

Every module is in the single file twice, so comments and docstrings would make it a quarter larger. Tracebacks keep
their line numbers. A docstring becomes a blank one and is not removed: a function needs a body, and a dataclass without
a docstring computes one at each start.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize

BLANK = b'" "'
# An encoding declaration (PEP 263) or the line for the shell; both count in the first two lines only.
_KEPT = re.compile(r"#!|#.*coding[:=]")


@functools.lru_cache(maxsize=1024)
def slim(source: bytes) -> bytes:
    """Return a UTF-8 source without comments and with blank docstrings.

    Raises:
        SyntaxError: when the source is not valid Python.
    """
    lines = source.replace(b"\r\n", b"\n").split(b"\n")
    for text in docstrings(ast.parse(source)):
        _blank(lines, text)
    return _without_comments(b"\n".join(lines).decode()).encode()


def docstrings(tree: ast.AST) -> list[ast.Constant]:
    """Return the docstrings of a module and of all classes and functions in it."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                found += [first.value] if isinstance(first.value.value, str) else []
    return found


def _blank(lines: list[bytes], text: ast.Constant) -> None:
    """Replace a string by a blank one, in place; its columns are bytes."""
    first, last = text.lineno - 1, (text.end_lineno or text.lineno) - 1
    before, after = lines[first][: text.col_offset], lines[last][text.end_col_offset :]
    lines[first : last + 1] = [before + BLANK + after, *[b""] * (last - first)]


def _without_comments(text: str) -> str:
    lines = text.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT and not (row <= 2 and _KEPT.match(token.string)):
            lines[row - 1] = lines[row - 1][:column].rstrip()
    return "\n".join(lines)
