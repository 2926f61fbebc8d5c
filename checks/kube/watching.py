"""The events of a watch, one a line.

Source: "Efficient detection of changes" of the Kubernetes API Concepts
(https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from checks.kube.answer import Answer
from checks.kube.decode import LONGEST_OBJECT, Object, parse_object, section, text_of
from checks.kube.errors import CONNECTION, PROTOCOL, TIMEOUT, ApiError, translated


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a watch. ``type`` is ADDED, MODIFIED, DELETED or BOOKMARK (which has a version only)."""

    type: str
    object: Object

    @property
    def resource_version(self) -> str:
        """The version from which a watch continues after this event."""
        return text_of(section(self.object, "metadata"), "resourceVersion")


def events(answer: Answer, silence: float, until: float) -> Iterator[Event]:
    """Yield events until the server ends the watch, ``silence`` seconds pass without an event, or ``until`` is reached.

    ``until`` is a moment of ``time.perf_counter``.

    Raises:
        ApiError: if the watch ends inside an event or in any other way.
    """
    with translated():
        for line in _lines(answer, silence, until):
            event = parse_object(line)
            item = event.get("object")
            if not isinstance(item, dict):
                raise ApiError(PROTOCOL, "a watch event without an object")
            if event.get("type") == "ERROR":
                raise answer.event_error(item)
            yield Event(text_of(event, "type"), item)


def _lines(answer: Answer, silence: float, until: float) -> Iterator[bytearray]:
    """Yield the lines of a body as they arrive."""

    def expect_a_line() -> None:
        deadline = min(time.perf_counter() + silence, until)
        answer.wire.allow(deadline, math.inf, late=f"no end of a watch event within {silence:g} s")

    expect_a_line()
    yield from split_lines(answer.body(math.inf), expect_a_line)


def split_lines(pieces: Iterator[bytes], on_line: Callable[[], None]) -> Iterator[bytearray]:
    """Yield the non-empty lines of a text that arrives in pieces. The time is linear in the length of the text.

    ``on_line`` is called after each piece that completes a line. A timeout between two lines ends the iteration.

    Raises:
        ApiError: for a line that is too long or incomplete, and any other error of ``pieces``.
    """
    line = bytearray()
    try:
        for piece in pieces:
            begun, *others = piece.split(b"\n")
            line += begun
            if len(line) > LONGEST_OBJECT:
                raise ApiError(PROTOCOL, f"a watch event of more than {LONGEST_OBJECT} bytes")
            if others:
                yield from filter(None, (line, *map(bytearray, others[:-1])))
                line = bytearray(others[-1])
                # A complete line extends the deadline. Single bytes do not.
                on_line()
    except ApiError as error:
        if error.kind != TIMEOUT or line:
            raise
        return
    if line:
        raise ApiError(CONNECTION, "the watch ended in the middle of an event")
