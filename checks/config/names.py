"""Names as Kubernetes allows them.

Source: "Object Names and IDs" in the Kubernetes documentation
(https://kubernetes.io/docs/concepts/overview/working-with-objects/names/).
"""

from __future__ import annotations

import re

_LABEL_VALUE = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_DNS_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_LONGEST_SUBDOMAIN = 253


def is_label_name(text: str) -> bool:
    """Tell whether ``text`` may be the name part of a label's key."""
    return _LABEL_VALUE.fullmatch(text) is not None


def is_label_value(text: str) -> bool:
    """Tell whether ``text`` may be the value of a label; the empty text may."""
    return text == "" or is_label_name(text)


def is_dns_label(text: str) -> bool:
    """Tell whether ``text`` is a DNS-1123 label, as the names of namespaces are."""
    return _DNS_LABEL.fullmatch(text) is not None


def is_dns_subdomain(text: str) -> bool:
    """Tell whether ``text`` is a DNS-1123 subdomain, as the names of Pods and nodes are."""
    if len(text) > _LONGEST_SUBDOMAIN:
        return False
    # A part of a subdomain may be longer than a label (k8s.io/apimachinery, IsDNS1123Subdomain).
    return all(
        part and part[0] != "-" and part[-1] != "-" and not set(part) - _DNS_CHARACTERS for part in text.split(".")
    )
