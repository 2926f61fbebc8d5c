"""The service account's files: read anew for each request, and never shown."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from checks.kube.client import KubeApi
from checks.kube.credentials import LONGEST_TOKEN, CredentialsError, ServiceAccount, read_token
from sandbox.certificates import ServiceAccountDirectory
from tests.support.kube import TOKEN, Kube, pages

SECRET = "hunter2-hunter2"


@pytest.fixture
def kube(tmp_path: Path) -> Kube:
    """A cluster's API server and service account; it is not served yet."""
    return Kube(tmp_path)


def test_a_directory_that_cannot_be_looked_into_is_an_error_of_the_requests() -> None:
    """Where the CA file cannot be looked up, the agent starts, says why it sends no token, and trusts no other CA."""
    credentials = ServiceAccount("10.0.0.1", 443, Path("/", 300 * "x"))
    with pytest.raises(CredentialsError, match="File name too long"):
        credentials.headers()
    with pytest.raises(CredentialsError, match="File name too long"):
        credentials.context()


def account(path: Path, host: str = "10.0.0.1", port: int = 443, extra_ca: Path | None = None) -> ServiceAccount:
    """Return the credentials in a directory."""
    return ServiceAccount(host, port, path, extra_ca)


def subjects(context: ssl.SSLContext) -> int:
    """Return how many CAs a context believes in."""
    return len(context.get_ca_certs())


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("10.0.0.1", 443, "https://10.0.0.1:443"),
        ("fd00::1", 6443, "https://[fd00::1]:6443"),
        ("api.example", 443, "https://api.example:443"),
    ],
)
def test_base_url(tmp_path: Path, host: str, port: int, url: str) -> None:
    """The API server's URL has brackets around an IPv6 address; its certificate must name that host."""
    found = account(tmp_path, host, port)
    assert (found.base_url, found.server_name) == (url, None)


def test_the_token_is_read_for_each_request(kube: Kube) -> None:
    """A rotated token is sent from the next request on."""
    found = account(kube.account.path)
    assert found.headers() == {"Authorization": f"Bearer {TOKEN}"}
    kube.account.rotate(token="the-next")
    assert found.headers() == {"Authorization": "Bearer the-next"}


def test_white_space_around_the_token_is_ignored(tmp_path: Path) -> None:
    """The line end that an editor adds is not part of the token."""
    (tmp_path / "token").write_text(f"\n {TOKEN}\r\n")
    assert read_token(tmp_path / "token") == TOKEN


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (f"{SECRET}\nX-Injected: yes".encode(), "not a token"),
        (f"{SECRET} {SECRET}".encode(), "not a token"),
        (f"{SECRET}\u20ac".encode(), "not a token"),
        (b"\xff\xfe\x00", "not a token"),
        (f"{SECRET}\x00".encode(), "not a token"),
        (SECRET.encode() * (LONGEST_TOKEN // len(SECRET) + 1), f"more than {LONGEST_TOKEN} bytes"),
    ],
)
def test_a_malformed_token_is_not_sent(tmp_path: Path, content: bytes, why: str) -> None:
    """A token file without a token is an error that names the file and does not show its content."""
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(CredentialsError) as caught:
        account(tmp_path).headers()
    assert str(caught.value) == f"token file {file}: {why}"


def test_a_token_that_is_missing_or_a_directory(tmp_path: Path) -> None:
    """The error for an unreadable token file says why; the file is read as soon as it exists."""
    found = account(tmp_path)
    file = tmp_path / "token"
    with pytest.raises(CredentialsError, match=f"token file {file}: No such file or directory"):
        found.headers()
    file.mkdir()
    with pytest.raises(CredentialsError, match=f"token file {file}: Is a directory"):
        found.headers()
    file.rmdir()
    file.write_text(TOKEN)
    assert found.headers() == {"Authorization": f"Bearer {TOKEN}"}


def test_a_fifo_or_device_as_token_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO that nobody writes to and a device that never ends are errors; no request waits for them."""
    file = tmp_path / "token"
    os.mkfifo(file)
    with pytest.raises(CredentialsError, match=f"token file {file}: not a regular file"):
        account(tmp_path).headers()
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(CredentialsError, match=f"token file {file}: not a regular file"):
        account(tmp_path).headers()


def test_the_context_always_verifies(kube: Kube) -> None:
    """The certificate's name and chain are verified against the cluster's CA alone."""
    context = account(kube.account.path).context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert subjects(context) == 1


def test_the_context_stays_until_the_ca_changes(kube: Kube, tmp_path: Path) -> None:
    """One context serves all requests until the CA file changes."""
    found = account(kube.account.path)
    before = found.context()
    assert found.context() is before
    kube.account.rotate(ca=kube.authority.pem + Kube(tmp_path / "other").authority.pem)
    after = found.context()
    assert after is not before
    assert subjects(after) == 2


def test_the_extra_ca_counts_as_well(kube: Kube, tmp_path: Path) -> None:
    """A certificate signed by the extra CA is accepted from the API server."""
    other = Kube(tmp_path / "other")
    with other.server:
        found = account(kube.account.path, "127.0.0.1", other.server.port, extra_ca=other.authority.file)
        assert subjects(found.context()) == 2
        assert len(pages(KubeApi(found))) == 1


def test_without_a_ca_file_the_systems_cas_count(tmp_path: Path) -> None:
    """Without a cluster CA, the server is verified against the system's CAs."""
    system = ssl.create_default_context()
    assert subjects(account(tmp_path).context()) == subjects(system)
    assert account(tmp_path).context().verify_mode == ssl.CERT_REQUIRED


def test_a_ca_file_that_cannot_be_used_is_an_error_until_it_can(kube: Kube, tmp_path: Path) -> None:
    """A CA file without a certificate is an error until it is replaced; a later bad version changes nothing."""
    directory = ServiceAccountDirectory(tmp_path / "mine", token=TOKEN, ca="nothing", namespace="default")
    found = account(directory.path)
    with pytest.raises(CredentialsError, match="CA or client certificate file"):
        found.context()
    directory.rotate(ca=kube.authority.pem)
    before = found.context()
    directory.rotate(ca="half a certificate")
    assert found.context() is before
