"""Errors of libraries and of the operating system in words, with the event and the phase of each."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.model import CONNECT, DNS, PHASES, PROXY, REDIRECT, REQUEST, RESPONSE, SETUP, STATUS, TLS
from checks.probe import failures
from checks.probe.failures import LONGEST_DETAIL, PROXY_CONNECT, PROXY_DNS, STEPS, CheckError, clean, translate
from tests.support.servers import EVENTS


def told(
    error: Exception, step: str = RESPONSE, *, answer_began: bool = False, quotes: bool = True
) -> tuple[str, str, str]:
    """Translate an error into state, event and phase."""
    failure = translate(error, step, 5.0, answer_began=answer_began, quotes=quotes)
    assert str(failure) == failure.state
    return failure.state, failure.event, failure.phase


REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "x")


@pytest.mark.parametrize(
    ("step", "event", "phase"),
    [
        (SETUP, "round_trip_error", SETUP),
        (DNS, "dns_done", DNS),
        (CONNECT, "connect_done", CONNECT),
        (PROXY, "round_trip_error", PROXY),
        (PROXY_DNS, "dns_done", PROXY),
        (PROXY_CONNECT, "connect_done", PROXY),
        (TLS, "tls_handshake_done", TLS),
        (REQUEST, "wrote_request", REQUEST),
        (RESPONSE, "got_first_resp_byte", RESPONSE),
    ],
)
def test_steps(step: str, event: str, phase: str) -> None:
    """The words of an error begin with its step. The event that the step did not reach counts it."""
    assert told(REFUSED, step) == (f"{step}: connection refused", event, phase)
    assert told(REFUSED, step, answer_began=True) == (f"{step}: connection refused", "round_trip_error", phase)
    assert told(TimeoutError(), step) == (f"{step}: timed out after 5s", "timeout", phase)
    expected = f"{step}: can't start new thread", "round_trip_error", phase
    assert told(RuntimeError("can't start new thread"), step) == expected


def test_a_failure_is_translated_once() -> None:
    """Translate returns a CheckError unchanged."""
    failure = CheckError("words", "redirect", REDIRECT)
    assert translate(failure, TLS, 5.0, answer_began=True, quotes=True) is failure


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(errno.ETIMEDOUT, "x"), "connection timed out"),
        (OSError(errno.EHOSTUNREACH, "x"), "no route to host"),
        (OSError(errno.ENETUNREACH, "x"), "network is unreachable"),
        (OSError(errno.EMFILE, "x"), "too many open files"),
        (OSError("no number"), "no number"),
        (OSError(), "OSError"),
        (socket.gaierror(socket.EAI_NONAME, "x"), "name not known"),
        (socket.gaierror(socket.EAI_NODATA, "x"), "name has no address"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "no usable answer from the name servers"),
        (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure"), "non-recoverable failure"),
        (ssl.SSLEOFError(8, "x"), "connection closed during the handshake"),
        (ssl.SSLError(1, "[SSL] something new"), "[ssl] something new"),
        (http.client.RemoteDisconnected("x"), "connection closed before the answer"),
        (http.client.IncompleteRead(b"abc", 7), "truncated, 7 bytes are missing"),
        (http.client.IncompleteRead(b"abc"), "truncated"),
        (http.client.UnknownProtocol("HTTP/3"), "not HTTP/1.1 but HTTP/3"),
        (http.client.BadStatusLine(" \r\n"), "not HTTP: an empty line"),
        (ValueError(), "ValueError"),
    ],
)
def test_words(error: Exception, words: str) -> None:
    """Each kind of error has words that a person understands."""
    assert told(error)[0] == f"response: {words}"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (http.client.BadStatusLine("secret"), "not HTTP"),
        (http.client.BadStatusLine("\r\n"), "not HTTP: an empty line"),
        (http.client.BadStatusLine("\x15\x03\x01"), "not HTTP but TLS"),
        (http.client.UnknownProtocol("HTTP/secret"), "not HTTP/1.1 but another version"),
        (RuntimeError("secret"), "RuntimeError"),
    ],
)
@pytest.mark.parametrize("step", [RESPONSE, PROXY])
def test_words_without_the_servers_text(error: Exception, words: str, step: str) -> None:
    """Text of a server that could echo a secret is left out of the words."""
    assert told(error, step, quotes=False)[0] == f"{step}: {words}"


def test_errors_before_the_server_is_heard_keep_their_words() -> None:
    """An error of a step in which no server is listened to holds no text of one."""
    assert told(ValueError("Authorization holds a character"), REQUEST, quotes=False)[0].endswith("holds a character")


def test_a_timeout_of_the_kernel_counts_for_its_step() -> None:
    """A connection that the kernel gave up counts under its step's event: the check's time was not up."""
    assert told(TimeoutError(errno.ETIMEDOUT, "x"), CONNECT)[1:] == ("connect_done", CONNECT)


@pytest.mark.parametrize(
    ("status", "reason", "state"),
    [(404, "Not Found", "404 Not Found"), (404, "", "404 Not Found"), (404, "Gone\x00", "404 Gone "), (599, "", "599")],
)
def test_wrong_status(status: int, reason: str, state: str) -> None:
    """A status comes with the server's phrase, or else with the standard one."""
    failure = failures.wrong_status(status, reason)
    assert (failure.state, failure.event, failure.phase) == (state, f"status_code_{status}", STATUS)
    refusal = failures.refused_by_proxy(status, reason)
    assert (refusal.state, refusal.event, refusal.phase) == (f"proxy: {state}", "round_trip_error", PROXY)


