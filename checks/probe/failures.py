"""Why a check failed: library and operating system errors translated, once, into a small closed set.

A failure is a state in words (``connect: connection refused``) and the event that ``kubenurse_errors_total`` counts it
under. The words begin with the phase that was under way: setup, dns, connect, proxy, tls, request or response; the dns
and connect of a proxy follow ``proxy: ``.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl

from checks.config.durations import format_duration
from checks.text import printable

SETUP = "setup"
DNS = "dns"
CONNECT = "connect"
PROXY = "proxy"
PROXY_DNS = "proxy: dns"
PROXY_CONNECT = "proxy: connect"
TLS = "tls"
REQUEST = "request"
RESPONSE = "response"

TIMEOUT_EVENT = "timeout"
REDIRECT_EVENT = "redirect"
ROUND_TRIP_EVENT = "round_trip_error"

# The event of a phase that failed by itself, not by running out of time.
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

# States end up in log lines, JSON and a person's terminal: what a server says in them is cut here.
LONGEST_DETAIL = 120


class CheckError(Exception):
    """A check that failed: ``state`` in words, ``event`` as ``kubenurse_errors_total`` labels it."""

    def __init__(self, state: str, event: str) -> None:
        super().__init__(state)
        self.state = state
        self.event = event


def timed_out(phase: str, timeout: float) -> CheckError:
    """Return the failure of a phase that was under way when the check's time, ``timeout`` seconds, was up."""
    return CheckError(f"{phase}: timed out after {format_duration(timeout)}", TIMEOUT_EVENT)


def wrong_status(status: int, reason: str) -> CheckError:
    """Return the failure of an answer that came, with a status other than 200."""
    words = reason or http.client.responses.get(status, "")
    return CheckError(clean(f"{status} {words}".strip()), f"status_code_{status}")


def refused_by_proxy(status: int, reason: str) -> CheckError:
    """Return the failure of a proxy that grants no tunnel."""
    return CheckError(f"{PROXY}: {wrong_status(status, reason)}", ROUND_TRIP_EVENT)


def unprepared(why: str) -> CheckError:
    """Return the failure of a check that cannot even begin."""
    return CheckError(f"{SETUP}: {clean(why)}", ROUND_TRIP_EVENT)


def redirected(why: str) -> CheckError:
    """Return the failure of an answer that sends the check to where it must not go."""
    return CheckError(clean(why), REDIRECT_EVENT)


def translate(error: Exception, phase: str, timeout: float, *, answer_began: bool) -> CheckError:
    """Return the failure that an exception raised in ``phase`` means.

    ``answer_began`` tells whether the answer's first byte had come, ``timeout`` is the check's time in seconds.
    """
    if isinstance(error, CheckError):
        return error
    # The kernel gives a connection up by itself (ETIMEDOUT) too: that is the phase's own failure.
    if isinstance(error, TimeoutError) and not error.errno:
        return timed_out(phase, timeout)
    state = f"{phase}: {clean(_words(error))}"
    # An answer that began but is not a whole HTTP answer fails no phase: the last one was reached.
    if answer_began or not isinstance(error, OSError):
        return CheckError(state, ROUND_TRIP_EVENT)
    return CheckError(state, _EVENTS[phase])


def clean(text: str) -> str:
    """Return text from outside as one printable line of at most LONGEST_DETAIL characters."""
    return printable(text, LONGEST_DETAIL)


def _words(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return _resolver_words(error)
    if isinstance(error, ssl.SSLError):
        return _tls_words(error)
    if isinstance(error, http.client.RemoteDisconnected):
        return "connection closed before the answer"
    if isinstance(error, http.client.IncompleteRead):
        return f"truncated, {error.expected} bytes are missing" if error.expected else "truncated"
    if isinstance(error, http.client.BadStatusLine):
        return _not_http_words(str(error).strip())
    if isinstance(error, http.client.UnknownProtocol):
        return f"not HTTP/1.1 but {error}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


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
    # What OpenSSL raised has these two; what was raised in Python need not have.
    reason: str = getattr(error, "reason", None) or ""
    words: str = getattr(error, "verify_message", "").rstrip(".")
    if words:
        return words[:1].lower() + words[1:] if not words.startswith("IP ") else words
    if isinstance(error, ssl.SSLEOFError):
        return "connection closed during the handshake"
    if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"}:
        return "the server does not speak TLS here"
    return (reason or str(error)).lower().replace("_", " ")


def _not_http_words(line: str) -> str:
    # A TLS alert record: content type 21 and the protocol's major version, 3 (RFC 8446, section 5.1).
    return "not HTTP but TLS" if line.startswith("\x15\x03") else f"not HTTP: {line or 'an empty line'}"
