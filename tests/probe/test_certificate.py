"""When a certificate ends, read from its bytes."""

from __future__ import annotations

import contextlib
import datetime
from functools import cache

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import example, given
from hypothesis import strategies as st

from checks.probe.certificate import not_after

UTC = datetime.UTC


@cache
def der(end: datetime.datetime) -> bytes:
    """A certificate with this end."""
    issued = trustme.CA().issue_cert(
        "kubenurse.test", not_before=datetime.datetime(1970, 1, 2, tzinfo=UTC), not_after=end
    )
    certificate = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    return certificate.public_bytes(serialization.Encoding.DER)


GOOD = der(datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC))


@pytest.mark.parametrize(
    "end",
    [
        datetime.datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC),
        datetime.datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime.datetime(2050, 1, 1, tzinfo=UTC),
        datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
)
def test_the_end_of_a_certificate(end: datetime.datetime) -> None:
    """The end is right to the second in both forms that certificates use, before and after 2050."""
    assert not_after(der(end)) == end.timestamp()


def element(tag: int, *parts: bytes) -> bytes:
    """A DER element, with a length of one byte or, from 128 on, of more."""
    content = b"".join(parts)
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def hand_made(end: bytes, tag: int = 0x17, *, version: bytes = b"", issuer: bytes = b"") -> bytes:
    """The first fields of a certificate."""
    validity = element(0x30, element(0x17, b"700102000000Z"), element(tag, end))
    fields = element(0x02, b"\x01"), element(0x30), element(0x30, issuer), validity
    return element(0x30, element(0x30, version, *fields))


@pytest.mark.parametrize("version", [b"", element(0xA0, element(0x02, b"\x02"))])
@pytest.mark.parametrize("issuer", [b"", b"x" * 127, b"x" * 128, b"x" * 70_000], ids=len)
def test_versions_and_lengths(version: bytes, issuer: bytes) -> None:
    """A certificate of version 1, without a version field, and one with a long issuer are read too."""
    assert not_after(hand_made(b"700102000000Z", version=version, issuer=issuer)) == 86400


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        GOOD[:100],
        GOOD[1:],
        hand_made(b"not a time"),
        hand_made(b"991332000000Z"),
        hand_made(b"\xff" * 13),
        hand_made(b"20310506070809Z", tag=0x16),
        element(0x30, element(0x30, element(0x02, b"\x01"), element(0x30), element(0x30), element(0x31))),
    ],
    ids=["nothing", "a tag", "cut", "shifted", "words", "month 13", "not ascii", "a text", "no validity"],
)
def test_what_is_no_certificate(data: bytes) -> None:
    """Anything else is a ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 # whatever it says
        not_after(data)


@given(st.binary(max_size=64))
@example(b"\x30\x80")
@example(b"\x30\xff" + b"\xff" * 40)
def test_any_bytes(data: bytes) -> None:
    """Any bytes give an end or a ValueError."""
    with contextlib.suppress(ValueError):
        assert isinstance(not_after(data), float)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_any_byte_changed(position: int, byte: int) -> None:
    """A certificate with one changed byte gives an end or a ValueError."""
    with contextlib.suppress(ValueError):
        assert isinstance(not_after(GOOD[:position] + bytes([byte]) + GOOD[position + 1 :]), float)
