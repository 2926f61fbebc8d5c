"""The ingress of the sandbox, alone."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.probe.trust import TrustStore
from sandbox.certificates import CertificateAuthority, ServiceAccountDirectory
from sandbox.ingress import ELSEWHERE, Fault, Ingress
from sandbox.listener import reset
from tests.sandbox.backend import TIMEOUT, Backend, address_of, closed_port, connect, say_nothing


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """The authority behind the ingress."""
    return CertificateAuthority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def trusting(authority: CertificateAuthority) -> ssl.SSLContext:
    """The TLS context of a client that trusts it."""
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
    """The server behind the ingress."""
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
    """Over one TLS connection each request reaches the Service, with the client's address, and is answered."""
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
    """When the Service resets, breaks off or sends no HTTP, the answer is 502."""
    web.answer = answer
    assert ask(ingress, trusting).status == 502


def test_ingress_answers_502_while_the_service_is_away(ingress: Ingress, web: Web, trusting: ssl.SSLContext) -> None:
    """Without a Service the answer is 502; later the Service answers again."""
    there, ingress.upstream = ingress.upstream, closed_port()
    assert ask(ingress, trusting).status == 502
    ingress.upstream = there
    assert ask(ingress, trusting).status == 200


def test_ingress_answers_504_when_the_service_hangs(authority: CertificateAuthority, trusting: ssl.SSLContext) -> None:
    """When the Service does not answer, the ingress answers 504."""
    with (
        Backend(say_nothing) as silent,
        Ingress(authority, address_of(silent)) as ingress,
    ):
        ingress.upstream_timeout = 0.05
        assert ask(ingress, trusting).status == 504


def test_redirects(ingress: Ingress, trusting: ssl.SSLContext) -> None:
    """Redirects lead to another host, to the same host, or in a loop."""
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
    """A fault lasts as long as it is set."""
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
    """Each bad certificate has exactly one fault."""
    ingress.fault = fault
    with pytest.raises(ssl.SSLCertVerificationError, match=words):
        ask(ingress, trusting)


def test_a_request_that_hangs_ends_with_the_ingress(ingress: Ingress, trusting: ssl.SSLContext) -> None:
    """A client that waits gets no answer; stopping the ingress does not wait for it."""
    ingress.fault = Fault.HANG
    with contextlib.closing(https(ingress, trusting)) as connection:
        connection.request("GET", "/")
        connection.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.sock.recv(1)
        ingress.stop()
        assert rest(connection.sock) == b""


def test_a_slow_header_dribbles_until_the_ingress_ends(ingress: Ingress, trusting: ssl.SSLContext) -> None:
    """The slow header comes byte by byte until the ingress is stopped, and never ends."""
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
    """Return the remaining bytes until the other side has ended, in an orderly way or not."""
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
    """While one client sends nothing, another one is served."""
    with contextlib.closing(connect(ingress)), contextlib.closing(connect(ingress)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert ask(ingress, trusting).status == 200


def test_rotated_ca_changes_what_a_client_trusts(tmp_path: Path) -> None:
    """After the rotation, a client that reads ca.crt again trusts the new authority only."""
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
