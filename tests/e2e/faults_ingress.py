"""Faults of the ingress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from checks.model import ME_INGRESS
from sandbox.certificates import Certificate
from tests.e2e import ingress
from tests.e2e.cluster import Cluster
from tests.e2e.faults import ALL, Expected, Fault
from tests.e2e.ingress import Behaviour

TLS_EVENT = "tls_handshake_done"


def _behaving(change: Callable[[Cluster], Behaviour]) -> Callable[[Cluster], AbstractContextManager[None]]:
    """Return the injection that lets the ingress behave as ``change`` says."""

    @contextlib.contextmanager
    def inject(cluster: Cluster) -> Iterator[None]:
        cluster.ingress.become(change(cluster))
        try:
            yield
        finally:
            cluster.ingress.become(cluster.ingress.right)

    return inject


def _showing(issue: Callable[[Cluster], Certificate]) -> Callable[[Cluster], AbstractContextManager[None]]:
    return _behaving(lambda cluster: replace(cluster.ingress.right, certificate=issue(cluster)))


def _every_agent_says(state: str, event: str) -> tuple[Expected, ...]:
    return (Expected(ALL, (ME_INGRESS,), state, event),)


FAULTS = (
    Fault(
        "Ingress answers 502 (its backend is dead)",
        _behaving(lambda cluster: replace(cluster.ingress.right, dead_backend=True)),
        _every_agent_says("502 Bad Gateway", "status_code_502"),
    ),
    Fault(
        "Ingress redirects to a login host",
        _behaving(lambda cluster: replace(cluster.ingress.right, redirect_to=ingress.LOGIN_URL)),
        _every_agent_says(f"redirect to another host: {ingress.LOGIN_URL}", "redirect"),
    ),
    Fault(
        "Ingress shows an expired certificate",
        _showing(lambda cluster: cluster.authority.issue_expired("expired", ingress.HOST)),
        _every_agent_says("tls: certificate has expired", TLS_EVENT),
    ),
    Fault(
        "Ingress shows a self-signed certificate",
        _showing(lambda cluster: cluster.authority.issue_self_signed("stranger")),
        _every_agent_says("tls: self-signed certificate", TLS_EVENT),
    ),
    Fault(
        "Ingress shows a certificate of another name",
        _showing(lambda cluster: cluster.authority.issue("wrong-name", "other.example")),
        _every_agent_says(f"tls: hostname mismatch, certificate is not valid for '{ingress.HOST}'", TLS_EVENT),
    ),
)
