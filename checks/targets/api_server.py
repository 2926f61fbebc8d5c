"""The API server's checks: by its address and by its name."""

from __future__ import annotations

from checks.config.settings import Config
from checks.model import API_SERVER_DIRECT, API_SERVER_DNS, Target


def targets(config: Config, base_url: str) -> list[Target]:
    """Return the checks of an API server, whose address is ``base_url`` (``https://HOST:PORT``), empty for none.

    Outside a cluster its in-cluster name means nothing, so there the second is made only when a name was set.
    """
    if not base_url:
        return []
    found = []
    if config.check_api_server_direct:
        found.append(Target(API_SERVER_DIRECT, f"{base_url}/version", to_api_server=True))
    if config.check_api_server_dns and (config.api_host or config.api_dns_is_set):
        by_name = f"https://{config.api_dns}:{config.api_port}/version"
        found.append(Target(API_SERVER_DNS, by_name, to_api_server=True))
    return found
