"""What the agent is told to do: the frozen result of reading the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from checks.config.proxies import Proxies


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the agent is told to do. Durations are seconds; an empty text means unset.

    ``api_host`` is an address (IPv6 without brackets) or name, empty outside a cluster; ``api_dns_is_set`` tells
    whether the user named the API server. ``kubeconfig`` are files that exist;
    ``kubeconfig_is_set`` tells whether the user named them. ``histogram_buckets`` are seconds,
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
    neighbour_tls_name: str = ""
    ready_when_cordoned: bool
    history: float
    log_level: str
    log_format: str
    proxies: Proxies = field(repr=False)
    kubeconfig: tuple[Path, ...]
    kubeconfig_is_set: bool
    warnings: tuple[str, ...]


class ConfigError(ValueError):
    """The configuration is wrong; ``problems`` are all reasons, each ``NAME='value': wrong, expected``."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
