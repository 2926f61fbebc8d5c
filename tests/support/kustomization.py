"""What an agent reads of a rendered kustomization, with a certificate where its Secret would be mounted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from checks.config.load import load
from checks.config.settings import Config
from tests.support.kube import Kube
from tests.support.rendering import Object, environment

CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "PriorityClass"}
TLS_DIRECTORY = "/etc/kubenurse/tls"


def with_certificate(environ: dict[str, str], kube: Kube) -> dict[str, str]:
    """Replace the paths of the mounted Secret by files that hold what the Secret would hold."""
    certificate = kube.authority.issue("kubenurse", "kubenurse")
    held = {"tls.crt": certificate.chain, "tls.key": certificate.key, "ca.crt": kube.authority.file}
    files = {f"{TLS_DIRECTORY}/{name}": str(file) for name, file in held.items()}
    return {name: files.get(value, value) for name, value in environ.items()}


def agent_config(objects: Sequence[Object], tmp_path: Path) -> Config:
    """Return the configuration that the agent reads; files of the certificate are made below ``tmp_path``."""
    return load(with_certificate(environment(objects), Kube(tmp_path)))
