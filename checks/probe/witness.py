"""Witnesses: what a person would try next after a check failed. Each differs from the check in one layer only.

Every function here makes one kind of witness within a deadline and does not raise for what the network does. Which
kinds follow which failure is settled in ``witnesses.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from checks.config.files import read_regular
from checks.model import (
    AGAIN,
    DNS_TCP,
    DNS_UDP,
    HOP,
    LARGE,
    LAST_ADDRESS,
    NODE,
    OTHER_ADDRESS,
    SMALL,
    STATUS,
    CheckResult,
    Target,
    Witness,
)
from checks.probe import dns, http, urls
from checks.probe.connecting import connect
from checks.probe.failures import in_words
from checks.probe.hops import last_hop
from checks.probe.name_servers import DNS_PORT, Ask, NameServer, new_question
from checks.probe.resolv_conf import LONGEST_FILE, ResolvConf, parse
from checks.probe.resolver import Pinned, literal_address
from checks.probe.shared import Shared

# In seconds: the most for one name server, for the node and for the hops. What makes the check again has its timeout.
WITNESS_TIMEOUT = 2.0
# Addresses of one name that are checked one by one.
MOST_ADDRESSES = 3
# Bytes of a large answer, and of the header that makes a request large: more than the largest usual MTU (9,001), and
# less than the 16 KiB that an agent reads of a request's head.
LARGE_ANSWER = 16_384
LARGE_REQUEST = 12_000


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed check. ``last_address`` is where its last success was connected to, empty before the first."""

    target: Target
    result: CheckResult
    last_address: str = ""


Make = Callable[[Failure], Sequence[Witness]]


class Examiner:
    """Makes witnesses with what the checks share.

    ``node_port`` is tried on a neighbour's node, 0 for never. ``resolv_conf`` is the file that names the name servers,
    ``dns_port`` their port.
    """

    def __init__(
        self,
        shared: Shared,
        *,
        node_port: int,
        resolv_conf: Path = Path("/etc/resolv.conf"),
        dns_port: int = DNS_PORT,
    ) -> None:
        # A kept connection would hide what a witness is about.
        self._shared = replace(shared, idle=None)
        self._node_port = node_port
        self._resolv_conf = resolv_conf
        self._dns_port = dns_port
        self.by_kind: Mapping[str, Make] = {
            DNS_UDP: self.dns_udp,
            DNS_TCP: self.dns_tcp,
            LAST_ADDRESS: self.last_address,
            AGAIN: self.again,
            OTHER_ADDRESS: self.other_address,
            NODE: self.node,
            HOP: self.hop,
            SMALL: self.small,
            LARGE: self.large,
        }

    def dns_udp(self, failure: Failure) -> Sequence[Witness]:
        """Put the check's question to each name server by UDP."""
        return self._ask_servers(failure, DNS_UDP, NameServer.ask_udp)

    def dns_tcp(self, failure: Failure) -> Sequence[Witness]:
        """Put the check's question to each name server by TCP."""
        return self._ask_servers(failure, DNS_TCP, NameServer.ask_tcp)

    def last_address(self, failure: Failure) -> Sequence[Witness]:
        """Make the check at the address where it succeeded last, with the same Host header and TLS name."""
        if not failure.last_address or _is_literal(failure.target):
            return ()
        return (self._check_at(failure.target, LAST_ADDRESS, failure.last_address),)

    def again(self, failure: Failure) -> Sequence[Witness]:
        """Make the check once more."""
        result = http.check(self._shared, failure.target)
        host = urls.parse_configured(failure.target.url).endpoint.host
        return (_of_check(AGAIN, result.remote or host, result),)

    def other_address(self, failure: Failure) -> Sequence[Witness]:
        """Make the check at each address of a name that has several, up to MOST_ADDRESSES."""
        if _is_literal(failure.target):
            return ()
        endpoint = urls.parse_configured(failure.target.url).endpoint
        deadline = time.perf_counter() + WITNESS_TIMEOUT
        try:
            found, _ = self._shared.resolver.resolve(endpoint.host, endpoint.port, deadline)
        except OSError:
            return ()  # the name cannot be resolved now: that is for the check to tell
        addresses = list(dict.fromkeys(str(where[0]) for _, where in found))
        if len(addresses) < 2:
            return ()
        return [self._check_at(failure.target, OTHER_ADDRESS, address) for address in addresses[:MOST_ADDRESSES]]

    def node(self, failure: Failure) -> Sequence[Witness]:
        """Connect to the neighbour's node itself: a connection, or its refusal, says that the node lives."""
        address = literal_address(failure.target.node_address, self._node_port)
        if address is None or not self._node_port:
            return ()

        def test(deadline: float) -> tuple[bool, str]:
            try:
                connect([address], deadline, self._shared.abort).sock.close()
            except ConnectionRefusedError as error:
                return True, in_words(error, WITNESS_TIMEOUT)
            return True, "connected"

        return (_timed(NODE, failure.target.node_address, failure.target.node, test),)

    def hop(self, failure: Failure) -> Sequence[Witness]:
        """Find the last hop that answers on the way to the neighbour; ok when the neighbour's address does."""
        target = urls.parse_configured(failure.target.url).endpoint.host
        if literal_address(target, 1) is None:
            return ()

        def test(deadline: float) -> tuple[bool, str]:
            found = last_hop(target, deadline, self._shared.abort)
            if found is None:
                return False, "no hop answers"
            return found.is_target, f"hop {found.ttl}, {found.address or 'no address'}: {found.words}"

        return (_timed(HOP, target, failure.target.node, test),)

    def small(self, failure: Failure) -> Sequence[Witness]:
        """Ask the other agent for an empty answer."""
        result = http.check(self._shared, failure.target)
        return (_of_check(SMALL, result.remote or _host(failure.target), result),)

    def large(self, failure: Failure) -> Sequence[Witness]:
        """Ask the other agent for a large answer, and by a large request; where both can be judged, a failed one last.

        An agent of an older version answers empty in any case, and refuses a large request: then the size says nothing.
        """
        asked = replace(failure.target, url=f"{failure.target.url}?bytes={LARGE_ANSWER}")
        result, body_bytes = http.measure(self._shared, asked)
        found = []
        if result.phase != STATUS and not (result.ok and body_bytes < LARGE_ANSWER):
            found.append(_of_check(LARGE, result.remote or _host(asked), result, "answer"))
        padded = replace(self._shared, preparer=replace(self._shared.preparer, padding=LARGE_REQUEST))
        result = http.check(padded, failure.target)
        if result.phase != STATUS:
            found.append(_of_check(LARGE, result.remote or _host(asked), result, "request"))
        return sorted(found, key=lambda witness: not witness.ok)

    def _check_at(self, target: Target, kind: str, address: str) -> Witness:
        result = http.check(replace(self._shared, resolver=Pinned(address)), target)
        return _of_check(kind, address, result)

    def _ask_servers(self, failure: Failure, kind: str, ask: Ask) -> Sequence[Witness]:
        if _is_literal(failure.target):
            return ()
        conf = self._read_resolv_conf()
        names = conf.candidates(_host(failure.target))
        return [self._ask_server(kind, address, names, ask) for address in conf.servers]

    def _ask_server(self, kind: str, address: str, names: Sequence[str], ask: Ask) -> Witness:
        server = NameServer(address, self._shared.abort, self._dns_port)
        at, begun = time.time(), time.perf_counter()
        ok, detail, name = _first_address(server, names, ask, begun + WITNESS_TIMEOUT)
        return Witness(kind, address, name.rstrip("."), ok, time.perf_counter() - begun, detail, at)

    def _read_resolv_conf(self) -> ResolvConf:
        try:
            return parse(read_regular(self._resolv_conf, LONGEST_FILE).decode("utf-8", "replace"))
        except OSError:
            return ResolvConf()  # what the C library does without the file


