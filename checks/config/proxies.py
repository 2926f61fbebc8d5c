"""Which proxy a request goes through: HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxy variables' values; empty means unset. The URLs may hold passwords."""

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    no_proxy: str = ""

    def for_url(self, scheme: str, host: str, port: int) -> str:
        """Return the URL of the proxy for a request, empty for none.

        NO_PROXY is a comma-separated list as curl and Go's ``net/http`` read it: ``*``, a domain (itself and what is
        below it), ``.domain`` or ``*.domain`` (only what is below it), an IP address or a CIDR range, each but the
        range with or without ``:port``. A name's final dot makes no difference.
        """
        proxy = self.https if scheme == "https" else self.http
        host = host.lower().rstrip(".")
        if not proxy or any(_covers(entry.strip().lower(), host, port) for entry in self.no_proxy.split(",")):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"


def _covers(entry: str, host: str, port: int) -> bool:
    if not entry or entry == "*":
        return bool(entry)
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    entry = entry.removeprefix("*")
    name, colon, entry_port = entry.rpartition(":")
    if colon and entry_port.isdigit():
        if int(entry_port) != port:
            return False
        entry = name.strip("[]")
    entry = entry.rstrip(".")
    return host == entry or host.endswith("." + entry.lstrip("."))
