"""What a request carries, which certificates it trusts and which way it goes: settled before the clock starts."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urljoin

from checks import __version__
from checks.config.proxies import Proxies
from checks.model import ORIGIN_HEADER, Target
from checks.probe import failures, urls
from checks.probe.urls import Endpoint, Url

PADDING_HEADER = "KUBENURSE-PADDING"


class Trust(Protocol):
    """Trusted certificates."""

    def context(self) -> ssl.SSLContext:
        """Return the TLS context as the files behind it are now. Raises OSError when those cannot be used."""
        ...


class ApiCredentials(Trust, Protocol):
    """What a request to the API server carries; their context always verifies.

    ``server_name`` is the name in the server's certificate where it is not the host of the URL, else None.
    """

    @property
    def server_name(self) -> str | None:
        """The name to verify."""
        ...

    def headers(self) -> Mapping[str, str]:
        """Return the Authorization header, fresh. Raises when the credentials cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """A prepared request. ``context`` is None without TLS; ``proxy`` is None for a direct connection.

    ``text`` is the URL as it was given, with user and password.
    ``is_secret`` tells that a credential or a query goes with it, which the server might echo: then no text of the
    server's is shown.
    """

    text: str = field(repr=False)
    url: Url
    headers: Mapping[str, str] = field(repr=False)
    context: ssl.SSLContext | None
    server_name: str
    proxy: Url | None
    is_secret: bool

    @property
    def endpoint(self) -> Endpoint:
        """Where it goes in the end."""
        return self.url.endpoint


@dataclass(frozen=True, slots=True)
class Preparer:
    """Prepares requests. ``credentials`` is None when there is no API server to talk to.

    ``keeps_connections`` tells whether a server is asked to keep the connection open after its answer. ``padding`` is
    the bytes of a meaningless header that makes the request large; 0 for none.
    """

    trust: Trust
    credentials: ApiCredentials | None
    proxies: Proxies
    keeps_connections: bool
    padding: int = 0

    def first(self, target: Target) -> Request:
        """Prepare the request for a target's URL.

        Raises:
            CheckError: when it cannot be sent; errors of the trust and of the credentials pass.
            ValueError: when the URL is none.
        """
        return self._prepare(target, target.url, urls.parse_configured(target.url))

    def redirected(self, target: Target, request: Request, location: str, *, quotes: bool) -> Request:
        """Prepare the request that an answer's Location leads to, on the same host only.

        ``quotes`` allows the place in the words of a failure.

        Raises:
            CheckError: when the redirect must not be followed; otherwise as ``first``.
        """
        try:
            text = urljoin(request.text, location)
            following = urls.parse(text)
        except ValueError as error:
            raise failures.redirected("redirect to a place that is not an http or https URL") from error
        # The final dot of a full name is for the resolver; servers leave it out of their redirects.
        if following.endpoint.host.rstrip(".") != request.endpoint.host.rstrip("."):
            raise failures.redirected(f"redirect to another host{f': {following}' if quotes else ''}")
        return self._prepare(target, text, following)

    def _prepare(self, target: Target, text: str, url: Url) -> Request:
        headers = {
            "Host": url.authority,
            "User-Agent": f"kubenurse/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        if not self.keeps_connections:
            headers["Connection"] = "close"
        if target.origin:
            headers[ORIGIN_HEADER] = target.origin
        if self.padding:
            headers[PADDING_HEADER] = "x" * self.padding
        headers.update(url.authorization())
        trust, server_name = self.trust, target.server_name or url.endpoint.host.rstrip(".")
        if target.to_api_server:
            trust = credentials = self._api_credentials(url)
            server_name = credentials.server_name or server_name
            headers.update(credentials.headers())
        proxy = self._proxy(url.endpoint) if target.use_proxy else None
        return Request(
            text=text,
            url=url,
            headers=headers,
            context=_context(trust) if url.endpoint.scheme == "https" else None,
            server_name=server_name,
            proxy=proxy,
            is_secret="Authorization" in headers or url.has_query or bool(proxy and proxy.user),
        )

    def _api_credentials(self, url: Url) -> ApiCredentials:
        if self.credentials is None:
            raise failures.unprepared("no credentials for the API server")
        if url.endpoint.scheme != "https":
            raise failures.unprepared("the credentials go to the API server by https only")
        return self.credentials

    def _proxy(self, endpoint: Endpoint) -> Url | None:
        text = self.proxies.for_url(endpoint.scheme, endpoint.host, endpoint.port)
        if not text:
            return None
        proxy = urls.parse_configured(text)
        if proxy.endpoint.scheme != "http":
            raise failures.unprepared(f"proxy {proxy} is not supported, expected http://")
        return proxy


def _context(trust: Trust) -> ssl.SSLContext:
    try:
        return trust.context()
    except OSError as error:
        words = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        raise failures.unprepared(f"CA or client certificate file: {words}") from error
