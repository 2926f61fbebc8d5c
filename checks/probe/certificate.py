"""When a certificate ends, read from its DER form.

Python's ``ssl`` parses a peer's certificate only when it verified it. The end of an unverified certificate
(KUBENURSE_INSECURE) matters as much.
"""

from __future__ import annotations

import calendar
import time

_SEQUENCE = 0x30
_VERSION = 0xA0
_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18


def not_after(der: bytes) -> float:
    """Return when a certificate ends, in epoch seconds.

    Layout: RFC 5280, section 4.1: a Certificate is a SEQUENCE that begins with the tbsCertificate, a SEQUENCE of
    [version], serialNumber, signature, issuer, validity and more; validity is a SEQUENCE of notBefore and notAfter.

    Raises:
        ValueError: when it is not a certificate.
    """
    _, certificate, _ = _element(der)
    _, fields, _ = _element(certificate)
    tag, _, rest = _element(fields)
    if tag == _VERSION:
        _, _, rest = _element(rest)  # serialNumber
    _, _, rest = _element(rest)  # signature
    _, _, rest = _element(rest)  # issuer
    tag, validity, _ = _element(rest)
    if tag != _SEQUENCE:
        raise ValueError("not a certificate: no validity where it belongs")
    _, _, rest = _element(validity)  # notBefore
    tag, end, _ = _element(rest)
    return _epoch(tag, end.decode("ascii"))


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Split DER data into its first element's tag and content, and what follows it (X.690, section 8.1)."""
    if len(data) < 2:
        raise ValueError("not a certificate: it ends too early")
    tag, length, start = data[0], data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    end = start + length
    if end > len(data):
        raise ValueError("not a certificate: it ends too early")
    return tag, data[start:end], data[end:]


def _epoch(tag: int, text: str) -> float:
    """Translate a time of RFC 5280, section 4.1.2.5: always in UTC, to the second."""
    if tag == _UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a certificate: its end is not a time")
    return float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ")))
