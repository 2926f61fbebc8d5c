"""``kubenurse diagnose``: verdicts printed for a person, and a bundle judged without a cluster."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from checks.diagnosis import diagnose

MOST_BYTES = 64 * 1024 * 1024
STDIN = "-"

EXIT_HEALTHY = 0
EXIT_UNHEALTHY = 1
EXIT_UNUSABLE = 2

_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_COLOURS = {"critical": "\x1b[31m", "warning": "\x1b[33m", "info": "\x1b[36m"}
_GREEN, _RED = "\x1b[32m", "\x1b[31m"
_MOST_LINES = 20


class UnusableBundleError(Exception):
    """A file that cannot be read or is no bundle. The message is for the person who named it."""


def diagnose_file(path: str, *, as_json: bool, colour: bool) -> tuple[str, int]:
    """Judge the bundle in a file, ``-`` for stdin; return what to print and the exit code.

    The code is 0 when all is well apart from maintenance, 1 when something fails, 2 when the file cannot be used. The
    text of code 2 is a message for stderr.
    """
    try:
        document = diagnose(read_bundle(path))
    except UnusableBundleError as error:
        return f"kubenurse: {error}", EXIT_UNUSABLE
    text = json.dumps(document, indent=1) if as_json else print_diagnosis(document, colour=colour)
    return text, exit_code(document)


def exit_code(document: Mapping[str, Any]) -> int:
    """Return the exit code that a /diagnosis document means."""
    return EXIT_HEALTHY if document.get("healthy") is True else EXIT_UNHEALTHY


def read_bundle(path: str) -> Mapping[str, Any]:
    """Read a bundle of at most 64 MB from a file, ``-`` for stdin.

    Raises:
        UnusableBundleError: when it cannot be read, is too large or is no bundle.
    """
    shown = "stdin" if path == STDIN else _printable(path)
    try:
        if path == STDIN:
            content = _read(sys.stdin.buffer, shown)
        else:
            with Path(path).open("rb") as file:
                content = _read(file, shown)
    except OSError as error:
        raise UnusableBundleError(f"{shown}: {error.strerror or error}") from error
    except ValueError as error:  # a name with a null character
        raise UnusableBundleError(f"{shown}: {error}") from error
    return _parse(content, shown)


def _read(file: BinaryIO, shown: str) -> bytes:
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UnusableBundleError(f"{shown}: larger than {MOST_BYTES // 2**20} MB")
    return content


def _parse(content: bytes, shown: str) -> Mapping[str, Any]:
    try:
        bundle = json.loads(content)
    except UnicodeDecodeError as error:
        raise UnusableBundleError(f"{shown}: not a bundle: not UTF-8 text") from error
    except RecursionError as error:
        raise UnusableBundleError(f"{shown}: not a bundle: nested too deeply") from error
    except ValueError as error:
        raise UnusableBundleError(f"{shown}: not a bundle: not JSON: {_printable(str(error))}") from error
    if not isinstance(bundle, dict) or not _is_version(bundle, shown):
        raise UnusableBundleError(f"{shown}: not a bundle: 'kubenurse collect' writes one")
    if not isinstance(bundle.get("states"), list):
        raise UnusableBundleError(f"{shown}: not a bundle: it has no list of states")
    return bundle


def _is_version(bundle: Mapping[str, Any], shown: str) -> bool:
    version = bundle.get("kubenurse_bundle")
    if isinstance(version, int) and not isinstance(version, bool) and version > 1:
        raise UnusableBundleError(f"{shown}: a bundle of version {version}; this kubenurse reads version 1")
    return version == 1 and not isinstance(version, bool)


def print_diagnosis(document: Mapping[str, Any], *, colour: bool) -> str:
    """Return a /diagnosis document as text for a person, without control characters from elsewhere."""
    return "\n".join(_lines(document, _Paint(colour))) + "\n"


class _Paint:
    """Adds colours where they were asked for."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, text: str, *codes: str) -> str:
        return f"{''.join(codes)}{text}{_PLAIN}" if self._colour and codes else text


def _lines(document: Mapping[str, Any], paint: _Paint) -> Iterator[str]:
    healthy = document.get("healthy") is True
    yield paint(_printable(document.get("sentence", "")), _BOLD, _GREEN if healthy else _RED)
    agents = _mapping(document.get("agents"))
    answered, asked = _printable(agents.get("answered", "?")), _printable(agents.get("asked", "?"))
    yield paint(f"{answered} of {asked} agents answered.", _DIM)
    for verdict in _mappings(document.get("verdicts")):
        yield ""
        yield from _verdict_lines(verdict, paint)
    unexplained = _mappings(document.get("unexplained"))
    if unexplained:
        yield ""
        yield paint("Fails for a reason that is not known:", _BOLD)
        for each in unexplained[:_MOST_LINES]:
            yield f"  - {_printable(each.get('type', ''))} on {_printable(each.get('node', ''))}: " + _printable(
                each.get("state", "")
            )
        if len(unexplained) > _MOST_LINES:
            yield f"  and {len(unexplained) - _MOST_LINES} more"
    unknown = document.get("unknown")
    if isinstance(unknown, list) and unknown:
        yield ""
        yield paint("Cannot be judged:", _BOLD)
        yield from (f"  - {_printable(each)}" for each in unknown[:_MOST_LINES])


def _verdict_lines(verdict: Mapping[str, Any], paint: _Paint) -> Iterator[str]:
    severity = _printable(verdict.get("severity", ""))
    label = paint(severity.upper(), _BOLD, *([_COLOURS[severity]] if severity in _COLOURS else []))
    yield f"{label}  {_printable(verdict.get('sentence', ''))}"
    detail = _printable(verdict.get("detail", ""))
    if detail:
        yield f"  {paint('reason:', _DIM)} {detail}"
    evidence = verdict.get("evidence")
    if isinstance(evidence, list):
        yield from (f"  - {_printable(each)}" for each in evidence[:_MOST_LINES])
    others = _mappings(verdict.get("or"))
    if others:
        yield f"  {paint('or:', _DIM)} " + "; ".join(_cause(each) for each in others)
    following = _printable(verdict.get("next", ""))
    if following:
        yield f"  {paint('next:', _DIM)} {following}"


def _cause(other: Mapping[str, Any]) -> str:
    place = ", ".join(f"{_printable(key)} {_printable(value)}" for key, value in _mapping(other.get("where")).items())
    return f"{_printable(other.get('cause', ''))} ({place})" if place else _printable(other.get("cause", ""))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> Sequence[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _printable(value: Any) -> str:
    """Return a value as text without characters that move a terminal's cursor or turn the direction of writing."""
    return "".join(
        character if character.isprintable() and unicodedata.category(character) != "Cf" else " "
        for character in str(value)
    )
