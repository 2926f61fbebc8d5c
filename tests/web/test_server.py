"""The transport on real sockets: what it serves, refuses, waits for and closes."""

from __future__ import annotations

import errno
import http.client
import itertools
import logging
import select
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from checks.web.connections import Connections, SparseLog
from checks.web.http1 import LARGEST_HEAD_BYTES, Request, Response
from checks.web.server import Server, _where
from tests.support.waiting import until

PATIENCE = 20.0
GET = b"GET /alwayshappy HTTP/1.1\r\nHost: a\r\n\r\n"


class Answer(NamedTuple):
    """One response as read from the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A client that sends the bytes it is given."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        self.socket = connection
        self._file = connection.makefile("rb")

    @classmethod
    def of(cls, server: Server, host: str = "127.0.0.1") -> Client:
        """Connect to a server."""
        return cls(socket.create_connection((host, server.port), timeout=PATIENCE))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send everything."""
        self.socket.sendall(data)

    def answer(self, *, head_only: bool = False) -> Answer:
        """Read one response."""
        status = int(self._file.readline().split()[1])
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode("latin-1").partition(": ")
            headers[name] = value
        body = b"" if head_only else self._file.read(int(headers["Content-Length"]))
        return Answer(status, headers, body)

    def ask(self, data: bytes = GET) -> Answer:
        """Send one request and read its response."""
        self.send(data)
        return self.answer()

    def is_closed(self) -> bool:
        """Wait for the server to close; False when it sends something instead."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


class Blocking:
    """Endpoints of which those below /slow answer only once released."""

    def __init__(self) -> None:
        self.busy = threading.Event()
        self._released = threading.Event()
        self.release = self._released.set

    def __call__(self, request: Request) -> Response:
        """Answer with an empty 200, sooner or later."""
        if request.target.startswith("/slow"):
            self.busy.set()
            assert self._released.wait(PATIENCE)
        return Response(200)


SLOW = b"GET /slow HTTP/1.1\r\n\r\n"


def happy(_request: Request) -> Response:
    """Answer every request with an empty 200."""
    return Response(200)


def echo(request: Request) -> Response:
    """Answer with the request's target."""
    return Response(200, (), request.target.encode())


@contextmanager
def serving(
    respond: Callable[[Request], Response] = happy, address: str = "127.0.0.1", **options: Any
) -> Iterator[Server]:
    """Serve on a port of the system's choice for the time of the block."""
    server = Server(respond, address, 0, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop(0.1)


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


def test_a_reader_that_does_not_read_is_dropped() -> None:
    """An answer that is not taken in time ends the connection and frees its place."""
    with (
        serving(lambda _request: Response(200, (), b"x" * 50_000_000), write_timeout=0.2) as server,
        Client.of(server) as client,
    ):
        client.send(GET)
        assert client.socket.recv(10)
        assert server.connections.wait_for_none(PATIENCE)


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
    assert facts["where"].startswith("test_server.py:")


def test_happy_answers_while_alive_blocks() -> None:
    """A request that takes its time holds up nobody else."""
    blocking = Blocking()
    with serving(blocking) as server, Client.of(server) as waiting, Client.of(server) as client:
        waiting.send(SLOW)
        assert blocking.busy.wait(PATIENCE)
        assert client.ask().status == 200
        blocking.release()
        assert waiting.answer().status == 200


def test_when_full_a_waiting_connection_makes_room() -> None:
    """With all connections in use a kept one that waits, and no more than one, is closed for a new one."""
    with serving(max_connections=2) as server, Client.of(server) as first, Client.of(server) as second:
        assert first.ask().status == second.ask().status == 200
        status, deadline = 0, time.monotonic() + PATIENCE
        # Both are answered, but one of them has to be back in waiting before it can make room.
        while not status and time.monotonic() < deadline:
            with Client.of(server) as third, suppress(ConnectionError, IndexError):
                status = third.ask().status
        assert status == 200
        closed, _, _ = select.select([first.socket, second.socket], [], [], PATIENCE)
        assert len(closed) == 1


@pytest.mark.parametrize("sent", [b"", b"GET /alwayshappy HT"], ids=["nothing", "half-a-head"])
def test_who_connects_and_does_not_ask_keeps_nobody_out(sent: bytes) -> None:
    """However many connect and say nothing, or not all, whoever asks is answered at once."""
    with serving(max_connections=4) as server, ExitStack() as stack:
        for _ in range(3):
            for _ in range(10):
                stack.enter_context(Client.of(server)).send(sent)
            with Client.of(server) as asking:
                assert asking.ask().status == 200


def test_who_was_answered_makes_room_before_who_has_not_asked() -> None:
    """A connection kept for another request is worth less than a new one."""
    connections = Connections(limit=2)
    pairs = [socket.socketpair() for _ in range(4)]
    new, kept, another, last = (ours for ours, _ in pairs)
    for connection in (new, kept):
        assert connections.admit(connection)
    assert connections.resume(kept)
    assert connections.wait(kept)
    assert connections.admit(another)
    assert kept.recv(1) == b""
    assert connections.admit(last)
    assert new.recv(1) == b""
    assert connections.resume(another)
    for end in itertools.chain(*pairs):
        end.close()


def test_when_full_of_busy_connections_a_new_one_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """With all connections at work a new one is closed, which is logged once, not each time."""
    blocking = Blocking()
    with serving(blocking, max_connections=1) as server, Client.of(server) as client:
        client.send(SLOW)
        assert blocking.busy.wait(PATIENCE)
        for _ in range(3):
            with Client.of(server) as refused:
                assert refused.is_closed()
        blocking.release()
        assert client.answer().status == 200
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG] == [
        "connection refused, all are in use"
    ]


