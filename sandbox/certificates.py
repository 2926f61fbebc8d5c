"""The cluster's private certificate authority, and service-account directories as the kubelet writes them."""

from __future__ import annotations

import datetime
import shutil
import ssl
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain and its key, as PEM files."""

    chain: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Make the context of a server that shows this certificate.

        Raises:
            OSError: (``ssl.SSLError`` included) when the files are gone or do not belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context


class CertificateAuthority:
    """A certificate authority whose files are in ``directory``: its own ``ca.crt`` and what it issues.

    Names given to ``issue`` and its siblings are the stems of the files written; the same name overwrites, so what is
    on disk is bounded by the names used.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._authority = trustme.CA(organization_name="kubenurse sandbox")
        self.file = directory / "ca.crt"
        self._authority.cert_pem.write_to_path(self.file)

    @property
    def pem(self) -> str:
        """The authority's own certificate."""
        return self._authority.cert_pem.bytes().decode()

    def issue(self, name: str, *identities: str, not_after: datetime.datetime | None = None) -> Certificate:
        """Issue a certificate for the given host names and IP addresses, by default valid for years."""
        issued = self._authority.issue_cert(*identities, not_after=not_after)
        return self._write(name, b"".join(blob.bytes() for blob in issued.cert_chain_pems), issued.private_key_pem)

    def issue_expired(self, name: str, *identities: str) -> Certificate:
        """Issue a certificate that ended an hour ago."""
        hour = datetime.timedelta(hours=1)
        return self.issue(name, *identities, not_after=datetime.datetime.now(datetime.UTC) - hour)

    def issue_self_signed(self, name: str) -> Certificate:
        """Make a self-signed certificate, which no known authority has signed."""
        stranger = trustme.CA()
        return self._write(name, stranger.cert_pem.bytes(), stranger.private_key_pem)

    def _write(self, name: str, chain: bytes, key: trustme.Blob) -> Certificate:
        written = Certificate(self._directory / f"{name}.crt", self._directory / f"{name}.key")
        written.chain.write_bytes(chain)
        key.write_to_path(written.key)
        return written


class ServiceAccountDirectory:
    """A directory with ``token``, ``ca.crt`` and ``namespace``, which are replaced together, as the kubelet does.

    The files are symbolic links through ``..data``, itself a link to a directory of the current version; a new version
    is put in place by renaming one link, so a reader never sees half of it. Only the current version is kept.
    Source: Kubernetes ``pkg/volume/util/atomic_writer.go``.
    """

    def __init__(self, path: Path, *, token: str, ca: str, namespace: str) -> None:
        path.mkdir(parents=True)
        self.path = path
        self._data = path / "..data"
        self._files = {"token": token, "ca.crt": ca, "namespace": namespace}
        self._publish(self._files)
        for name in self._files:
            (path / name).symlink_to(Path("..data", name))

    @property
    def token(self) -> str:
        """The current token."""
        return self._files["token"]

    def rotate(self, *, token: str | None = None, ca: str | None = None) -> None:
        """Put a new token or CA bundle (PEM) in place, or both in one step."""
        changed = {"token": token, "ca.crt": ca}
        self._files |= {name: text for name, text in changed.items() if text is not None}
        self._publish(self._files)

    def _publish(self, files: Mapping[str, str]) -> None:
        before = self._data.readlink() if self._data.is_symlink() else None
        version = Path(f"..{uuid.uuid4()}")
        (self.path / version).mkdir()
        for name, text in files.items():
            (self.path / version / name).write_text(text, encoding="utf-8")
        link = self.path / "..data_tmp"
        link.symlink_to(version)
        link.replace(self._data)
        if before is not None:
            shutil.rmtree(self.path / before)
