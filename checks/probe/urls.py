"""URLs as a check needs them: taken apart once, and shown without what is secret in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote

from urllib3.exceptions import LocationParseError
from urllib3.util import make_headers, parse_url

from checks.addresses import bracketed, host_port

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a request goes: ``https`` over TLS, to a host (IPv6 without brackets) and a port."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Url:
    """A URL: its endpoint, ``authority`` as the Host header writes it, ``target`` (path and query), ``user``'s info."""

    endpoint: Endpoint
    authority: str
    target: str
    user: str = field(default="", repr=False)

    def authorization(self) -> Mapping[str, str]:
        """Return the Authorization header that the user and password in the URL ask for (RFC 7617)."""
        return make_headers(basic_auth=self.user) if self.user else {}

    def proxy_authorization(self) -> Mapping[str, str]:
        """Return the same for a proxy."""
        return make_headers(proxy_basic_auth=self.user) if self.user else {}

    def absolute(self) -> str:
        """Return it whole but for user and password, as a proxy is asked for it."""
        return f"{self.endpoint.scheme}://{self.authority}{self.target}"

    def __str__(self) -> str:
        """Show it without user, password and query, which may hold secrets."""
        return f"{self.endpoint.scheme}://{self.authority}{self.target.partition('?')[0]}"


def parse(text: str) -> Url:
    """Take an absolute http or https URL apart.

    Raises:
        ValueError: when it is not one; the message quotes nothing of it, since it may hold secrets.
    """
    try:
        url = parse_url(text)
    except LocationParseError:
        raise ValueError("not a URL") from None
    scheme, host = url.scheme or "", (url.host or "").strip("[]")
    if scheme not in _DEFAULT_PORTS or not host or url.port == 0:
        raise ValueError("not an http or https URL")
    return Url(
        endpoint=Endpoint(scheme, host, url.port or _DEFAULT_PORTS[scheme]),
        authority=host_port(host, url.port) if url.port else bracketed(host),
        target=url.request_uri,
        # Latin-1 keeps the bytes as they were escaped, which make_headers encodes by it.
        user=unquote(url.auth or "", "latin-1"),
    )


# For the URLs of targets and proxies, the same in every round; what servers redirect to may be new and long each time.
parse_configured = lru_cache(maxsize=1024)(parse)
