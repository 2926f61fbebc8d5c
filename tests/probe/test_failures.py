"""Errors of libraries and of the operating system in words, and the event each is counted under."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.probe import failures
from checks.probe.failures import LONGEST_DETAIL, CheckError, clean, translate
from tests.support.servers import EVENTS

PHASES = [
    failures.SETUP,
    failures.DNS,
    failures.CONNECT,
    failures.PROXY,
    failures.PROXY_DNS,
    failures.PROXY_CONNECT,
    failures.TLS,
    failures.REQUEST,
    failures.RESPONSE,
]


def told(error: Exception, phase: str = failures.RESPONSE, *, answer_began: bool = False) -> tuple[str, str]:
    """Translate an error: state and event."""
    failure = translate(error, phase, 5.0, answer_began=answer_began)
    assert str(failure) == failure.state
    return failure.state, failure.event


REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "x")


@pytest.mark.parametrize(
    ("phase", "event"),
    [
        (failures.SETUP, "round_trip_error"),
        (failures.DNS, "dns_done"),
        (failures.CONNECT, "connect_done"),
        (failures.PROXY, "round_trip_error"),
        (failures.PROXY_DNS, "dns_done"),
        (failures.PROXY_CONNECT, "connect_done"),
        (failures.TLS, "tls_handshake_done"),
        (failures.REQUEST, "wrote_request"),
        (failures.RESPONSE, "got_first_resp_byte"),
    ],
)
def test_phases(phase: str, event: str) -> None:
    """An error's words begin with its phase; it is counted under the event that the phase did not reach."""
    assert told(REFUSED, phase) == (f"{phase}: connection refused", event)
    assert told(REFUSED, phase, answer_began=True) == (f"{phase}: connection refused", "round_trip_error")
    assert told(TimeoutError(), phase) == (f"{phase}: timed out after 5s", "timeout")
    assert told(RuntimeError("can't start new thread"), phase) == (
        f"{phase}: can't start new thread",
        "round_trip_error",
    )


def test_what_is_a_failure_already() -> None:
    """A failure is not translated again."""
    failure = CheckError("words", "redirect")
    assert translate(failure, failures.TLS, 5.0, answer_began=True) is failure


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
    """Each kind of error has words that a person understands, without numbers and brackets where that can be."""
    assert told(error)[0] == f"response: {words}"


def test_the_kernel_s_own_timeout_is_the_phase_s() -> None:
    """A connection that the kernel gave up is counted under its phase: the check's time was not up."""
    assert told(TimeoutError(errno.ETIMEDOUT, "x"), failures.CONNECT)[1] == "connect_done"


@pytest.mark.parametrize(
    ("status", "reason", "state"),
    [(404, "Not Found", "404 Not Found"), (404, "", "404 Not Found"), (404, "Gone\x00", "404 Gone "), (599, "", "599")],
)
def test_wrong_status(status: int, reason: str, state: str) -> None:
    """A status is told with the server's words, or else the standard's."""
    failure = failures.wrong_status(status, reason)
    assert (failure.state, failure.event) == (state, f"status_code_{status}")
    refusal = failures.refused_by_proxy(status, reason)
    assert (refusal.state, refusal.event) == (f"proxy: {state}", "round_trip_error")


ERRORS = st.one_of(
    st.builds(OSError, st.sampled_from(sorted(errno.errorcode)), st.text()),
    st.builds(OSError, st.text()),
    st.builds(socket.gaierror, st.integers(-20, 20), st.text()),
    st.builds(ssl.SSLError, st.integers(0, 10), st.text()),
    st.builds(http.client.BadStatusLine, st.text()),
    st.builds(http.client.IncompleteRead, st.binary(), st.none() | st.integers(0)),
    st.builds(ValueError, st.text()),
    st.builds(TimeoutError),
    st.builds(failures.wrong_status, st.integers(100, 999), st.text()),
    st.builds(failures.refused_by_proxy, st.integers(100, 999), st.text()),
    st.builds(failures.redirected, st.text()),
    st.builds(failures.unprepared, st.text()),
)


@given(ERRORS, st.sampled_from(PHASES), st.booleans())
def test_any_error(error: Exception, phase: str, answer_began: bool) -> None:
    """Whatever goes wrong, the event is one of the contract's and the state is one printable line that is not long."""
    state, event = told(error, phase, answer_began=answer_began)
    assert EVENTS.fullmatch(event)
    assert state.isprintable()
    assert len(state) <= LONGEST_DETAIL + len("proxy: connect: ")


@given(st.text(max_size=3 * LONGEST_DETAIL))
def test_clean(text: str) -> None:
    """Text from outside becomes one printable line of bounded length; what is one already stays as it is."""
    line = clean(text)
    assert line.isprintable()
    assert len(line) <= LONGEST_DETAIL
    assert clean(line) == line
    if text.isprintable() and len(text) <= LONGEST_DETAIL:
        assert line == text


def test_what_is_cut_is_marked() -> None:
    """A text of the greatest length stays; one more character, and its end gives way to an ellipsis."""
    assert clean("x" * LONGEST_DETAIL) == "x" * LONGEST_DETAIL
    assert clean("x" * (LONGEST_DETAIL + 1)) == "x" * (LONGEST_DETAIL - 1) + "…"
