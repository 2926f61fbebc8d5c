"""From a context of a kubeconfig to credentials, by the ``kubernetes`` package: the place that imports it.

The package knows OIDC, tokens, passwords and certificates (``load_kube_config_from_dict``) and how to run exec plugins
(``exec_provider``). A plugin is run here and not by the loader: the loader does not tell when the credentials expire,
and writes to the log why a plugin failed.
"""

from __future__ import annotations

import base64
import copy
import logging
import math
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes.config as kubernetes_config
from kubernetes.client import Configuration
from kubernetes.config import exec_provider

from checks.kube.credentials import LONGEST_TOKEN, KubeconfigError
from checks.kube.kubeconfig_files import Context, read_context, update_provider
from checks.kube.objects import epoch_seconds
from checks.text import printable

log = logging.getLogger("kubenurse.kubeconfig")

# The package has no types.
_load: Any = kubernetes_config.load_kube_config_from_dict
_ExecProvider: Any = exec_provider.ExecProvider

# As often as client-go reads token files again, in seconds.
READ_AGAIN_AFTER = 60.0
# Seconds. A plugin that does not say when its credentials expire is run again after this.
PLUGIN_AGAIN_AFTER = 600.0
# The part of its life after which what a plugin gave is renewed, in the background.
RENEW_AT = 0.75
# Seconds between two tries, at least: a plugin is a process, and many checks ask for credentials.
RETRY_AFTER = 5.0
ISSUER_CA = "idp-certificate-authority"
LONGEST_WHY = 500  # characters


@dataclass(frozen=True, slots=True)
class Login:
    """What was read at one time. ``renew_at`` and ``good_until`` are seconds of the clock given.

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


def log_in(paths: Sequence[Path], context: str, clock: Callable[[], float]) -> Login:
    """Read the files, run the plugin, fetch tokens, and return what was found.

    ``context`` is a context's name, empty for the current one.

    Raises:
        KubeconfigError: when that does not lead to credentials over verified TLS.
    """
    try:
        return _log_in(read_context(paths, context), clock)
    except KubeconfigError as error:
        raise KubeconfigError(f"kubeconfig {_joined(paths)}: {error}") from None
    except Exception as error:
        # The package's messages name places in the file by what is in them, secrets included: they are cut at the first
        # brace, and the original is not kept as the cause.
        why = " ".join(str(error).partition("{")[0].split()) or type(error).__name__
        raise KubeconfigError(f"kubeconfig {_joined(paths)}: {printable(why, LONGEST_WHY)}") from None


def _joined(paths: Sequence[Path]) -> str:
    return ":".join(map(str, paths))


def _log_in(context: Context, clock: Callable[[], float]) -> Login:
    user: dict[str, Any] = copy.deepcopy(dict(context.user))
    # A token in the file goes before a plugin, as in the package.
    settings = user.pop("exec", None)
    renew_after, good_for = READ_AGAIN_AFTER, READ_AGAIN_AFTER
    if settings and not (user.get("token") or user.get("tokenFile")):
        given, renew_after, good_for = _run_plugin(settings, context)
        user |= given
    configuration = Configuration()
    provider = _verifying_issuer(user)
    before = dict(provider)
    document = {
        "current-context": "context",
        "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
        "clusters": [{"name": "cluster", "cluster": dict(context.cluster)}],
        "users": [{"name": "user", "user": user}],
    }
    _load(document, client_configuration=configuration)
    changes = {name: value for name, value in provider.items() if before.get(name) != value}
    if changes and context.user_file:
        _save(context.user_file, context.user_name, changes)
    headers = _headers(configuration)
    if not headers and not configuration.cert_file:
        raise KubeconfigError("the context's user has no token and no client certificate")
    now = clock()  # after the plugin has run
    return Login(
        context=context.name,
        namespace=context.namespace,
        base_url=configuration.host,
        server_name=context.cluster.get("tls-server-name") or None,
        headers=headers,
        files=(configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file),
        renew_at=now + renew_after,
        good_until=now + good_for,
    )


class _Settings(dict[str, Any]):
    """Settings with what the package's ``ExecProvider`` asks for beside a dictionary's methods."""

    def safe_get(self, key: str) -> Any:
        return self.get(key)

    @property
    def value(self) -> dict[str, Any]:
        return self


def _run_plugin(settings: object, context: Context) -> tuple[dict[str, str], float, float]:
    """Run an exec plugin; return user settings, and after how many seconds to renew them and until when they are good.

    Protocol: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins.
    """
    if not isinstance(settings, dict):
        raise KubeconfigError("exec: not an object")
    directory = str(context.user_file.absolute().parent) if context.user_file else ""
    cluster = _Settings(copy.deepcopy(dict(context.cluster)))
    status = _ExecProvider(_Settings(settings), directory, cluster).run()
    if not isinstance(status, dict):
        raise KubeconfigError("exec: the plugin's status is not an object")
    given = {}
    if token := status.get("token"):
        given["token"] = str(token)
    if certificate := status.get("clientCertificateData"):
        if not status.get("clientKeyData"):
            raise KubeconfigError("exec: missing clientKeyData field in plugin output")
        for name, text in (("client-certificate", certificate), ("client-key", status["clientKeyData"])):
            given[f"{name}-data"] = base64.b64encode(str(text).encode()).decode()
    if not given:
        raise KubeconfigError("exec: missing token or clientCertificateData field in plugin output")
    expiry = epoch_seconds(str(status.get("expirationTimestamp", "")))
    if expiry is None:
        return given, PLUGIN_AGAIN_AFTER, math.inf
    left = expiry - time.time()
    return given, max(RETRY_AFTER, RENEW_AT * left), max(RETRY_AFTER, left)


def _verifying_issuer(user: dict[str, Any]) -> dict[str, Any]:
    """Let an OIDC issuer without a CA of its own be verified by the system's CAs; return the issuer's settings.

    The package would send the refresh token without verification.
    """
    provider = user.get("auth-provider")
    settings = provider.get("config") if isinstance(provider, dict) else None
    if not isinstance(settings, dict):
        return {}
    if not any(settings.get(f"{ISSUER_CA}{suffix}") for suffix in ("", "-data")):
        settings.pop(f"{ISSUER_CA}-data", None)
        paths = ssl.get_default_verify_paths()
        # The second is where the file would be: a system without one knows no issuer, which the package then says.
        settings[ISSUER_CA] = paths.cafile or paths.openssl_cafile
    return settings


def _save(file: Path, user_name: str, changes: Mapping[str, Any]) -> None:
    """Write renewed tokens into the kubeconfig, without which the next program would have to log in again."""
    try:
        update_provider(file, user_name, changes)
    except (OSError, KubeconfigError, LookupError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else type(error).__name__
        log.warning("renewed tokens not saved", extra={"facts": {"file": str(file), "why": why}})


def _headers(configuration: Configuration) -> dict[str, str]:
    """Return the Authorization header of what the package found.

    Raises:
        KubeconfigError: for a value that cannot be sent; it is not shown.
    """
    settings = configuration.auth_settings().get("BearerToken", {})
    value = str(settings.get("value") or "").strip()
    if len(value) > LONGEST_TOKEN or not (value.isascii() and value.isprintable()):
        raise KubeconfigError("the user's token is not a token")
    return {"Authorization": value} if value else {}
