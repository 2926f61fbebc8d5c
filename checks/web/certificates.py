"""The certificate that the agent serves, followed as its files change."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from checks.probe.trust import file_signature

log = logging.getLogger("kubenurse.server")


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where the served certificate (with its chain) and its key are, PEM; they may be replaced at any time."""

    certificate: Path
    key: Path


class Certificates:
    """The TLS context for new connections, rebuilt when one of the files changes.

    Used by the accepting thread only. Connections keep the context they began with.
    """

    def __init__(self, files: CertificateFiles) -> None:
        """Read the files.

        Raises:
            OSError: when they cannot be used; it says why.
        """
        self._files = files
        self._signature = self._files_now()
        self._complaint = ""
        try:
            self._context = self._build()
        except OSError as error:
            raise OSError(f"certificate {files.certificate} with key {files.key}: {in_words(error)}") from error

    def context(self) -> ssl.SSLContext:
        """Return the context for the files as they are now; while they cannot be used, the one from before."""
        signature = self._files_now()
        if signature != self._signature:
            try:
                self._context = self._build()
            except OSError as error:
                self._complain(error)
                # What is in the files stays wrong until they change; what the system lacks may be there the next time.
                if isinstance(error, ssl.SSLError):
                    self._signature = signature
            else:
                self._signature, self._complaint = signature, ""
                log.info("certificate reloaded", extra={"facts": {"certificate": str(self._files.certificate)}})
        return self._context

    def _complain(self, error: OSError) -> None:
        why = in_words(error)
        if why != self._complaint:
            facts = {"certificate": str(self._files.certificate), "why": why}
            log.warning("certificate not reloaded, the one from before stays", extra={"facts": facts})
        self._complaint = why

    def _files_now(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(file_signature(path) for path in (self._files.certificate, self._files.key))

    def _build(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        # Without a password OpenSSL would ask the terminal for that of an encrypted key, and wait.
        context.load_cert_chain(self._files.certificate, self._files.key, password="")
        return context


def in_words(error: OSError) -> str:
    """Return what the system says went wrong."""
    return error.strerror or str(error)
