"""One table of environment variables; parsing, ``--help`` and the documentation read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from checks.config import convert

_DAY = 86_400.0


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
port_number = convert.integer(1, 65535, "a port")
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
    Variable("KUBERNETES_SERVICE_PORT", "api_port", port_number, "443",
             "Port of the API server; set by Kubernetes."),
    Variable("KUBERNETES_SERVICE_DNS", "api_dns", convert.host_name, "kubernetes.default.svc",
             "Name of the API server, for its check by name."),
    Variable("KUBENURSE_LISTEN_ADDRESS", "listen_address", convert.ip_address, "",
             "IP address to serve on.", "all, IPv4 and IPv6"),
    Variable("KUBENURSE_PORT", "port", port_number, "8080",
             "Port to serve HTTP on, and to check neighbours on."),
    Variable("KUBENURSE_TLS_PORT", "tls_port", port_number, "8443",
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
    Variable("KUBENURSE_NEIGHBOUR_TLS_NAME", "neighbour_tls_name", convert.host_name, "",
             "Name to verify in the neighbours' certificates with KUBENURSE_USE_TLS.", "unset, the Pod IP"),
    Variable("KUBENURSE_READY_WHEN_CORDONED", "ready_when_cordoned", convert.boolean, "false",
             "Keep /ready at 200 while the own node is cordoned."),
    Variable("KUBENURSE_HISTORY", "history", _period, "15m",
             "How much of each check is remembered for /history; 0 remembers nothing."),
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
