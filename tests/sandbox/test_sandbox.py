"""The parts of the sandbox, each alone: certificates, Service and ingress."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from checks.probe.trust import TrustStore
from sandbox.certificates import CertificateAuthority, ServiceAccountDirectory
from sandbox.ingress import ELSEWHERE, Fault, Ingress
from sandbox.listener import MAX_CONNECTIONS, Listener, reset
from sandbox.service import Address, Service
from tests.support.process import ADDRESS, free_port

TIMEOUT = 20.0


class Backend(Listener):
    """Hands each connection to a function."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        super().__init__("test-backend", "127.0.0.1")
        self.handle_one = handle

    def handle_connection(self, connection: socket.socket, client_address: Any) -> None:
        """Hand it over, to be closed in the end."""
        connection.settimeout(TIMEOUT)
        with self.track(connection):
            self.handle_one(connection)


def address_of(server: Listener) -> Address:
    """Where it listens."""
    return server.address, server.port


def everything(connection: socket.socket) -> bytes:
    """All bytes up to the peer's end."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def connect(server: Listener) -> socket.socket:
    """A connection to it."""
    return socket.create_connection(address_of(server), TIMEOUT)


def say_nothing(connection: socket.socket) -> None:
    """Takes everything and answers nothing."""
    everything(connection)


def echo_after_the_end(name: bytes) -> Callable[[socket.socket], None]:
    """Answers only when the client has ended its side: an echo across a half-closed connection."""

    def handle(connection: socket.socket) -> None:
        connection.sendall(name + everything(connection))

    return handle


def is_reset(server: Listener) -> bool:
    """Whether a connection that asks something is reset."""
    try:
        with contextlib.closing(connect(server)) as client:
            client.sendall(b"anybody there?")
            return client.recv(1) != b""
    except ConnectionError:
        return True


def closed_port() -> Address:
    """An address that nobody listens on."""
    return ADDRESS, free_port()


# Certificates


def test_service_account_rotation_is_seen_through_the_same_paths(tmp_path: Path) -> None:
    """A rotated token and CA are read from the paths as before, and nothing of the old version is left."""
    account = ServiceAccountDirectory(tmp_path / "account", token="one", ca="first CA", namespace="here")
    token_file = account.path / "token"
    assert (token_file.read_text(), (account.path / "namespace").read_text()) == ("one", "here")
    before = token_file.resolve()
    account.rotate(token="two", ca="second CA")
    assert (token_file.read_text(), (account.path / "ca.crt").read_text()) == ("two", "second CA")
    assert (account.path / "namespace").read_text() == "here"
    assert account.token == "two"
    assert not before.exists()
    assert sorted(path.name for path in account.path.iterdir() if not path.name.startswith("..")) == [
        "ca.crt",
        "namespace",
        "token",
    ]
    assert len(list(account.path.glob("..*"))) == 2, "the current version, and the link to it"


def test_rotated_ca_changes_what_a_client_trusts(tmp_path: Path) -> None:
    """A client that follows ca.crt trusts the new authority after the rotation, and the old one no more."""
    old, new = CertificateAuthority(tmp_path / "old"), CertificateAuthority(tmp_path / "new")
    account = ServiceAccountDirectory(tmp_path / "account", token="t", ca=old.pem, namespace="n")
    trust = TrustStore([account.path / "ca.crt"], system=False)
    with Ingress(new, closed_port()) as ingress:
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(ingress, trust.context())
        account.rotate(ca=new.pem)
        assert ask(ingress, trust.context()).status == 502
        ingress.show(old.issue("back", "localhost"))
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(ingress, trust.context())


# Service


def test_service_spreads_connections_over_all_backends() -> None:
    """Among many new connections every backend gets some."""
    with (
        Backend(echo_after_the_end(b"a")) as one,
        Backend(echo_after_the_end(b"b")) as other,
        Service(lambda: [address_of(one), address_of(other)]) as service,
    ):
        seen = set()
        for _ in range(64):
            with contextlib.closing(connect(service)) as client:
                client.shutdown(socket.SHUT_WR)
                seen.add(everything(client))
    assert seen == {b"a", b"b"}, "a fair spreader misses one with a probability of 2 ** -63"


def test_service_copies_both_ways_and_passes_the_half_close_on() -> None:
    """A client may end its side and then gets an answer of any size, unharmed."""
    payload = bytes(range(256)) * 4096
    with (
        Backend(echo_after_the_end(b"")) as backend,
        Service(lambda: [address_of(backend)]) as service,
        contextlib.closing(connect(service)) as client,
    ):
        client.sendall(payload)
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == payload


def test_service_resets_when_its_backend_is_dead() -> None:
    """A connection that was given a dead backend is reset, and so is one for which there is no backend at all."""
    backends = [closed_port()]
    with Service(lambda: backends) as service:
        assert is_reset(service)
        backends.clear()
        assert is_reset(service)


def test_service_passes_a_reset_on() -> None:
    """A backend that resets a connection resets it for the client."""

    def break_off(connection: socket.socket) -> None:
        connection.recv(1)
        reset(connection)

    with Backend(break_off) as backend, Service(lambda: [address_of(backend)]) as service:
        assert is_reset(service)


def test_connections_over_the_limit_are_reset_and_stop_ends_the_rest() -> None:
    """As many connections as allowed are served, the next is reset, and stopping ends all of them."""
    arrived = threading.Semaphore(0)

    def hold(connection: socket.socket) -> None:
        arrived.release()
        everything(connection)

    with contextlib.ExitStack() as clients:
        server = Backend(hold)
        with server:
            opened = [clients.enter_context(contextlib.closing(connect(server))) for _ in range(MAX_CONNECTIONS)]
            for _ in opened:
                assert arrived.acquire(timeout=TIMEOUT)
            assert is_reset(server)
        assert [client.recv(1) for client in opened] == [b""] * len(opened)


def test_stop_without_start_closes_the_port() -> None:
    """A server that never began to accept can be stopped, too."""
    server = Backend(lambda connection: None)
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        connect(server)


# Ingress


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """The authority behind the ingress."""
    return CertificateAuthority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def trusting(authority: CertificateAuthority) -> ssl.SSLContext:
    """The TLS context of a client that believes in it."""
    return TrustStore([authority.file], system=False).context()


class Web(Backend):
    """Gives one answer to every request and remembers the heads of the requests."""

    def __init__(
        self, answer: bytes = b"HTTP/1.1 200 OK\r\nKUBENURSE-POD: p\r\nContent-Length: 5\r\n\r\nhello"
    ) -> None:
        super().__init__(self.answer_one)
        self.answer = answer
        self.heads: list[str] = []

    def answer_one(self, connection: socket.socket) -> None:
        """Answer one request."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(65536)
        self.heads.append(head.decode().lower())
        if not self.answer:
            reset(connection)
        # What an answer to HEAD leaves out.
        head_only = head.startswith(b"HEAD")
        connection.sendall(self.answer.partition(b"hello")[0] if head_only else self.answer)