def test_the_one_waiting_longest_makes_room() -> None:
    """Of the waiting connections the first to wait is shut; a busy one never is."""
    connections = Connections(limit=3)
    pairs = [socket.socketpair() for _ in range(4)]
    busy, early, late, new = (ours for ours, _ in pairs)
    for connection in (busy, late, early):
        assert connections.admit(connection)
    assert connections.wait(busy)
    assert connections.wait(early)
    assert connections.wait(late)
    assert connections.resume(busy)
    assert connections.admit(new)
    assert not connections.resume(early)
    assert early.recv(1) == b""
    assert connections.resume(late)
    for end in itertools.chain(*pairs):
        end.close()


def test_stop_ends_waiting_connections_at_once_and_busy_ones_soon() -> None:
    """Stopping closes what waits, lets a request end, and leaves the one that does not."""
    blocking = Blocking()
    server = Server(blocking, "127.0.0.1", 0)
    server.start()
    with Client.of(server) as idle, Client.of(server) as stuck, Client.of(server) as fresh:
        assert idle.ask().status == 200
        stuck.send(SLOW)
        assert blocking.busy.wait(PATIENCE)
        started = time.monotonic()
        server.stop(0.2)
        assert time.monotonic() - started < PATIENCE / 2
        assert all(client.is_closed() for client in (idle, stuck, fresh))
        with pytest.raises(OSError, match="refused"):
            Client.of(server)
    blocking.release()
    assert server.connections.wait_for_none(PATIENCE)
    server.stop()


def test_the_answer_under_way_when_stopping_is_delivered() -> None:
    """A request that ends in time is answered after the stop has begun, and told that the connection closes."""
    blocking = Blocking()
    server = Server(blocking, "127.0.0.1", 0)
    server.start()
    with Client.of(server) as client:
        client.send(SLOW)
        assert blocking.busy.wait(PATIENCE)
        stopping = threading.Thread(target=server.stop, args=(PATIENCE,))
        stopping.start()
        while not server.connections.stopping:
            stopping.join(0.01)
        blocking.release()
        assert client.answer().headers["Connection"] == "close"
        assert client.is_closed()
        stopping.join(PATIENCE)
        assert not stopping.is_alive()


def test_a_server_that_never_started_can_be_stopped() -> None:
    """Stopping frees the port of a server that was only bound."""
    server = Server(happy, "127.0.0.1", 0)
    server.stop()
    Server(happy, "127.0.0.1", server.port).stop()


def test_a_taken_port_is_an_error_in_words() -> None:
    """A port that is in use is reported with its address when the server is made."""
    with serving() as server, pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1 port") as caught:
        Server(happy, "127.0.0.1", server.port)
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_all_addresses_are_ipv6_and_ipv4() -> None:
    """One server answers both families, and an IPv4 client is written as such."""
    with serving(lambda request: Response(200, (), request.remote_addr.encode()), address="") as server:
        for host, written in (("127.0.0.1", b"127.0.0.1:%d"), ("::1", b"[::1]:%d")):
            with Client.of(server, host) as client:
                assert client.ask().body == written % client.socket.getsockname()[1]
    assert server.address == "::"


