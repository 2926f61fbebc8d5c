"""Converters from the text of an environment variable to what the agent works with.

Each converter takes the text, stripped and not empty, and raises ValueError with ``what is wrong, what is expected``.
No message repeats a part of a URL: it may be a password.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from checks.config import pem
from checks.config.durations import format_duration, parse_duration
from checks.config.names import is_dns_label, is_dns_subdomain, is_label_value
from checks.config.selector import parse_selector
from checks.model import BUILT_IN_TYPES, PATH_PREFIX, TRACE_EVENTS

_TRUE = frozenset(("true", "1", "yes", "on"))
_FALSE = frozenset(("false", "0", "no", "off"))
_NUMBER = re.compile(r"\+?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_](?:[-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?")
_BRACKETED = re.compile(r"\[(.*)\](?::[0-9]*)?")
_MOST_BUCKETS = 100  # each is a series for every check type, and for every event of it

# The text before a password: an extra check's name, the scheme, the user's name; without a scheme only one of them.
_BEFORE_PASSWORD = re.compile(r"(?:[^@:/|]*:(?!//))?(?:https?://(?:[^/?#@:|]*:)?)?")

# A query ends at the next URL of a list.
_QUERY = re.compile(r"\?[^|]+")


def redact(text: str) -> str:
    """Replace passwords and queries in a URL, or in a list of URLs, by ``***``; a user name alone counts as a token.

    Everything from the first password to the last ``@`` is replaced: the end of a malformed password is not known.
    """
    before, at, after = text.rpartition("@")
    kept = _BEFORE_PASSWORD.match(before)
    shown = f"{kept[0]}***@{after}" if at and kept else text
    return _QUERY.sub("?***", shown) if "://" in text else shown


def boolean(text: str) -> bool:
    """Convert true/false, 1/0, yes/no, on/off in any case."""
    word = text.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("not a boolean, expected true/false, 1/0, yes/no or on/off")
    return word in _TRUE


def duration(shortest: float, longest: float) -> Callable[[str], float]:
    """Make a converter for Go durations between two limits in seconds, both included."""

    def convert(text: str) -> float:
        seconds = parse_duration(text)
        if not shortest <= seconds <= longest:
            wrong = "too short" if seconds < shortest else "too long"
            limits = f"{format_duration(shortest)} to {format_duration(longest)}"
            raise ValueError(f"{wrong}, expected a duration from {limits}")
        return seconds

    return convert


def integer(smallest: int, largest: int, what: str) -> Callable[[str], int]:
    """Make a converter for whole numbers between two limits, both included; ``what`` says what is expected."""

    def convert(text: str) -> int:
        # int() also accepts blanks, underscores and the digits of other alphabets.
        if not re.fullmatch(r"[0-9]{1,9}", text) or not smallest <= int(text) <= largest:
            raise ValueError(f"not a number in range, expected {what} from {smallest} to {largest}")
        return int(text)

    return convert


def one_of(*words: str) -> Callable[[str], str]:
    """Make a converter for one of the words, in any case."""

    def convert(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"unknown, expected one of {', '.join(words)}")
        return text.lower()

    return convert


def url(text: str) -> str:
    """Check an http or https URL with a host and, perhaps, a port, path and query, and return it unchanged."""
    _split_url(text)
    return text


def base_url(text: str) -> str:
    """Check a URL that a path is appended to, and return it unchanged."""
    _split_url(text)
    if "?" in text:
        raise ValueError("has a query, expected a URL that /alwayshappy can be appended to")
    return text


def proxy(text: str) -> str:
    """Check a proxy's URL, or ``host:port`` as curl and Go take it, and return a URL."""
    given = text if "://" in text else f"http://{text}"
    _split_url(given)
    return given


def _split_url(text: str) -> None:
    expected = "expected a URL like https://kubenurse.example.com/path"
    if not all("!" <= character <= "~" for character in text):
        # urlsplit() would silently leave out some of these.
        raise ValueError(f"has blanks, control characters or characters beyond ASCII, {expected} (%-encoded, punycode)")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"the host or the port is malformed, {expected} with a port from 1 to 65535") from error
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"neither http:// nor https://, {expected}")
    # urlsplit() accepts more than addresses in brackets, and drops the text next to the brackets.
    bracketed = _BRACKETED.fullmatch(parts.netloc.rpartition("@")[2])
    if not (_is_ip_address(bracketed[1]) if bracketed else _is_host_name(parts.hostname or "")):
        raise ValueError(f"no valid host, {expected}")
    if port == 0:
        raise ValueError(f"port 0, {expected} with a port from 1 to 65535")
    if "#" in text or "\\" in text:
        raise ValueError(f"has a fragment (#) or a backslash, {expected}")


