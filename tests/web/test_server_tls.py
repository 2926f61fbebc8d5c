"""The transport over TLS: handshakes that fail or never come, and certificates that change."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from checks.web.certificates import CertificateFiles
from checks.web.http1 import Response
from checks.web.server import Server
from tests.web.clients import GET, PATIENCE, Client, happy, serving


class Authority:
    """A certificate authority with the files that a server is given and the context that a client trusts."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self.files = CertificateFiles(directory / "tls.crt", directory / "tls.key")
        self.client_context = ssl.create_default_context()
        self._ca.configure_trust(self.client_context)
        self.write(self.issue())

    def issue(self) -> trustme.LeafCert:
        """Make a new certificate for the loopback address."""
        return self._ca.issue_cert("127.0.0.1")

    def write(self, certificate: trustme.LeafCert) -> None:
        """Replace both files as a Secret's volume does: each complete at once."""
        for path, pem in (
            (self.files.certificate, certificate.cert_chain_pems[0]),
            (self.files.key, certificate.private_key_pem),
        ):
            new = path.with_suffix(".new")
            new.write_bytes(pem.bytes())
            new.replace(path)

    @contextmanager
    def client(self, server: Server, *, ragged_end: bool = True) -> Iterator[tuple[Client, str]]:
        """Connect over TLS; the client and the serial number of the certificate shown.

        Without ``ragged_end`` the end of the connection without close_notify is an error.
        """
        plain = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        connection = self.client_context.wrap_socket(
            plain, server_hostname="127.0.0.1", suppress_ragged_eofs=ragged_end
        )
        certificate = connection.getpeercert()
        assert certificate
        with Client(connection) as client:
            yield client, str(certificate["serialNumber"])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority of the test's own."""
    return Authority(tmp_path)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged for a person to see."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_requests_are_answered_over_tls(authority: Authority) -> None:
    """A connection is kept over TLS too, and its end is announced by close_notify."""
    with serving(tls=authority.files) as server, authority.client(server, ragged_end=False) as (client, _):
        assert server.name == f"kubenurse-https-{server.port}"
        assert client.ask().status == 200
        assert client.ask(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").status == 200
        assert client.is_closed()


def test_tls_older_than_1_2_is_refused(authority: Authority) -> None:
    """TLS 1.1 is not spoken, 1.2 is."""
    with serving(tls=authority.files) as server:
        context = authority.client_context
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with authority.client(server) as (client, _):
            assert client.ask().status == 200
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = ssl.TLSVersion.TLSv1_1
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"), authority.client(server):
            pass


def test_a_silent_client_holds_up_nobody(authority: Authority) -> None:
    """A client that never begins its handshake does not keep another one from being served."""
    with serving(tls=authority.files, header_timeout=600) as server, Client.of(server) as silent:
        with authority.client(server) as (client, _):
            assert client.ask().status == 200
        silent.socket.settimeout(0)
        with pytest.raises(BlockingIOError):
            silent.socket.recv(1)


def test_a_silent_client_is_closed_in_time(authority: Authority) -> None:
    """A handshake that does not come ends the connection after the time for a request's head."""
    with serving(tls=authority.files, header_timeout=0.1) as server, Client.of(server) as silent:
        assert silent.is_closed()


def test_plain_http_on_the_tls_port_is_told_so(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """A request without TLS gets a 400 that says why, and no line in the log."""
    with serving(tls=authority.files) as server, Client.of(server) as client:
        answer = client.ask()
        assert (answer.status, answer.body) == (400, b"this port speaks HTTPS\n")
        assert client.is_closed()
    assert warnings(caplog) == []


@pytest.mark.parametrize("sent", [b"", b"\x00garbage\r\n", b"\x16\x03\x01"])
def test_failed_handshakes_are_forgotten(authority: Authority, sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """What is neither TLS nor HTTP, or goes away in the middle, frees its place and fills no log."""
    with serving(tls=authority.files) as server:
        with Client.of(server) as client:
            client.send(sent)
            with suppress(OSError):  # garbage may have been answered with the end of the connection by now
                client.socket.shutdown(socket.SHUT_WR)
            client.socket.settimeout(PATIENCE)
            while not client.is_closed():
                pass
        with authority.client(server) as (client, _):
            assert client.ask().status == 200
        assert server.connections.wait_for_none(PATIENCE)
    assert warnings(caplog) == []


def test_a_body_over_tls_does_not_lose_the_answer(authority: Authority) -> None:
    """The answer to a request with a body can be read before the connection ends."""
    with serving(tls=authority.files) as server, authority.client(server) as (client, _):
        answer = client.ask(b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert client.is_closed()


def test_a_large_answer_travels_whole(authority: Authority) -> None:
    """An answer of many TLS records arrives complete."""
    body = bytes(range(256)) * 20_000
    with (
        serving(lambda _request: Response(200, (), body), tls=authority.files) as server,
        authority.client(server) as (client, _),
    ):
        assert client.ask().body == body


def test_a_slow_tls_reader_is_dropped(authority: Authority) -> None:
    """The time to take an answer is bounded over TLS as well."""
    with (
        serving(lambda _: Response(200, (), b"x" * 50_000_000), tls=authority.files, write_timeout=0.2) as server,
        authority.client(server) as (client, _),
    ):
        client.send(GET)
        assert server.connections.wait_for_none(PATIENCE)


def test_a_new_certificate_is_served_and_connections_are_kept(authority: Authority) -> None:
    """After the files change new connections see the new certificate, and the ones from before go on."""
    with serving(tls=authority.files) as server, authority.client(server) as (kept, before):
        assert kept.ask().status == 200
        authority.write(authority.issue())
        with authority.client(server) as (client, after):
            assert client.ask().status == 200
        assert after != before
        assert kept.ask().status == 200


def test_half_written_files_keep_the_old_pair(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """Unusable files are logged once and the pair from before is served until the files are good again."""
    new = authority.issue()
    with serving(tls=authority.files) as server:
        with authority.client(server) as (_, before):
            pass
        # The new certificate is there and its key is not: they do not match.
        authority.files.certificate.write_bytes(new.cert_chain_pems[0].bytes())
        for _ in range(2):
            with authority.client(server) as (client, shown):
                assert client.ask().status == 200
                assert shown == before
        assert warnings(caplog) == ["certificate not reloaded, the one from before stays"]
        authority.files.key.unlink()
        with authority.client(server) as (_, shown):
            assert shown == before
        authority.write(new)
        with authority.client(server) as (_, shown):
            assert shown != before


_SHORT_OF_DESCRIPTORS = """
import contextlib, os, resource, sys
from pathlib import Path
from checks.web.certificates import CertificateFiles, Certificates
from checks.probe.trust import TrustStore

certificate, key = map(Path, sys.argv[1:])
served, trusted = Certificates(CertificateFiles(certificate, key)), TrustStore([certificate], system=False)
before = served.context(), trusted.context()
for file in (certificate, key):
    os.utime(file, (1, 1))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
with contextlib.suppress(OSError):
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
for _ in range(2):
    assert (served.context(), trusted.context()) == before
for descriptor in taken:
    os.close(descriptor)
after = served.context(), trusted.context()
assert after[0] is not before[0] and after[1] is not before[1]
assert (served.context(), trusted.context()) == after
"""


def test_a_shortage_keeps_no_renewed_file_out(authority: Authority) -> None:
    """Files renewed while no descriptor is to be had are read once there is one; the shortage is logged once."""
    files = authority.files.certificate, authority.files.key
    command = [sys.executable, "-c", _SHORT_OF_DESCRIPTORS, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "certificate not reloaded, the one from before stays",
        "CA files not reloaded, the previous ones stay in use",
    ]


def test_stop_ends_tls_connections(authority: Authority) -> None:
    """A kept TLS connection and one without a handshake are both ended by stop()."""
    server = Server(happy, "127.0.0.1", 0, authority.files)
    server.start()
    with authority.client(server) as (kept, _), Client.of(server) as silent:
        assert kept.ask().status == 200
        stopping = threading.Thread(target=server.stop, args=(0.1,))
        stopping.start()
        assert kept.is_closed()
        assert silent.is_closed()
        stopping.join(PATIENCE)
        assert not stopping.is_alive()


def test_missing_files_are_an_error_in_words(tmp_path: Path) -> None:
    """Without a certificate to serve there is no server, and the error names the files."""
    files = CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    with pytest.raises(OSError, match=r"tls\.crt.*No such file"):
        Server(happy, "127.0.0.1", 0, files)


def test_an_encrypted_key_is_an_error_and_asks_nobody(authority: Authority) -> None:
    """A key with a password is refused instead of asking the terminal for it."""
    key = serialization.load_pem_private_key(authority.files.key.read_bytes(), None)
    authority.files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    with pytest.raises(OSError, match=r"tls\.key"):
        Server(happy, "127.0.0.1", 0, authority.files)
