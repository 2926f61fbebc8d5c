"""Credentials from a kubeconfig, for running outside a cluster: the one place that imports the ``kubernetes`` package.

That package knows exec plugins, OIDC and client certificates, and costs tens of megabytes: inside a cluster it is
never imported. What it finds out feeds the same client as the service account does.
Format: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import math
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from checks.kube.credentials import LONGEST_TOKEN, CredentialsError, trusted_context
from checks.probe.trust import TrustStore

# As often as client-go reads token files again, in seconds.
READ_AGAIN_AFTER = 60.0
# A plugin that does not say when its token expires is run again after this, in seconds.
PLUGIN_AGAIN_AFTER = 600.0
# The part of its life after which what a plugin gave is renewed, in the background.
RENEW_AT = 0.75
# The least time between two tries, in seconds: a plugin is a process, and many checks ask for credentials.
RETRY_AFTER = 5.0
ISSUER_CA = "idp-certificate-authority"
# How long somebody waits for a renewal while the old credentials are good no more, in seconds.
PATIENCE = 5.0


def seconds_since_boot() -> float:
    """Return a monotonic time that goes on while the machine is suspended, as the life of a token does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class KubeconfigError(CredentialsError):
    """The kubeconfig cannot be used; the message says why, never what is secret in it."""


class PackageMissingError(KubeconfigError):
    """The ``kubernetes`` package, which reads kubeconfigs, is not installed."""


@dataclass(frozen=True, slots=True)
class _Login:
    """What was read at one time. ``renew_at`` and ``good_until`` are seconds of the kubeconfig's clock.

    ``files`` are those of the CA, the client certificate and its key, None for those that are not there.
    """

    context: str
    namespace: str
    base_url: str
    server_name: str | None
    headers: Mapping[str, str] = field(repr=False)
    files: tuple[str | None, str | None, str | None]
    renew_at: float
    good_until: float


