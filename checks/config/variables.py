"""The configuration: one table of environment variables that serves parsing, ``--help`` and the documentation."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checks.config import convert
from checks.config.proxies import Proxies

_DAY = 86_400.0
_MOST_WARNINGS = 20
_LONGEST_SHOWN = 200  # characters of a value
_LONGEST_WHY = 1_000  # characters of what is wrong with it; the checks of EXTRA_CHECKS may be many

# A Service named kubenurse gives every Pod of its namespace KUBENURSE_PORT=tcp://10.0.0.1:8080 and many more, and one
# named kubenurse-tls KUBENURSE_TLS_PORT ("service links", see "Discovering services" in the Kubernetes documentation).
# None of them is meant for the agent.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)
_SERVICE_LINK_NAME = re.compile(
    r"KUBENURSE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable: its name, the field of Config it fills, its converter, default and meaning.

    ``default`` is text as a user would write it. Where it is empty the field keeps Config's own default, or load()
    finds the value elsewhere; ``otherwise`` says so in words. ``alias`` is a second name, read when the first is unset.
    """

    name: str
    field: str
    convert: Callable[[str], object]
    default: str
    help: str
    otherwise: str = "unset"
    alias: str = ""


_interval = convert.duration(0.01, _DAY)
_timeout = convert.duration(0.001, _DAY)
_period = convert.duration(0.0, _DAY)
_port = convert.integer(1, 65535, "a port")
_limit = convert.integer(0, 1_000_000, "a number")
_log_level = convert.one_of("debug", "info", "warning", "error")
_log_format = convert.one_of("logfmt", "json")

