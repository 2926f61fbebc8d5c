"""PEM files are checked when the agent starts, so that a wrong file is a configuration error with words."""

from __future__ import annotations

import ssl
from pathlib import Path


def check_certificates(path: Path) -> None:
    """Check that a PEM file holds at least one certificate.

    Raises:
        ValueError: when it cannot be read or holds none.
    """
    _check_readable(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise ValueError("no usable certificate in it, expected a PEM file with certificates") from error
    if not context.cert_store_stats()["x509"]:
        raise ValueError("no certificate in it, expected a PEM file with certificates")


def check_key(key: Path, certificate: Path) -> None:
    """Check that a PEM key can be served with a certificate.

    Raises:
        ValueError: with what is wrong with the key.
    """
    expected = "expected the certificate's PEM private key without a password"

    def no_password() -> str:
        # Without a password function OpenSSL asks on the terminal.
        raise ValueError(f"encrypted, {expected}")

    _check_readable(key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        why = (error.reason or "no private key in it").replace("_", " ").lower()
        raise ValueError(f"cannot be used with KUBENURSE_CERT_FILE ({why}), {expected}") from error


def _check_readable(path: Path) -> None:
    try:
        # Opening a pipe would wait for its writer, so the kind of file is looked at first.
        is_something_else = path.exists() and not path.is_file()
        if not is_something_else:
            path.open("rb").close()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}), expected a PEM file") from error
    if is_something_else:
        raise ValueError("not a file, expected a PEM file")
