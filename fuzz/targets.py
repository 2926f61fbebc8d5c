"""What is fuzzed: a name and a function of bytes for each reader of input that comes from outside.

A function returns for every input. It lets the errors pass that its reader documents, and raises for anything else:
an undocumented error, or a property that does not hold. To add a target, write a function and put it into ``TARGETS``;
``fuzz/corpus/NAME/`` holds its examples, which the tests replay.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from checks.cli.ask import NoAnswerError
from checks.cli.commands import _read as read_state
from checks.config.durations import format_duration, parse_duration
from checks.config.load import load
from checks.config.selector import parse_selector
from checks.config.settings import Config, ConfigError
from checks.config.variables import VARIABLES
from checks.diagnosis.document import diagnose
from checks.kube.answer import unpacked
from checks.kube.decode import ListDocument, parse_object
from checks.kube.errors import ApiError
from checks.kube.objects import OddObjectError, is_cordoned, read_pod
from checks.kube.watching import split_lines
from checks.model import RESPONSE
from checks.probe import failures, urls
from checks.probe.channel import Channel
from checks.probe.sockets import Abort, MeasuredSocket
from checks.web.endpoints import respond
from checks.web.http1 import Head, HeadBuffer, RefusedRequestError, Request, encode_response, parse_head
from kubenurse import Agent

Run = Callable[[bytes], None]

# What a check reads of a body at most; the answers here are shorter.
_LONGEST_BODY = 64 * 1024
# No answer here waits for anything, as its sender has gone: whoever waits this long hangs.
_SECONDS = 2.0


def answer(data: bytes) -> None:
    """An answer to a check: parsed, or a failure in printable words."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data[:_LONGEST_BODY])
    abort = Abort()
    channel = Channel(MeasuredSocket(ours, time.perf_counter() + _SECONDS, abort), "127.0.0.1")
    try:
        response = channel.read_head("GET")
        while response.read(_LONGEST_BODY):
            pass
    except (OSError, http.client.HTTPException, ValueError) as error:
        for quotes in (True, False):
            failure = failures.translate(error, RESPONSE, _SECONDS, answer_began=True, quotes=quotes)
            assert failure.event != failures.TIMEOUT_EVENT, "an answer that has ended is waited for"
            assert failure.state.isprintable(), failure.state
    finally:
        channel.end()
        abort.close()


def request(data: bytes) -> None:
    """A request's head: the same heads, whatever pieces it comes in, and an answer in HTTP to each."""
    whole = list(_heads([data]))
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
    assert list(_heads(pieces)) == whole
    for head in whole:
        if head is not None:
            asked = Request(head.method, head.target, head.headers, "127.0.0.1:1")
            encoded = b"".join(encode_response(respond(asked, _agent().view), head_only=False, close=True))
            first, _, rest = encoded.partition(b"\r\n\r\n")
            assert first.startswith(b"HTTP/1.1 ")
            # No header of the client's became one of ours.
            assert first.count(b"\nContent-Length:") == 1
            assert f"\nContent-Length: {len(rest)}\r".encode() in first + b"\r"


def _heads(pieces: list[bytes]) -> Iterator[Head | None]:
    """Yield the heads in what was received, and None for a refusal, which is the last.

    Of two faults of one head, the one that is found first gives the status: that may depend on the pieces.
    """
    buffer = HeadBuffer()
    for piece in pieces:
        buffer.feed(piece)
        try:
            while (head := buffer.cut()) is not None:
                yield parse_head(head)
        except RefusedRequestError:
            yield None
            return


@functools.cache
def _agent() -> Agent:
    """An agent that has nothing to check and is not started, so that /alive answers at once."""
    return Agent(_config({}), None)


def _config(environ: dict[str, str]) -> Config:
    return load(environ, lambda: "fuzzed")


