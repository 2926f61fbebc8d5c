"""An answer of the API server: its body piece by piece, unpacked and bounded, or why the request was refused."""

from __future__ import annotations

import http.client
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from checks.kube.decode import CHUNK, Object, parse_object
from checks.kube.errors import CONNECTION, LONGEST_WISH, PROTOCOL, ApiError, integer, redacted, refusal
from checks.kube.wire import Wire

LARGEST_ERROR = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS


class Answer:
    """The answer to one request, for a ``with`` block. ``secret`` is what must not be seen in any error's words."""

    def __init__(self, response: HTTPResponse, wire: Wire, secret: str) -> None:
        self._response = response
        self._secret = secret
        self.wire = wire
        self.status = response.status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._response.close()

    def body(self, largest: float) -> Iterator[bytes]:
        """Yield the body's bytes as they come, unpacked, at most ``largest`` of them, until the wire's deadline.

        Raises:
            ApiError: beyond these bounds, and for an encoding other than gzip or none.
            OSError, HTTPError: when the connection breaks.
        """
        packed = self._packed()
        size = 0
        for piece in unpacked(packed) if self._is_gzip() else packed:
            size += len(piece)
            if size > largest:
                raise ApiError(PROTOCOL, f"an answer of more than {largest} bytes")
            # Unpacking takes time, too: a megabyte of zeros comes in a kilobyte.
            self.wire.remaining()
            yield piece

    def refusal(self) -> ApiError:
        """Translate an answer other than 200; the Status object in its body says why."""
        try:
            status = parse_object(b"".join(self.body(LARGEST_ERROR)))
        except (ApiError, HTTPError, OSError, http.client.HTTPException):
            status = {}
        # API servers send seconds here; an HTTP date (RFC 9110, section 10.2.3) is ignored.
        after = self._response.headers.get("Retry-After", "")
        return self.refused(self.status, status, min(float(after), LONGEST_WISH) if after.isdecimal() else None)

    def refused(self, code: int, status: Object, retry_after: float | None = None) -> ApiError:
        """Translate a Status object; its words may quote the request, so the secret in them is made unreadable."""
        message = status.get("message")
        if isinstance(message, str):
            status = {**status, "message": redacted(message, self._secret)}
        return refusal(code, status, retry_after)

    def event_error(self, status: Object) -> ApiError:
        """Translate the Status object of a watch's ERROR event."""
        return self.refused(integer(status.get("code")), status)

    def _packed(self) -> Iterator[bytes]:
        # read1 gives at once whatever has come: a longer read would wait until all of it is there.
        while piece := self._response.read1(CHUNK, decode_content=False):
            yield piece

    def _is_gzip(self) -> bool:
        encoding = self._response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("gzip", "identity"):
            raise ApiError(PROTOCOL, "a Content-Encoding other than gzip")
        return encoding == "gzip"


def unpacked(packed: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what is in gzip data (RFC 1952, one member), in pieces of at most ``CHUNK`` bytes."""
    inflater = zlib.decompressobj(_GZIP)
    for data in packed:
        piece = b""
        # A whole piece may be followed by more out of the same data.
        while data or len(piece) == CHUNK:
            try:
                piece = inflater.decompress(data, CHUNK)
            except zlib.error:
                raise ApiError(PROTOCOL, "not gzip") from None
            if piece:
                yield piece
            data = inflater.unconsumed_tail
            if inflater.unused_data:
                raise ApiError(PROTOCOL, "data behind the end of gzip data")
    if not inflater.eof:
        raise ApiError(CONNECTION, "gzip data without an end")
