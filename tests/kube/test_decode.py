"""The streaming list decoder finds the same objects as json.loads, with bounds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.kube.decode import CHUNK, KEPT, LONGEST_OBJECT, MOST_VALUES, ListDocument, Object, parse_object
from checks.kube.errors import PROTOCOL, ApiError

# Names that are kept are as frequent as others, so that much of a document survives.
NAMES = st.sampled_from(sorted(KEPT)) | st.text(max_size=8)
# Half a surrogate pair has a test of its own.
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=12)
ITEMS = st.none() | st.lists(VALUES)
LISTS = st.dictionaries(st.text().filter(lambda name: name not in ("items", "metadata")), VALUES, max_size=3).flatmap(
    lambda others: st.fixed_dictionaries(
        {name: st.just(value) for name, value in others.items()}, optional={"items": ITEMS, "metadata": VALUES}
    )
)


def decoded(chunks: Iterable[bytes]) -> tuple[list[Object], Object]:
    """Return a list's objects and its metadata."""
    document = ListDocument(chunks)
    return list(document.items()), document.metadata


def kept(value: Any) -> Any:
    """Prune a document that json.loads has read."""
    if isinstance(value, dict):
        return {name: kept(inner) for name, inner in value.items() if name in KEPT}
    return [kept(inner) for inner in value] if isinstance(value, list) else value


def expected(text: bytes) -> tuple[list[Object], Object]:
    """Return what json.loads finds in a list."""
    document = json.loads(text)
    items, metadata = document.get("items") or [], document.get("metadata")
    return (
        [kept(item) for item in items if isinstance(item, dict)],
        kept(metadata) if isinstance(metadata, dict) else {},
    )


def pieces(text: bytes, borders: Iterable[int]) -> Iterator[bytes]:
    """Cut a text at some places."""
    places = sorted({border % (len(text) + 1) for border in borders} | {0, len(text)})
    for begin, end in itertools.pairwise(places):
        yield text[begin:end]


def chunks(text: bytes, size: int = CHUNK) -> Iterator[bytes]:
    """Cut a text into chunks of one size."""
    return (text[at : at + size] for at in range(0, len(text), size))


def why(call: Callable[[], object]) -> str:
    """Return the reason of the protocol error that a call raises."""
    with pytest.raises(ApiError) as caught:
        call()
    assert caught.value.kind == PROTOCOL
    return str(caught.value)


@given(LISTS, st.booleans(), st.sampled_from([None, 1]), st.lists(st.integers(0, 10**6)))
def test_a_list_is_what_json_loads_finds(
    document: Object, ascii_only: bool, indent: int | None, borders: list[int]
) -> None:
    """Objects and metadata equal those of json.loads for any document and any borders between its chunks."""
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    assert decoded(pieces(text, borders)) == expected(text)


@given(LISTS, st.data())
def test_a_list_that_is_cut_off_is_an_error(document: Object, data: st.DataObject) -> None:
    """An incomplete document is an error."""
    text = json.dumps(document).encode()
    end = data.draw(st.integers(0, len(text) - 1))
    assert why(lambda: decoded([text[:end]])).startswith("not ")


@given(st.binary(max_size=64) | st.text(alphabet='{}[]:,"itemsnul\\u0 1e.-', max_size=64).map(str.encode), st.data())
def test_random_bytes_are_a_list_or_a_protocol_error(noise: bytes, data: st.DataObject) -> None:
    """Random bytes, alone or inside a document, are decoded as by json.loads or are a protocol error."""
    for text in (noise, b'{"items":[' + noise + b'],"metadata":{}}', b'{"metadata":' + noise + b"}"):
        cut = pieces(text, data.draw(st.lists(st.integers(0, 80), max_size=3)))
        try:
            found = decoded(cut)
        except ApiError as error:
            kind = error.kind
        else:
            kind = PROTOCOL
            assert found == expected(text)
        assert kind == PROTOCOL


