"""Every event is one line that can be read back, whatever it carries."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.report import log
from checks.report.log import JsonFormatter, LogfmtFormatter, setup
from tests.support.pipes import pipe
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 5.0

LOGFMT_FIELD = re.compile(r'([A-Za-z0-9_.-]+)=("(?:[^"\\]|\\.)*"|[^ "=\\]+)(?: |$)')
# Names that try to be the formatter's own fields, or two fields at once.
KEYS = st.one_of(
    st.text(max_size=20), st.sampled_from(["ts", "level", "event", "exception", "level_", "a b", "a=b", "a_b"])
)
FACTS = st.dictionaries(KEYS, st.text(max_size=100), max_size=8)


def parse_logfmt(line: str) -> list[tuple[str, str]]:
    """Read a logfmt line from left to right; nothing of it may be left over."""
    fields = []
    position = 0
    while position < len(line):
        field = LOGFMT_FIELD.match(line, position)
        assert field, f"no field at {position} in {line!r}"
        fields.append((field[1], json.loads(field[2]) if field[2].startswith('"') else field[2]))
        position = field.end()
    return fields


def record_of(event: str, facts: Mapping[str, object] | None = None) -> logging.LogRecord:
    """Return a record as the agent's modules make them."""
    record = logging.LogRecord("kubenurse.test", logging.INFO, __file__, 1, event, None, None)
    if facts is not None:
        record.facts = facts
    return record


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The agent's logger, put back afterwards as it was."""
    logger = logging.getLogger("kubenurse")
    before = logger.handlers[:], logger.level, logger.propagate
    yield logger
    log.stop()
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@given(st.text(), FACTS)
def test_logfmt_can_be_read_back(event: str, facts: dict[str, str]) -> None:
    """Any texts make one printable line, whose fields are the record's and no others."""
    line = LogfmtFormatter().format(record_of(event, facts))
    assert line.isascii()
    assert line.isprintable()
    fields = parse_logfmt(line)
    assert [key for key, _ in fields[:3]] == ["ts", "level", "event"]
    assert [value for _, value in fields[1:]] == ["info", event, *facts.values()]
    assert len({key for key, _ in fields}) == len(fields)


@given(st.text(), FACTS)
def test_json_can_be_read_back(event: str, facts: dict[str, str]) -> None:
    """Any texts make one line with one JSON object, whose fields are the record's and no others."""
    line = JsonFormatter().format(record_of(event, facts))
    assert len(line.splitlines()) == 1
    fields = json.loads(line)
    assert list(fields)[:3] == ["ts", "level", "event"]
    assert list(fields.values())[1:] == ["info", event, *facts.values()]


def test_a_line_looks_as_documented() -> None:
    """A line begins with time, level and event; what needs no quotes has none."""
    record = record_of(
        "agent started", {"port": 8080, "tls": False, "node": "n-1", "why": "", "rtt": 0.5, "code": None}
    )
    record.created, record.msecs = 1767323045.678, 678.0
    assert LogfmtFormatter().format(record) == (
        'ts=2026-01-02T03:04:05.678Z level=info event="agent started" '
        'port=8080 tls=false node=n-1 why="" rtt=0.5 code=null'
    )
    assert json.loads(JsonFormatter().format(record)) == {
        "ts": "2026-01-02T03:04:05.678Z",
        "level": "info",
        "event": "agent started",
        "port": 8080,
        "tls": False,
        "node": "n-1",
        "why": "",
        "rtt": 0.5,
        "code": None,
    }


@pytest.mark.parametrize("value", [float("inf"), float("nan"), ("a", 1), ValueError("x=y")])
def test_other_values_are_written_as_their_text(value: object) -> None:
    """What JSON has no scalar for is logged as str() gives it."""
    record = record_of("event", {"value": value})
    assert json.loads(JsonFormatter().format(record))["value"] == str(value)
    assert dict(parse_logfmt(LogfmtFormatter().format(record)))["value"] == str(value)


def test_long_values_are_cut() -> None:
    """A value, an event and a number of facts have an upper bound, and a cut value keeps both its ends."""
    value = "first" + "x" * 1_000_000 + "last"
    facts = {"value": value, "k" * 1_000: 1} | {f"fact{number}": number for number in range(1_000)}
    line = LogfmtFormatter().format(record_of(value, facts))
    assert len(line) < 10_000
    fields = dict(parse_logfmt(line))
    for cut in (fields["event"], fields["value"]):
        assert cut.startswith("first")
        assert cut.endswith("last")
        assert "998009 characters left out" in cut


