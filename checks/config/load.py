"""Environment variables in, a Config or every problem with them out."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from checks.config import convert, pem
from checks.config.files import read_regular
from checks.config.proxies import Proxies
from checks.config.settings import Config, ConfigError
from checks.config.variables import VARIABLES, Variable, port_number
from checks.text import escaped

_MOST_WARNINGS = 20
_LONGEST_SHOWN = 200  # characters of a value
_LONGEST_WHY = 1_000  # characters of the reason; EXTRA_CHECKS may hold many checks

# A Service named kubenurse gives every Pod of its namespace KUBENURSE_PORT=tcp://10.0.0.1:8080 and many more, and one
# named kubenurse-tls KUBENURSE_TLS_PORT ("service links", see "Discovering services" in the Kubernetes documentation).
# These variables are not meant for the agent.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)
_SERVICE_LINK_NAME = re.compile(
    r"KUBENURSE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


def load(environ: Mapping[str, str] = os.environ, hostname: Callable[[], str] = socket.gethostname) -> Config:
    """Read the configuration from environment variables and the files that they name.

    Values are stripped; an empty value counts as unset.

    Raises:
        ConfigError: with all problems at once.
    """
    texts = {variable.name: _text(variable, environ) for variable in VARIABLES}
    values: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for variable in VARIABLES:
        try:
            _convert(variable, texts[variable.name], values)
        except ValueError as error:
            wrong[variable.name] = str(error)
            # The default stands in, so that further problems are found.
            _convert(variable, "", values)
    config = _complete(values, texts, environ, hostname)
    for names, message in _contradictions(config):
        if wrong.keys().isdisjoint(names):
            wrong[names[0]] = message
    if wrong:
        raise ConfigError(tuple(_problem(name, texts[name], wrong[name]) for name in texts if name in wrong))
    return config


def _text(variable: Variable, environ: Mapping[str, str]) -> str:
    text = environ.get(variable.name, "").strip()
    if variable.convert is port_number and _SERVICE_LINK.match(text):
        return ""  # injected, not configured
    return text or environ.get(variable.alias, "").strip()


def _convert(variable: Variable, text: str, values: dict[str, Any]) -> None:
    if text or variable.default:
        values[variable.field] = variable.convert(text or variable.default)


def _complete(
    values: dict[str, Any], texts: Mapping[str, str], environ: Mapping[str, str], hostname: Callable[[], str]
) -> Config:
    """Add the settings that come from elsewhere than a variable of their own."""
    values.setdefault("pod_name", _object_name(hostname()))
    values.setdefault("namespace", _namespace_of(values["serviceaccount_dir"]))
    values.setdefault("kubeconfig", _kubeconfig_at_home(environ))
    values["api_dns_is_set"] = bool(texts["KUBERNETES_SERVICE_DNS"])
    values["kubeconfig_is_set"] = bool(texts["KUBECONFIG"])
    values["proxies"] = Proxies(*(values.pop(name, "") for name in ("http_proxy", "https_proxy", "no_proxy")))
    return Config(**values, warnings=tuple(_warnings(environ)))


def _object_name(hostname: str) -> str:
    """A hostname as the name of a Pod, which it is in a Pod; elsewhere it may have other characters."""
    try:
        return convert.object_name(hostname.lower())
    except ValueError:
        return re.sub(r"[^a-z0-9]+", "-", hostname.lower())[:63].strip("-") or "kubenurse"


def _namespace_of(serviceaccount_dir: Path) -> str:
    try:
        return convert.namespace(read_regular(serviceaccount_dir / "namespace", 1000).decode().strip())
    except (OSError, ValueError):
        return ""


def _kubeconfig_at_home(environ: Mapping[str, str]) -> tuple[Path, ...]:
    home = environ.get("HOME", "").strip()
    path = Path(home, ".kube", "config")
    return (path,) if home and convert.is_file(path) else ()


def _contradictions(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Find contradictions between variables: their names, the variable to change first, and what is wrong.

    The caller drops a contradiction that involves a variable which is wrong in itself.
    """
    if config.use_tls:
        yield from _tls_contradictions(config)
    needs_namespace = config.api_host and config.check_neighbourhood and config.neighbour_filter
    if needs_namespace and not config.namespace:
        file = config.serviceaccount_dir / "namespace"
        yield (
            ("KUBENURSE_NAMESPACE",),
            f"not set and not to be found in {file}, expected the namespace of the neighbours' Pods, "
            "or KUBENURSE_CHECK_NEIGHBOURHOOD=false",
        )


def _tls_contradictions(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    if config.port == config.tls_port:
        yield ("KUBENURSE_TLS_PORT", "KUBENURSE_PORT"), "the same as KUBENURSE_PORT, expected another port"
    for name, path in (("KUBENURSE_CERT_FILE", config.cert_file), ("KUBENURSE_CERT_KEY", config.cert_key)):
        if path is None:
            yield (name,), "not set, expected a PEM file, because KUBENURSE_USE_TLS is true"
    if config.cert_file is None:
        return
    try:
        pem.check_certificates(config.cert_file)
    except ValueError as error:
        yield ("KUBENURSE_CERT_FILE",), str(error)
        return
    if config.cert_key is None:
        return
    try:
        pem.check_key(config.cert_key, config.cert_file)
    except ValueError as error:
        yield ("KUBENURSE_CERT_KEY",), str(error)


def _warnings(environ: Mapping[str, str]) -> list[str]:
    """Name the unknown variables with the agent's prefix: they are probably misspelt."""
    known = {variable.name for variable in VARIABLES}
    unknown = [
        name
        for name, value in sorted(environ.items())
        if name.startswith("KUBENURSE_") and name not in known and not _is_service_link(name, value)
    ]
    return [escaped(f"{name[:_LONGEST_SHOWN]}: {_suggestion(name)}") for name in unknown[:_MOST_WARNINGS]]


def _is_service_link(name: str, value: str) -> bool:
    return bool(_SERVICE_LINK_NAME.fullmatch(name)) or (name.endswith("_PORT") and bool(_SERVICE_LINK.match(value)))


def _suggestion(unknown: str) -> str:
    import difflib  # only a misspelt variable needs it

    prefix = "KUBENURSE_"
    known = [variable.name.removeprefix(prefix) for variable in VARIABLES if variable.name.startswith(prefix)]
    nearest = difflib.get_close_matches(unknown.removeprefix(prefix)[:_LONGEST_SHOWN], known, n=1)
    return f"unknown variable, did you mean {prefix}{nearest[0]}?" if nearest else "unknown variable"


def _problem(name: str, value: str, why: str) -> str:
    shown = convert.redact(value)
    if len(shown) > _LONGEST_SHOWN:
        shown = f"{shown[:_LONGEST_SHOWN]}..."
    return escaped(f"{name}='{shown}': {why[:_LONGEST_WHY]}")
