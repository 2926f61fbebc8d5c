"""Text from outside, made safe for a log line, a JSON field or a terminal."""

from __future__ import annotations

ELLIPSIS = "…"


def printable(text: str, longest: int | None = None) -> str:
    """Return ``text`` as one line: a space stands for each character that ends a line or acts on a terminal.

    ``longest`` is the most characters returned; a longer text is cut and ends in an ellipsis.
    """
    if longest is not None and len(text) > longest:
        text = text[: longest - 1] + ELLIPSIS
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def escaped(text: str) -> str:
    r"""Return ``text`` as one line in which an unprintable character shows as its escape, like ``\x1b``."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