@pytest.mark.parametrize("size", [CHUNK - 40, CHUNK, 3 * CHUNK, LONGEST_OBJECT - 100])
@pytest.mark.parametrize("character", ["x", "\u00e4", "\U0001f600", "\\"])
def test_objects_of_any_size_up_to_the_bound(size: int, character: str) -> None:
    """An object that is longer than a chunk is decoded, with small objects around it."""
    fill = character * (size // len(json.dumps(character, ensure_ascii=False)[1:-1]))
    items = [{"kind": "a"}, {"metadata": {"name": fill}, "spec": {"other": fill[:5]}}, {"kind": "b"}]
    text = json.dumps({"items": items, "metadata": {"resourceVersion": "7"}}, ensure_ascii=False).encode()
    assert decoded(chunks(text, 1000)) == expected(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'{"items":[{"name":"' + 2 * LONGEST_OBJECT * b"x" + b'"}]}', id="a string"),
        pytest.param(b'{"items":[{"other":"' + LONGEST_OBJECT * b"\\n" + b'"}]}', id="a string that is dropped"),
        pytest.param(b'{"other":[' + 2 * LONGEST_OBJECT * b" " + b"]}", id="beside the items"),
    ],
)
def test_an_endless_object_ends_at_a_bound(text: bytes) -> None:
    """The decoder stops at the bound of one object."""
    reason = why(lambda: decoded(chunks(text)))
    assert reason == f"no end of an object within {LONGEST_OBJECT} characters"


@pytest.mark.parametrize("value", [b"[],", b"{},", b"1,", b'{"name":1},'])
def test_an_object_of_too_many_values_is_an_error(value: bytes) -> None:
    """The decoder does not parse an object whose values would take thirty times the length of its text."""
    many = 3 * MOST_VALUES * value
    reason = f"an object of more than {MOST_VALUES} values"
    assert why(lambda: decoded(chunks(b'{"items":[{"spec":[' + many + b"1]}]}"))) == reason
    assert why(lambda: parse_object(b'{"spec":[' + many + b"1]}")) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not a JSON object"),
        (b"<html>", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'{"items":5}', "the items of a list are not an array"),
        (b'{"items":"x"}', "the items of a list are not an array"),
        (b'{"items":{}}', "the items of a list are not an array"),
        (b'{"items":[],"items":[]}', "items is there twice in a list"),
        (b'{"metadata":{},"metadata":{}}', "metadata is there twice in a list"),
        (b'{"items":[NaN]}', "not JSON: NaN is not a JSON value"),
        (b'{"items":[{"spec":-Infinity}]}', "not JSON: -Infinity is not a JSON value"),
        (b'{"items":[] "a":1}', "not JSON: expected }"),
        (b'{"items":[]}x', "not JSON: expected the end"),
        (b"{1:2}", "not JSON: a name is not a string"),
        (b'{"items":["\xff"]}', "not JSON: not UTF-8"),
        (b"\xff\xfe{\x00}\x00", "not JSON: not UTF-8"),
    ],
)
def test_an_invalid_list_has_a_reason(text: bytes, reason: str) -> None:
    """The error of an invalid list names what is wrong."""
    assert why(lambda: decoded([text])) == reason


@pytest.mark.parametrize("deep", [b"[" * 200_000, b'{"spec":' * 100_000])
def test_deep_nesting_is_an_error(deep: bytes) -> None:
    """Nesting that is too deep for the parser is an error in a list and in an event."""
    assert why(lambda: decoded([b'{"items":[' + deep])).startswith("not JSON")
    assert why(lambda: parse_object(deep[:60_000])).startswith("not JSON")


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    """U+FFFD replaces half a surrogate pair, as in Go's encoding/json, so that all strings can be encoded."""
    text = rb'{"items":[{"spec":{"nodeName":"a\ud800b"}},{"metadata":{"name":"\ud83d\ude00"}}],'
    items, metadata = decoded([text, rb'"metadata":{"continue":"\udc00"}}'])
    assert items == [{"spec": {"nodeName": "a\ufffdb"}}, {"metadata": {"name": "\U0001f600"}}]
    assert metadata == {"continue": "\ufffd"}
    assert parse_object(rb'{"object":{"kind":"\ud800"}}') == {"object": {"kind": "\ufffd"}}


def test_the_last_of_two_fields_of_one_name_counts() -> None:
    """The last of several fields of one name counts, as in json.loads and Go's encoding/json."""
    assert decoded([b'{"items":[{"kind":"a","kind":"b"}]}'])[0] == [{"kind": "b"}]
