"""URLs as a check needs them: taken apart once, and shown without the secrets in them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from checks.addresses import bracketed, host_port

_DEFAULT_PORTS = {"http": 80, "https": 443}
# In characters. Servers that redirect accept request lines of 8 KB; a longer Location leads nowhere.
LONGEST_URL = 8192


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a request goes: ``https`` over TLS, to a host (IPv6 without brackets) and a port."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Url:
    """A URL: its endpoint, ``authority`` as the Host header writes it, and ``target``, the path and query.

    ``user`` is ``user:password`` of the URL in the bytes that were escaped there, empty without a user.
    """

    endpoint: Endpoint
    authority: str
    target: str
    user: bytes = field(default=b"", repr=False)

    def authorization(self) -> Mapping[str, str]:
        """Return the Authorization header that the user and password in the URL ask for."""
        return {"Authorization": self._basic()} if self.user else {}

    def proxy_authorization(self) -> Mapping[str, str]:
        """Return the same for a proxy."""
        return {"Proxy-Authorization": self._basic()} if self.user else {}

    def _basic(self) -> str:
        return f"Basic {base64.b64encode(self.user).decode('ascii')}"

    def absolute(self) -> str:
        """Return the whole URL without user and password: what a proxy is asked for."""
        return f"{self.endpoint.scheme}://{self.authority}{self.target}"

    @property
    def has_query(self) -> bool:
        """Whether there is a query, which may hold a secret."""
        return "?" in self.target

    def __str__(self) -> str:
        """Return the URL without user, password and query, which may hold secrets."""
        return f"{self.endpoint.scheme}://{self.authority}{self.target.partition('?')[0]}"


def parse(text: str) -> Url:
    """Take an absolute http or https URL apart.

    Raises:
        ValueError: when it is not one; the message quotes nothing of it, since it may hold secrets.
    """
    if len(text) > LONGEST_URL:
        raise ValueError("not a URL")
    try:
        url = parse_url(text)
    except (LocationParseError, UnicodeError):  # a lone surrogate cannot be escaped
        raise ValueError("not a URL") from None
    scheme, host = url.scheme or "", (url.host or "").strip("[]")
    if scheme not in _DEFAULT_PORTS or not host or url.port == 0:
        raise ValueError("not an http or https URL")
    return Url(
        endpoint=Endpoint(scheme, host, url.port or _DEFAULT_PORTS[scheme]),
        authority=host_port(host, url.port) if url.port else bracketed(host),
        target=url.request_uri,
        user=_user(url.auth or ""),
    )


def _user(info: str) -> bytes:
    """Return what Basic authentication encodes for the user information of a URL.

    The colon between user and password is always there (RFC 7617, section 2), also without a password. It is looked
    for before anything is unescaped: an escaped colon belongs to the password.
    """
    if not info:
        return b""
    user, _, password = info.partition(":")
    return unquote_to_bytes(user) + b":" + unquote_to_bytes(password)


# For the URLs of targets and proxies, which are the same in every round. Redirects may lead to a new URL each time.
parse_configured = lru_cache(maxsize=1024)(parse)
