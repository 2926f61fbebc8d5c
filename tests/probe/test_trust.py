"""Whom a client believes, and how that follows the files on disk: real handshakes with a real server."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from checks.probe.trust import TrustStore
from sandbox.certificates import CertificateAuthority
from sandbox.ingress import Ingress

TIMEOUT = 20.0
HOST = "localhost"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """The authority of the server's certificate."""
    return CertificateAuthority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """An authority that vouches for nothing here."""
    return CertificateAuthority(tmp_path_factory.mktemp("strange-pki"))


@pytest.fixture(scope="module")
def server(authority: CertificateAuthority) -> Iterator[Ingress]:
    """A TLS server; what is behind it does not matter."""
    with Ingress(authority, ("127.0.0.1", 9)) as ingress:
        yield ingress


def believes(context: ssl.SSLContext, server: Ingress, name: str = HOST) -> bool:
    """Whether a handshake with the server succeeds."""
    raw = socket.create_connection((server.address, server.port), TIMEOUT)
    with contextlib.closing(raw):
        try:
            context.wrap_socket(raw, server_hostname=name).close()
        except ssl.SSLCertVerificationError:
            return False
        return True


def replace(path: Path, text: str) -> None:
    """Put new content in place in one step, as a mounted Secret's is."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_believes_in_the_authorities_of_all_its_files(
    tmp_path: Path, authority: CertificateAuthority, stranger: CertificateAuthority, server: Ingress
) -> None:
    """Each file adds to those believed, in whatever order, and one that vouches for nobody here is not enough."""
    assert believes(TrustStore([stranger.file, authority.file], system=False).context(), server)
    assert believes(TrustStore([authority.file, stranger.file], system=True).context(), server)
    assert not believes(TrustStore([stranger.file], system=True).context(), server)
    assert not believes(TrustStore([], system=False).context(), server)


def test_a_certificate_is_verified_for_its_name(authority: CertificateAuthority, server: Ingress) -> None:
    """A certificate of a known authority counts for the names in it only."""
    context = TrustStore([authority.file], system=False).context()
    assert believes(context, server, "127.0.0.1")
    assert not believes(context, server, "kubenurse.example")


def test_without_verification_everything_is_believed(stranger: CertificateAuthority, server: Ingress) -> None:
    """With verify off neither the authority nor the name matters, nor a file that cannot be read."""
    context = TrustStore([stranger.file.with_name("none.crt")], system=True, verify=False).context()
    assert believes(context, server, "kubenurse.example")
    assert context.verify_mode is ssl.CERT_NONE


def test_system_authorities_are_believed_if_asked_for(
    authority: CertificateAuthority, server: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``system`` the authorities that OpenSSL finds by itself (SSL_CERT_FILE names them) count too."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert believes(TrustStore([], system=True).context(), server)
    assert not believes(TrustStore([], system=False).context(), server)


def test_an_authority_that_is_no_root_is_an_anchor(server: Ingress, tmp_path: Path) -> None:
    """The server's own certificate in a CA file makes it believed, without the authority above it."""
    leaf = tmp_path / "leaf.crt"
    leaf.write_text(ssl.get_server_certificate((server.address, server.port)))
    assert believes(TrustStore([leaf], system=False).context(), server)


def test_the_context_stays_while_the_files_do(authority: CertificateAuthority) -> None:
    """As long as nothing changed nothing is read again."""
    store = TrustStore([authority.file], system=False)
    assert store.context() is store.context()


def test_a_changed_file_is_read_again(
    tmp_path: Path, authority: CertificateAuthority, stranger: CertificateAuthority, server: Ingress
) -> None:
    """What a file says now is what counts: added authorities are believed, those gone are not."""
    file = tmp_path / "ca.crt"
    file.write_text(stranger.pem)
    store = TrustStore([file], system=False)
    assert not believes(store.context(), server)
    replace(file, stranger.pem + authority.pem)
    assert believes(store.context(), server)
    replace(file, stranger.pem)
    assert not believes(store.context(), server)


def test_a_change_of_the_same_size_and_second_is_seen(
    tmp_path: Path, authority: CertificateAuthority, stranger: CertificateAuthority
) -> None:
    """A new file under the old name counts as new even with the size and the time of the old one."""
    file = tmp_path / "ca.crt"
    file.write_text(authority.pem)
    store = TrustStore([file], system=False)
    before = store.context()
    found = file.stat()
    new = tmp_path / "new"
    new.write_text(authority.pem)
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))
    new.replace(file)
    assert store.context() is not before


