"""The checks of kubenurse by its own ways in: the ingress and the Service."""

from __future__ import annotations

from checks.config.settings import Config
from checks.model import ALWAYS_HAPPY_PATH, ME_INGRESS, ME_SERVICE, Target


def targets(config: Config) -> list[Target]:
    """Return the checks whose URL is set.

    The ingress is reached as its users reach it, through a proxy if need be; a Service never is.
    """
    found = []
    if config.check_me_ingress and config.ingress_url:
        url = _always_happy(config.ingress_url)
        found.append(Target(ME_INGRESS, url, follow_redirects=True, use_proxy=True))
    if config.check_me_service and config.service_url:
        found.append(Target(ME_SERVICE, _always_happy(config.service_url)))
    return found


def _always_happy(url: str) -> str:
    return url.rstrip("/") + ALWAYS_HAPPY_PATH
