"""A parser of request heads without ``http.server``: what bench.alwayshappy holds ours against.

It was the server's own until it was measured; see docs/decisions/12-standard-request-parser.md.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from checks.web.http1 import Head, RefusedRequestError, framing

_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rf"({_NAME}) ([!-~\x80-\xff]+) HTTP/([0-9])\.([0-9])")
_HEADER_LINE = re.compile(rf"({_NAME}):(.*)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def parse_head(head: bytes) -> Head:
    """What checks.web.http1.parse_head does."""
    text = head.decode("latin-1").replace("\r\n", "\n")
    if _CONTROL.search(text):
        raise RefusedRequestError(HTTPStatus.BAD_REQUEST, "control character in the request head")
    request_line, *header_lines = text.split("\n")[:-2]
    found = _REQUEST_LINE.fullmatch(request_line)
    if not found:
        raise RefusedRequestError(HTTPStatus.BAD_REQUEST, "malformed request line")
    method, target, major, minor = found.groups()
    if major != "1":
        raise RefusedRequestError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    headers = []
    for line in header_lines:
        header = _HEADER_LINE.fullmatch(line)
        if not header:
            raise RefusedRequestError(HTTPStatus.BAD_REQUEST, "malformed header")
        headers.append((header[1], header[2].strip(" \t")))
    has_body, close = framing(headers)
    return Head(method, target, tuple(headers), has_body, close or has_body or minor == "0")
