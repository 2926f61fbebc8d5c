"""The agent's log: one event a line, as logfmt or JSON, whatever the values are.

Source of logfmt: https://brandur.org/logfmt and Go's ``go-logfmt``; quoted values are JSON strings.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Mapping
from typing import TextIO

_LONGEST = 2_000  # characters of one value
_MOST_FACTS = 50

# Printable ASCII but for the blank, the quote, the equals sign and the backslash.
_BARE = re.compile(r"[!#-<>-\[\]-~]+")
_NOT_FOR_KEYS = re.compile(r"[^A-Za-z0-9_.-]")

Scalar = str | int | float | bool | None


def setup(
    level: str,
    format: str,  # noqa: A002 - named after the variable, KUBENURSE_LOG_FORMAT
    stream: TextIO,
) -> None:
    """Make the ``kubenurse`` logger and those below it write to ``stream``; the root logger is left alone.

    ``level`` is a name of ``logging``'s in any case, ``format`` is ``logfmt`` or ``json``. A second call replaces what
    the first one set up.
    """
    logger = logging.getLogger("kubenurse")
    handler = _Handler(stream)
    handler.setFormatter(JsonFormatter() if format == "json" else LogfmtFormatter())
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False


class LogfmtFormatter(logging.Formatter):
    """Renders a record as ``ts=2026-01-02T03:04:05.678Z level=info event="agent started" key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        return " ".join(f"{key}={_logfmt(value)}" for key, value in _fields(record).items())


class JsonFormatter(logging.Formatter):
    """Renders a record as one JSON object; numbers and booleans stay what they are."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        return json.dumps(_fields(record))


class _Handler(logging.StreamHandler[TextIO]):
    """Drops what cannot be written: a log that is gone must not stop the agent, nor write lines of another form."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass


def _fields(record: logging.LogRecord) -> dict[str, Scalar]:
    """The fields of a record in the order they are written: at most ``_MOST_FACTS`` facts and five of its own."""
    fields: dict[str, Scalar] = {
        "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "event": _cut(record.getMessage()),
    }
    if record.exc_info:
        fields["exception"] = _cut(logging.Formatter().formatException(record.exc_info))
    if record.stack_info:
        fields["stack"] = _cut(record.stack_info)
    facts: Mapping[object, object] = getattr(record, "facts", {})
    for key, value in list(facts.items())[:_MOST_FACTS]:
        fields[_new_key(str(key), fields)] = _scalar(value)
    return fields


def _new_key(wanted: str, taken: Mapping[str, object]) -> str:
    """A key without characters that mean something, and no other field's."""
    key = _NOT_FOR_KEYS.sub("_", wanted[:100]) or "_"
    while key in taken:
        key += "_"
    return key


def _scalar(value: object) -> Scalar:
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _cut(str(value))


def _cut(text: str) -> str:
    """Bound a value by its middle: a traceback says most at its end, most other texts at their beginning."""
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]}...{len(text) - 2 * half} characters left out...{text[-half:]}"


def _logfmt(value: Scalar) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value):
        return value
    # All but ASCII is escaped: some of it ends lines (U+2028) or moves a terminal's cursor (U+009B), and standard
    # error may have any encoding. JSON leaves only DEL.
    return json.dumps(value).replace("\x7f", "\\u007f")
