"""What of a request may be shown to others: /alive repeats the request, and nobody's credential may stand there.

Nobody can tell a credential by its looks or by its header's name. So values are shown of headers that are known to be
harmless, and of no others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from checks.model import ORIGIN_HEADER
from checks.web.http1 import FIELD_NAME, Header

REDACTED = "[redacted]"

# These describe the client, the format it wants and the way that the request took. None carries a credential, a whole
# URL or what an application put there. That is why Referer, Origin, X-Original-Url, Sec-WebSocket-Protocol and
# If-None-Match are missing.
HARMLESS_HEADERS = frozenset(
    name.lower()
    for name in (
        # the client and what it wants
        "User-Agent",
        "Accept",
        "Accept-Charset",
        "Accept-Encoding",
        "Accept-Language",
        "Cache-Control",
        "Pragma",
        "Dnt",
        "Priority",
        "Sec-Ch-Ua",
        "Sec-Ch-Ua-Mobile",
        "Sec-Ch-Ua-Platform",
        "Sec-Fetch-Dest",
        "Sec-Fetch-Mode",
        "Sec-Fetch-Site",
        "Sec-Fetch-User",
        "Upgrade-Insecure-Requests",
        # the connection and the message
        "Host",
        "Connection",
        "Keep-Alive",
        "Te",
        "Upgrade",
        "Content-Length",
        "Content-Type",
        "Transfer-Encoding",
        "Date",
        # the way through proxies and ingresses
        "Via",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Proto",
        "X-Forwarded-Scheme",
        "X-Forwarded-Server",
        "X-Scheme",
        "X-Real-Ip",
        "X-Request-Id",
        "X-Prometheus-Scrape-Timeout-Seconds",
        ORIGIN_HEADER,
    )
)

# The name of a query parameter that is shown. A longer or an odder one may be a token that has an equals sign in it.
_PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


def shown_headers(headers: Sequence[Header]) -> dict[str, list[str]]:
    """Return header name -> values, names as Go writes them and sorted; values of HARMLESS_HEADERS only."""
    shown: dict[str, list[str]] = {}
    for name, value in sorted((canonical_name(name), value) for name, value in headers):
        if name.lower() in HARMLESS_HEADERS:
            shown.setdefault(name, []).append(value)
        else:
            shown[name] = [REDACTED]
    return shown


def canonical_name(name: str) -> str:
    """``accept-encoding`` -> ``Accept-Encoding``, as Go's net/textproto.CanonicalMIMEHeaderKey does."""
    return "-".join(part.capitalize() for part in name.split("-")) if FIELD_NAME.fullmatch(name) else name


def shown_target(target: str) -> str:
    """Return a request target with its path and the names of its query's parameters, without any value.

    ``/alive?node=a&x`` -> ``/alive?node=[redacted]&[redacted]``. A user's name and password in an absolute URL and a
    fragment are not shown either. The time spent is proportional to the length.
    """
    rest, hash_sign, _fragment = target.partition("#")
    address, question_mark, query = rest.partition("?")
    shown = _without_user(address)
    if question_mark:
        shown += "?" + "&".join(_shown_parameter(parameter) for parameter in query.split("&"))
    return shown + (hash_sign + REDACTED if hash_sign else "")


def _without_user(address: str) -> str:
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    authority, slash, path = rest.partition("/")
    user, at_sign, host = authority.rpartition("@")
    return f"{scheme}://{REDACTED + at_sign if user or at_sign else ''}{host}{slash}{path}"


def _shown_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not parameter:
        return ""
    if not equals or not _PARAMETER_NAME.fullmatch(name):
        return REDACTED
    return f"{name}={REDACTED if value else ''}"
