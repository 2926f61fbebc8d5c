"""The body of an answer as a real API server sends it: in chunks if long, and packed if the client accepts gzip.

The length and the level are those of deferredResponseWriter in k8s.io/apiserver,
https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/responsewriters/writers.go.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping

from sandbox.objects import Object

# Bytes. A shorter body is neither packed nor sent in chunks.
LONG = 128 * 1024
_LEVEL = 1
_GZIP = 16 + zlib.MAX_WBITS


def document_pieces(document: Object) -> Iterator[bytes]:
    """Yield a document as compact JSON."""
    yield _json(document)


def list_pieces(kind: str, metadata: Object, items: Iterable[Object]) -> Iterator[bytes]:
    """Yield a list object by object, without the kind of each, so that memory holds one object at a time."""
    yield _json({"kind": f"{kind}List", "apiVersion": "v1", "metadata": metadata})[:-1] + b',"items":['
    comma = b""
    for item in items:
        yield comma + _json({name: value for name, value in item.items() if name not in ("apiVersion", "kind")})
        comma = b","
    yield b"]}"


class Body:
    """The ``headers`` of a body, and its ``chunks`` as they go on the wire."""

    def __init__(self, pieces: Iterable[bytes], accepted: str) -> None:
        """Take the pieces of a body and the Accept-Encoding of the request."""
        rest = iter(pieces)
        begun = b""
        while len(begun) < LONG and (piece := next(rest, b"")):
            begun += piece
        self.headers: Mapping[str, str]
        self.chunks: Iterator[bytes]
        if len(begun) < LONG:
            self.headers = {"Content-Length": str(len(begun))}
            self.chunks = iter([begun])
        elif "gzip" in (name.partition(";")[0].strip() for name in accepted.split(",")):
            self.headers = {"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"}
            self.chunks = _chunked(_packed(begun, rest))
        else:
            self.headers = {"Transfer-Encoding": "chunked"}
            self.chunks = _chunked(_joined(begun, rest))


def chunk(data: bytes) -> bytes:
    """Return data as one chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def _joined(begun: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield begun
    yield from rest


def _packed(begun: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP)
    for piece in _joined(begun, rest):
        yield packer.compress(piece)
    yield packer.flush()


def _chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in filter(None, pieces):
        yield chunk(piece)
    yield LAST_CHUNK


def _json(document: Object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
