"""The words for an operator: what is broken, and what to look at next. Pure.

One table holds both, so that each cause is described in one place. ``{node}`` and the like are filled from ``where``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Cause, and the keys of its place -> the sentence, and what to look at next.
_WORDS: dict[tuple[str, tuple[str, ...]], tuple[str, str]] = {
    ("dns", ()): (
        "DNS is down for the whole cluster: names do not resolve.",
        "kubectl -n kube-system get pods,endpointslices -l k8s-app=kube-dns",
    ),
    ("dns", ("node",)): (
        "DNS is down on node {node}; other nodes resolve names.",
        "kubectl -n kube-system get pods -o wide --field-selector spec.nodeName={node}",
    ),
    ("dns", ("server",)): (
        "The name server {server} does not answer; the other name servers do.",
        "dig @{server} kubernetes.default.svc.cluster.local",
    ),
    ("dns_slow", ()): (
        "DNS answers late in the whole cluster.",
        "kubectl -n kube-system top pods -l k8s-app=kube-dns",
    ),
    ("dns_slow", ("node",)): (
        "DNS answers late on node {node}; it is prompt on other nodes.",
        "kubectl -n kube-system get pods -o wide --field-selector spec.nodeName={node}",
    ),
    ("api_server", ()): (
        "The API server does not serve any node.",
        "kubectl get --raw='/readyz?verbose'",
    ),
    ("api_server", ("node",)): (
        "The API server cannot be used from node {node}; other nodes use it.",
        "kubectl describe node {node}",
    ),
    ("api_server_slow", ()): (
        "The API server answers late to every node.",
        "kubectl get --raw=/metrics | grep apiserver_request_duration_seconds",
    ),
    ("api_server_slow", ("node",)): (
        "The API server answers late to node {node}; it answers other nodes promptly.",
        "kubectl describe node {node}",
    ),
    ("service_routing", ()): (
        "Cluster IPs do not work on any node; Pod IPs do. kube-proxy, or what replaces it, is broken.",
        "kubectl -n kube-system get pods -o wide -l k8s-app=kube-proxy",
    ),
    ("service_routing", ("node",)): (
        "Cluster IPs do not work on node {node}; Pod IPs do. kube-proxy, or what replaces it, is broken there.",
        "kubectl -n kube-system get pods -o wide -l k8s-app=kube-proxy --field-selector spec.nodeName={node}",
    ),
    ("service_backends", ()): (
        "The Service of kubenurse has dead endpoints or none.",
        "kubectl get endpointslices -A -l app=kubenurse -o wide",
    ),
    ("ingress", ()): (
        "The ingress does not work for any node.",
        "kubectl get ingress -A; kubectl get pods -A -o wide | grep ingress",
    ),
    ("ingress", ("node",)): (
        "The ingress does not work from node {node}; it works from other nodes.",
        "kubectl describe node {node}",
    ),
    ("certificate", ("of",)): (
        "The certificate of {of} is not accepted.",
        "kubectl get secrets -A --field-selector type=kubernetes.io/tls",
    ),
    ("extra", ("check",)): (
        "The extra check {check} fails for all agents: its target does not work.",
        "Look at the target of {check} in KUBENURSE_EXTRA_CHECKS.",
    ),
    ("node", ("node",)): (
        "Node {node} is down: nobody reaches it and its agent says nothing.",
        "kubectl describe node {node}",
    ),
    ("agent", ("node",)): (
        "The agent on node {node} does not answer, although the node lives.",
        "kubectl get pods -A -o wide -l app=kubenurse --field-selector spec.nodeName={node}",
    ),
    ("isolated", ("node", "direction")): ("", "kubectl describe node {node}; look at its CNI Pod and at its firewall"),
    ("path", ("from", "to")): (
        "Node {from} does not reach node {to}; other pairs with these nodes work.",
        "Look at routes, network policies and firewalls between {from} and {to}.",
    ),
    ("path", ("from", "to", "both")): (
        "Nodes {from} and {to} do not reach each other; other pairs with these nodes work.",
        "Look at routes, network policies and firewalls between {from} and {to}.",
    ),
    ("zones", ("zone", "zone_to")): (
        "Zones {zone} and {zone_to} do not reach each other; within each zone paths work.",
        "Look at the routers and firewalls between {zone} and {zone_to}.",
    ),
    ("loss", ("node",)): (
        "Packets are lost at node {node}: segments are sent again there and not elsewhere.",
        "ip -s link; ethtool -S INTERFACE on {node}",
    ),
    ("loss", ("from", "to")): (
        "Packets are lost between nodes {from} and {to}: segments are sent again there and not elsewhere.",
        "mtr --tcp from {from} to {to}",
    ),
    ("loss", ("zone", "zone_to")): (
        "Packets are lost between zones {zone} and {zone_to}: segments are sent again there and not elsewhere.",
        "Look at the links between {zone} and {zone_to}.",
    ),
    ("mtu", ("node",)): (
        "Large packets are lost at node {node}: small answers pass and large ones do not. The MTU is wrong.",
        "ip link on {node}: compare the MTU of its interfaces with that of other nodes",
    ),
    ("mtu", ("from", "to")): (
        "Large packets are lost between nodes {from} and {to}: small answers pass and large ones do not.",
        "ping -M do -s 1472 from {from} to {to}",
    ),
    ("starved", ("node",)): (
        "The agent on node {node} waits for CPU time; its figures are set aside.",
        "kubectl describe node {node}; raise the agent's CPU limit or remove it",
    ),
    ("discovery", ()): (
        "The agents do not learn of their neighbours.",
        "kubectl auth can-i list pods --as=system:serviceaccount:NAMESPACE:kubenurse",
    ),
    ("discovery", ("node",)): (
        "The agent on node {node} does not learn of its neighbours.",
        "kubectl logs of the agent on {node}",
    ),
    ("maintenance", ("node",)): ("", "kubectl get node {node}"),
}

_DIRECTIONS = {
    "in": "Node {node} cannot be reached by the others, although its agent works.",
    "out": "Node {node} reaches nobody, although others reach it.",
    "both": "Node {node} is cut off: it reaches nobody and nobody reaches it.",
}

_WARNINGS = frozenset({"starved", "loss", "path", "dns_slow", "api_server_slow"})


def severity(cause: str, *, only_soon: bool = False) -> str:
    """Return a cause's severity. ``only_soon`` marks a certificate that still works."""
    if cause == "maintenance":
        return "info"
    return "warning" if cause in _WARNINGS or only_soon else "critical"


def describe(cause: str, where: Mapping[str, Any]) -> tuple[str, str]:
    """Return the sentence of a cause at a place, and what to look at next."""
    sentence, following = _WORDS[cause, tuple(where)]
    if cause == "isolated":
        sentence = _DIRECTIONS[where["direction"]]
    return fill(sentence, where), fill(following, where)


def fill(sentence: str, where: Mapping[str, Any]) -> str:
    """Fill the names of a place into a sentence."""
    for key, value in where.items():
        sentence = sentence.replace("{" + key + "}", str(value))
    return sentence


def count(number: float, singular: str, plural: str = "") -> str:
    """Return a number with its noun."""
    return f"{number:.0f} {singular if round(number) == 1 else plural or singular + 's'}"


def some(names: list[str], most: int = 3) -> str:
    """Return a few names and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def seconds(value: float) -> str:
    """Return a duration that a person reads."""
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 600:
        return f"{value:.1f} s"
    return f"{value / 86_400:.1f} days" if value >= 86_400 else f"{value / 60:.0f} min"