def written(stream: io.StringIO) -> str:
    """All that the log has written, once it has written all."""
    assert log.flush(DEADLINE)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_an_exception_is_one_field(form: str, logger: logging.Logger) -> None:
    """A traceback and a stack stay on the event's line, as fields of their own."""
    stream = io.StringIO()
    setup("info", form, stream)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("it broke", stack_info=True)
    (line,) = written(stream).splitlines()
    fields = json.loads(line) if form == "json" else dict(parse_logfmt(line))
    assert fields["exception"].startswith("Traceback (most recent call last):\n")
    assert fields["exception"].endswith("ValueError: two\nlines")
    assert fields["stack"].startswith("Stack (most recent call last):\n")


def test_levels_below_the_chosen_one_are_left_out(logger: logging.Logger) -> None:
    """Loggers below kubenurse write from the chosen level on, and nothing reaches the root logger."""
    stream = io.StringIO()
    setup("warning", "logfmt", stream)
    below = logging.getLogger("kubenurse.area")
    below.info("not this")
    below.warning("this")
    assert "not this" not in written(stream)
    assert "level=warning event=this\n" in written(stream)
    assert not logger.propagate


def test_setup_again_replaces_the_first(logger: logging.Logger) -> None:
    """A second setup writes the first one's last lines, then each event once, to the new stream."""
    first, second = io.StringIO(), io.StringIO()
    setup("info", "logfmt", first)
    logger.info("early")
    setup("debug", "json", second)
    logger.debug("once")
    assert len(written(second).splitlines()) == 1
    assert first.getvalue().endswith("event=early\n")
    assert not first.closed


@pytest.mark.parametrize("closed", [True, False])
def test_a_log_that_cannot_be_written_is_no_error(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], *, closed: bool
) -> None:
    """With the stream closed or absent, events and wrong arguments are dropped and counted, and nothing is raised."""
    stream = io.StringIO() if closed else None
    setup("info", "logfmt", stream)
    if stream is not None:
        stream.close()
    logger.info("into the void")
    logger.info("wrong %d", "argument")
    assert log.flush(DEADLINE)
    until(lambda: log.dropped() == 2, DEADLINE)
    assert capsys.readouterr().err == ""


def test_a_thread_that_dies_is_an_event(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback of a thread is one event of the log, not text on standard error."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    stream = io.StringIO()
    setup("info", "json", stream)
    log.adopt_process()

    def die() -> None:
        raise MemoryError("no more")

    thread = threading.Thread(target=die, name="unlucky")
    thread.start()
    thread.join(DEADLINE)
    (line,) = written(stream).splitlines()
    fields = json.loads(line)
    assert (fields["level"], fields["event"], fields["thread"]) == ("critical", "thread died", "unlucky")
    assert fields["exception"].endswith("MemoryError: no more")


def test_without_a_setup_the_log_is_empty_and_alive(logger: logging.Logger) -> None:
    """A program that has not set the log up has no lines to wait for and none dropped."""
    logger.handlers[:] = []
    assert log.flush(0)
    assert log.dropped() == 0
    assert time.monotonic() - log.last_lived() < DEADLINE


LAST_WORDS = """
import os, sys, time
from checks.report import log
log.setup("info", sys.argv[1], sys.stderr)
begun = time.monotonic()
written = log.last_words("agent ends", why="rounds stopped")
print(written, time.monotonic() - begun < 5, os.get_blocking(2), flush=True)
os._exit(1)
"""


@pytest.mark.parametrize("form", ["logfmt", "json"])
@pytest.mark.parametrize("full", [True, False])
def test_last_words_go_past_the_queue_and_never_block(form: str, *, full: bool) -> None:
    """They are one line of the log's form; with a full pipe they are given up, and the descriptor stays as it was."""
    with pipe(full=full) as (reader, writer):
        done = subprocess.run(
            [sys.executable, "-c", LAST_WORDS, form],
            stderr=writer,
            stdout=subprocess.PIPE,
            timeout=20,
            cwd=ROOT,
            check=False,
        )
        assert done.stdout.split() == [str(not full).encode(), b"True", b"True"]
        if not full:
            line = os.read(reader, 4096).decode()
            fields = json.loads(line) if form == "json" else dict(parse_logfmt(line.rstrip("\n")))
            assert (fields["event"], fields["why"]) == ("agent ends", "rounds stopped")
