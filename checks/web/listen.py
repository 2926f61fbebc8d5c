"""Opens the agent's ports, and says in the user's terms why one cannot be opened."""

from __future__ import annotations

import errno
from collections.abc import Callable

from checks.config.settings import Config
from checks.web.certificates import CertificateFiles
from checks.web.http1 import Request, Response
from checks.web.server import Server


class StartError(Exception):
    """The agent cannot start; the message says which variable is in the way."""


def open_servers(
    config: Config, respond: Callable[[Request], Response], on_death: Callable[[str, BaseException], None]
) -> list[Server]:
    """Bind the configured ports; the servers returned are still to be started.

    Raises:
        StartError: when a port cannot be bound; no port is open then.
    """
    servers = [_bind(config, "KUBENURSE_PORT", config.port, None, respond, on_death)]
    if config.use_tls and config.cert_file and config.cert_key:
        files = CertificateFiles(config.cert_file, config.cert_key)
        try:
            servers.append(_bind(config, "KUBENURSE_TLS_PORT", config.tls_port, files, respond, on_death))
        except StartError:
            servers[0].stop()
            raise
    return servers


def _bind(
    config: Config,
    variable: str,
    port: int,
    tls: CertificateFiles | None,
    respond: Callable[[Request], Response],
    on_death: Callable[[str, BaseException], None],
) -> Server:
    address = config.listen_address
    try:
        return Server(respond, address, port, tls, on_death=on_death)
    except OSError as error:
        why = error.strerror or error
        if error.errno == errno.EADDRNOTAVAIL:
            raise StartError(
                f"KUBENURSE_LISTEN_ADDRESS='{address}': {why}, expected an address of this machine"
            ) from error
        raise StartError(f"{variable}='{port}': {why}, expected a free port that this user may bind") from error
