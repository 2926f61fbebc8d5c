"""Whose certificates are believed: TLS client contexts that follow their CA files as those change."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger("kubenurse.trust")

Signature = tuple[tuple[int, int, int] | None, ...]


class TrustStore:
    """A TLS client context over the system's CAs (if ``system``) and the PEM files given, rebuilt when a file changes.

    A file that is missing adds nothing until it appears. With ``verify`` False nothing is verified: only for endpoints
    where the user said so. ``client_certificate`` is the (certificate, key) pair of PEM files to show to servers.
    """

    def __init__(
        self,
        ca_files: Sequence[Path],
        *,
        system: bool,
        verify: bool = True,
        client_certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self._ca_files = tuple(ca_files)
        self._system = system
        self._verify = verify
        self._client_certificate = client_certificate
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._signature: Signature = ()
        self._complaint = ""

    def context(self) -> ssl.SSLContext:
        """Return the context for the files as they are now.

        While a changed file cannot be read (half written, say) the context from before goes on; that is logged once.

        Raises:
            OSError: (``ssl.SSLError`` included) at the first build, when a file is there but cannot be used.
        """
        signature = self._files_now()
        # Held while files are read: to read the system's CAs takes long, and whoever waits here needs the same context.
        with self._lock:
            if self._context is None:
                self._context = self._build()
            elif signature != self._signature:
                try:
                    self._context = self._build()
                    self._complaint = ""
                except OSError as error:
                    self._complain(str(error))
                    # What is in the files stays wrong until they change; what the system lacks may be there next time.
                    if not isinstance(error, ssl.SSLError):
                        return self._context
            self._signature = signature
            return self._context

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            log.warning("CA files not reloaded, the ones from before go on", extra={"facts": {"why": why}})
        self._complaint = why

    def _files_now(self) -> Signature:
        return tuple(file_signature(path) for path in (*self._ca_files, *(self._client_certificate or ())))

    def _build(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # VERIFY_X509_PARTIAL_CHAIN lets a trusted intermediate or leaf in a CA file be an anchor, as Go does.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            if self._system:
                context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            for path in self._ca_files:
                if path.is_file():
                    context.load_verify_locations(cafile=path)
        if self._client_certificate:
            certificate, key = self._client_certificate
            # Without a password OpenSSL would ask the terminal for that of an encrypted key, and wait.
            context.load_cert_chain(certificate, key, password="")
        return context


def file_signature(path: Path) -> tuple[int, int, int] | None:
    """Return what tells one version of a file from the next; a Secret's symbolic links are followed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