# fmt: off
VARIABLES: tuple[Variable, ...] = (
    Variable("KUBENURSE_INGRESS_URL", "ingress_url", convert.base_url, "",
             "URL of kubenurse behind the ingress; /alwayshappy is appended.", "unset, check skipped"),
    Variable("KUBENURSE_SERVICE_URL", "service_url", convert.base_url, "",
             "URL of kubenurse's Service; /alwayshappy is appended.", "unset, check skipped"),
    Variable("KUBENURSE_INSECURE", "insecure", convert.boolean, "false",
             "Don't verify the certificates of checked endpoints, except the API server's."),
    Variable("KUBENURSE_EXTRA_CA", "extra_ca", convert.ca_file, "",
             "PEM file added to the trusted CAs; read again when it changes."),
    Variable("KUBENURSE_NAMESPACE", "namespace", convert.namespace, "",
             "Namespace of the neighbours' Pods.", "the service account's namespace"),
    Variable("KUBENURSE_NEIGHBOUR_FILTER", "neighbour_filter", convert.label_selector, "",
             "Label selector of the neighbours' Pods, like app=kubenurse.", "unset, neighbourhood skipped"),
    Variable("KUBENURSE_NEIGHBOUR_LIMIT", "neighbour_limit", _limit, "10",
             "Most neighbours checked; 0 is all of them."),
    Variable("KUBENURSE_ALLOW_UNSCHEDULABLE", "allow_unschedulable", convert.boolean, "false",
             "Also check neighbours on cordoned nodes; nodes are then not read, which needs no permission."),
    Variable("KUBENURSE_USE_TLS", "use_tls", convert.boolean, "false",
             "Also serve HTTPS, and check the neighbours by it."),
    Variable("KUBENURSE_CERT_FILE", "cert_file", Path, "",
             "PEM file with the certificate to serve, and its chain; reloaded when it changes.",
             "unset, required with KUBENURSE_USE_TLS"),
    Variable("KUBENURSE_CERT_KEY", "cert_key", Path, "",
             "PEM file with the certificate's key, without a password; reloaded when it changes.",
             "unset, required with KUBENURSE_USE_TLS"),
    Variable("KUBENURSE_EXTRA_CHECKS", "extra_checks", convert.extra_checks, "",
             "Further URLs to check, as name:url|name:url."),
    Variable("KUBENURSE_CHECK_API_SERVER_DIRECT", "check_api_server_direct", convert.boolean, "true",
             "Check the API server by its address."),
    Variable("KUBENURSE_CHECK_API_SERVER_DNS", "check_api_server_dns", convert.boolean, "true",
             "Check the API server by its name."),
    Variable("KUBENURSE_CHECK_ME_INGRESS", "check_me_ingress", convert.boolean, "true",
             "Check kubenurse behind the ingress."),
    Variable("KUBENURSE_CHECK_ME_SERVICE", "check_me_service", convert.boolean, "true",
             "Check kubenurse's Service."),
    Variable("KUBENURSE_CHECK_NEIGHBOURHOOD", "check_neighbourhood", convert.boolean, "true",
             "Find and check the neighbours."),
    Variable("KUBENURSE_CHECK_INTERVAL", "check_interval", _interval, "5s",
             "Time between rounds of checks."),
    Variable("KUBENURSE_CHECK_TIMEOUT", "check_timeout", _timeout, "5s",
             "Most one check may take, name resolution included."),
    Variable("KUBENURSE_CACHE_TTL", "cache_ttl", _period, "3s",
             "How long a result answers /alive."),
    Variable("KUBENURSE_REUSE_CONNECTIONS", "reuse_connections", convert.boolean, "false",
             "Keep connections between rounds; DNS, kube-proxy and TLS are then checked less."),
    Variable("KUBENURSE_HISTOGRAM_BUCKETS", "histogram_buckets", convert.buckets,
             "0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10",
             "Upper bounds of the histograms' buckets, strictly increasing seconds."),
    Variable("KUBENURSE_VICTORIAMETRICS_HISTOGRAM", "victoriametrics_histogram", convert.boolean, "false",
             "Histograms with vmrange buckets instead of le."),
    Variable("KUBENURSE_EXPOSE_METADATA", "expose_metadata", convert.boolean, "true",
             "HELP and TYPE lines in /metrics."),
    Variable("KUBENURSE_TRACE_EVENTS", "trace_events", convert.trace_events, "all",
             "Events kept in the trace histogram: all, none or a comma-separated list."),
    Variable("KUBENURSE_SHUTDOWN_DURATION", "shutdown_duration", _period, "5s",
             "How long it still serves after SIGTERM, with /ready at 503."),
    Variable("KUBERNETES_SERVICE_HOST", "api_host", convert.host, "",
             "Address of the API server.", "set by Kubernetes"),
    Variable("KUBERNETES_SERVICE_PORT", "api_port", _port, "443",
             "Port of the API server; set by Kubernetes."),
    Variable("KUBERNETES_SERVICE_DNS", "api_dns", convert.host_name, "kubernetes.default.svc",
             "Name of the API server, for its check by name."),
    Variable("KUBENURSE_LISTEN_ADDRESS", "listen_address", convert.ip_address, "",
             "IP address to serve on.", "all, IPv4 and IPv6"),
    Variable("KUBENURSE_PORT", "port", _port, "8080",
             "Port to serve HTTP on, and to check neighbours on."),
    Variable("KUBENURSE_TLS_PORT", "tls_port", _port, "8443",
             "Port to serve HTTPS on, and to check neighbours on with KUBENURSE_USE_TLS."),
    Variable("KUBENURSE_POD_NAME", "pod_name", convert.object_name, "",
             "Name of the own Pod, from the downward API.", "the hostname"),
    Variable("KUBENURSE_NODE_NAME", "node_name", convert.object_name, "",
             "Name of the own node, from the downward API.", "found from the own Pod"),
    Variable("KUBENURSE_SERVICEACCOUNT_DIR", "serviceaccount_dir", Path,
             "/var/run/secrets/kubernetes.io/serviceaccount",
             "Directory with token, ca.crt and namespace; the token is read again as it rotates."),
    Variable("KUBENURSE_LOG_LEVEL", "log_level", _log_level, "info",
             "Least severity logged: debug, info, warning or error."),
    Variable("KUBENURSE_LOG_FORMAT", "log_format", _log_format, "logfmt",
             "Form of the log's lines: logfmt or json."),
    Variable("HTTP_PROXY", "http_proxy", convert.proxy, "",
             "Proxy for ingress and extra checks of http URLs.", alias="http_proxy"),
    Variable("HTTPS_PROXY", "https_proxy", convert.proxy, "",
             "Proxy for ingress and extra checks of https URLs.", alias="https_proxy"),
    Variable("NO_PROXY", "no_proxy", str, "",
             "Hosts, domains, addresses and CIDR ranges reached without a proxy.", alias="no_proxy"),
    Variable("KUBECONFIG", "kubeconfig", convert.existing_files, "",
             "Files with the access to a cluster when not inside one, separated by colons.", "~/.kube/config"),
)
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the agent is told to do. Durations are seconds; an empty text means unset.

    ``api_host`` is an address (IPv6 without brackets) or name, empty outside a cluster; ``api_dns_is_set`` tells
    whether the user named the API server. ``kubeconfig`` are files that exist. ``histogram_buckets`` are seconds,
    without +Inf. ``warnings`` are sentences for the log. URLs may hold passwords and are left out of the repr.
    """

    ingress_url: str = field(default="", repr=False)
    service_url: str = field(default="", repr=False)
    insecure: bool
    extra_ca: Path | None = None
    namespace: str = ""
    neighbour_filter: str = ""
    neighbour_limit: int
    allow_unschedulable: bool
    use_tls: bool
    cert_file: Path | None = None
    cert_key: Path | None = None
    extra_checks: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    check_api_server_direct: bool
    check_api_server_dns: bool
    check_me_ingress: bool
    check_me_service: bool
    check_neighbourhood: bool
    check_interval: float
    check_timeout: float
    cache_ttl: float
    reuse_connections: bool
    histogram_buckets: tuple[float, ...]
    victoriametrics_histogram: bool
    expose_metadata: bool
    trace_events: frozenset[str]
    shutdown_duration: float
    api_host: str = ""
    api_port: int
    api_dns: str
    api_dns_is_set: bool
    listen_address: str = ""
    port: int
    tls_port: int
    pod_name: str
    node_name: str = ""
    serviceaccount_dir: Path
    log_level: str
    log_format: str
    proxies: Proxies = field(repr=False)
    kubeconfig: tuple[Path, ...]
    warnings: tuple[str, ...]


class ConfigError(ValueError):
    """The environment is no configuration; ``problems`` are all reasons, each ``NAME='value': wrong, expected``."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(environ: Mapping[str, str] = os.environ, hostname: Callable[[], str] = socket.gethostname) -> Config:
    """Read the configuration from environment variables and the files that they name.

    Values are stripped; an empty one is unset.

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
            # Goes on with the default, to find what else is wrong.
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
    if variable.convert is _port and _SERVICE_LINK.match(text):
        return ""  # injected, not configured
    return text or environ.get(variable.alias, "").strip()


def _convert(variable: Variable, text: str, values: dict[str, Any]) -> None:
    if text or variable.default:
        values[variable.field] = variable.convert(text or variable.default)


def _complete(
    values: dict[str, Any], texts: Mapping[str, str], environ: Mapping[str, str], hostname: Callable[[], str]
) -> Config:
    """Add what comes from other places than the variable of its name."""
    values.setdefault("pod_name", _object_name(hostname()))
    values.setdefault("namespace", _namespace_of(values["serviceaccount_dir"]))
    values.setdefault("kubeconfig", _kubeconfig_at_home(environ))
    values["api_dns_is_set"] = bool(texts["KUBERNETES_SERVICE_DNS"])
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
        with (serviceaccount_dir / "namespace").open(encoding="utf-8") as file:
            return convert.namespace(file.read(1000).strip())
    except (OSError, ValueError):
        return ""


def _kubeconfig_at_home(environ: Mapping[str, str]) -> tuple[Path, ...]:
    home = environ.get("HOME", "").strip()
    path = Path(home, ".kube", "config")
    return (path,) if home and convert.is_file(path) else ()


def _contradictions(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Find what only several variables together do wrong: their names, the one to blame first, and what is wrong.

    It is no news where one of them is wrong by itself.
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
        convert.check_certificates(config.cert_file)
    except ValueError as error:
        yield ("KUBENURSE_CERT_FILE",), str(error)
        return
    if config.cert_key is None:
        return
    try:
        convert.check_key(config.cert_key, config.cert_file)
    except ValueError as error:
        yield ("KUBENURSE_CERT_KEY",), str(error)


def _warnings(environ: Mapping[str, str]) -> list[str]:
    """Name the variables that look like the agent's but are none of them, misspelt ones most likely."""
    known = {variable.name for variable in VARIABLES}
    unknown = [
        name
        for name, value in sorted(environ.items())
        if name.startswith("KUBENURSE_") and name not in known and not _is_service_link(name, value)
    ]
    return [_printable(f"{name[:_LONGEST_SHOWN]}: {_suggestion(name)}") for name in unknown[:_MOST_WARNINGS]]


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
    return _printable(f"{name}='{shown}': {why[:_LONGEST_WHY]}")


def _printable(text: str) -> str:
    """Escape what would end the line or act on a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def help_text() -> str:
    """Return the variables, their meanings and defaults for a terminal, 100 columns wide."""
    import textwrap  # only --help needs it

    width = max(len(variable.name) for variable in VARIABLES)
    lines = [
        "Durations are written like 5s, 1m30s or 500ms; booleans true/false, 1/0, yes/no or on/off.",
        "An empty variable counts as unset. [Defaults are in brackets.]",
        "",
    ]
    for variable in VARIABLES:
        meaning = f"{variable.help} [{variable.default or variable.otherwise}]"
        lines += textwrap.wrap(
            meaning,
            width=100,
            initial_indent=f"  {variable.name:<{width}}  ",
            subsequent_indent=" " * (width + 4),
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines) + "\n"


def markdown_table() -> str:
    """Return the variables as a table for the documentation."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for variable in VARIABLES:
        default = f"`{variable.default}`" if variable.default else variable.otherwise
        cells = (cell.replace("|", "\\|") for cell in (f"`{variable.name}`", default, variable.help))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"
