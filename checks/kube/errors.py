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

from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

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
# Seconds; nobody who follows waits as long, but a number from outside gets a bound where it comes in.
LONGEST_WISH = 86_400


class ApiError(Exception):
    """A request to the API server that failed.

    ``kind`` is one of ``KINDS``; ``retry_after`` is the seconds that the server asked to wait, None when it did not.
    The message is the reason in words, bounded, on one line.
    """

    def __init__(self, kind: str, reason: str, retry_after: float | None = None) -> None:
        words = "".join(character if character.isprintable() else " " for character in reason)
        super().__init__(words[:LONGEST_REASON])
        self.kind = kind
        self.retry_after = retry_after


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Let the errors of sockets, TLS, urllib3 and credentials out as ApiError."""
    try:
        yield
    except CredentialsError as error:
        raise ApiError(CREDENTIALS, str(error)) from error
    except (OSError, HTTPError, http.client.HTTPException) as error:
        raise _unreached(error) from error


def _unreached(error: Exception) -> ApiError:
    """Say why there was no whole answer."""
    if isinstance(error, NameResolutionError):
        again = isinstance(error.__cause__, socket.gaierror) and error.__cause__.errno == socket.EAI_AGAIN
        return ApiError(CONNECTION, f"dns: {'no usable answer from the name servers' if again else 'name not known'}")
    # To urllib3, a refused connection is one that took too long, by its class.
    cause = error.__cause__ if isinstance(error, NewConnectionError) else error
    if isinstance(cause, (TimeoutError, ConnectTimeoutError, ReadTimeoutError)):
        return ApiError(TIMEOUT, "timed out")
    if isinstance(cause, SSLError):
        cause = cause.args[0]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ApiError(TLS, f"tls: {cause.verify_message}")
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return ApiError(TLS, f"tls: {cause.reason or cause}")
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):
        return ApiError(CONNECTION, f"connection: {os.strerror(cause.errno).lower()}")
    if isinstance(cause, http.client.BadStatusLine) and not isinstance(cause, ConnectionError):
        return ApiError(PROTOCOL, "not HTTP")
    return ApiError(CONNECTION, "connection: closed too early")


def refusal(code: int, status: Mapping[str, Any], retry_after: float | None) -> ApiError:
    """Translate a Status object (meta/v1), or what there is of one, that came with an HTTP status code.

    ``retry_after`` is the seconds of the answer's Retry-After header; without, the Status object's count.
    """
    if retry_after is None and isinstance(details := status.get("details"), dict):
        retry_after = float(min(max(0, integer(details.get("retryAfterSeconds"))), LONGEST_WISH)) or None
    phrase = http.client.responses.get(code, "unknown status")
    message = f": {status['message']}" if status.get("message") else ""
    by_code = {401: UNAUTHORIZED, 403: FORBIDDEN, 410: GONE, 429: THROTTLED}
    kind = by_code.get(code, SERVER_ERROR if code >= 500 else PROTOCOL)
    return ApiError(kind, f"{code} {phrase}{message}", retry_after)


def integer(value: object) -> int:
    """Return the value if it is an integer, else 0."""
    return value if isinstance(value, int) else 0
