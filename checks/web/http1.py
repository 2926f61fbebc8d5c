"""Requests and responses, and how they are written on the wire: HTTP/1.1, as strict as RFC 9112 says.

Except that a missing Host is no error: no endpoint depends on it. Nothing here knows of sockets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from http.client import responses as reason_phrases
from http.server import BaseHTTPRequestHandler
from io import BytesIO

LARGEST_HEAD_BYTES = 16 * 1024

# A large body is sent in the pieces that it is made of; a small one travels in one segment with the head.
LARGE_BODY_BYTES = 32 * 1024

# A header's name is what RFC 9110 calls a token (section 5.6.2).
_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
FIELD_NAME = re.compile(_NAME)
_REQUEST_LINE = re.compile(rf"{_NAME} [!-~\x80-\xff]+ HTTP/([0-9])\.[0-9]\r?".encode("latin-1"))
# The lines after the request line, with the blank one that ends them.
_SOUND_HEADERS = re.compile(rf"(?:{_NAME}:[\t -~\x80-\xff]*\r?\n)*\r?\n".encode("latin-1"))
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_BEGINS_NAME = re.compile(_NAME.encode())
_CONTROL_OR_NEWLINE = re.compile(r"[\x00-\x1f\x7f]")
_AUTHORITY = re.compile(r"https?://[^/?#]*", re.IGNORECASE)

Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked.

    ``target`` is the request target as received, query included (RFC 9112 section 3.2). ``headers`` are (name, value)
    in the order received, names as the client spelled them. ``remote_addr`` is ``ip:port``, ``[ip]:port`` for IPv6.
    """

    method: str
    target: str
    headers: Sequence[Header] = ()
    remote_addr: str = ""

    @property
    def path(self) -> str:
        """The target without query; the authority that a client of a proxy sends is dropped."""
        authority = _AUTHORITY.match(self.target)
        target = self.target[authority.end() :] if authority else self.target
        return target.partition("#")[0].partition("?")[0] or "/"

    @property
    def client(self) -> str:
        """The client's address without the port."""
        return self.remote_addr.rpartition(":")[0]

    def parameters(self, name: str) -> list[str]:
        """Return the values of a query parameter as received, in their order."""
        query = self.target.partition("#")[0].partition("?")[2]
        pairs = (parameter.partition("=") for parameter in query.split("&"))
        return [value for sent, _, value in pairs if sent == name]

    def header(self, name: str) -> str:
        """Return the values of a header joined with commas (RFC 9110 section 5.3), empty when it was not sent."""
        return ", ".join(value for sent, value in self.headers if sent.lower() == name.lower())


@dataclass(frozen=True, slots=True)
class Response:
    """What to answer. The body is also given for HEAD: the transport sends its length and keeps the rest.

    ``more`` are pieces that follow ``body``: large ones may be shared by many responses and are not copied.
    """

    status: int
    headers: Sequence[Header] = ()
    body: bytes = b""
    more: tuple[bytes, ...] = ()


class RefusedRequestError(Exception):
    """A request that is not understood; ``status`` is what to answer."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """A request's first line and headers. ``last`` says that nothing after this request is to be read."""

    method: str
    target: str
    headers: tuple[Header, ...]
    has_body: bool
    last: bool


