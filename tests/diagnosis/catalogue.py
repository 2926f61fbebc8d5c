"""All faults by name, and which of them hide each other."""

from __future__ import annotations

from tests.diagnosis import faults

FAULTS: dict[str, faults.Fault] = {
    "dns {}": faults.dns,
    "dns {node}": faults.dns_on_node,
    "dns {server}": faults.dns_server,
    "dns_slow {}": faults.dns_slow,
    "dns_slow {node}": faults.dns_slow_on_node,
    "api_server {}": faults.api_server,
    "api_server {node}": faults.api_server_on_node,
    "api_server_slow {}": faults.api_server_slow,
    "api_server_slow {node}": faults.api_server_slow_on_node,
    "service_routing {}": faults.routing,
    "service_routing {node}": faults.routing_on_node,
    "service_backends {}": faults.backends,
    "ingress {}": faults.ingress,
    "ingress {node}": faults.ingress_on_node,
    "certificate": faults.certificate,
    "certificate, ends soon": faults.certificate_ends,
    "extra": faults.extra,
    "node": faults.node_down,
    "agent": faults.agent_dead,
    "isolated, in": faults.isolated_in,
    "isolated, out": faults.isolated_out,
    "isolated, both": faults.isolated_both,
    "path": faults.path_one_way,
    "path, both ways": faults.path_both_ways,
    "zones": faults.zones,
    "loss {node}": faults.loss_at_node,
    "loss {from, to}": faults.loss_of_pair,
    "loss {zone, zone_to}": faults.loss_between_zones,
    "mtu {node}": faults.mtu_at_node,
    "mtu {from, to}": faults.mtu_of_pair,
    "starved": faults.starved,
    "discovery {}": faults.discovery,
    "discovery {node}": faults.discovery_on_node,
    "maintenance, cordoned": faults.cordoned,
    "maintenance, drained": faults.drained,
    "maintenance, deleted": faults.deleted,
    "maintenance, rolled": faults.rolled,
}

# Faults that hide another one: nobody could find the second from what agents see.
_NAMES = ("dns {node}", "dns {server}", "dns_slow {}", "dns_slow {node}")
_API = ("api_server {node}", "api_server_slow {}", "api_server_slow {node}", "discovery {}", "discovery {node}")
_BY_CLUSTER_IP = ("service_backends {}", "ingress {}", "ingress {node}", "certificate", "extra")
_HIDDEN_BY = {
    "dns {}": (*_NAMES, "extra", "service_routing {}"),
    "dns {server}": ("dns_slow {}", "dns_slow {node}"),
    "dns_slow {}": ("dns_slow {node}",),
    "api_server {}": (*_API, "certificate"),
    "api_server_slow {}": ("api_server_slow {node}",),
    "service_routing {}": ("dns {}", "api_server {}", *_NAMES, *_API, *_BY_CLUSTER_IP, "service_routing {node}"),
    "ingress {}": ("ingress {node}", "certificate"),
    "certificate": (
        "mtu {node}",
        "mtu {from, to}",
        "loss {from, to}",
        "loss {zone, zone_to}",
        "extra",
        "ingress {node}",
        "api_server {node}",
        *_API,
        "dns_slow {}",
        "dns_slow {node}",
    ),
    "discovery {}": ("discovery {node}",),
    "zones": ("path", "path, both ways", "loss {from, to}", "loss {zone, zone_to}", "mtu {from, to}"),
    "loss {zone, zone_to}": ("loss {from, to}", "loss {node}"),
    "service_backends {}": ("ingress {}",),
}


def is_hidden(first: str, second: str) -> bool:
    """Tell whether one of two faults hides the other one."""
    return second in _HIDDEN_BY.get(first, ()) or first in _HIDDEN_BY.get(second, ())