@pytest.fixture
def web() -> Iterator[Web]:
    """What is behind the ingress."""
    with Web() as server:
        yield server


@pytest.fixture
def ingress(authority: CertificateAuthority, web: Web) -> Iterator[Ingress]:
    """An ingress that serves."""
    with Ingress(authority, address_of(web)) as server:
        yield server


def ask(
    ingress: Ingress, context: ssl.SSLContext, path: str = "/alwayshappy", method: str = "GET"
) -> http.client.HTTPResponse:
    """One request over a connection of its own; the body has been read."""
    with contextlib.closing(https(ingress, context)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        answer.read()
        return answer


def https(ingress: Ingress, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    """A connection to the ingress, opened with its first request."""
    return http.client.HTTPSConnection(ingress.host, ingress.port, timeout=TIMEOUT, context=context)


def test_ingress_passes_requests_and_answers_on(ingress: Ingress, web: Web, trusting: ssl.SSLContext) -> None:
    """Over one kept TLS connection each request reaches the Service, with who sent it, and its answer comes back."""
    with contextlib.closing(https(ingress, trusting)) as connection:
        for path in ("/one", "/two"):
            connection.request("GET", path, headers={"KUBENURSE-NEIGHBOUR-ORIGIN": "me"})
            sock = connection.sock
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("KUBENURSE-POD"), answer.read()) == (200, "p", b"hello")
            assert connection.sock is sock
    assert [head.split()[1] for head in web.heads] == ["/one", "/two"]
    for line in ("kubenurse-neighbour-origin: me", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: https"):
        assert f"{line}\r\n" in web.heads[0]
    assert f"x-forwarded-host: localhost:{ingress.port}\r\n" in web.heads[0]


def test_ingress_keeps_the_length_in_the_answer_to_head(ingress: Ingress, trusting: ssl.SSLContext) -> None:
    """HEAD is passed on as HEAD and its answer tells the length that GET would have."""
    assert ask(ingress, trusting, method="HEAD").getheader("Content-Length") == "5"


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", b"nonsense\r\n\r\n"]
)
def test_ingress_answers_502_when_the_service_breaks_off(
    ingress: Ingress, web: Web, trusting: ssl.SSLContext, answer: bytes
) -> None:
    """A Service that resets, breaks off or talks nonsense is a bad gateway."""
    web.answer = answer
    assert ask(ingress, trusting).status == 502


def test_ingress_answers_502_while_the_service_is_away(ingress: Ingress, web: Web, trusting: ssl.SSLContext) -> None:
    """Without a Service the answer is 502, and with it again the Service's."""
    there, ingress.upstream = ingress.upstream, closed_port()
    assert ask(ingress, trusting).status == 502
    ingress.upstream = there
    assert ask(ingress, trusting).status == 200


def test_ingress_answers_504_when_the_service_hangs(authority: CertificateAuthority, trusting: ssl.SSLContext) -> None:
    """A Service that takes the request and says nothing is a gateway timeout."""
    with (
        Backend(say_nothing) as silent,
        Ingress(authority, address_of(silent)) as ingress,
    ):
        ingress.upstream_timeout = 0.05
        assert ask(ingress, trusting).status == 504


def test_redirects(ingress: Ingress, trusting: ssl.SSLContext) -> None:
    """Redirects lead to another host, to the same host where it works then, or in a circle."""
    here = f"https://localhost:{ingress.port}/alwayshappy"
    expected = {
        Fault.REDIRECT_ELSEWHERE: ELSEWHERE,
        Fault.REDIRECT_HERE: f"{here}?redirected",
        Fault.REDIRECT_LOOP: here,
    }
    for fault, location in expected.items():
        ingress.fault = fault
        answer = ask(ingress, trusting)
        assert (answer.status, answer.getheader("Location")) == (302, location)
    ingress.fault = Fault.REDIRECT_HERE
    assert ask(ingress, trusting, "/alwayshappy?redirected").status == 200


def test_bad_gateway_and_recovery(ingress: Ingress, trusting: ssl.SSLContext) -> None:
    """A fault holds as long as it is set."""
    ingress.fault = Fault.BAD_GATEWAY
    assert ask(ingress, trusting).status == 502
    ingress.fault = Fault.NONE
    assert ask(ingress, trusting).status == 200


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault.EXPIRED, "certificate has expired"),
        (Fault.SELF_SIGNED, "self-signed certificate"),
        (Fault.WRONG_NAME, "Hostname mismatch"),
    ],
)
def test_bad_certificates(ingress: Ingress, trusting: ssl.SSLContext, fault: Fault, words: str) -> None:
    """Each wrong certificate is wrong in its own way only."""
    ingress.fault = fault
    with pytest.raises(ssl.SSLCertVerificationError, match=words):
        ask(ingress, trusting)