def state(data: bytes) -> None:
    """The /state of an agent, as ``kubenurse status`` reads it: a printable table, or an error for a person."""
    with contextlib.suppress(NoAnswerError):
        table, _ = read_state(_json(data))
        assert all(line.isprintable() for line in table.split("\n")), table


def bundle(data: bytes) -> None:
    """A bundle, as ``kubenurse diagnose`` reads it: judged, whatever it holds."""
    json.dumps(diagnose(_json(data)))


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def selector(data: bytes) -> None:
    """A label selector: parsed, or a configuration error."""
    with contextlib.suppress(ValueError):
        parse_selector(_text(data))


def duration(data: bytes) -> None:
    """A duration: what it is shown as means the same."""
    with contextlib.suppress(ValueError):
        seconds = parse_duration(_text(data))
        assert abs(parse_duration(format_duration(seconds)) - seconds) <= abs(seconds) * 1e-9 + 1e-9


def url(data: bytes) -> None:
    """A URL of a redirect: taken apart, or refused; what is shown of it is printable and has no user and no query."""
    with contextlib.suppress(ValueError):
        parsed = urls.parse(_text(data))
        assert "?" not in str(parsed)
        assert "@" not in str(parsed).partition("//")[2].partition("/")[0]
        assert 0 < parsed.endpoint.port < 65536
        failures.redirected(str(parsed))


def config(data: bytes) -> None:
    """The environment: a configuration, or problems on printable lines. Each line is a value of one variable."""
    lines = _text(data).replace("\0", "").split("\n")
    # The first character of a line chooses the variable.
    environ = {VARIABLES[ord(line[0]) % len(VARIABLES)].name: line[1:] for line in lines if line}
    try:
        _config(environ)
    except ConfigError as error:
        assert error.problems
        assert all(problem.isprintable() for problem in error.problems), error.problems


def listing(data: bytes) -> None:
    """A list of the API server: the same objects, whatever pieces it comes in."""
    whole = _listed([data])
    assert _listed([data[at : at + 5] for at in range(0, len(data), 5)]) == whole


def _listed(chunks: list[bytes]) -> list[Any] | None:
    document = ListDocument(iter(chunks))
    try:
        return [*document.items(), document.metadata]
    except ApiError:
        return None


def objects(data: bytes) -> None:
    """A Pod or a Node of the API server: facts that are text without half characters, or an odd object."""
    with contextlib.suppress(ApiError, OddObjectError):
        item = parse_object(data)
        with contextlib.suppress(OddObjectError):
            is_cordoned(item)
        neighbour = read_pod(item).neighbour
        for text in (neighbour.pod_name, neighbour.node_name, neighbour.pod_ip, neighbour.host_ip, neighbour.phase):
            assert text.isascii()
            assert text.isprintable()


def packed(data: bytes) -> None:
    """A gzip body: unpacked, in small pieces."""
    with contextlib.suppress(ApiError):
        size = 0
        for piece in unpacked(iter([data])):
            size += len(piece)
            if size > 16 * 1024 * 1024:  # whoever reads it stops at a bound of his own
                return


def watch(data: bytes) -> None:
    """The lines of a watch: the same, whatever pieces they come in."""
    whole = _lines([data])
    assert _lines([data[at : at + 3] for at in range(0, len(data), 3)]) == whole


def _lines(pieces: list[bytes]) -> list[bytes]:
    found: list[bytes] = []
    with contextlib.suppress(ApiError):
        found.extend(bytes(line) for line in split_lines(iter(pieces), lambda: None))
    return found


def _text(data: bytes) -> str:
    """Return any bytes as text, as the environment holds them."""
    return data.decode("utf-8", "surrogateescape")


TARGETS: dict[str, Run] = {
    "answer": answer,
    "bundle": bundle,
    "config": config,
    "duration": duration,
    "listing": listing,
    "objects": objects,
    "packed": packed,
    "request": request,
    "selector": selector,
    "state": state,
    "url": url,
    "watch": watch,
}