# Lone surrogates too, which no encoding takes.
TEXT = st.text(st.characters(exclude_categories=()))
ERRORS = st.one_of(
    st.builds(OSError, st.sampled_from(sorted(errno.errorcode)), TEXT),
    st.builds(OSError, TEXT),
    st.builds(socket.gaierror, st.integers(-20, 20), TEXT),
    st.builds(ssl.SSLError, st.integers(0, 10), TEXT),
    st.builds(http.client.BadStatusLine, TEXT),
    st.builds(http.client.IncompleteRead, st.binary(), st.none() | st.integers(0)),
    st.builds(ValueError, TEXT),
    st.builds(TimeoutError),
    st.builds(failures.wrong_status, st.integers(100, 999), TEXT),
    st.builds(failures.refused_by_proxy, st.integers(100, 999), TEXT),
    st.builds(failures.redirected, TEXT),
    st.builds(failures.unprepared, TEXT),
)


@given(ERRORS, st.sampled_from(STEPS), st.booleans(), st.booleans())
def test_any_error(error: Exception, step: str, answer_began: bool, quotes: bool) -> None:
    """Event and phase are always of the closed sets, and the state is one printable line of bounded length."""
    state, event, phase = told(error, step, answer_began=answer_began, quotes=quotes)
    assert EVENTS.fullmatch(event)
    assert phase in PHASES
    assert state.isprintable()
    assert len(state) <= LONGEST_DETAIL + len("proxy: connect: ")


@given(st.text(st.characters(exclude_categories=()), max_size=3 * LONGEST_DETAIL))
def test_clean(text: str) -> None:
    """Text from outside becomes one printable line of bounded length. Such a line stays unchanged."""
    line = clean(text)
    assert line.isprintable()
    assert len(line) <= LONGEST_DETAIL
    assert clean(line) == line
    if text.isprintable() and len(text) <= LONGEST_DETAIL:
        assert line == text


def test_a_cut_is_marked() -> None:
    """A text of the greatest length stays. A longer text ends in an ellipsis."""
    assert clean("x" * LONGEST_DETAIL) == "x" * LONGEST_DETAIL
    assert clean("x" * (LONGEST_DETAIL + 1)) == "x" * (LONGEST_DETAIL - 1) + "…"