def test_a_request_that_hangs_ends_with_the_ingress(ingress: Ingress, trusting: ssl.SSLContext) -> None:
    """A client that waits for an answer gets nothing until the ingress is stopped, which does not wait for it."""
    ingress.fault = Fault.HANG
    with contextlib.closing(https(ingress, trusting)) as connection:
        connection.request("GET", "/")
        connection.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.sock.recv(1)
        ingress.stop()
        assert rest(connection.sock) == b""


def test_a_slow_header_dribbles_until_the_ingress_ends(ingress: Ingress, trusting: ssl.SSLContext) -> None:
    """The slow header keeps coming a byte at a time until the ingress is stopped, and never ends as a header does."""
    ingress.fault = Fault.SLOW_HEADERS
    with contextlib.closing(https(ingress, trusting)) as connection:
        connection.request("GET", "/")
        received = b""
        while not received.endswith(b"sss"):
            received += connection.sock.recv(1)
        assert received.startswith(b"HTTP/1.1 200 OK\r\nX-Slow: s")
        ingress.stop()
        assert set(rest(connection.sock)) <= set(b"s")


def rest(connection: socket.socket) -> bytes:
    """What still comes until the other side has ended, in an orderly way or not."""
    connection.settimeout(TIMEOUT)
    received = b""
    # TimeoutError, which is an OSError too, is no end.
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := connection.recv(65536):
            received += data
    return received


def test_cut_answers(ingress: Ingress, trusting: ssl.SSLContext) -> None:
    """An answer ends within its header or within its body."""
    ingress.fault = Fault.CUT_HEAD
    with contextlib.closing(https(ingress, trusting)) as connection:
        connection.request("GET", "/")
        raw = b""
        with contextlib.suppress(ssl.SSLEOFError):
            while more := connection.sock.recv(4096):
                raw += more
        assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\n\r\n" not in raw
    ingress.fault = Fault.CUT_BODY
    with pytest.raises((http.client.IncompleteRead, ssl.SSLEOFError)):
        ask(ingress, trusting)


def test_a_silent_client_does_not_block_another(ingress: Ingress, trusting: ssl.SSLContext) -> None:
    """While one client connects and says nothing, another is served."""
    with contextlib.closing(connect(ingress)), contextlib.closing(connect(ingress)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert ask(ingress, trusting).status == 200
