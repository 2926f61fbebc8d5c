"""Hosts and ports as URLs write them."""

from __future__ import annotations


def bracketed(host: str) -> str:
    """Return a host as a URL writes it: an IPv6 address stands in brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def host_port(host: str, port: int) -> str:
    """Return ``host:port``, ``[host]:port`` for an IPv6 address."""
    return f"{bracketed(host)}:{port}"