class Kubeconfig:
    """The credentials of a kubeconfig's current context. ``namespace`` is the context's, ``default`` without one.

    Made by ``load``. The files are read again after ``READ_AGAIN_AFTER`` seconds, for token files, OIDC tokens and
    certificates that changed; a plugin is run again before what it gave expires. That happens in a thread, one at a
    time, and nobody waits longer than ``patience`` seconds for it, whatever the plugin does. The context and its server
    stay those of the start, so that no credentials go to another server than theirs.
    """

    def __init__(
        self, paths: Sequence[Path], extra_ca: Path | None, clock: Callable[[], float], patience: float
    ) -> None:
        self._paths = os.pathsep.join(map(str, paths))
        self._extra_ca = extra_ca
        self._clock = clock
        self._patience = patience
        # Guards the start of a renewal, and is never held while anything is read or run.
        self._lock = threading.Lock()
        self._renewal: threading.Thread | None = None
        self._failure = ""
        self._login = _read(self._paths, "", clock)
        self._trust = _trust(self._login.files, extra_ca)
        self.namespace = self._login.namespace
        self.base_url = self._login.base_url
        self.server_name = self._login.server_name

    def headers(self) -> dict[str, str]:
        """Return the Authorization header as of now, or nothing where a client certificate is all there is.

        Raises:
            KubeconfigError: when the files cannot be used any more, or a plugin gives nothing in time.
        """
        return dict(self._current().headers)

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection, with the client certificate if there is one; it always verifies.

        Raises:
            CredentialsError: when a file it needs cannot be used.
        """
        self._current()
        return trusted_context(self._trust)

    def _current(self) -> _Login:
        """Return what is good now, renewing it when it is time to."""
        renewal = self._renew_in_time()
        if renewal is not None and self._clock() >= self._login.good_until:
            renewal.join(self._patience)
        login = self._login
        if self._clock() < login.good_until:
            return login
        why = self._failure or f"kubeconfig {self._paths}: no new credentials within {self._patience:g} s"
        raise KubeconfigError(why)

    def _renew_in_time(self) -> threading.Thread | None:
        """Return the renewal under way, starting one when it is due."""
        with self._lock:
            if self._renewal is not None and self._renewal.is_alive():
                return self._renewal
            if self._clock() < self._login.renew_at:
                return None
            self._renewal = threading.Thread(target=self._renew, name="kubeconfig", daemon=True)
            self._renewal.start()
            return self._renewal

    def _renew(self) -> None:
        """Read everything again; what cannot be read is tried again soon."""
        before = self._login
        try:
            login = _read(self._paths, before.context, self._clock)
            if (login.base_url, login.server_name) != (before.base_url, before.server_name):
                raise KubeconfigError(
                    f"kubeconfig {self._paths}: the context has another server now: restart kubenurse"
                )
        except KubeconfigError as error:
            self._failure = str(error)
            self._login = dataclasses.replace(before, renew_at=self._clock() + RETRY_AFTER)
            return
        if login.files != before.files:
            self._trust = _trust(login.files, self._extra_ca)
        self._login, self._failure = login, ""


def load(
    paths: Sequence[Path],
    extra_ca: Path | None = None,
    *,
    clock: Callable[[], float] = seconds_since_boot,
    patience: float = PATIENCE,
) -> Kubeconfig | None:
    """Load the current context of one or more kubeconfig files, merged as kubectl does; None without any file.

    ``extra_ca`` is a PEM file trusted besides the cluster's CA. ``clock`` is monotonic, in seconds; for
    ``patience`` seconds callers wait when the credentials have expired. This first time, a plugin may take as long as
    it likes: it may ask whoever sits at the terminal.

    Raises:
        KubeconfigError: when the ``kubernetes`` package is missing, the files cannot be used, or the API server would
            not be verified: a token travels over verified TLS only.
    """
    found = [path for path in paths if path.is_file()]
    return Kubeconfig(found, extra_ca, clock, patience) if found else None


def _read(paths: str, context: str, clock: Callable[[], float]) -> _Login:
    """Let the package read the files, run the plugin and fetch tokens, and return what it found.

    ``paths`` are joined as in the variable KUBECONFIG; ``context`` is a context's name, empty for the current one.

    Raises:
        KubeconfigError: when that does not lead to credentials over verified TLS.
    """
    with _package_errors(paths) as complaints:
        name, loader, settings, user = _load_context(paths, context)
        configuration = _configuration()
        loader.load_and_set(configuration)
        headers = _headers(configuration.api_key)
        if not headers and not configuration.cert_file:
            why = "; ".join(complaints) or "the context's user has no token and no client certificate"
            raise KubeconfigError(f"kubeconfig {paths}: {why}")
        # Both as of now, and not of before the plugin ran.
        renew_after, good_for = (
            _lifetime(getattr(loader, "expiry", None)) if "exec" in user else (READ_AGAIN_AFTER,) * 2
        )
        return _Login(
            context=name,
            namespace=settings.get("namespace") or "default",
            base_url=configuration.host,
            server_name=getattr(configuration, "tls_server_name", None),
            headers=headers,
            files=(configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file),
            renew_at=clock() + renew_after,
            good_until=clock() + good_for,
        )


def _configuration() -> Any:
    """Return a configuration for the package to fill."""
    from kubernetes.client import Configuration

    return Configuration()


def _load_context(paths: str, context: str) -> tuple[str, Any, Mapping[str, Any], Mapping[str, Any]]:
    """Return a context's name, the package's loader for it, the context's settings and those of its user.

    Nothing is run and nothing fetched before the cluster is known to be asked over verified TLS.

    Raises:
        Exception: whatever the package raises, besides KubeconfigError.
    """
    try:
        from kubernetes.config import kube_config
    except ImportError as error:
        raise PackageMissingError(
            f"kubeconfig {paths}: the kubernetes package, which reads it, is missing: pip install kubernetes"
        ) from error
    package: Any = kube_config  # its functions have no types
    merger = package.KubeConfigMerger(paths)
    # The first file to name a context counts, as for kubectl; the package would take the last one's.
    name = context or next(filter(None, (each.get("current-context") for each in merger.config_files.values())), "")
    if not name:
        raise KubeconfigError(f"kubeconfig {paths}: there is no current-context: kubectl config use-context NAME")
    settings = merger.config["contexts"].get_with_name(name)["context"].value
    cluster = merger.config["clusters"].get_with_name(settings["cluster"])["cluster"]
    _check_cluster(paths, cluster.value)
    found = merger.config["users"].get_with_name(settings.get("user"), safe=True)
    user = (found.value.get("user") or {}) if found else {}
    forget = _verify_issuer(user)

    def save() -> None:
        forget()
        merger.save_changes()

    loader = package.KubeConfigLoader(merger.config, active_context=name, config_persister=save, config_base_path=None)
    return name, loader, settings, user


def _verify_issuer(user: Mapping[str, Any]) -> Callable[[], None]:
    """Let an OIDC issuer without a CA of its own be verified by the system's CAs; return what takes that back.

    The package would send the refresh token without verifying whom it asks where to.
    """
    provider = user.get("auth-provider")
    settings = provider.get("config") if isinstance(provider, dict) else None
    if not isinstance(settings, dict) or any(settings.get(f"{ISSUER_CA}{suffix}") for suffix in ("", "-data")):
        return lambda: None
    before = {name: settings.pop(name) for name in (ISSUER_CA, f"{ISSUER_CA}-data") if name in settings}
    paths = ssl.get_default_verify_paths()
    # The second is where the file would be: a system without one knows no issuer, which the package then says.
    settings[ISSUER_CA] = paths.cafile or paths.openssl_cafile

    def forget() -> None:
        del settings[ISSUER_CA]
        settings.update(before)

    return forget


def _headers(api_key: Mapping[str, str]) -> dict[str, str]:
    """Return the Authorization header of what the package found, which older versions keep under another name.

    Raises:
        ValueError: for what cannot be sent; it is not told.
    """
    value = (api_key.get("BearerToken") or api_key.get("authorization") or "").strip()
    if len(value) > LONGEST_TOKEN or not (value.isascii() and value.isprintable()):
        raise ValueError("the user's token is not a token")
    return {"Authorization": value} if value else {}


def _lifetime(expiry: datetime.datetime | None) -> tuple[float, float]:
    """Return after how many seconds to run a plugin again, and for how many what it gave is good."""
    if expiry is None:
        return PLUGIN_AGAIN_AFTER, math.inf
    left = expiry.timestamp() - time.time()
    return max(RETRY_AFTER, RENEW_AT * left), max(RETRY_AFTER, left)


def _check_cluster(paths: str, cluster: Mapping[str, Any]) -> None:
    """Refuse what would send the credentials over anything but verified TLS, before any plugin is asked for them."""
    if cluster.get("insecure-skip-tls-verify"):
        raise KubeconfigError(
            f"kubeconfig {paths}: insecure-skip-tls-verify is refused, the token travels over verified TLS only: "
            "give the cluster's certificate-authority"
        )
    if not _is_server(cluster.get("server") or ""):
        raise KubeconfigError(f"kubeconfig {paths}: server must be https://HOST[:PORT]")
    if cluster.get("proxy-url"):
        raise KubeconfigError(f"kubeconfig {paths}: proxy-url is not supported, the API server is asked directly")


def _is_server(text: str) -> bool:
    try:
        server = urlsplit(text)
        return server.scheme == "https" and bool(server.hostname) and server.username is None and server.port != 0
    except ValueError:  # brackets that are none, a port that is none
        return False


def _trust(paths: tuple[str | None, str | None, str | None], extra_ca: Path | None) -> TrustStore:
    ca, certificate, key = paths
    files = [*([Path(ca)] if ca else []), *([extra_ca] if extra_ca else [])]
    pair = (Path(certificate), Path(key or certificate)) if certificate else None
    return TrustStore(files, system=not ca, client_certificate=pair)


@contextlib.contextmanager
def _package_errors(paths: str) -> Iterator[list[str]]:
    """Translate what the package raises, and collect what it logs where it should raise (a plugin that fails).

    Its messages name places in the file by what is in them, secrets included: they are cut at the first brace, and the
    original is not kept as the cause.
    """
    handler = _Complaints(logging.ERROR)
    logging.getLogger().addHandler(handler)
    try:
        yield handler.complaints
    except KubeconfigError:
        raise
    except Exception as error:
        raise KubeconfigError(f"kubeconfig {paths}: {_harmless(str(error)) or type(error).__name__}") from None
    finally:
        logging.getLogger().removeHandler(handler)


class _Complaints(logging.Handler):
    """Collects what the package says to the root logger; with a handler there, it configures no logging of its own."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.complaints: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.module == "kube_config":
            self.complaints.append(_harmless(record.getMessage()))


def _harmless(message: str) -> str:
    return " ".join(message.partition("{")[0].split())