def test_links_are_followed(
    tmp_path: Path, authority: CertificateAuthority, stranger: CertificateAuthority, server: Ingress
) -> None:
    """A Secret's files are links to links; the change of one in the middle is a change of the file."""
    for name, pem in (("one", stranger.pem), ("two", authority.pem)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ca.crt").write_text(pem)
    data = tmp_path / "..data"
    data.symlink_to("one")
    (tmp_path / "ca.crt").symlink_to("..data/ca.crt")
    store = TrustStore([tmp_path / "ca.crt"], system=False)
    assert not believes(store.context(), server)
    link = tmp_path / "..data_tmp"
    link.symlink_to("two")
    link.replace(data)
    assert believes(store.context(), server)


def test_a_missing_file_adds_nothing_until_it_appears(
    tmp_path: Path, authority: CertificateAuthority, server: Ingress
) -> None:
    """A file that is not there is no error; from when it is there it counts, and from when it is gone no more."""
    file = tmp_path / "ca.crt"
    store = TrustStore([file], system=False)
    assert not believes(store.context(), server)
    file.write_text(authority.pem)
    assert believes(store.context(), server)
    file.unlink()
    assert not believes(store.context(), server)


@pytest.mark.parametrize("cut", [lambda pem: "", lambda pem: pem[: len(pem) // 2], lambda pem: "no PEM at all\n"])
def test_a_half_written_file_keeps_the_last_good_context(
    tmp_path: Path,
    authority: CertificateAuthority,
    server: Ingress,
    caplog: pytest.LogCaptureFixture,
    cut: Callable[[str], str],
) -> None:
    """While a file cannot be used the authorities from before go on, which is logged once, until it is whole again."""
    file = tmp_path / "ca.crt"
    file.write_text(authority.pem)
    store = TrustStore([file], system=False)
    assert believes(store.context(), server)
    replace(file, cut(authority.pem))
    assert believes(store.context(), server)
    assert believes(store.context(), server)
    assert warnings_of(caplog) == ["CA files not reloaded, the ones from before go on"]
    replace(file, authority.pem)
    assert believes(store.context(), server)
    assert len(warnings_of(caplog)) == 1


def test_an_unusable_file_is_an_error_at_first(tmp_path: Path, authority: CertificateAuthority) -> None:
    """With nothing from before to go on, an unusable file is the caller's to know, each time until it is mended."""
    file = tmp_path / "ca.crt"
    file.write_text("no PEM at all\n")
    store = TrustStore([file], system=False)
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            store.context()
    replace(file, authority.pem)
    store.context()


def test_a_client_certificate_is_shown_and_followed(
    tmp_path: Path, authority: CertificateAuthority, stranger: CertificateAuthority
) -> None:
    """A server that asks for one gets the client certificate, and after a rotation the new one."""
    server_side = authority.issue("demanding", HOST).server_context()
    server_side.verify_mode = ssl.CERT_REQUIRED
    for ca in (authority, stranger):
        server_side.load_verify_locations(ca.file)
    first, second = authority.issue("client", "one.example"), stranger.issue("client", "two.example")
    shown = tmp_path / "client.crt", tmp_path / "client.key"
    store = TrustStore([authority.file], system=False, client_certificate=shown)
    names = []
    for issued in (first, second):
        replace(shown[1], issued.key.read_text())
        replace(shown[0], issued.chain.read_text())
        names.append(name_shown_to(server_side, store.context()))
    assert names == ["one.example", "two.example"]


def name_shown_to(server_side: ssl.SSLContext, client_side: ssl.SSLContext) -> str:
    """The name in the client's certificate as the server saw it in a handshake over a socket pair."""
    client, server = socket.socketpair()
    found: list[str] = []

    def accept() -> None:
        with server_side.wrap_socket(server, server_side=True) as accepted:
            names = dict(accepted.getpeercert() or {})["subjectAltName"]
            found.append(str(names[0][1]))
            accepted.recv(1)

    thread = threading.Thread(target=accept)
    thread.start()
    with client_side.wrap_socket(client, server_hostname=HOST) as connected:
        connected.send(b"x")
        thread.join(TIMEOUT)
    return found[0]


def test_many_threads_get_one_context(authority: CertificateAuthority) -> None:
    """Those who ask at the same time wait for one build and share it."""
    store = TrustStore([authority.file], system=True)
    barrier = threading.Barrier(8)
    contexts = []

    def ask() -> None:
        barrier.wait(TIMEOUT)
        contexts.append(store.context())

    threads = [threading.Thread(target=ask) for _ in range(barrier.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(contexts) == barrier.parties
    assert len(set(map(id, contexts))) == 1


@pytest.mark.parametrize("file", ["ca.crt", "client.crt", "client.key"])
def test_a_fifo_is_an_error_at_once(tmp_path: Path, authority: CertificateAuthority, file: str) -> None:
    """A FIFO in place of any of the files fails the build instead of waiting for a writer."""
    issued = authority.issue("client", "one.example")
    for name, content in (
        ("ca.crt", authority.pem),
        ("client.crt", issued.chain.read_text()),
        ("client.key", issued.key.read_text()),
    ):
        (tmp_path / name).write_text(content)
    client = tmp_path / "client.crt", tmp_path / "client.key"
    store = TrustStore([tmp_path / "ca.crt"], system=False, client_certificate=client)
    good = store.context()
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file)
    with pytest.raises(OSError, match="not a regular file"):
        TrustStore([tmp_path / "ca.crt"], system=False, client_certificate=client).context()
    assert store.context() is good


def test_comments_in_any_encoding(tmp_path: Path, authority: CertificateAuthority, server: Ingress) -> None:
    """Bytes around the certificates of a bundle, which are no ASCII, do not matter."""
    file = tmp_path / "ca.crt"
    file.write_bytes("# Zertifizierungsstelle für Prüfungen\n".encode("latin-1") + authority.pem.encode())
    assert believes(TrustStore([file], system=False).context(), server)
