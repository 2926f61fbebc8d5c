"""DNS messages: a question built, an answer taken apart (RFC 1035). Pure: bytes in, facts out.

Whatever a server sends, parsing ends after a number of steps that its length bounds: a compression pointer must lead
backwards, a name has at most 255 bytes and an answer at most MOST_RECORDS records.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

A = 1
CNAME = 5
AAAA = 28
_IN = 1

NO_ERROR = 0
# Response codes in words (RFC 1035, section 4.1.1); a code without an entry is shown as its number.
CODES = {
    NO_ERROR: "no error",
    1: "format error (FORMERR)",
    2: "server failure (SERVFAIL)",
    3: "no such name (NXDOMAIN)",
    4: "not implemented (NOTIMP)",
    5: "refused (REFUSED)",
}
NAME_ERROR = 3

# A name as it travels, with its lengths and its end (RFC 1035, section 2.3.4), and one label of it.
LONGEST_NAME = 255
LONGEST_LABEL = 63
# A name of 255 bytes has at most 127 labels, so no server needs more pointers for one.
MOST_POINTERS = 127
# An answer of one UDP datagram has at most 30 records. A longer answer than this is not read.
MOST_RECORDS = 256

_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_IS_RESPONSE, _OPCODE, _IS_TRUNCATED, _RECURSION_DESIRED, _CODE = 0x8000, 0x7800, 0x0200, 0x0100, 0x000F
_POINTER = 0xC0


class MessageError(ValueError):
    """The bytes are no answer to the question; the message says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question: the message's id (0 to 65535), the name, and the type of record (A or AAAA)."""

    id: int
    name: str
    type: int

    def encode(self) -> bytes:
        """Return the message that asks it, with recursion.

        Raises:
            ValueError: when the name is no domain name.
        """
        header = _HEADER.pack(self.id, _RECURSION_DESIRED, 1, 0, 0, 0)
        return header + encode_name(self.name) + _QUESTION.pack(self.type, _IN)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered: the response code, the name's addresses, and whether the message was cut to its size."""

    code: int
    addresses: tuple[str, ...]
    is_truncated: bool

    @property
    def words(self) -> str:
        """The response code in words."""
        return CODES.get(self.code, f"response code {self.code}")


def encode_name(name: str) -> bytes:
    """Return a domain name as it travels. A final dot makes no difference.

    Raises:
        ValueError: for an empty or too long label, a too long name, or other characters than ASCII.
    """
    encoded = b""
    for label in name.removesuffix(".").split(".") if name != "." else []:
        if not 0 < len(label) <= LONGEST_LABEL or not label.isascii():
            raise ValueError("not a domain name")
        encoded += bytes([len(label)]) + label.encode("ascii")
    if len(encoded) + 1 > LONGEST_NAME:
        raise ValueError("not a domain name")
    return encoded + b"\0"


def parse(data: bytes, question: Question) -> Answer:
    """Take the answer to a question apart.

    Addresses are those of the name and of the aliases that the message leads it to; other records are passed over.

    Raises:
        MessageError: when it is not an answer to this question, or not a whole DNS message.
    """
    if len(data) < _HEADER.size:
        raise MessageError("shorter than a DNS header")
    ident, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
    if ident != question.id:
        raise MessageError("another id than the question's")
    if not flags & _IS_RESPONSE or flags & _OPCODE:
        raise MessageError("not an answer to a query")
    if questions != 1:
        raise MessageError("not one question in the answer")
    is_truncated = bool(flags & _IS_TRUNCATED)
    name, offset = _name(data, _HEADER.size)
    kind, group = _unpack(_QUESTION, data, offset)
    if (name, kind, group) != (_folded(encode_name(question.name)), question.type, _IN):
        raise MessageError("another question than the one that was asked")
    addresses = _addresses(data, offset + _QUESTION.size, answers, question.type, name, is_truncated=is_truncated)
    return Answer(flags & _CODE, addresses, is_truncated)


def _addresses(data: bytes, offset: int, count: int, kind: int, name: bytes, *, is_truncated: bool) -> tuple[str, ...]:
    """Read the answer section; see ``parse``. A truncated message may end anywhere (RFC 2181, section 9)."""
    if count > MOST_RECORDS:
        raise MessageError(f"more than {MOST_RECORDS} records")
    found: list[str] = []
    for _ in range(count):
        if is_truncated and offset >= len(data):
            break
        owner, offset = _name(data, offset)
        record, group, _, length = _unpack(_RECORD, data, offset)
        offset += _RECORD.size
        content = data[offset : offset + length]
        if len(content) < length:
            raise MessageError("it ends within a record")
        if group == _IN and owner == name:
            if record == CNAME:
                name, _ = _name(data, offset)
            elif record == kind:
                found.append(_address(kind, content))
        offset += length
    return tuple(found)


def _address(kind: int, content: bytes) -> str:
    family = socket.AF_INET if kind == A else socket.AF_INET6
    try:
        return socket.inet_ntop(family, content)
    except ValueError:
        raise MessageError("an address of another length than an address has") from None


def _name(data: bytes, offset: int) -> tuple[bytes, int]:
    """Return the name at an offset, in lower case without its compression, and the offset behind it.

    Each pointer must lead to a place before the part of the name that it ends (RFC 1035, section 4.1.4: a prior
    occurrence), so that no loop is possible.
    """
    name = b""
    behind = pointers = 0
    begin = offset
    while True:
        (length,) = data[offset : offset + 1] or (None,)
        if length is None:
            raise MessageError("it ends within a name")
        if length == 0:
            return _folded(name + b"\0"), behind or offset + 1
        if length & _POINTER == _POINTER:
            (pointer,) = _unpack(struct.Struct("!H"), data, offset)
            behind = behind or offset + 2
            offset = pointer & 0x3FFF
            if offset >= begin:
                raise MessageError("a compression pointer that does not lead backwards")
            begin = offset
            pointers += 1
            if pointers > MOST_POINTERS:
                raise MessageError("too many compression pointers in one name")
            continue
        if length & _POINTER:
            raise MessageError("a label of an unknown kind")
        label = data[offset : offset + 1 + length]
        if len(label) <= length:
            raise MessageError("it ends within a name")
        name += label
        if len(name) + 1 > LONGEST_NAME:
            raise MessageError("a name that is too long")
        offset += 1 + length


def _unpack(layout: struct.Struct, data: bytes, offset: int) -> tuple[int, ...]:
    if offset + layout.size > len(data):
        raise MessageError("it ends too early")
    return layout.unpack_from(data, offset)


def _folded(name: bytes) -> bytes:
    """Return a name in the form in which names are compared: letters in lower case (RFC 4343)."""
    # Lengths are at most 63, and so never letters.
    return name.lower()
