"""The Helm chart with values of a test's own: rendering it, and what the agent reads of the result."""

from __future__ import annotations

import json

from checks.config.load import load
from checks.config.settings import Config
from tests.support.rendering import Object, environment


def set_values(**values: object) -> list[str]:
    """Return the arguments of helm that set values; ``__`` in a name stands for a dot in the value's path."""
    return [
        argument
        for name, value in values.items()
        for argument in ("--set-json", f"{name.replace('__', '.')}={json.dumps(value)}")
    ]


def agent_config(objects: list[Object]) -> Config:
    """Return the configuration that the agent reads; files of the mounted Secret do not exist here and are left out."""
    environ = environment(objects)
    if environ.get("KUBENURSE_CERT_FILE", "").startswith("/etc/kubenurse/tls/"):
        environ["KUBENURSE_USE_TLS"] = "false"
        environ.pop("KUBENURSE_EXTRA_CA", None)
    return load(environ)
