"""DNS messages: a question built, an answer taken apart, and everything else rejected in bounded time."""

from __future__ import annotations

import contextlib
import struct
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from checks.probe.dns import (
    AAAA,
    CNAME,
    LONGEST_LABEL,
    LONGEST_NAME,
    MOST_RECORDS,
    NAME_ERROR,
    A,
    Answer,
    MessageError,
    Question,
    encode_name,
    parse,
)
from tests.support.dns_server import address_record, question_of, record, response, wire

QUESTION = Question(0x1234, "kubernetes.default.svc.cluster.local.", A)
QUERY = QUESTION.encode()
SAME_NAME = b"\xc0\x0c"


def test_a_question_as_it_travels() -> None:
    """A query has the id, the recursion flag and one question (RFC 1035, section 4.1)."""
    message = bytes.fromhex("abcd 0100 0001 0000 0000 0000") + b"\x01a\x04test\0" + bytes.fromhex("001c 0001")
    assert Question(0xABCD, "a.test", AAAA).encode() == message


@pytest.mark.parametrize("name", ["", "a..b", ".a", "x" * 64, ".".join(["x" * 63] * 4), "é.test", "\ud800"])
def test_names_that_are_none(name: str) -> None:
    """What cannot be a domain name is a ValueError."""
    with pytest.raises(ValueError, match="not a domain name"):
        encode_name(name)


LABEL = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="."), min_size=1, max_size=LONGEST_LABEL
)
NAMES = st.lists(LABEL, min_size=1, max_size=4).map(".".join).filter(lambda name: len(name) < LONGEST_NAME - 1)


@given(NAMES, st.sampled_from([A, AAAA]), st.integers(0, 65535))
def test_any_question(name: str, kind: int, ident: int) -> None:
    """Every domain name, with or without its final dot, is asked for as it is."""
    for written in (name, name + "."):
        assert question_of(Question(ident, written, kind).encode()) == (name + ".", kind)


def test_addresses() -> None:
    """An answer has its code and all addresses of the type that was asked for, in their order."""
    records = [address_record("10.96.0.1"), address_record("fd00::1"), address_record("10.96.0.2")]
    assert parse(response(QUERY, *records), QUESTION) == Answer(0, ("10.96.0.1", "10.96.0.2"), is_truncated=False)
    six = Question(1, "a.test", AAAA)
    assert parse(response(six.encode(), address_record("fd00::1")), six).addresses == ("fd00::1",)


def test_codes() -> None:
    """An answer without addresses has a response code in words."""
    told = {0: "no error", 2: "server failure (SERVFAIL)", 3: "no such name (NXDOMAIN)", 9: "response code 9"}
    for code, words in told.items():
        found = parse(response(QUERY, code=code), QUESTION)
        assert (found.code, found.words, found.addresses) == (code, words, ())
    assert NAME_ERROR == 3


def test_aliases_are_followed() -> None:
    """Addresses of the name that an alias leads to count; those of other names do not."""
    alias = record(SAME_NAME, CNAME, wire("other.test"))
    # The owner of the second record points to the content of the first.
    target = bytes([0xC0, len(QUERY) + 12])
    found = parse(response(QUERY, alias, address_record("10.0.0.1", target), address_record("10.0.0.2")), QUESTION)
    assert found.addresses == ("10.0.0.1",)
    assert parse(response(QUERY, address_record("10.0.0.2", wire("evil.test"))), QUESTION).addresses == ()


def test_case_makes_no_difference() -> None:
    """Names are compared without regard to case (RFC 4343)."""
    upper = QUERY[:12] + QUERY[12:-4].upper() + QUERY[-4:]
    assert parse(response(upper, address_record("10.96.0.1")), QUESTION).addresses == ("10.96.0.1",)


def test_a_truncated_answer() -> None:
    """A message that was cut to the size of a datagram says so, and the whole records in it count."""
    cut = response(QUERY, address_record("10.96.0.1"), flags=0x8380)
    announced = cut[:6] + struct.pack("!H", 5) + cut[8:]
    assert parse(announced, QUESTION) == Answer(0, ("10.96.0.1",), is_truncated=True)


def header(query: bytes, *, ident: int = 0x1234, flags: int = 0x8180, questions: int = 1, answers: int = 0) -> bytes:
    """Return a message with a header of the test's choice and the question of a query."""
    return struct.pack("!HHHHHH", ident, flags, questions, answers, 0, 0) + query[12:]


