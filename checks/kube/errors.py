"""Why a request to the Kubernetes API failed: a small closed set of kinds, and the reason in words.

Source of the Status object: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from urllib3.exceptions import HTTPError, SSLError

from checks.kube.credentials import CredentialsError

FORBIDDEN = "forbidden"
UNAUTHORIZED = "unauthorized"
GONE = "gone"
THROTTLED = "throttled"
SERVER_ERROR = "server_error"
TIMEOUT = "timeout"
CONNECTION = "connection"
TLS = "tls"
CREDENTIALS = "credentials"
PROTOCOL = "protocol"
KINDS = (FORBIDDEN, UNAUTHORIZED, GONE, THROTTLED, SERVER_ERROR, TIMEOUT, CONNECTION, TLS, CREDENTIALS, PROTOCOL)
"""All values of ``ApiError.kind``: a closed set, as they are a metric's label."""

LONGEST_REASON = 300
# The characters of a server's message that are read. ``LONGEST_REASON`` of them are shown.
LONGEST_MESSAGE = 4096
# A message may share fewer characters in a row than this with a token.
LONGEST_SHARED = 16
REDACTED = "[redacted]"
# Seconds. Callers wait for less, but a number from outside is bounded where it is read.
LONGEST_WISH = 86_400


class ApiError(Exception):
    """A request to the API server that failed.

    ``kind`` is one of ``KINDS``. ``retry_after`` is the seconds that the server asked to wait, or None.
    The message is the reason in words: one line of at most ``LONGEST_REASON`` characters.
    """

    def __init__(self, kind: str, reason: str, retry_after: float | None = None) -> None:
        words = "".join(character if character.isprintable() else " " for character in reason)
        super().__init__(words[:LONGEST_REASON])
        self.kind = kind
        self.retry_after = retry_after


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Translate the errors of sockets, TLS, urllib3 and credentials into ApiError."""
    try:
        yield
    except CredentialsError as error:
        raise ApiError(CREDENTIALS, str(error)) from error
    except (OSError, HTTPError, http.client.HTTPException) as error:
        # Not chained: errors of http.client quote the server, which may quote the request's Authorization header.
        raise _unreached(error) from None


def _unreached(error: Exception) -> ApiError:
    """Say why there was no whole answer."""
    cause = error.args[0] if isinstance(error, SSLError) else error
    if isinstance(cause, socket.gaierror):
        again = cause.errno == socket.EAI_AGAIN
        return ApiError(CONNECTION, f"dns: {'no usable answer from the name servers' if again else 'name not known'}")
    if isinstance(cause, TimeoutError):
        return ApiError(TIMEOUT, "timed out")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ApiError(TLS, f"tls: {cause.verify_message}")
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return ApiError(TLS, f"tls: {cause.reason or cause}")
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):
        return ApiError(CONNECTION, f"connection: {os.strerror(cause.errno).lower()}")
    if isinstance(cause, http.client.HTTPException) and not isinstance(
        cause, http.client.IncompleteRead | ConnectionError
    ):
        return ApiError(PROTOCOL, "not HTTP")
    return ApiError(CONNECTION, "connection: closed too early")


def refusal(code: int, status: Mapping[str, Any], retry_after: float | None) -> ApiError:
    """Translate a Status object (meta/v1), possibly incomplete, and its HTTP status code.

    ``retry_after`` is the seconds of the answer's Retry-After header. Without it, those of the Status object count.
    """
    if retry_after is None and isinstance(details := status.get("details"), dict):
        retry_after = float(min(max(0, integer(details.get("retryAfterSeconds"))), LONGEST_WISH)) or None
    phrase = http.client.responses.get(code, "unknown status")
    message = f": {status['message']}" if status.get("message") else ""
    by_code = {401: UNAUTHORIZED, 403: FORBIDDEN, 410: GONE, 429: THROTTLED}
    kind = by_code.get(code, SERVER_ERROR if code >= 500 else PROTOCOL)
    return ApiError(kind, f"{code} {phrase}{message}", retry_after)


def redacted(text: str, secret: str) -> str:
    """Replace every part of a text that shares ``LONGEST_SHARED`` or more characters in a row with a secret.

    The text is cut to ``LONGEST_MESSAGE`` characters first. The time is linear in the lengths of both.
    """
    text = text[:LONGEST_MESSAGE]
    length = min(LONGEST_SHARED, len(secret))
    if not length:
        return text
    pieces = {secret[at : at + length] for at in range(len(secret) - length + 1)}
    shown: list[str] = []
    end = 0  # of the last piece found
    for at in range(len(text) - length + 1):
        if text[at : at + length] in pieces:
            if at >= end:
                shown.append(text[end:at])
                shown.append(REDACTED)
            end = at + length
    return "".join((*shown, text[end:]))


def integer(value: object) -> int:
    """Return the value if it is an integer, else 0."""
    return value if isinstance(value, int) else 0
