"""Draw the table of ``make run`` with one agent killed, for the README: ``python -m tools.picture``.

Runs ``python -m sandbox`` on a pseudo-terminal, runs the ``kill`` that the sandbox suggests, and writes the table with
the failure to docs/pictures/table.svg. Sequences: ECMA-48 (SGR colours); picture: https://www.w3.org/TR/SVG11/.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "pictures" / "table.svg"
COMMAND = "make run"
SECONDS = 30.0
# The sandbox starts four agents. Each checks the API server and itself in two ways each, and three neighbours.
AGENTS, CHECKS = 4, 7
# Rounds are two seconds apart, so every agent has found the failure by then.
SECONDS_AFTER_KILL = 7.0

_TABLE = re.compile(r"\x1b\[\?7l(.*?)\x1b\[\?7h", re.DOTALL)
_KILL = re.compile(r"kill -9 (\d+)")
_RUN = re.compile(r"\x1b\[(\d+)m|([^\x1b]+)")
_LETTER, _LINE, _MARGIN = 8.0, 20.0, 16.0  # pixels
_BACKGROUND, _TEXT, _DIM = "#11151c", "#d7dce2", "#8b949e"
_COLOURS = {"0": _TEXT, "31": "#ff7b72", "32": "#7ee787"}


def draw(table: str, command: str = COMMAND) -> str:
    """Return a terminal's text with SGR colours as SVG, below the command that printed it.

    Each piece of text has a position and a length, so columns stay aligned with any monospace font.
    """
    lines = table.split("\n")
    columns = max(len(re.sub(r"\x1b\[\d+m", "", line)) for line in lines)
    width, height = 2 * _MARGIN + columns * _LETTER, 2 * _MARGIN + (len(lines) + 2) * _LINE
    texts = [_text(0, 0, f"$ {command}", _DIM)]
    for row, line in enumerate(lines, start=2):
        texts += (_text(column, row, words, colour) for column, words, colour in _pieces(line))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-size="13"',
            "  font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace\">",
            f"<title>{escape(command)}, after one agent was killed</title>",
            f'<rect width="100%" height="100%" rx="8" fill="{_BACKGROUND}"/>',
            *texts,
            "</svg>\n",
        ]
    )


def _pieces(line: str) -> Iterator[tuple[int, str, str]]:
    """Yield column, text and colour of each table cell; two or more blanks separate cells."""
    column, colour = 0, _TEXT
    for number, words in _RUN.findall(line):
        if number:
            colour = _COLOURS[number]
            continue
        for cell in re.finditer(r"\S+(?: \S+)*", words):
            yield column + cell.start(), cell[0], colour
        column += len(words)


def _text(column: int, row: int, words: str, colour: str) -> str:
    x, y = _MARGIN + column * _LETTER, _MARGIN + (row + 0.75) * _LINE
    length = len(words) * _LETTER
    return f'<text x="{x:g}" y="{y:g}" textLength="{length:g}" fill="{colour}">{escape(words)}</text>'


def table_with_one_agent_killed() -> str:
    """Run the sandbox and return its last table, in which the other agents report that one agent is gone.

    Raises:
        RuntimeError: when the sandbox ends before that.
    """
    controller, terminal = pty.openpty()
    environ = {**os.environ, "COLUMNS": "120", "LINES": "50"}
    command = [sys.executable, "-m", "sandbox", "--seconds", f"{SECONDS:g}"]
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        try:
            return _watch(controller)
        finally:
            process.send_signal(signal.SIGINT)
            _read_to_the_end(controller)
            os.close(controller)


def _watch(controller: int) -> str:
    shown, killed_at = "", 0.0
    while chunk := _read(controller):
        shown += chunk.replace("\r\n", "\n")
        tables = _TABLE.findall(shown)
        if not tables:
            continue
        if not killed_at and tables[-1].count("\x1b[32mok ") == AGENTS * CHECKS:
            os.kill(int(_KILL.findall(shown)[0]), signal.SIGKILL)
            killed_at = time.monotonic()
        elif killed_at and time.monotonic() - killed_at > SECONDS_AFTER_KILL:
            return str(tables[-1])
    raise RuntimeError(f"the sandbox ended too early; it last showed {shown[-2000:]!r}")


def _read_to_the_end(controller: int) -> None:
    while _read(controller):
        pass


def _read(controller: int) -> str:
    """Return the next output of the terminal, empty when no process has it open any more."""
    with contextlib.suppress(OSError):  # EIO: the last process that had it open has closed it
        return os.read(controller, 65536).decode(errors="replace")
    return ""


if __name__ == "__main__":
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(draw(table_with_one_agent_killed()), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