class HeadBuffer:
    """The bytes that a connection has received, cut into request heads.

    The time spent is proportional to the bytes received, however small the pieces they come in: each byte is searched
    once, and the first line is judged once. The caller stops feeding when ``cut`` has found a head; so the buffer
    holds at most LARGEST_HEAD_BYTES and what one call of ``feed`` brings.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._searched = 0
        self._line_is_sound = False

    def feed(self, data: bytes) -> None:
        """Append what was received. Empty lines before a request are dropped (RFC 9112, section 2.2)."""
        self._bytes += data.lstrip(b"\r\n") if not self._bytes else data

    @property
    def begun(self) -> bool:
        """True when a request has begun."""
        return bool(self._bytes)

    def cut(self) -> bytes | None:
        """Take the first request's head, blank line included, off the buffer; None while it is not complete.

        Raises:
            RefusedRequestError: when it is too large, or cannot become a request whatever follows.
        """
        # The end may have begun in what was searched before: it is at most three bytes long.
        found = _END_OF_HEAD.search(self._bytes, max(0, self._searched - 2))
        size = found.end() if found else len(self._bytes)
        if size > LARGEST_HEAD_BYTES:
            raise RefusedRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head too large")
        if found is None:
            self._judge_first_line()
            self._searched = len(self._bytes)
            return None
        head = bytes(self._bytes[:size])
        rest = bytes(self._bytes[size:])
        self._bytes.clear()
        self._searched, self._line_is_sound = 0, False
        self.feed(rest)
        return head

    def _judge_first_line(self) -> None:
        """Refuse what no blank line will follow: HTTP/0.9, or a TLS client on the plain port."""
        if self._line_is_sound or not self._bytes:
            return
        if self._searched == 0 and not _BEGINS_NAME.match(self._bytes):
            raise RefusedRequestError(HTTPStatus.BAD_REQUEST, "malformed request line")
        end = self._bytes.find(b"\n", self._searched)
        if end >= 0:
            judge_request_line(self._bytes[:end])
            self._line_is_sound = True


def parse_head(head: bytes) -> Head:
    """Parse what ``HeadBuffer.cut`` returned, by ``http.server``, which is held to RFC 9112 on both sides.

    Before: it would let a bare CR, a folded or a nameless line hide the headers after it. After: it knows no list of
    options in Connection, keeps HTTP/1.0 connections that ask for it, and rewrites a target that begins with ``//``.

    Raises:
        RefusedRequestError: when the request is malformed or of another protocol version.
    """
    request_line, _, header_lines = head.partition(b"\n")
    judge_request_line(request_line)
    if not _SOUND_HEADERS.fullmatch(header_lines):
        raise RefusedRequestError(HTTPStatus.BAD_REQUEST, "malformed header")
    parsed = _StandardParser(head)
    headers = tuple((name, value.strip(" \t")) for name, value in parsed.headers.items())
    has_body, close = framing(headers)
    last = close or has_body or parsed.close_connection or parsed.request_version == "HTTP/1.0"
    return Head(parsed.command, parsed.requestline.split(" ")[1], headers, has_body, last)


class _StandardParser(BaseHTTPRequestHandler):
    """The parser of ``http.server`` alone: it is given a head instead of a socket."""

    protocol_version = "HTTP/1.1"

    def __init__(self, head: bytes) -> None:
        self.rfile = BytesIO(head)
        self.raw_requestline = self.rfile.readline()
        self.parse_request()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuse the request; the answer is left to the caller."""
        status = HTTPStatus(code)
        raise RefusedRequestError(status, message or status.phrase)

    def handle_expect_100(self) -> bool:
        """Answer nothing: a request that announces a body gets its answer without being asked for the body."""
        return True


def judge_request_line(line: bytes | bytearray) -> None:
    """Accept ``GET /alive HTTP/1.1``.

    Raises:
        RefusedRequestError: for what is no such line, and for other protocol versions.
    """
    found = _REQUEST_LINE.fullmatch(line)
    if not found:
        raise RefusedRequestError(HTTPStatus.BAD_REQUEST, "malformed request line")
    if found[1] != b"1":
        raise RefusedRequestError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1 and HTTP/1.0 are spoken here")


def framing(headers: Sequence[Header]) -> tuple[bool, bool]:
    """Return whether a body follows, and whether the client wants the connection closed.

    Raises:
        RefusedRequestError: when the body's length is malformed.
    """
    has_body = close = False
    for name, value in headers:
        match name.lower():
            case "transfer-encoding":
                has_body = True
            case "content-length":
                if not (value.isascii() and value.isdigit()):
                    raise RefusedRequestError(HTTPStatus.BAD_REQUEST, "malformed Content-Length")
                has_body = has_body or value.strip("0") != ""
            case "connection":
                close = close or any(option.strip(" \t") == "close" for option in value.lower().split(","))
    return has_body, close


def encode_response(response: Response, *, head_only: bool, close: bool) -> list[bytes]:
    """Return the bytes to send, framed for HTTP/1.1: one piece, or the head and the pieces of a large body."""
    pieces = [response.body, *response.more]
    length = sum(map(len, pieces))
    lines = [
        f"HTTP/1.1 {int(response.status)} {reason_phrases.get(response.status, '')}",
        "Server: kubenurse",
        f"Date: {formatdate(usegmt=True)}",
        *(_CONTROL_OR_NEWLINE.sub(" ", f"{name}: {value}") for name, value in response.headers),
        f"Content-Length: {length}",
        *(("Connection: close",) if close else ()),
    ]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    if head_only:
        return [head]
    return [head, *pieces] if length > LARGE_BODY_BYTES else [b"".join((head, *pieces))]
