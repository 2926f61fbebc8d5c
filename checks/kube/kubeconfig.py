"""Credentials from a kubeconfig, for running outside a cluster.

The ``kubernetes`` package reads them (``kubeconfig_login``). It knows exec plugins, OIDC and client certificates, and
costs tens of megabytes: inside a cluster it is never imported. What it finds feeds the same client as the service
account does.
"""

from __future__ import annotations

import dataclasses
import os
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from checks.kube.credentials import KubeconfigError, PackageMissingError, trusted_context
from checks.probe.trust import TrustStore

if TYPE_CHECKING:
    from checks.kube.kubeconfig_login import Login

__all__ = ["Kubeconfig", "KubeconfigError", "PackageMissingError", "load"]

# Seconds that a caller waits for a renewal when the old credentials are good no more; the agent's end waits as long.
PATIENCE = 2.0


def seconds_since_boot() -> float:
    """Return a monotonic time that goes on while the machine is suspended, as the life of a token does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Kubeconfig:
    """The credentials of a kubeconfig's current context. ``namespace`` is the context's, ``default`` without one.

    Made by ``load``. The files are read again after ``READ_AGAIN_AFTER`` seconds, for token files, OIDC tokens and
    certificates that changed; a plugin is run again before what it gave expires. That happens in a thread, one at a
    time, and no caller waits longer than ``patience`` seconds for it, whatever the plugin does. The context and its
    server stay those of the start, so that no credentials go to another server than theirs.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        extra_ca: Path | None,
        clock: Callable[[], float],
        patience: float,
        start_thread: Callable[[threading.Thread], None],
    ) -> None:
        from checks.kube.kubeconfig_login import log_in

        self._log_in = log_in
        self._paths = tuple(paths)
        self._extra_ca = extra_ca
        self._clock = clock
        self._patience = patience
        self._start_thread = start_thread
        # Guards who begins a renewal. It is never held while a thread is started, or anything is read or run.
        self._lock = threading.Lock()
        # Set at the end of the renewal under way; None while there is none.
        self._renewal: threading.Event | None = None
        self._failure = ""
        self._login = log_in(self._paths, "", clock)
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

    def _current(self) -> Login:
        """Return what is good now, renewing it when it is time to."""
        renewal = self._renew_in_time()
        if renewal is not None and self._clock() >= self._login.good_until:
            renewal.wait(self._patience)
        login = self._login
        if self._clock() < login.good_until:
            return login
        raise KubeconfigError(self._failure or self._named(f"no new credentials within {self._patience:g} s"))

    def _renew_in_time(self) -> threading.Event | None:
        """Return the renewal under way, beginning one when it is due."""
        with self._lock:
            if self._renewal is not None:
                return self._renewal
            if self._clock() < self._login.renew_at:
                return None
            renewal = self._renewal = threading.Event()
        try:
            self._start_thread(threading.Thread(target=self._renew, args=(renewal,), name="kubeconfig", daemon=True))
        except RuntimeError as error:
            self._fail(f"no thread to renew the credentials: {error}")
            self._end(renewal)
        return renewal

    def _renew(self, renewal: threading.Event) -> None:
        """Read everything again; what cannot be read is tried again soon."""
        before = self._login
        try:
            login = self._log_in(self._paths, before.context, self._clock)
            if (login.base_url, login.server_name) != (before.base_url, before.server_name):
                self._fail("the context has another server now: restart kubenurse")
                return
            if login.files != before.files:
                self._trust = _trust(login.files, self._extra_ca)
            self._login, self._failure = login, ""
        except KubeconfigError as error:
            self._fail(str(error))
        finally:
            self._end(renewal)

    def _fail(self, why: str) -> None:
        from checks.kube.kubeconfig_login import RETRY_AFTER

        self._failure = why if why.startswith("kubeconfig ") else self._named(why)
        self._login = dataclasses.replace(self._login, renew_at=self._clock() + RETRY_AFTER)

    def _end(self, renewal: threading.Event) -> None:
        with self._lock:
            self._renewal = None
        renewal.set()

    def _named(self, why: str) -> str:
        return f"kubeconfig {os.pathsep.join(map(str, self._paths))}: {why}"


def load(
    paths: Sequence[Path],
    extra_ca: Path | None = None,
    *,
    clock: Callable[[], float] = seconds_since_boot,
    patience: float = PATIENCE,
    start_thread: Callable[[threading.Thread], None] = threading.Thread.start,
) -> Kubeconfig | None:
    """Load the current context of one or more kubeconfig files, merged as kubectl does; None without any file.

    ``extra_ca`` is a PEM file trusted besides the cluster's CA. ``clock`` is monotonic, in seconds; callers wait for
    ``patience`` seconds when the credentials have expired. This first time, a plugin may take as long as it likes: it
    may ask the person at the terminal.

    Raises:
        KubeconfigError: when the ``kubernetes`` package is missing, the files cannot be used, or the API server would
            not be verified: a token travels over verified TLS only.
    """
    found = [path for path in paths if path.is_file()]
    if not found:
        return None
    try:
        return Kubeconfig(found, extra_ca, clock, patience, start_thread)
    except ImportError:
        names = os.pathsep.join(map(str, found))
        raise PackageMissingError(
            f"kubeconfig {names}: the kubernetes package, which reads it, is missing: pip install kubernetes"
        ) from None


def _trust(paths: tuple[str | None, str | None, str | None], extra_ca: Path | None) -> TrustStore:
    ca, certificate, key = paths
    files = [*([Path(ca)] if ca else []), *([extra_ca] if extra_ca else [])]
    pair = (Path(certificate), Path(key or certificate)) if certificate else None
    return TrustStore(files, system=not ca, client_certificate=pair)
