"""The listening side on real sockets: where it listens, how it ends, what it does when something runs short."""

from __future__ import annotations

import errno
import logging
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from checks.web.http1 import Response
from checks.web.server import Server, _where
from checks.web.sparse_log import SparseLog
from tests.support.waiting import until
from tests.web.clients import GET, PATIENCE, SLOW, Blocking, Client, happy, serving


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


def test_a_thread_that_cannot_be_started_costs_one_connection() -> None:
    """Without memory for a thread a connection is closed and logged, and the server goes on."""
    script = """
        import logging, resource, socket
        from pathlib import Path
        from checks.web.http1 import Response
        from checks.web.server import Server

        logging.basicConfig(format="%(message)s")
        server = Server(lambda request: Response(200), "127.0.0.1", 0)
        server.start()

        def ask():
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
                client.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
                try:
                    return client.recv(65536).split(b"\\r\\n")[0].decode()
                except ConnectionResetError:
                    return ""

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 1_000_000, hard))
        refused = [ask() for _ in range(3)]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        print([*refused, ask()])
        server.stop(0.1)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.splitlines() == ["['', '', '', 'HTTP/1.1 200 OK']"], ended.stderr
    assert ended.stderr.splitlines() == ["connection failed"]


class BlockingLog(logging.Handler):
    """A log that takes no line until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Event()
        self.go_on = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Wait."""
        if "refused" in record.getMessage():
            self.waiting.set()
            self.go_on.wait(60)


def test_an_accepting_thread_that_hangs_shows_and_is_left_when_stopping() -> None:
    """A hanging accepting thread no longer shows that it lives, and the server still stops in bounded time."""
    blocking, blocking_log = Blocking(), BlockingLog()
    logger = logging.getLogger("kubenurse.server")
    logger.addHandler(blocking_log)
    server = Server(blocking, "127.0.0.1", 0, max_connections=1)
    server.start()
    try:
        with Client.of(server) as busy:
            busy.send(SLOW)
            assert blocking.busy.wait(PATIENCE)
            with Client.of(server):
                assert blocking_log.waiting.wait(PATIENCE)
            lived = server.last_lived()
            with Client.of(server):
                started = time.monotonic()
                server.stop(0.1)
                assert time.monotonic() - started < PATIENCE
            assert server.last_lived() == lived <= started
    finally:
        blocking_log.go_on.set()
        blocking.release()
        logger.removeHandler(blocking_log)


def test_an_accepting_thread_shows_that_it_lives() -> None:
    """Each connection moves the time at which the accepting thread last lived."""
    with serving() as server:
        before = time.monotonic()
        with Client.of(server) as client:
            assert client.ask().status == 200
            until(lambda: server.last_lived() >= before, timeout=PATIENCE)
        assert server.last_lived() <= time.monotonic()


def test_stopping_is_bounded_whatever_clients_do() -> None:
    """Clients that say nothing, send half a request, announce a body or read nothing hold up no stop."""
    large = Response(200, (), b"x" * 50_000_000)
    server = Server(lambda _request: large, "127.0.0.1", 0)
    server.start()
    with ExitStack() as stack:
        for sent in (b"", b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n", GET, GET * 100, b"?\r\n\r\n"):
            for _ in range(5):
                stack.enter_context(Client.of(server)).send(sent)
        started = time.monotonic()
        server.stop(0.2)
        assert time.monotonic() - started < PATIENCE
        assert server.connections.wait_for_none(0)
