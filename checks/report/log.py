"""The agent's log: one event a line, as logfmt or JSON, whatever the values are.

No caller waits for the reader of the log: lines go through a bounded queue to a thread that writes them.
Source of logfmt: https://brandur.org/logfmt and Go's ``go-logfmt``; quoted values are JSON strings.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
import time
from collections.abc import Mapping
from typing import TextIO

from checks.report.writer import LineWriter, descriptor_of, write_at_once

_LONGEST = 2_000  # characters of one value
_MOST_FACTS = 50
# Seconds that the end of the process waits for the reader to take the last lines.
LAST_LINES_SECONDS = 1.0
# Seconds that ``last_words`` waits for room in the pipe.
LAST_WORDS_SECONDS = 0.5

# Printable ASCII but for the blank, the quote, the equals sign and the backslash.
_BARE = re.compile(r"[!#-<>-\[\]-~]+")
_NOT_FOR_KEYS = re.compile(r"[^A-Za-z0-9_.-]")

Scalar = str | int | float | bool | None


def setup(
    level: str,
    format: str,  # noqa: A002 - named after the variable, KUBENURSE_LOG_FORMAT
    stream: TextIO | None,
) -> None:
    """Make the ``kubenurse`` logger and those below it write to ``stream``; the root logger is left alone.

    ``level`` is a name of ``logging``'s in any case, ``format`` is ``logfmt`` or ``json``. ``stream`` None drops every
    line. A second call replaces what the first one set up. At the end of the process ``logging.shutdown`` closes the
    handler, which gives the reader LAST_LINES_SECONDS to take the last lines.

    Raises:
        RuntimeError: when the system has no thread to give.
    """
    logger = logging.getLogger("kubenurse")
    handler = _QueueHandler(stream, JsonFormatter() if format == "json" else LogfmtFormatter())
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False


def adopt_process() -> None:
    """Send the traceback of a thread that dies, and warnings of libraries, to this log instead of ``sys.stderr``.

    A write to ``sys.stderr`` blocks when nobody reads it, and the interpreter waits for that at its end.
    """
    handler = _handler()
    if handler is not None:
        threading.excepthook = _thread_died
        logging.lastResort = handler


def dropped() -> int:
    """Return how many lines nobody got, since the log was set up."""
    handler = _handler()
    return handler.writer.dropped if handler is not None else 0


def last_lived() -> float:
    """Return when the writing thread last showed that it lives, in monotonic seconds: see LineWriter.last_lived.

    A process that has not set its log up has no writer to miss: then it is now.
    """
    handler = _handler()
    return handler.writer.last_lived if handler is not None else time.monotonic()


def flush(seconds: float) -> bool:
    """Wait until all lines so far are written, at most ``seconds``; return whether they are."""
    handler = _handler()
    return handler is None or handler.writer.flush(seconds)


def stop(seconds: float = LAST_LINES_SECONDS) -> None:
    """Take no more lines, and wait at most ``seconds`` until the last ones are written."""
    handler = _handler()
    if handler is not None:
        handler.writer.stop(seconds)


def last_words(event: str, **facts: object) -> bool:
    """Write an event to standard error past the queue, at most LAST_WORDS_SECONDS; return whether it was written.

    For a process that ends because something in it hangs: neither the queue nor its thread nor a lock is needed. At
    most 4,096 bytes are written.
    """
    handler = _handler()
    formatter = handler.formatter if handler is not None and handler.formatter is not None else LogfmtFormatter()
    descriptor = descriptor_of(sys.stderr)
    return descriptor is not None and write_at_once(
        descriptor, _event(formatter, logging.CRITICAL, event, facts), LAST_WORDS_SECONDS
    )


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


class _QueueHandler(logging.Handler):
    """Formats a record in the thread that logs it, and hands the line to a LineWriter.

    A record that cannot be formatted is dropped and counted: a log event must not stop the agent.
    """

    def __init__(self, stream: TextIO | None, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.writer = LineWriter(
            stream, lambda count: _event(formatter, logging.WARNING, "log lines dropped", {"count": count})
        )

    def handle(self, record: logging.LogRecord) -> bool:
        """Queue a record, without the lock that ``logging`` holds over a handler's work."""
        accepted = bool(self.filter(record))
        if accepted:
            self.emit(record)
        return accepted

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record."""
        try:
            line = self.format(record) + "\n"
        # Arguments of an event may be anything, with a ``__str__`` that raises anything.
        except Exception:
            self.writer.count_dropped()
            return
        self.writer.put(line.encode("ascii", "backslashreplace"))

    def close(self) -> None:
        """Give the reader a moment to take the last lines, then end the writing thread."""
        self.writer.stop(LAST_LINES_SECONDS)
        super().close()


def _handler() -> _QueueHandler | None:
    """The handler that ``setup`` made last."""
    for handler in logging.getLogger("kubenurse").handlers:
        if isinstance(handler, _QueueHandler):
            return handler
    return None


def _event(formatter: logging.Formatter, level: int, event: str, facts: Mapping[str, object]) -> bytes:
    """A line about the log itself, as an event has it."""
    record = logging.LogRecord("kubenurse.log", level, __file__, 0, event, None, None)
    record.facts = facts
    return (formatter.format(record) + "\n").encode("ascii", "backslashreplace")


def _thread_died(died: threading.ExceptHookArgs) -> None:
    if died.exc_type is SystemExit or died.exc_value is None:
        return
    logging.getLogger("kubenurse").critical(
        "thread died",
        exc_info=(died.exc_type, died.exc_value, died.exc_traceback),
        extra={"facts": {"thread": died.thread.name if died.thread is not None else ""}},
    )


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
