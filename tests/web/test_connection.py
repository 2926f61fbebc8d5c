"""One connection on a real socket: what is answered, refused, waited for and closed."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
import time
from contextlib import suppress

import pytest

from checks.web.http1 import LARGEST_HEAD_BYTES, Request, Response
from tests.web.clients import GET, PATIENCE, SLOW, Blocking, Client, echo, serving


def test_a_request_is_passed_on_and_answered() -> None:
    """Method, target, headers and the client's address reach the endpoints; the answer comes back framed."""
    seen: list[Request] = []

    def remember(request: Request) -> Response:
        seen.append(request)
        return Response(404, (("X-A", "b"),), b"no\n")

    with serving(remember) as server, Client.of(server) as client:
        answer = client.ask(b"GET /x?y HTTP/1.1\r\nHost: a\r\nX-B: \xff\r\n\r\n")
        address, port = client.socket.getsockname()
    assert (answer.status, answer.body) == (404, b"no\n")
    assert (answer.headers["X-A"], answer.headers["Server"]) == ("b", "kubenurse")
    assert "Connection" not in answer.headers
    assert seen == [Request("GET", "/x?y", (("Host", "a"), ("X-B", "\xff")), f"{address}:{port}")]


def test_the_standard_client_is_served() -> None:
    """A stranger's HTTP client gets GET and HEAD answered on one kept connection."""
    with serving(echo) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        for method, body in (("GET", b"/a"), ("HEAD", b""), ("GET", b"/a")):
            connection.request(method, "/a")
            response = connection.getresponse()
            assert (response.status, response.headers["Content-Length"], response.read()) == (200, "2", body)
        connection.close()


def test_an_answer_is_one_segment() -> None:
    """Head and body are written together, so the first read has all of a small answer."""
    with serving(echo) as server, Client.of(server) as client:
        client.send(b"GET /body HTTP/1.1\r\n\r\n")
        assert client.socket.recv(65536).endswith(b"\r\n\r\n/body")


def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent without waiting are answered one after the other, the last one cut in two included."""
    with serving(echo) as server, Client.of(server) as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(50)) + b"GET /la")
        assert [client.answer().body for _ in range(50)] == [b"/%d" % number for number in range(50)]
        assert client.ask(b"st HTTP/1.1\r\n\r\n").body == b"/last"


@pytest.mark.parametrize("ending", [b"1.0\r\n\r\n", b"1.1\r\nConnection: close\r\n\r\n"])
def test_connections_close_when_the_client_means_it(ending: bytes) -> None:
    """HTTP/1.0 and ``Connection: close`` end the connection after the answer, which says so."""
    with serving() as server, Client.of(server) as client:
        assert client.ask(b"GET / HTTP/" + ending).headers["Connection"] == "close"
        assert client.is_closed()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + GET,
        b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    ],
)
def test_a_body_ends_the_connection_after_the_answer(request_bytes: bytes) -> None:
    """A request with a body is answered, its body never taken for a request, and the client can read the answer."""
    with serving() as server, Client.of(server) as client:
        with suppress(ConnectionError):
            client.send(request_bytes)
        answer = client.answer()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert client.is_closed()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /alive\r\n", 400),
        (b"garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
        (b"GET / HTTP/1.1\r\nnonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * LARGEST_HEAD_BYTES + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 10 * LARGEST_HEAD_BYTES, 431),
    ],
)
def test_what_is_no_request_is_refused_and_closed(request_bytes: bytes, status: int) -> None:
    """Malformed, foreign and too large requests get their status at once, then the end of the connection."""
    with serving() as server, Client.of(server) as client:
        with suppress(ConnectionError):
            client.send(request_bytes)
        assert client.answer().status == status
        assert client.is_closed()


def test_a_dribbled_head_ends_at_the_deadline() -> None:
    """A client that keeps sending single bytes gets 408 when the time for a head is over."""
    with serving(header_timeout=0.4) as server, Client.of(server) as client:
        client.send(b"GET / HTTP/1.1\r\nA: ")
        client.socket.settimeout(0.02)
        received, deadline = b"", time.monotonic() + PATIENCE
        while not received and time.monotonic() < deadline:
            with suppress(TimeoutError):
                client.send(b"x")
                received = client.socket.recv(65536)
    assert received.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(("requests", "header_timeout", "idle_timeout"), [(0, 0.1, 600), (1, 600, 0.1)])
def test_silent_connections_end(requests: int, header_timeout: float, idle_timeout: float) -> None:
    """The first request is waited for as long as a head may take, the next one as long as a connection may idle."""
    with serving(header_timeout=header_timeout, idle_timeout=idle_timeout) as server, Client.of(server) as client:
        assert [client.ask().status for _ in range(requests)] == [200] * requests
        assert client.is_closed()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET])
def test_clients_may_leave_at_any_point(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A client that goes away is forgotten without a word in the log."""
    with serving() as server:
        with Client.of(server) as client:
            client.send(sent)
        with Client.of(server) as client:
            assert client.ask().status == 200
        assert server.connections.wait_for_none(PATIENCE)
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


def test_a_half_closed_client_gets_its_answer() -> None:
    """A client that ends its side after the request is answered."""
    with serving() as server, Client.of(server) as client:
        client.send(GET)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer().status == 200
        assert client.is_closed()


def test_a_fault_is_500_one_line_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """An endpoint that raises gives 500 and one log line; the connection goes on."""

    def faulty(request: Request) -> Response:
        if request.target.startswith("/bad"):
            raise ValueError("inner secret")
        return Response(200)

    with serving(faulty) as server, Client.of(server) as client:
        answer = client.ask(b"GET /bad?token=x HTTP/1.1\r\n\r\n")
        assert (answer.status, answer.body) == (500, b"internal error\n")
        assert client.ask().status == 200
    (record,) = [record for record in caplog.records if record.levelno > logging.DEBUG]
    facts = record.__dict__["facts"]
    assert facts["path"] == "/bad"
    assert facts["why"] == "ValueError('inner secret')"
    assert facts["where"].startswith("test_connection.py:")


def test_happy_answers_while_alive_blocks() -> None:
    """A request that takes its time holds up nobody else."""
    blocking = Blocking()
    with serving(blocking) as server, Client.of(server) as waiting, Client.of(server) as client:
        waiting.send(SLOW)
        assert blocking.busy.wait(PATIENCE)
        assert client.ask().status == 200
        blocking.release()
        assert waiting.answer().status == 200


def test_an_empty_line_after_a_request_begins_none() -> None:
    """A kept connection with an empty line too many waits for as long as any other, and ends without an answer."""
    with serving(header_timeout=0.2, idle_timeout=1.0) as server, Client.of(server) as client:
        assert client.ask(GET + b"\r\n").status == 200
        threading.Event().wait(0.5)
        assert client.ask(b"\r\n" + GET).status == 200
        client.send(b"\r\n")
        assert client.is_closed()
