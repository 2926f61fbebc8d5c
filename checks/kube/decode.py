"""The JSON of the API server: pruned while it is parsed, and one object of a list at a time.

Memory holds one object at a time, of at most ``LONGEST_OBJECT`` characters and about ``MOST_VALUES`` values. Time is
linear: an incomplete object is parsed again only after its text has doubled.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from checks.kube.errors import PROTOCOL, ApiError

# Pods of agents have 4 to 12 KB, and nodes rarely 100 KB. With 2 MiB, memory would pass 64 MB.
LONGEST_OBJECT = 1024 * 1024
# The three bytes of "[]," become 80 bytes of Python objects. A Pod has about 300 values.
MOST_VALUES = 100_000
CHUNK = 64 * 1024

Object = dict[str, Any]

# The fields that parsing keeps, at any depth. It drops all others as it goes, so they never exist at the same time.
_LIST_FIELDS = ("metadata", "items", "resourceVersion", "continue")
_OBJECT_FIELDS = ("name", "deletionTimestamp", "spec", "nodeName", "unschedulable", "taints", "key")
_LABEL_FIELDS = ("labels", "topology.kubernetes.io/zone")
_STATUS_FIELDS = ("status", "phase", "podIP", "hostIP", "conditions", "kind", "code", "message")
_START_FIELDS = ("startTime", "containerStatuses", "state", "running", "startedAt")
_REFUSAL_FIELDS = ("details", "retryAfterSeconds")
_EVENT_FIELDS = ("type", "object")
KEPT = frozenset(
    (*_LIST_FIELDS, *_OBJECT_FIELDS, *_LABEL_FIELDS, *_STATUS_FIELDS, *_START_FIELDS, *_REFUSAL_FIELDS, *_EVENT_FIELDS)
)

_SPACE = re.compile(r"[ \t\n\r]*")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def section(item: Object, name: str) -> Object:
    """Return the object in a field, empty when there is none."""
    value = item.get(name)
    return value if isinstance(value, dict) else {}


def text_of(item: Object, name: str) -> str:
    """Return the string in a field, empty when there is none."""
    value = item.get(name)
    return value if isinstance(value, str) else ""


def _prune(fields: Object) -> Object:
    """Keep the fields of ``KEPT``. Replace half a surrogate pair by U+FFFD, as Go's encoding/json does."""
    return {
        name: _LONE_SURROGATE.sub("\ufffd", value) if isinstance(value, str) and not value.isascii() else value
        for name, value in fields.items()
        if name in KEPT
    }


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")


_DECODER = json.JSONDecoder(object_hook=_prune, parse_constant=_refuse)


def parse_object(data: bytes | bytearray) -> Object:
    """Parse a document, pruned to the fields of ``KEPT``.

    Raises:
        ApiError: of kind ``protocol`` if it is no JSON object or has too many values.
    """
    try:
        text = data.decode("utf-8")
        _check_values(text)
        document = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(error) from None
    if not isinstance(document, dict):
        raise ApiError(PROTOCOL, "not a JSON object")
    return document


class ListDocument:
    """A list (meta/v1 ListMeta and items), decoded while its ``chunks`` arrive, each of at most ``CHUNK`` bytes.

    ``metadata`` is the list's own. It may follow the items, so it is valid after the end of ``items``.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.metadata: Object = {}
        self._text = _Window(chunks)

    def items(self) -> Iterator[Object]:
        """Yield the items that are objects, pruned to the fields of ``KEPT``. Call it once.

        Raises:
            ApiError: of kind ``protocol`` if the document is no list or a part of it is too large.
        """
        text = self._text
        if not text.accept("{"):
            raise ApiError(PROTOCOL, "not a JSON object")
        seen = set()
        for _ in text.elements("}"):
            name = text.value()
            text.expect(":")
            if name not in ("items", "metadata"):
                if not isinstance(name, str):
                    raise ApiError(PROTOCOL, "not JSON: a name is not a string")
                text.value()
                continue
            if name in seen:
                raise ApiError(PROTOCOL, f"{name} is there twice in a list")
            seen.add(name)
            if name == "items":
                yield from self._elements()
            else:
                metadata = text.value()
                self.metadata = metadata if isinstance(metadata, dict) else {}
        text.expect("")

    def _elements(self) -> Iterator[Object]:
        text = self._text
        if not text.accept("["):
            # Go's encoding/json writes a nil slice as null.
            if text.value() is not None:
                raise ApiError(PROTOCOL, "the items of a list are not an array")
            return
        for _ in text.elements("]"):
            item = text.value()
            if isinstance(item, dict):
                yield item


class _Window:
    """A part of a JSON text and a position in it. The text before the position is dropped when more is read."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._ended = False

    def accept(self, mark: str) -> bool:
        """Skip white space, then the character if it comes next. "" stands for the end of the text."""
        found = self._next()
        if found == mark:
            self._at += len(mark)
        return found == mark

    def expect(self, mark: str) -> None:
        """Skip white space and the character.

        Raises:
            ApiError: if another character comes next.
        """
        if not self.accept(mark):
            raise ApiError(PROTOCOL, f"not JSON: expected {mark or 'the end'}")

    def elements(self, closing: str) -> Iterator[None]:
        """Stop at each element of an array or object after its opening bracket, and skip the closing bracket."""
        if self.accept(closing):
            return
        yield
        while self.accept(","):
            yield
        self.expect(closing)

    def value(self) -> Any:
        """Skip a value and return it.

        Raises:
            ApiError: if there is none or it is too large.
        """
        self._next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._grow():
                    raise _not_json(error) from None
                continue
            except (ValueError, RecursionError) as error:
                raise _not_json(error) from None
            # A number at the end of the window may be incomplete.
            if isinstance(value, str | list | dict) or end < len(self._text) or not self._grow():
                self._at = end
                return value

    def _next(self) -> str:
        """Skip white space and return the next character, "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None  # noqa: S101 - the pattern matches an empty text
            self._at = space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._grow():
                return ""

    def _grow(self) -> bool:
        """Read until the text ahead has doubled, but at least one chunk. Return False at the end of the text."""
        if self._ended:
            return False
        ahead = self._text[self._at :]
        if len(ahead) >= LONGEST_OBJECT:
            raise ApiError(PROTOCOL, f"no end of an object within {LONGEST_OBJECT} characters")
        _check_values(ahead)
        wanted = min(max(len(ahead), CHUNK), LONGEST_OBJECT - len(ahead))
        # Collect bytes, because a string of one character takes up to 80 bytes.
        data = bytearray()
        while len(data) < wanted and not self._ended:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._ended = True
            else:
                data += chunk
        try:
            more = self._utf8.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise _not_json(error) from None
        self._text, self._at = ahead + more, 0
        return bool(data)


def _check_values(text: str) -> None:
    """Refuse a long text of very many values, because parsing could take 30 times its length."""
    if len(text) > CHUNK and sum(map(text.count, "[{,")) > MOST_VALUES:
        raise ApiError(PROTOCOL, f"an object of more than {MOST_VALUES} values")


def _not_json(error: Exception) -> ApiError:
    if isinstance(error, UnicodeDecodeError):
        return ApiError(PROTOCOL, "not JSON: not UTF-8")
    return ApiError(PROTOCOL, f"not JSON: {error}")
