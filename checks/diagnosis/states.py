"""What the words of a failed check tell: the phase that failed and the manner in which it failed. Pure."""

from __future__ import annotations

import unicodedata

OK = "ok"
SKIPPED = "skipped"
NOT_SYNCED = "not synced yet"

API_SERVER_DIRECT = "api_server_direct"
API_SERVER_DNS = "api_server_dns"
ME_INGRESS = "me_ingress"
ME_SERVICE = "me_service"
API_TYPES = (API_SERVER_DIRECT, API_SERVER_DNS)
BUILT_IN_TYPES = (*API_TYPES, ME_INGRESS, ME_SERVICE)
PATH_PREFIX = "path_"
PATH_EXPLORE = "path_explore"

SETUP = "setup"
DNS = "dns"
CONNECT = "connect"
TLS = "tls"
REQUEST = "request"
RESPONSE = "response"
STATUS = "status"
REDIRECT = "redirect"
PROXY = "proxy"
PHASES = frozenset({SETUP, DNS, CONNECT, TLS, REQUEST, RESPONSE, STATUS, REDIRECT, PROXY})

# The manner of a failure: TIMEOUT and UNREACHABLE mean that nobody answered; REFUSED means that a host answered.
TIMEOUT = "timeout"
REFUSED = "refused"
UNREACHABLE = "unreachable"
CERTIFICATE = "certificate"
OTHER = "other"

# Longer text from another Pod is cut.
LONGEST_WORDS = 200

_UNREACHABLE_WORDS = ("no route to host", "network is unreachable", "host is down", "host is unreachable")
_CERTIFICATE_WORDS = (
    "certificate",
    "self-signed",
    "self signed",
    "hostname mismatch",
    "unable to get local issuer",
    "unable to get issuer",
    "unknown ca",
)
# An ingress that cannot reach its backend answers with one of these.
_BACKEND_STATUSES = ("502", "503", "504")


def phase_of(state: str) -> str:
    """Return the phase that a state in words names."""
    head = state.partition(":")[0].strip().lower()
    if head in PHASES:
        return head
    if state[:3].isdigit():
        return STATUS
    if head.startswith(("redirect", "more than")):
        return REDIRECT
    return RESPONSE


def manner_of(state: str, phase: str) -> str:
    """Return the manner in which a check with this state failed."""
    words = state.lower()
    if phase == TLS and any(each in words for each in _CERTIFICATE_WORDS):
        return CERTIFICATE
    if "timed out" in words or "timeout" in words.partition("(")[0]:
        return TIMEOUT
    if "refused" in words:
        return REFUSED
    if any(each in words for each in _UNREACHABLE_WORDS):
        return UNREACHABLE
    return OTHER


def is_backend_failure(state: str, phase: str) -> bool:
    """Tell whether an ingress that failed so could not reach what is behind it."""
    if phase == STATUS:
        return state.startswith(_BACKEND_STATUSES)
    return phase == RESPONSE and "timed out" in state


def clean(text: str, longest: int = LONGEST_WORDS) -> str:
    """Return text from another Pod as one printable line of at most ``longest`` characters."""
    if len(text) <= longest and text.isascii() and text.isprintable():
        return text
    kept = "".join(
        character if character.isprintable() and unicodedata.category(character) != "Cf" else " "
        for character in text[: longest + 1]
    )
    return kept if len(kept) <= longest else kept[: longest - 1] + "…"
