"""Responses of JSON and of text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from checks.web.http1 import Header, Response

RETRY_AFTER_SECONDS = 1


def json_bytes(answer: Mapping[str, object], *, indent: int | None = None) -> bytes:
    """Return a JSON object, compact unless ``indent`` is given, without a line's end.

    Everything outside ASCII is escaped, so that whatever bytes a client sends come back as valid JSON.
    """
    separators = None if indent else (",", ":")
    return json.dumps(answer, indent=indent, separators=separators, allow_nan=False, default=str).encode("ascii")


def json_response(status: int, *pieces: bytes) -> Response:
    """Return a response whose body is these pieces of one JSON text and a line's end."""
    headers = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
    return Response(status, headers, pieces[0], (*pieces[1:], b"\n"))


def text_response(status: int, text: str, *headers: Header) -> Response:
    """Return a response of one line of plain text."""
    content = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
    return Response(status, (*content, *headers), text.encode("utf-8", "replace") + b"\n")


def busy_response(why: str) -> Response:
    """Return 503 with the advice to ask again."""
    retry = ("Retry-After", str(RETRY_AFTER_SECONDS))
    return text_response(HTTPStatus.SERVICE_UNAVAILABLE, f"busy: {why}; ask again", retry)