def _is_host_name(text: str) -> bool:
    """Tell whether it is a DNS name (underscores and a final dot occur) or an IPv4 address."""
    labels = text.removesuffix(".").split(".")
    if labels[-1].isdigit():
        return _is_ip_address(text)
    return len(text) <= 254 and all(_HOST_LABEL.fullmatch(label) for label in labels)


def host_name(text: str) -> str:
    """Check a DNS name."""
    if not _is_host_name(text):
        raise ValueError("not a host name, expected one like kubernetes.default.svc")
    return text


def host(text: str) -> str:
    """Check an IP address, with or without brackets (which are removed), or a DNS name."""
    bare = _without_brackets(text)
    if not _is_host_name(bare) and not _is_ip_address(bare):
        raise ValueError("neither an IP address nor a host name, expected one like 10.96.0.1 or fd00::1")
    return bare


def ip_address(text: str) -> str:
    """Check an IPv4 or IPv6 address, with or without brackets, which are removed."""
    bare = _without_brackets(text)
    if not _is_ip_address(bare):
        raise ValueError("not an IP address, expected one like 10.0.0.1 or ::")
    return bare


def _without_brackets(text: str) -> str:
    return text[1:-1] if text.startswith("[") and text.endswith("]") and ":" in text else text


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def namespace(text: str) -> str:
    """Check the name of a namespace."""
    if not is_dns_label(text):
        raise ValueError("not a namespace's name, expected at most 63 of a-z, 0-9 and inner '-'")
    return text


def object_name(text: str) -> str:
    """Check the name of a Pod or node."""
    if not is_dns_subdomain(text):
        raise ValueError("not a Pod's or node's name, expected at most 253 of a-z, 0-9 and inner '-' and '.'")
    return text


def label_selector(text: str) -> str:
    """Check a label selector, and return it unchanged."""
    try:
        parse_selector(text)
    except ValueError as error:
        raise ValueError(f"not a label selector: {error}") from error
    return text


def extra_checks(text: str) -> tuple[tuple[str, str], ...]:
    """Convert ``name:url|name:url`` to pairs; one error names every problem."""
    checks: list[tuple[str, str]] = []
    problems: list[str] = []
    for number, entry in enumerate(text.split("|"), start=1):
        name, _, target = (part.strip() for part in entry.partition(":"))
        try:
            _check_extra_name(name, taken=[known for known, _ in checks])
            checks.append((name, url(target)))
        except ValueError as error:
            problems.append(f"entry {number}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(checks)


def _check_extra_name(name: str, taken: list[str]) -> None:
    if not name:
        raise ValueError("no name, expected name:url")
    if not is_label_value(name):
        raise ValueError("the name is not a label value, expected at most 63 letters, digits and inner '-', '_', '.'")
    if name in BUILT_IN_TYPES or name.startswith(PATH_PREFIX):
        raise ValueError("the name is a built-in check's, expected another one")
    if name in taken:
        raise ValueError("the name is taken, expected each name once")


def buckets(text: str) -> tuple[float, ...]:
    """Convert a comma-separated list of upper bounds in seconds; the +Inf at its end may be written or left out."""
    expected = "expected strictly increasing seconds like 0.005,0.1,1"
    words = [word.strip() for word in text.split(",")]
    if words[-1].lower() in ("+inf", "inf"):
        words.pop()
    if not words or not all(_NUMBER.fullmatch(word) for word in words):
        raise ValueError(f"not a list of numbers, {expected}")
    bounds = tuple(float(word) for word in words)
    if not all(0 < bound < float("inf") for bound in bounds):
        raise ValueError(f"a bound is zero or too large, {expected}")
    if not all(lower < upper for lower, upper in pairwise(bounds)):
        raise ValueError(f"not strictly increasing, {expected}")
    if len(bounds) > _MOST_BUCKETS:
        raise ValueError(f"too many, expected at most {_MOST_BUCKETS} buckets")
    return bounds


def trace_events(text: str) -> frozenset[str]:
    """Convert ``all``, ``none`` or a comma-separated list of trace events."""
    words = {word.strip() for word in text.split(",")}
    if words == {"all"}:
        return frozenset(TRACE_EVENTS)
    if words == {"none"}:
        return frozenset()
    if not words <= set(TRACE_EVENTS):
        raise ValueError(f"not a list of events, expected all, none or some of {', '.join(TRACE_EVENTS)}")
    return frozenset(words)


def existing_files(text: str) -> tuple[Path, ...]:
    """Convert a colon-separated list of files to those that are there."""
    return tuple(path for path in map(Path, filter(None, text.split(":"))) if is_file(path))


def is_file(path: Path) -> bool:
    """Tell whether there is a file; a file in a directory that the agent may not enter counts as missing."""
    try:
        return path.is_file()
    except OSError:
        return False


def ca_file(text: str) -> Path:
    """Check a PEM file with at least one certificate; its users check its contents."""
    path = Path(text)
    pem.check_certificates(path)
    return path
