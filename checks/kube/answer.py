"""An answer of the API server: its body in unpacked, bounded pieces, or the reason of a refusal."""

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
    """The answer to one request, for a ``with`` block. No error quotes ``secret``, the request's token."""

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
        """Yield the body's bytes as they arrive, unpacked.

        Raises:
            ApiError: for more than ``largest`` bytes, after the wire's deadline, and for an encoding other than gzip.
            OSError, HTTPError: when the connection breaks.
        """
        packed = self._packed()
        size = 0
        for piece in unpacked(packed) if self._is_gzip() else packed:
            size += len(piece)
            if size > largest:
                raise ApiError(PROTOCOL, f"an answer of more than {largest} bytes")
            # A kilobyte unpacks to a megabyte of zeros, so the deadline counts between reads too.
            self.wire.remaining()
            yield piece

    def refusal(self) -> ApiError:
        """Translate an answer other than 200. The Status object in its body gives the reason."""
        try:
            status = parse_object(b"".join(self.body(LARGEST_ERROR)))
        except (ApiError, HTTPError, OSError, http.client.HTTPException):
            status = {}
        # API servers send seconds here. An HTTP date (RFC 9110, section 10.2.3) is ignored.
        after = self._response.headers.get("Retry-After", "")
        return self.refused(self.status, status, min(float(after), LONGEST_WISH) if after.isdecimal() else None)

    def refused(self, code: int, status: Object, retry_after: float | None = None) -> ApiError:
        """Translate a Status object. Its message may quote the request, so the secret is removed from it."""
        message = status.get("message")
        if isinstance(message, str):
            status = {**status, "message": redacted(message, self._secret)}
        return refusal(code, status, retry_after)

    def event_error(self, status: Object) -> ApiError:
        """Translate the Status object of a watch's ERROR event."""
        return self.refused(integer(status.get("code")), status)

    def _packed(self) -> Iterator[bytes]:
        # read1 returns what has arrived. A plain read would wait for the full size.
        while piece := self._response.read1(CHUNK, decode_content=False):
            yield piece

    def _is_gzip(self) -> bool:
        encoding = self._response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("gzip", "identity"):
            raise ApiError(PROTOCOL, "a Content-Encoding other than gzip")
        return encoding == "gzip"


def unpacked(packed: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack gzip data (RFC 1952) of one member into pieces of at most ``CHUNK`` bytes.

    Raises:
        ApiError: for data that is not gzip, ends early or goes on behind the member.
    """
    inflater = zlib.decompressobj(_GZIP)
    for data in packed:
        piece = b""
        # After a full piece, the same data may hold more.
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