LONG = wire(".".join(["x" * 63] * 3))[:-1]
REJECTED = {
    "shorter than a DNS header": b"\x12\x34\x81\x80\0\0",
    "another id than the question's": header(QUERY, ident=0x1235),
    "not an answer to a query": QUERY,
    "not one question in the answer": header(QUERY, questions=0),
    "another question than the one that was asked": header(Question(0x1234, "other.test", A).encode()),
    "it ends within a name": header(QUERY)[:20],
    "it ends too early": header(QUERY)[:-2],
    "it ends within a record": response(QUERY, address_record("10.96.0.1"))[:-1],
    "an address of another length than an address has": response(QUERY, record(SAME_NAME, A, b"\x0a\x00\x00")),
    "more than 256 records": header(QUERY, answers=MOST_RECORDS + 1),
    "a label of an unknown kind": response(QUERY, record(b"\x80", A, b"")),
    "a name that is too long": response(QUERY, record(LONG + LONG + b"\0", A, b"")),
    "a compression pointer that does not lead backwards": response(QUERY, record(bytes([0xC0, len(QUERY)]), A, b"")),
    "too many compression pointers in one name": b"",
}


def pointers(count: int) -> bytes:
    """Return an answer whose second record is owned by a name that takes so many pointers to read."""
    start = len(QUERY) + 2 + 10
    chain = b"\0\0" + b"".join(struct.pack("!H", 0xC000 | (start + 2 * n)) for n in range(count))
    owner = struct.pack("!H", 0xC000 | (start + 2 * count))
    return response(QUERY, record(SAME_NAME, 16, chain), record(owner, A, b""))


REJECTED["too many compression pointers in one name"] = pointers(2000)


@pytest.mark.parametrize(("why", "data"), REJECTED.items(), ids=REJECTED)
def test_rejected(why: str, data: bytes) -> None:
    """Whatever is not a whole answer to the question is rejected, with the reason."""
    with pytest.raises(MessageError, match=f"\\A{why}\\Z"):
        parse(data, QUESTION)


def test_an_answer_of_another_class_or_type_is_rejected() -> None:
    """The question in an answer must be the one that was asked, in class and type too."""
    for end in (b"\x00\x1c\x00\x01", b"\x00\x01\x00\x03"):
        with pytest.raises(MessageError, match="another question"):
            parse(header(QUERY[:-4] + end), QUESTION)


@pytest.mark.parametrize("loop", [b"\xc0\x0c", b"\x01a\xc0\x0c"], ids=["to itself", "to its own beginning"])
def test_a_name_that_never_ends_is_rejected(loop: bytes) -> None:
    """A compression pointer that leads into its own name is found at once."""
    message = struct.pack("!HHHHHH", 0x1234, 0x8180, 1, 0, 0, 0) + loop + QUERY[-4:]
    with pytest.raises(MessageError, match="does not lead backwards"):
        parse(message, QUESTION)


def test_the_costliest_answer_is_cheap() -> None:
    """The most records whose names take the most pointers are read in a moment."""
    start = len(QUERY) + 2 + 10
    chain = b"\0\0" + b"".join(struct.pack("!H", 0xC000 | (start + 2 * n)) for n in range(126))
    owner = struct.pack("!H", 0xC000 | (start + 2 * 126))
    data = response(QUERY, record(SAME_NAME, 16, chain), *[record(owner, A, b"")] * (MOST_RECORDS - 1))
    begun = time.thread_time()
    assert parse(data, QUESTION).addresses == ()
    assert time.thread_time() - begun < 5


@given(st.binary(max_size=600))
@example(b"")
def test_any_bytes(data: bytes) -> None:
    """Any datagram is an answer or a MessageError."""
    for message in (data, QUERY[:2] + data, header(QUERY, answers=3) + data):
        with contextlib.suppress(MessageError):
            assert isinstance(parse(message, QUESTION), Answer)


ALIAS = record(SAME_NAME, CNAME, wire("b.test"))
GOOD = response(QUERY, ALIAS, address_record("10.0.0.1", bytes([0xC0, len(QUERY) + 12])))


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.integers(0, len(GOOD)))
def test_a_good_answer_with_a_byte_changed_or_cut(position: int, byte: int, end: int) -> None:
    """A damaged answer is an answer or a MessageError."""
    for message in (GOOD[:position] + bytes([byte]) + GOOD[position + 1 :], GOOD[:end]):
        with contextlib.suppress(MessageError):
            assert isinstance(parse(message, QUESTION), Answer)