def _first_address(server: NameServer, names: Sequence[str], ask: Ask, deadline: float) -> tuple[bool, str, str]:
    """Ask a server for each name as the C library does; return whether there is an address, the words and the name."""
    found: tuple[str, str] | None = None
    missing = ""
    for name, kind in ((name, kind) for name in names for kind in (dns.A, dns.AAAA)):
        if name == missing:
            continue
        try:
            answer = ask(server, new_question(name, kind), deadline)
        except (OSError, ValueError) as error:
            return False, in_words(error, WITNESS_TIMEOUT), name
        if answer.addresses:
            return True, f"{answer.words}, {answer.addresses[0]}", name
        if answer.code == dns.NAME_ERROR:
            missing = name
        # An error of the server says more than a name that does not exist, which is usual for searched names.
        if found is None or answer.code not in (dns.NO_ERROR, dns.NAME_ERROR):
            words = "truncated answer" if answer.is_truncated else answer.words
            found = (words if answer.code != dns.NO_ERROR or answer.is_truncated else "no address", name)
    words, name = found or ("no question", "")
    return False, words, name


def _timed(kind: str, address: str, name: str, test: Callable[[float], tuple[bool, str]]) -> Witness:
    """Run a test within WITNESS_TIMEOUT; what it raises is its result."""
    at, begun = time.time(), time.perf_counter()
    try:
        ok, detail = test(begun + WITNESS_TIMEOUT)
    except (OSError, ValueError) as error:
        ok, detail = False, in_words(error, WITNESS_TIMEOUT)
    return Witness(kind, address, name, ok, time.perf_counter() - begun, detail, at)


def _of_check(kind: str, address: str, result: CheckResult, name: str = "") -> Witness:
    return Witness(kind, address, name, result.ok, result.duration, result.state, result.started_at)


def _host(target: Target) -> str:
    return urls.parse_configured(target.url).endpoint.host


def _is_literal(target: Target) -> bool:
    return literal_address(_host(target), 1) is not None
