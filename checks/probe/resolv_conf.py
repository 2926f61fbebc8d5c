"""What /etc/resolv.conf says: which name servers are asked, and which full names are tried (resolv.conf(5)). Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

# The C library's limits.
MOST_SERVERS = 3
MOST_NDOTS = 15
# glibc had a limit of 6 until version 2.26 and has none now.
MOST_SEARCH = 16
# In bytes, of the file that is read.
LONGEST_FILE = 64 * 1024
# Asked when the file names no server.
DEFAULT_SERVER = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """The name servers (IP addresses), the search domains (without final dot) and the options as words.

    A name with fewer than ``ndots`` dots is looked up in the search domains first.
    """

    servers: tuple[str, ...] = (DEFAULT_SERVER,)
    search: tuple[str, ...] = ()
    ndots: int = 1
    options: tuple[str, ...] = ()

    def candidates(self, name: str) -> tuple[str, ...]:
        """Return the full names that the C library tries for a name, in its order."""
        if name.endswith("."):
            return (name,)
        searched = tuple(f"{name}.{domain}." for domain in self.search)
        return (f"{name}.", *searched) if name.count(".") >= self.ndots else (*searched, f"{name}.")


def parse(text: str) -> ResolvConf:
    """Read the text of a resolv.conf. Lines that mean nothing are passed over, as the C library does."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        # A keyword stands at the very beginning of its line.
        if not line or line[0].isspace() or line[0] in "#;":
            continue
        keyword, *words = line.split()
        if keyword == "nameserver" and words and len(servers) < MOST_SERVERS and _is_address(words[0]):
            servers.append(words[0])
        elif keyword in ("search", "domain") and words:
            # The last such line counts. A domain is one search domain.
            domains = words[:1] if keyword == "domain" else words[:MOST_SEARCH]
            search = tuple(domain for domain in (word.strip(".") for word in domains) if domain)
        elif keyword == "options":
            options += tuple(words)
    return ResolvConf(tuple(servers) or (DEFAULT_SERVER,), search, _ndots(options), options)


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True


def _ndots(options: tuple[str, ...]) -> int:
    ndots = 1
    for option in options:
        name, _, value = option.partition(":")
        if name == "ndots" and value.isascii() and value.isdigit():
            ndots = min(int(value.lstrip("0")[:3] or "0"), MOST_NDOTS)
    return ndots
