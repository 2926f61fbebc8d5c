"""Trusted certificates: TLS client contexts that follow their CA files as those change."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

from checks.config.files import read_regular
from checks.probe.reloading import Reloading, file_signature

__all__ = ["TrustStore", "file_signature", "load_certificate"]

log = logging.getLogger("kubenurse.trust")

# In bytes. The CA bundles of distributions have 200 to 250 KB.
LONGEST_CA_FILE = 4 * 1024 * 1024
LONGEST_CERTIFICATE_FILE = 1024 * 1024


class TrustStore:
    """A TLS client context over the system's CAs (if ``system``) and the PEM files given, rebuilt when a file changes.

    A missing file adds nothing until it appears. With ``verify`` False nothing is verified: only for endpoints where
    the user said so. ``client_certificate`` is the (certificate, key) pair of PEM files to show to servers.
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
        self._contexts = Reloading((*self._ca_files, *(client_certificate or ())), self._build, _complain)

    def context(self) -> ssl.SSLContext:
        """Return the context for the files as they are now; while they cannot be used, the one from before.

        Raises:
            OSError: (``ssl.SSLError`` included) at the first build, when a file is there but cannot be used.
        """
        return self._contexts.current()

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
                _add_authorities(context, path)
        if self._client_certificate:
            load_certificate(context, *self._client_certificate)
        return context


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Let a context show the certificate (with its chain) and key of two PEM files.

    Only regular files of bounded size are read, so that neither a FIFO nor a device makes this wait.

    Raises:
        OSError: (``ssl.SSLError`` included) when they cannot be used.
    """
    with _in_memory(certificate) as shown, _in_memory(key) as private:
        # Without a password OpenSSL would ask the terminal for that of an encrypted key, and wait.
        context.load_cert_chain(shown, private, password="")


@contextlib.contextmanager
def _in_memory(path: Path) -> Iterator[str]:
    """Give the ``with`` block a file name under which OpenSSL finds what the file holds now: it reads files by name."""
    content = read_regular(path, LONGEST_CERTIFICATE_FILE)
    if not hasattr(os, "memfd_create"):  # not Linux
        yield str(path)
        return
    with open(os.memfd_create("kubenurse"), "wb") as file:  # noqa: PTH123 # a descriptor has no path
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _add_authorities(context: ssl.SSLContext, path: Path) -> None:
    try:
        pem = read_regular(path, LONGEST_CA_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return
    # Comments in a bundle may be in any encoding. Certificates are ASCII, and so is all that OpenSSL takes here.
    text = "".join(char if char.isascii() else "?" for char in pem.decode("latin-1"))
    try:
        context.load_verify_locations(cadata=text)
    except ssl.SSLError as error:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"no usable certificate in {path}") from error
    except ValueError as error:  # an empty file
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"no certificate in {path}") from error


def _complain(why: str) -> None:
    log.warning("CA files not reloaded, the previous ones stay in use", extra={"facts": {"why": why}})