def test_without_ipv6_all_addresses_are_ipv4() -> None:
    """Where there is no IPv6 the server listens on all IPv4 addresses."""
    assert _where("", 8080, dual_stack=False) == (socket.AF_INET, ("0.0.0.0", 8080))


def test_a_server_thread_that_dies_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """When nothing can be accepted any more the agent is told, once, with the thread's name."""
    deaths: list[tuple[str, BaseException]] = []
    died = threading.Event()

    def on_death(name: str, error: BaseException) -> None:
        deaths.append((name, error))
        died.set()

    with serving(on_death=on_death) as server:
        server.socket.shutdown(socket.SHUT_RDWR)
        assert died.wait(PATIENCE)
    ((name, error),) = deaths
    assert name == f"kubenurse-http-{server.port}"
    assert str(error).startswith("accept: ")


def test_threads_have_names() -> None:
    """The serving thread and those of the connections can be told apart in a stack dump."""
    with (
        serving(lambda _: Response(200, (), " ".join(one.name for one in threading.enumerate()).encode())) as server,
        Client.of(server) as client,
    ):
        assert {server.name, f"{server.name}-connection"} <= set(client.ask().body.decode().split())


def test_an_empty_line_after_a_request_begins_none() -> None:
    """A kept connection with an empty line too many waits for as long as any other, and ends without an answer."""
    with serving(header_timeout=0.2, idle_timeout=1.0) as server, Client.of(server) as client:
        assert client.ask(GET + b"\r\n").status == 200
        threading.Event().wait(0.5)
        assert client.ask(b"\r\n" + GET).status == 200
        client.send(b"\r\n")
        assert client.is_closed()


def test_an_idle_server_sleeps() -> None:
    """While nobody asks, its thread is not woken: nothing is spent on a node where nothing happens."""
    with serving() as server, Client.of(server) as client:
        assert client.ask().status == 200  # so that it has started
        (tid,) = [thread.native_id for thread in threading.enumerate() if thread.name == server.name]
        status = Path(f"/proc/self/task/{tid}/status")

        def wakes() -> int:
            (line,) = [line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt_switches")]
            return int(line.split()[1])

        until(lambda: "State:\tS" in status.read_text())
        before = wakes()
        threading.Event().wait(1.5)
        assert wakes() - before <= 1


def test_running_out_of_descriptors_is_survived() -> None:
    """With no file descriptor left a waiting connection makes room, and that is logged once."""
    script = """
        import contextlib, logging, os, resource, socket
        from checks.web.http1 import Response
        from checks.web.server import Server

        logging.basicConfig(format="%(message)s")
        server = Server(lambda request: Response(200), "127.0.0.1", 0)
        server.start()

        def ask(client):
            client.settimeout(20)
            client.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
            return client.recv(65536).split(b"\\r\\n")[0].decode()

        kept = socket.create_connection(("127.0.0.1", server.port))
        print(ask(kept))
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        client = socket.socket()
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        client.connect(("127.0.0.1", server.port))
        print(ask(client))
        print(kept.recv(1))
        server.stop(0.1)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.splitlines() == ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "b''"], ended.stderr
    assert ended.stderr.splitlines() == ["connections cannot be accepted"]


def test_a_connection_that_cannot_be_served_is_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """What keeps a connection's thread from running is logged without a traceback."""
    with serving() as server, socket.socket() as connection:
        try:
            raise RuntimeError("can't start new thread")
        except RuntimeError:
            server.handle_error(connection, ("10.0.0.1", 1))
    (record,) = caplog.records
    assert record.__dict__["facts"]["why"] == 'RuntimeError("can\'t start new thread")'


def test_the_sparse_log_counts_what_it_holds_back(caplog: pytest.LogCaptureFixture) -> None:
    """Warnings in quick succession are counted, and the count comes with the next one logged."""
    now = [100.0]
    sparse = SparseLog(interval=60.0, clock=lambda: now[0])
    for later in (0.0, 10.0, 49.0, 1.0):
        now[0] += later
        sparse.warning("event", fact="x")
    assert [record.__dict__["facts"] for record in caplog.records] == [
        {"fact": "x", "held_back": 0},
        {"fact": "x", "held_back": 2},
    ]
