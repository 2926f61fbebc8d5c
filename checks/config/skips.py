"""Which checks a configuration leaves out, and why: said once in the log and by ``kubenurse check``."""

from __future__ import annotations

from checks.config.settings import Config
from checks.model import API_SERVER_DIRECT, API_SERVER_DNS, ME_INGRESS, ME_SERVICE

NEIGHBOURHOOD = "neighbourhood"


def skips(config: Config, *, has_api_server: bool) -> dict[str, str]:
    """Return why each check that a configuration leaves out is left out, by its type."""
    no_api = "" if has_api_server else "KUBERNETES_SERVICE_HOST is not set and no usable kubeconfig was found"
    dns_unset = "" if config.api_host or config.api_dns_is_set else "KUBERNETES_SERVICE_DNS is not set"
    reasons = {
        API_SERVER_DIRECT: _disabled(config.check_api_server_direct, "KUBENURSE_CHECK_API_SERVER_DIRECT") or no_api,
        API_SERVER_DNS: _disabled(config.check_api_server_dns, "KUBENURSE_CHECK_API_SERVER_DNS") or no_api or dns_unset,
        ME_INGRESS: _disabled(config.check_me_ingress, "KUBENURSE_CHECK_ME_INGRESS")
        or ("" if config.ingress_url else "KUBENURSE_INGRESS_URL is not set"),
        ME_SERVICE: _disabled(config.check_me_service, "KUBENURSE_CHECK_ME_SERVICE")
        or ("" if config.service_url else "KUBENURSE_SERVICE_URL is not set"),
        NEIGHBOURHOOD: _disabled(config.check_neighbourhood, "KUBENURSE_CHECK_NEIGHBOURHOOD")
        or ("" if config.neighbour_filter else "KUBENURSE_NEIGHBOUR_FILTER is not set")
        or no_api,
    }
    return {kind: reason for kind, reason in reasons.items() if reason}


def _disabled(enabled: bool, variable: str) -> str:
    return "" if enabled else f"{variable} is false"
