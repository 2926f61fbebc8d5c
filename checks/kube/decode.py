"""JSON of the API server, pruned while it is parsed, and lists decoded one object at a time.

Memory is bounded by one object, whatever comes: a list is never there as a whole, an object has at most
``LONGEST_OBJECT`` characters and, where it is a long one, ``MOST_VALUES`` values. Time is linear: an object that is not
complete yet is tried again only when the text at hand has doubled.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from checks.kube.errors import PROTOCOL, ApiError

# etcd takes objects of 1.5 MiB by default, but a Pod or a node with more than some 100 KB is unheard of.
LONGEST_OBJECT = 1024 * 1024
# One of the 3 bytes of "[]," makes 30 bytes of objects, so a long text may have only so many; a Pod has about 300.
MOST_VALUES = 100_000
CHUNK = 64 * 1024

Object = dict[str, Any]

# The fields that are kept of any object, wherever they stand. Parsing drops all others, so they never exist at once.
_LIST_FIELDS = ("metadata", "items", "resourceVersion", "continue")
_OBJECT_FIELDS = ("name", "deletionTimestamp", "spec", "nodeName", "unschedulable", "taints", "key")
_STATUS_FIELDS = ("status", "phase", "podIP", "hostIP", "conditions", "kind", "code", "message")
_START_FIELDS = ("startTime", "containerStatuses", "state", "running", "startedAt")
_REFUSAL_FIELDS = ("details", "retryAfterSeconds")
_EVENT_FIELDS = ("type", "object")
KEPT = frozenset((*_LIST_FIELDS, *_OBJECT_FIELDS, *_STATUS_FIELDS, *_START_FIELDS, *_REFUSAL_FIELDS, *_EVENT_FIELDS))

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
    """Keep the fields of ``KEPT``. Like Go's encoding/json, put U+FFFD in the place of half a surrogate pair."""
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
        ApiError: of kind ``protocol`` for what is not a JSON object, or too large a one.
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
    """A list (meta/v1 ListMeta and items) that is decoded while its ``chunks`` come, each of at most ``CHUNK`` bytes.

    ``metadata`` is the list's own. It may stand behind the items, so it is valid once ``items`` has come to its end.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.metadata: Object = {}
        self._text = _Window(chunks)

    def items(self) -> Iterator[Object]:
        """Yield the objects, pruned to the fields of ``KEPT``, without what is not an object. To be called once.

        Raises:
            ApiError: of kind ``protocol`` for what is not a list as a JSON document, or has too large a part.
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
    """The part of a JSON text that is at hand, with a place in it; the text before that place is dropped in time."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._ended = False

    def accept(self, mark: str) -> bool:
        """Step over a character if it comes next, behind white space; "" is the end of the text."""
        found = self._next()
        if found == mark:
            self._at += len(mark)
        return found == mark

    def expect(self, mark: str) -> None:
        """Step over a character.

        Raises:
            ApiError: when it does not come next.
        """
        if not self.accept(mark):
            raise ApiError(PROTOCOL, f"not JSON: expected {mark or 'the end'}")

    def elements(self, closing: str) -> Iterator[None]:
        """Stop at each element of an array or object whose opening bracket is behind; step over the closing one."""
        if self.accept(closing):
            return
        yield
        while self.accept(","):
            yield
        self.expect(closing)

    def value(self) -> Any:
        """Step over a value and return it.

        Raises:
            ApiError: for none, and for one that is too large.
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
            # A number at the end of the window may go on behind it.
            if isinstance(value, str | list | dict) or end < len(self._text) or not self._grow():
                self._at = end
                return value

    def _next(self) -> str:
        """Step over white space and return the character that comes next, "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None  # noqa: S101 - it matches nothing, too
            self._at = space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._grow():
                return ""

    def _grow(self) -> bool:
        """Read on until the text ahead has doubled, by a chunk at least; False at the end of the text."""
        if self._ended:
            return False
        ahead = self._text[self._at :]
        if len(ahead) >= LONGEST_OBJECT:
            raise ApiError(PROTOCOL, f"no end of an object within {LONGEST_OBJECT} characters")
        _check_values(ahead)
        wanted = min(max(len(ahead), CHUNK), LONGEST_OBJECT - len(ahead))
        # Gathered as bytes: as strings, chunks of a few bytes each would take 80 bytes a chunk.
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
    """Refuse a long text of very many values, which would take 30 times its length when parsed."""
    if len(text) > CHUNK and sum(map(text.count, "[{,")) > MOST_VALUES:
        raise ApiError(PROTOCOL, f"an object of more than {MOST_VALUES} values")


def _not_json(error: Exception) -> ApiError:
    if isinstance(error, UnicodeDecodeError):
        return ApiError(PROTOCOL, "not JSON: not UTF-8")
    return ApiError(PROTOCOL, f"not JSON: {error}")
