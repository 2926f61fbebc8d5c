"""How this agent shows itself to the API server, and how it knows that it is the API server.

In a cluster that is the service account that the kubelet mounts: a token and a CA file, both replaced while the agent
runs (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/).
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol

from checks.addresses import host_port
from checks.probe.trust import TrustStore

# The kubelet's tokens are about 1 KB; a file much larger is something else and doesn't go into a header.
LONGEST_TOKEN = 64 * 1024


class CredentialsError(Exception):
    """The credentials cannot be used; the message says which file and why, never what is in it."""


class Credentials(Protocol):
    """What a request to the API server takes.

    ``base_url`` is ``https://HOST:PORT`` (IPv6 in brackets), possibly with a path that all requests are below.
    ``server_name`` is the name in the server's certificate where it is not the host, else None.
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
        """Return the headers that authorize a request, as of now.

        Raises:
            CredentialsError: when there are none to be had.
        """
        ...

    def context(self) -> ssl.SSLContext:
        """Return the TLS client context for a new connection; it always verifies.

        Raises:
            CredentialsError: when a file it needs cannot be used.
        """
        ...


class ServiceAccount:
    """The credentials mounted into a Pod: ``token`` and ``ca.crt`` in ``directory``, read again as they rotate.

    Trusted are ``ca.crt`` and ``extra_ca``; the system's CAs only if there is no ``ca.crt`` at the start.
    """

    server_name: str | None = None

    def __init__(self, host: str, port: int, directory: Path, extra_ca: Path | None = None) -> None:
        self.base_url = base_url(host, port)
        self._token_file = directory / "token"
        ca_file = directory / "ca.crt"
        self._trust = TrustStore([ca_file, *([extra_ca] if extra_ca else [])], system=not _is_there(ca_file))

    def headers(self) -> dict[str, str]:
        """Return the Authorization header with the token that the file holds now.

        Raises:
            CredentialsError: for a token file that is missing, empty or unreadable.
        """
        return bearer(read_token(self._token_file))

    def context(self) -> ssl.SSLContext:
        """Return the context for the CA files as they are now.

        Raises:
            CredentialsError: when a CA file is there but cannot be used, and no earlier version of it could.
        """
        return trusted_context(self._trust)


def _is_there(path: Path) -> bool:
    """Tell whether there is something of this name; what may not be looked at is, and no reason to believe others."""
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
    """Return the token in a file, without the space around it.

    Raises:
        CredentialsError: when the file is missing, empty, unreadable or holds no token.
    """
    try:
        with path.open(encoding="ascii") as file:
            token = file.read(LONGEST_TOKEN + 1).strip()
    except OSError as error:
        raise CredentialsError(f"token file {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise CredentialsError(f"token file {path}: not a token") from error
    if not token:
        raise CredentialsError(f"token file {path}: empty")
    if len(token) > LONGEST_TOKEN or not token.isprintable() or " " in token:
        raise CredentialsError(f"token file {path}: not a token")
    return token


def trusted_context(trust: TrustStore) -> ssl.SSLContext:
    """Return a trust store's context.

    Raises:
        CredentialsError: when one of its files is there but cannot be used.
    """
    try:
        return trust.context()
    except OSError as error:
        raise CredentialsError(f"CA or client certificate file: {error}") from error
