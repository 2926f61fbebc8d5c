"""Trusted authorities, and how they follow the files on disk: real handshakes with a real server."""

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
    """An authority that signed nothing here."""
    return CertificateAuthority(tmp_path_factory.mktemp("strange-pki"))


@pytest.fixture(scope="module")
def server(authority: CertificateAuthority) -> Iterator[Ingress]:
    """A TLS server without a backend."""
    with Ingress(authority, ("127.0.0.1", 9)) as ingress:
        yield ingress


def trusts(context: ssl.SSLContext, server: Ingress, name: str = HOST) -> bool:
    """Whether a handshake with the server succeeds."""
    raw = socket.create_connection((server.address, server.port), TIMEOUT)
    with contextlib.closing(raw):
        try:
            context.wrap_socket(raw, server_hostname=name).close()
        except ssl.SSLCertVerificationError:
            return False
        return True


def replace(path: Path, text: str) -> None:
    """Replace a file in one step, as the kubelet does with a mounted Secret."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The events logged as warnings."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_the_authorities_of_all_files_are_trusted(
    tmp_path: Path, authority: CertificateAuthority, stranger: CertificateAuthority, server: Ingress
) -> None:
    """The authorities of all files are trusted, in any order."""
    assert trusts(TrustStore([stranger.file, authority.file], system=False).context(), server)
    assert trusts(TrustStore([authority.file, stranger.file], system=True).context(), server)
    assert not trusts(TrustStore([stranger.file], system=True).context(), server)
    assert not trusts(TrustStore([], system=False).context(), server)


def test_a_certificate_is_verified_for_its_name(authority: CertificateAuthority, server: Ingress) -> None:
    """A certificate of a known authority is valid for the names in it only."""
    context = TrustStore([authority.file], system=False).context()
    assert trusts(context, server, "127.0.0.1")
    assert not trusts(context, server, "kubenurse.example")


def test_without_verification_everything_is_trusted(stranger: CertificateAuthority, server: Ingress) -> None:
    """With ``verify`` False neither the authority nor the name nor a missing file matters."""
    context = TrustStore([stranger.file.with_name("none.crt")], system=True, verify=False).context()
    assert trusts(context, server, "kubenurse.example")
    assert context.verify_mode is ssl.CERT_NONE


def test_system_authorities_are_trusted_if_asked_for(
    authority: CertificateAuthority, server: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``system`` the authorities that OpenSSL finds (SSL_CERT_FILE names them) are trusted too."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert trusts(TrustStore([], system=True).context(), server)
    assert not trusts(TrustStore([], system=False).context(), server)


def test_an_authority_that_is_no_root_is_an_anchor(server: Ingress, tmp_path: Path) -> None:
    """A server is trusted when its own certificate is in a CA file, without the authority above it."""
    leaf = tmp_path / "leaf.crt"
    leaf.write_text(ssl.get_server_certificate((server.address, server.port)))
    assert trusts(TrustStore([leaf], system=False).context(), server)


def test_the_context_stays_while_the_files_do(authority: CertificateAuthority) -> None:
    """Unchanged files are not read again."""
    store = TrustStore([authority.file], system=False)
    assert store.context() is store.context()


def test_a_changed_file_is_read_again(
    tmp_path: Path, authority: CertificateAuthority, stranger: CertificateAuthority, server: Ingress
) -> None:
    """The current content of a file decides: added authorities are trusted, removed ones are not."""
    file = tmp_path / "ca.crt"
    file.write_text(stranger.pem)
    store = TrustStore([file], system=False)
    assert not trusts(store.context(), server)
    replace(file, stranger.pem + authority.pem)
    assert trusts(store.context(), server)
    replace(file, stranger.pem)
    assert not trusts(store.context(), server)


def test_a_change_of_the_same_size_and_second_is_seen(
    tmp_path: Path, authority: CertificateAuthority, stranger: CertificateAuthority
) -> None:
    """A replaced file is read again even if its size and time are those of the old one."""
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
    """The files of a Secret are links to links; a change of a link in the middle is a change of the file."""
    for name, pem in (("one", stranger.pem), ("two", authority.pem)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ca.crt").write_text(pem)
    data = tmp_path / "..data"
    data.symlink_to("one")
    (tmp_path / "ca.crt").symlink_to("..data/ca.crt")
    store = TrustStore([tmp_path / "ca.crt"], system=False)
    assert not trusts(store.context(), server)
    link = tmp_path / "..data_tmp"
    link.symlink_to("two")
    link.replace(data)
    assert trusts(store.context(), server)


def test_a_missing_file_adds_nothing_until_it_appears(
    tmp_path: Path, authority: CertificateAuthority, server: Ingress
) -> None:
    """A missing file is no error. It counts from the moment it appears until it is removed."""
    file = tmp_path / "ca.crt"
    store = TrustStore([file], system=False)
    assert not trusts(store.context(), server)
    file.write_text(authority.pem)
    assert trusts(store.context(), server)
    file.unlink()
    assert not trusts(store.context(), server)


@pytest.mark.parametrize("cut", [lambda pem: "", lambda pem: pem[: len(pem) // 2], lambda pem: "no PEM at all\n"])
def test_a_half_written_file_keeps_the_last_good_context(
    tmp_path: Path,
    authority: CertificateAuthority,
    server: Ingress,
    caplog: pytest.LogCaptureFixture,
    cut: Callable[[str], str],
) -> None:
    """While a file cannot be used, the previous authorities stay trusted; that is logged once."""
    file = tmp_path / "ca.crt"
    file.write_text(authority.pem)
    store = TrustStore([file], system=False)
    assert trusts(store.context(), server)
    replace(file, cut(authority.pem))
    assert trusts(store.context(), server)
    assert trusts(store.context(), server)
    assert warnings_of(caplog) == ["CA files not reloaded, the previous ones stay in use"]
    replace(file, authority.pem)
    assert trusts(store.context(), server)
    assert len(warnings_of(caplog)) == 1


def test_an_unusable_file_is_an_error_at_first(tmp_path: Path, authority: CertificateAuthority) -> None:
    """An unusable file is an error of each call while there is no previous context."""
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
    """A server that asks for a client certificate gets it, and after a rotation the new one."""
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
    """Concurrent callers share one build."""
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
    """Comments in a bundle may hold any bytes."""
    file = tmp_path / "ca.crt"
    file.write_bytes("# Zertifizierungsstelle für Prüfungen\n".encode("latin-1") + authority.pem.encode())
    assert trusts(TrustStore([file], system=False).context(), server)
