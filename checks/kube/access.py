"""Which API server to talk to: the cluster's, that of a kubeconfig, or none."""

from __future__ import annotations

import logging

from checks.config.settings import Config, ConfigError
from checks.kube.credentials import Credentials, ServiceAccount

log = logging.getLogger("kubenurse.agent")


def find_access(config: Config) -> tuple[Credentials | None, str]:
    """Return the credentials for the nearest API server, None without any, and the namespace to look in.

    Raises:
        ConfigError: when KUBECONFIG is set and the package that reads it is missing.
    """
    if config.api_host:
        account = ServiceAccount(config.api_host, config.api_port, config.serviceaccount_dir, extra_ca=config.extra_ca)
        return account, config.namespace
    if not config.kubeconfig:
        return None, config.namespace
    from checks.kube import kubeconfig  # only here is the official client worth its memory

    try:
        found = kubeconfig.load(config.kubeconfig, config.extra_ca)
    except kubeconfig.PackageMissingError as error:
        if config.kubeconfig_is_set:
            files = ":".join(map(str, config.kubeconfig))
            raise ConfigError((f"KUBECONFIG='{files}': {error}, or unset the variable",)) from error
        log.warning("reading the kubeconfig failed", extra={"facts": {"why": str(error)}})
        return None, config.namespace
    except kubeconfig.KubeconfigError as error:
        log.warning("reading the kubeconfig failed", extra={"facts": {"why": str(error)}})
        return None, config.namespace
    if found is None:
        return None, config.namespace
    return found, config.namespace or found.namespace
