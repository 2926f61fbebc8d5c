"""Credentials for the API server, and the CAs that its certificate is verified against.

In a cluster they come from the service account that the kubelet mounts: a token and a CA file. The kubelet replaces
both while the agent runs (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/).
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol

from checks.addresses import host_port
from checks.config.files import read_regular
from checks.probe.trust import TrustStore

# Bytes. The kubelet's tokens have about 1 KB; a much larger file holds something else.
LONGEST_TOKEN = 64 * 1024


class CredentialsError(Exception):
    """The credentials cannot be used; the message names the file and the reason, never the content."""


class KubeconfigError(CredentialsError):
    """The kubeconfig cannot be used; the message says why, never what is secret in it."""


class PackageMissingError(KubeconfigError):
    """The ``kubernetes`` package, which reads kubeconfigs, is not installed."""


class Credentials(Protocol):
    """What a request to the API server needs.

    ``base_url`` is ``https://HOST:PORT`` (IPv6 in brackets), possibly with a path that prefixes all requests.
    ``server_name`` is the name to verify in the server's certificate, None for the host of ``base_url``.
    """

    @property
    def base_url(self) -> str:
        """The API server's address."""
        ...

    @property
    def server_name(self) -> str | None:
        """The name to verify, None for the host of ``base_url``."""
        ...

    def headers(self) -> dict[str, str]:
        """Return the headers that authorize a request now.

        Raises:
            CredentialsError: when no credentials are available.
        """
        ...

    def context(self) -> ssl.SSLContext:
        """Return the TLS client context for a new connection; it always verifies.

        Raises:
            CredentialsError: when a file it needs cannot be used.
        """
        ...


class ServiceAccount:
    """The credentials mounted into a Pod: ``token`` and ``ca.crt`` in ``directory``, read again when they change.

    The agent trusts ``ca.crt`` and ``extra_ca``. It trusts the system's CAs only if ``ca.crt`` is missing at the start.
    """

    server_name: str | None = None

    def __init__(self, host: str, port: int, directory: Path, extra_ca: Path | None = None) -> None:
        self.base_url = base_url(host, port)
        self._token_file = directory / "token"
        ca_file = directory / "ca.crt"
        self._trust = TrustStore([ca_file, *([extra_ca] if extra_ca else [])], system=not _is_there(ca_file))

    def headers(self) -> dict[str, str]:
        """Return the Authorization header with the file's present token.

        Raises:
            CredentialsError: for a token file that is missing, empty or unreadable.
        """
        return bearer(read_token(self._token_file))

    def context(self) -> ssl.SSLContext:
        """Return the context for the present CA files.

        Raises:
            CredentialsError: when a CA file cannot be used and no earlier version of it was usable.
        """
        return trusted_context(self._trust)


def _is_there(path: Path) -> bool:
    """Tell whether the file exists. An unreadable one counts as present, so that the system's CAs are not trusted."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def base_url(host: str, port: int) -> str:
    """Return the URL of an API server; ``host`` may be an IPv6 address without brackets."""
    return f"https://{host_port(host, port)}"


def bearer(token: str) -> dict[str, str]:
    """Return the Authorization header for a token (RFC 6750, section 2.1)."""
    return {"Authorization": f"Bearer {token}"}


def read_token(path: Path) -> str:
    """Return the token in a file, without surrounding white space.

    Raises:
        CredentialsError: when the file is missing, unreadable, no regular file, too long, empty or holds no token.
    """
    try:
        token = read_regular(path, LONGEST_TOKEN).decode("ascii").strip()
    except OSError as error:
        raise CredentialsError(f"token file {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise CredentialsError(f"token file {path}: not a token") from error
    if not token:
        raise CredentialsError(f"token file {path}: empty")
    if not token.isprintable() or " " in token:
        raise CredentialsError(f"token file {path}: not a token")
    return token


def trusted_context(trust: TrustStore) -> ssl.SSLContext:
    """Return a trust store's context.

    Raises:
        CredentialsError: when one of its files exists but cannot be used.
    """
    try:
        return trust.context()
    except OSError as error:
        raise CredentialsError(f"CA or client certificate file: {error}") from error
