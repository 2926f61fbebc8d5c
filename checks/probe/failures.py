"""Why a check failed: errors of libraries and of the operating system translated, once, into a small closed set.

A failure is a state in words (``connect: connection refused``), the event that ``kubenurse_errors_total`` counts it
under, and its phase (of ``model.PHASES``). The words begin with the *step* that was under way. A step has the name of
its phase, except for the way to a proxy: its steps ``proxy: dns`` and ``proxy: connect`` belong to the phase ``proxy``.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl

from checks.config.durations import format_duration
from checks.model import CONNECT, DNS, PROXY, REDIRECT, REQUEST, RESPONSE, SETUP, STATUS, TLS
from checks.text import printable

# The steps on the way to a proxy. All others are phases.
PROXY_DNS = f"{PROXY}: {DNS}"
PROXY_CONNECT = f"{PROXY}: {CONNECT}"

TIMEOUT_EVENT = "timeout"
REDIRECT_EVENT = "redirect"
ROUND_TRIP_EVENT = "round_trip_error"

# The event of a step that failed by itself, not by running out of time.
_EVENTS = {
    SETUP: ROUND_TRIP_EVENT,
    DNS: "dns_done",
    CONNECT: "connect_done",
    PROXY: ROUND_TRIP_EVENT,
    PROXY_DNS: "dns_done",
    PROXY_CONNECT: "connect_done",
    TLS: "tls_handshake_done",
    REQUEST: "wrote_request",
    RESPONSE: "got_first_resp_byte",
}
STEPS = tuple(_EVENTS)
# The steps whose errors may hold text of a server.
_LISTENING = (PROXY, RESPONSE)

# States end up in log lines, JSON and terminals: longer text from a server is cut.
LONGEST_DETAIL = 120


class CheckError(Exception):
    """A check that failed: ``state`` in words, ``event`` as ``kubenurse_errors_total`` labels it, and ``phase``."""

    def __init__(self, state: str, event: str, phase: str) -> None:
        super().__init__(state)
        self.state = state
        self.event = event
        self.phase = phase


def phase_of(step: str) -> str:
    """Return the phase that a step belongs to."""
    return PROXY if step in (PROXY_DNS, PROXY_CONNECT) else step


def timed_out(step: str, timeout: float) -> CheckError:
    """Return the failure of a step that was under way when the check's time, ``timeout`` seconds, was up."""
    return CheckError(f"{step}: timed out after {format_duration(timeout)}", TIMEOUT_EVENT, phase_of(step))


def wrong_status(status: int, reason: str) -> CheckError:
    """Return the failure of an answer with a status other than 200.

    ``reason`` is the server's phrase; the standard phrase stands in for an empty one.
    """
    words = reason or http.client.responses.get(status, "")
    return CheckError(clean(f"{status} {words}".strip()), f"status_code_{status}", STATUS)


def refused_by_proxy(status: int, reason: str) -> CheckError:
    """Return the failure of a proxy that grants no tunnel."""
    return CheckError(f"{PROXY}: {wrong_status(status, reason)}", ROUND_TRIP_EVENT, PROXY)


def unprepared(why: str) -> CheckError:
    """Return the failure of a check that cannot begin."""
    return CheckError(f"{SETUP}: {clean(why)}", ROUND_TRIP_EVENT, SETUP)


def redirected(why: str) -> CheckError:
    """Return the failure of an answer that redirects the check to a place where it must not go."""
    return CheckError(clean(why), REDIRECT_EVENT, REDIRECT)


def translate(error: Exception, step: str, timeout: float, *, answer_began: bool, quotes: bool) -> CheckError:
    """Return the failure that an exception raised in ``step`` means.

    ``answer_began`` tells whether the answer's first byte had arrived, ``timeout`` is the check's time in seconds.
    ``quotes`` allows text of the server in the words: False for a check that sent a secret, which the server may echo.
    """
    if isinstance(error, CheckError):
        return error
    # The kernel gives a connection up by itself too (ETIMEDOUT): that is the step's own failure.
    if isinstance(error, TimeoutError) and not error.errno:
        return timed_out(step, timeout)
    words = _words(error, quotes=quotes or step not in _LISTENING)
    state = f"{step}: {clean(words)}"
    # An answer that began but is no whole HTTP answer reached the last event: no event stands for its failure.
    if answer_began or not isinstance(error, OSError):
        return CheckError(state, ROUND_TRIP_EVENT, phase_of(step))
    return CheckError(state, _EVENTS[step], phase_of(step))


def in_words(error: Exception, timeout: float) -> str:
    """Return the words of an error alone, without step and event; ``timeout`` is the seconds that were granted."""
    if isinstance(error, TimeoutError) and not error.errno:
        return f"timed out after {format_duration(timeout)}"
    return clean(_words(error, quotes=True))


def clean(text: str) -> str:
    """Return text from outside as one printable line of at most LONGEST_DETAIL characters."""
    return printable(text, LONGEST_DETAIL)


def _words(error: Exception, *, quotes: bool) -> str:
    if isinstance(error, socket.gaierror):
        return _resolver_words(error)
    if isinstance(error, ssl.SSLError):
        return _tls_words(error)
    if isinstance(error, http.client.HTTPException):
        return _http_words(error, quotes=quotes)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return (str(error) if quotes else "") or type(error).__name__


def _resolver_words(error: socket.gaierror) -> str:
    if error.errno == socket.EAI_NONAME:
        return "name not known"
    # EAI_NODATA: the name exists but has no address. Not every C library has it.
    if error.errno == getattr(socket, "EAI_NODATA", None):
        return "name has no address"
    if error.errno == socket.EAI_AGAIN:
        return "no usable answer from the name servers"
    return str(error.strerror).lower()


def _tls_words(error: ssl.SSLError) -> str:
    # Errors of OpenSSL have these two attributes; errors that Python raises need not have them.
    reason: str = getattr(error, "reason", None) or ""
    words: str = getattr(error, "verify_message", "").rstrip(".")
    if words:
        return words[:1].lower() + words[1:] if not words.startswith("IP ") else words
    if isinstance(error, ssl.SSLEOFError):
        return "connection closed during the handshake"
    if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"}:
        return "the server does not speak TLS here"
    return (reason or str(error)).lower().replace("_", " ")


def _http_words(error: http.client.HTTPException, *, quotes: bool) -> str:
    if isinstance(error, http.client.RemoteDisconnected):
        return "connection closed before the answer"
    if isinstance(error, http.client.IncompleteRead):
        return f"truncated, {error.expected} bytes are missing" if error.expected else "truncated"
    if isinstance(error, http.client.BadStatusLine):
        return _not_http_words(str(error).strip(), quotes=quotes)
    if isinstance(error, http.client.UnknownProtocol):
        return f"not HTTP/1.1 but {error if quotes else 'another version'}"
    return str(error) or type(error).__name__


def _not_http_words(line: str, *, quotes: bool) -> str:
    # A TLS alert record: content type 21 and the protocol's major version, 3 (RFC 8446, section 5.1).
    if line.startswith("\x15\x03"):
        return "not HTTP but TLS"
    if not line:
        return "not HTTP: an empty line"
    return f"not HTTP: {line}" if quotes else "not HTTP"
