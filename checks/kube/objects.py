"""Pods and Nodes of the API server, read into the agent's own facts and validated. Pure.

An address is an IP address, a name is a DNS-1123 subdomain, a label value follows the label rules. Anything else is
odd: the object is left out, because its text would travel into URLs, metrics and logs.
Source of the fields: the Kubernetes API reference, core/v1 Pod and Node
(https://kubernetes.io/docs/reference/kubernetes-api/).
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from checks.config.names import is_dns_subdomain, is_label_value
from checks.kube.client import Object, section, text_of
from checks.model import RUNNING, Neighbour

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
ZONE_LABEL = "topology.kubernetes.io/zone"
# What kubectl shows for a Pod with a deletionTimestamp, whatever its phase.
TERMINATING = "Terminating"
# A running Pod that is not ready.
NOT_READY = "NotReady"
UNKNOWN = "Unknown"
_PHASES = frozenset(("Pending", RUNNING, "Succeeded", "Failed", UNKNOWN))

LOOPBACK = "loopback"
LINK_LOCAL = "link-local"
_LONGEST_SHOWN = 60  # characters of an odd value


class OddObjectError(ValueError):
    """An object that cannot be used. The message names field and value, in bounded printable ASCII text."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A Pod of the selection. ``unusable`` says why its address must not be checked, empty when it may be."""

    neighbour: Neighbour
    unusable: str = ""


def read_pod(item: Object, *, listen_address: str = "") -> Pod:
    """Return the facts of a Pod.

    An address that is loopback, link-local, multicast or unspecified belongs to no other Pod and is left out.
    ``listen_address`` is the address that agents listen on: where it is loopback or link-local, so may the Pods' be.

    Raises:
        OddObjectError: for a name, node or address that is none.
    """
    metadata, status = section(item, "metadata"), section(item, "status")
    allowed = _range(ipaddress.ip_address(listen_address)) if listen_address else ""
    pod_ip, unusable = _address(status, "podIP", allowed)
    host_ip, _ = _address(status, "hostIP", allowed)
    zone = text_of(section(metadata, "labels"), ZONE_LABEL)
    neighbour = Neighbour(
        pod_name=name_of(item),
        pod_ip=pod_ip,
        host_ip=host_ip,
        node_name=_name(section(item, "spec"), "nodeName", "spec.nodeName", may_be_empty=True),
        phase=TERMINATING if metadata.get("deletionTimestamp") else _phase(status),
        started_at=_started_at(status),
        zone=zone if is_label_value(zone) else "",
    )
    return Pod(neighbour, unusable)


def is_cordoned(item: Object) -> bool:
    """Tell whether a Node is cordoned: by ``spec.unschedulable`` or by the taint of that meaning.

    Raises:
        OddObjectError: for a name that is none.
    """
    name_of(item)
    spec = section(item, "spec")
    tainted = any(taint.get("key") == UNSCHEDULABLE_TAINT for taint in _sections(spec, "taints"))
    return spec.get("unschedulable") is True or tainted


def name_of(item: Object) -> str:
    """Return an object's name.

    Raises:
        OddObjectError: for a name that is no DNS-1123 subdomain.
    """
    return _name(section(item, "metadata"), "name", "metadata.name")


def epoch_seconds(text: str) -> float | None:
    """Return the moment of an RFC 3339 time as in Kubernetes' objects, None for any other text."""
    try:
        moment = datetime.fromisoformat(text)
        seconds = moment.timestamp() if moment.tzinfo else math.nan
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def shown(value: object) -> str:
    """Return an odd value for a message: cut, quoted, and escaped to ASCII."""
    text = value if isinstance(value, str) else type(value).__name__
    return ascii(text[:_LONGEST_SHOWN] + ("..." if len(text) > _LONGEST_SHOWN else ""))


def _name(item: Object, field: str, path: str, *, may_be_empty: bool = False) -> str:
    value = item.get(field)
    if value in (None, "") and may_be_empty:
        return ""
    if not isinstance(value, str) or not is_dns_subdomain(value):
        raise OddObjectError(f"{path} {shown(value)} is no DNS-1123 name")
    return value


def _address(status: Object, field: str, allowed: str) -> tuple[str, str]:
    """Return an address as canonical text, or empty text and the reason why it must not be used."""
    value = status.get(field)
    if value in (None, ""):
        return "", ""
    try:
        # A scope after % names an interface of the other machine.
        address = ipaddress.ip_address(value if isinstance(value, str) and "%" not in value else "")
    except ValueError:
        raise OddObjectError(f"status.{field} {shown(value)} is no IP address") from None
    found = _range(address)
    if found and (found != allowed or found not in (LOOPBACK, LINK_LOCAL)):
        return "", f"status.{field} {address} is {found}"
    return str(address), ""


def _range(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return the range of an address that no other Pod can have, empty for an address of the network."""
    mapped = getattr(address, "ipv4_mapped", None)
    known: ipaddress.IPv4Address | ipaddress.IPv6Address = mapped or address
    ranges = (
        (known.is_unspecified, "unspecified"),
        (known.is_loopback, LOOPBACK),
        (known.is_link_local, LINK_LOCAL),
        (known.is_multicast, "multicast"),
        (known == ipaddress.ip_address("255.255.255.255"), "broadcast"),
    )
    return next((name for holds, name in ranges if holds), "")


def _phase(status: Object) -> str:
    phase = text_of(status, "phase")
    if phase == RUNNING:
        for condition in _sections(status, "conditions"):
            if condition.get("type") == "Ready" and condition.get("status") == "False":
                return NOT_READY
    return phase if phase in _PHASES else UNKNOWN


def _started_at(status: Object) -> float | None:
    """Return when the last running container was started; the Pod's start where no container runs.

    No container of a Pod that crash-loops runs between two crashes. The Pod's own start tells how old it is.
    """
    running = (section(section(container, "state"), "running") for container in _sections(status, "containerStatuses"))
    moments = [epoch_seconds(text_of(each, "startedAt")) for each in running]
    found = [moment for moment in moments if moment is not None]
    return max(found) if found else epoch_seconds(text_of(status, "startTime"))


def _sections(item: Object, name: str) -> Iterator[Object]:
    """Yield the objects of a list field; whatever else is in the field is passed over."""
    value = item.get(name)
    return (each for each in (value if isinstance(value, list) else ()) if isinstance(each, dict))
