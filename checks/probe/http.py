"""One HTTP check: Target -> CheckResult, from name resolution to the end of the answer, with truthful times."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from http.client import HTTPException, HTTPResponse, IncompleteRead

from checks.addresses import host_port
from checks.model import (
    CONNECT,
    DNS,
    HTTP,
    OK,
    POD_HEADER,
    PROXY,
    REQUEST,
    RESPONSE,
    SETUP,
    TLS,
    CheckResult,
    Target,
    TcpFacts,
)
from checks.probe import failures
from checks.probe.certificate import not_after
from checks.probe.channel import Channel
from checks.probe.connecting import FailedAttempts, connect
from checks.probe.failures import CheckError
from checks.probe.idle import Key
from checks.probe.request import Request
from checks.probe.resolver import Address, literal_address
from checks.probe.shared import Shared
from checks.probe.sockets import MeasuredSocket
from checks.probe.urls import Endpoint, Url
from checks.text import printable

log = logging.getLogger("kubenurse.probe")

REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5
# An answer is good once this much of its body has arrived, or all of it. Nothing is decompressed.
MOST_BODY_BYTES = 64 * 1024
# Names of Pods are DNS subdomains (RFC 1123).
LONGEST_POD_NAME = 253


def check(shared: Shared, target: Target) -> CheckResult:
    """Check one target. This does not raise: whatever goes wrong is in the result."""
    return _Check(shared, target).run()


def measure(shared: Shared, target: Target) -> tuple[CheckResult, int]:
    """Check one target as ``check`` does; return also how many bytes of the body arrived, at most MOST_BODY_BYTES."""
    made = _Check(shared, target)
    return made.run(), made.body_bytes


class _Check:
    """One check while it runs: the step that is under way, and what was measured so far.

    Of a chain of redirects ``requested``, ``moments``, ``status`` and ``answered_by`` are the last request's, ``start``
    is the first's, and ``is_secret`` is True from the first request with a secret on.
    """

    def __init__(self, shared: Shared, target: Target) -> None:
        self.shared = shared
        self.target = target
        self.started_at = time.time()
        self.start = self.requested = time.perf_counter()
        self.deadline = self.start + shared.timeout
        self.step = SETUP
        self.is_secret = False
        self.moments: dict[str, float] = {}
        self.channel: Channel | None = None
        self.failed_attempts = FailedAttempts()
        self.answer_began = False
        self.status: int | None = None
        self.answered_by = ""
        self.body_bytes = 0
        self.remote = ""
        self.tcp: TcpFacts | None = None
        self.not_after: float | None = None

    def run(self) -> CheckResult:
        """Follow the target's URL to its answer and return the result."""
        failure, failed_at = None, self.start
        try:
            self._follow()
        except Exception as error:  # whatever it is, it is the result of this check
            failed_at = time.perf_counter()
            failure = self._explain(error)
        finally:
            self._leave_channel(keep_as=None)
        end = failed_at if self.status is None else self.moments["got_first_resp_byte"]
        return CheckResult(
            type=self.target.type,
            kind=HTTP,
            state=failure.state if failure else OK,
            event=failure.event if failure else "",
            phase=failure.phase if failure else "",
            status_code=self.status,
            duration=end - self.start,
            trace={name: max(0.0, moment - self.requested) for name, moment in self.moments.items()},
            started_at=self.started_at,
            finished=time.monotonic(),
            tcp=_sum(self.tcp, self.failed_attempts.facts),
            not_after=self.not_after,
            remote=self.remote,
            answered_by=self.answered_by,
        )

    def _explain(self, error: Exception) -> CheckError:
        # Not within run: its frame is in the error's traceback and so must not refer to the error.
        quotes = not self.is_secret
        if not isinstance(error, (CheckError, OSError, HTTPException)) and quotes:
            log.debug("check raised", exc_info=error, extra={"facts": {"type": self.target.type}})
        failure = failures.translate(
            error, self.step, self.shared.timeout, answer_began=self.answer_began, quotes=quotes
        )
        return CheckError(failure.state, failure.event, failure.phase)  # without the traceback

    def _follow(self) -> None:
        """Request the target's URL, and where that is allowed what it redirects to on the same host."""
        preparer = self.shared.preparer
        request = preparer.first(self.target)
        # Files are read and the URL is parsed: from here on it is the network's time.
        self.start = self.requested = time.perf_counter()
        self.deadline = self.start + self.shared.timeout
        for _ in range(MOST_REDIRECTS + 1):
            self.is_secret = self.is_secret or request.is_secret
            location = self._perform(request)
            if location is None:
                return
            self.step = SETUP
            request = preparer.redirected(self.target, request, location, quotes=not self.is_secret)
            self.requested = time.perf_counter()
        last = "" if self.is_secret else f", the last to {request.url}"
        raise failures.redirected(f"more than {MOST_REDIRECTS} redirects{last}")

    def _perform(self, request: Request) -> str | None:
        """Ask, over an idle connection or a new one. Return where the answer redirects to, None for a good answer.

        Raises:
            CheckError: for any other answer; the errors of the socket and of http.client pass.
        """
        # What was noted belongs to the request that redirected here.
        self.answer_began, self.status, self.answered_by = False, None, ""
        self.moments.clear()
        key = (self.target, request.endpoint)
        response = self._ask_idle(request, key)
        if response is None:
            response = self._ask(self._open(request), request)
        # The API server's checks follow nothing: the token goes only where the configuration says.
        may_follow = self.target.follow_redirects and not self.target.to_api_server
        location = response.headers.get("Location", "") if may_follow else ""
        redirects = bool(location) and response.status in REDIRECT_STATUSES
        if response.status != 200 and not redirects:
            raise failures.wrong_status(response.status, self._phrase(response))
        whole = self._drain(response)
        self._leave_channel(keep_as=key if whole and request.proxy is None and not response.will_close else None)
        return location if redirects else None

    def _ask_idle(self, request: Request, key: Key) -> HTTPResponse | None:
        """Ask over the idle connection of the last round; None when there is none or it turns out to be dead."""
        channel = self.shared.idle.take(key) if self.shared.idle is not None else None
        if channel is None:
            return None
        self._take(channel)
        channel.begin(self.deadline)
        self.moments["got_conn"] = time.perf_counter()
        try:
            return self._ask(channel, request)
        except OSError as error:
            # A server may end an idle connection at the moment it is used again. The path did not fail: ask anew.
            if isinstance(error, TimeoutError) or self.answer_began:
                raise
            self._leave_channel(keep_as=None)
            self.moments.clear()
            return None

    def _open(self, request: Request) -> Channel:
        """Open a new connection, directly or through the proxy, with TLS where the URL says so."""
        proxy = request.proxy
        if proxy is None:
            channel = self._connect(request.endpoint, DNS, CONNECT)
        else:
            channel = self._connect(proxy.endpoint, failures.PROXY_DNS, failures.PROXY_CONNECT)
        if request.context is not None:
            if proxy is not None:
                self._tunnel(channel, request, proxy)
            self.step = TLS
            self.moments["tls_handshake_start"] = time.perf_counter()
            channel.handshake(request.context, request.server_name)
            self.moments["tls_handshake_done"] = time.perf_counter()
        self.moments["got_conn"] = time.perf_counter()
        return channel

    def _connect(self, endpoint: Endpoint, dns_step: str, connect_step: str) -> Channel:
        """Resolve the host and connect to the first of its addresses that answers."""
        literal = literal_address(endpoint.host, endpoint.port)
        self.step = dns_step
        addresses = [literal] if literal is not None else self._resolve(endpoint)
        self.step = connect_step
        self.moments["connect_start"] = time.perf_counter()
        connected = connect(addresses, self.deadline, self.shared.abort, self.failed_attempts)
        self.moments["connect_start"] = connected.started
        self.moments["connect_done"] = time.perf_counter()
        sock = MeasuredSocket(connected.sock, self.deadline, self.shared.abort)
        channel = Channel(sock, remote=str(connected.address[1][0]))
        self._take(channel)
        return channel

    def _resolve(self, endpoint: Endpoint) -> list[Address]:
        asked = self.moments["dns_start"] = time.perf_counter()
        addresses, answered = self.shared.resolver.resolve(endpoint.host, endpoint.port, self.deadline)
        self.moments["dns_done"] = max(asked, answered)
        return addresses

    def _tunnel(self, channel: Channel, request: Request, proxy: Url) -> None:
        """Ask the proxy for a tunnel to the request's endpoint (RFC 9110, section 9.3.6)."""
        self.step = PROXY
        endpoint = request.endpoint
        destination = host_port(endpoint.host, endpoint.port)
        channel.send_request("CONNECT", destination, {"Host": destination, **proxy.proxy_authorization()})
        answer = channel.read_head("CONNECT")
        if answer.status != 200:
            raise failures.refused_by_proxy(answer.status, self._phrase(answer))
        channel.first_byte = None  # this byte was the proxy's

    def _ask(self, channel: Channel, request: Request) -> HTTPResponse:
        """Send the request and read the head of the answer."""
        target, headers = request.url.target, request.headers
        if request.proxy is not None and request.context is None:
            target, headers = request.url.absolute(), {**headers, **request.proxy.proxy_authorization()}
        self.step = REQUEST
        channel.send_request("GET", target, headers)
        self.moments["wrote_request"] = channel.wrote_request or time.perf_counter()
        self.step = RESPONSE
        try:
            response = channel.read_head("GET")
        finally:
            if channel.first_byte is not None:
                self.answer_began = True
                # A thread that was suspended after sending may stamp the request later than the kernel its answer.
                self.moments["wrote_request"] = min(self.moments["wrote_request"], channel.first_byte)
                self.moments["got_first_resp_byte"] = channel.first_byte
        self.status = response.status
        if not self.is_secret:
            self.answered_by = printable(response.headers.get(POD_HEADER, ""), LONGEST_POD_NAME)
        return response

    def _drain(self, response: HTTPResponse) -> bool:
        """Read the body, up to MOST_BODY_BYTES; tell whether that was all of it.

        Raises:
            http.client.IncompleteRead: when it ends before its announced end.
        """
        self.body_bytes = 0
        while self.body_bytes < MOST_BODY_BYTES:
            data = response.read(min(MOST_BODY_BYTES - self.body_bytes, 16 * 1024))
            if not data:
                if response.length:  # http.client does not report a body that ends before its Content-Length
                    raise IncompleteRead(b"", response.length)
                return True
            self.body_bytes += len(data)
        return response.isclosed()

    def _phrase(self, response: HTTPResponse) -> str:
        """Return the server's reason phrase, empty where the server could echo a secret in it."""
        return "" if self.is_secret else response.reason or ""

    def _take(self, channel: Channel) -> None:
        self.channel, self.remote = channel, channel.remote

    def _leave_channel(self, keep_as: Key | None) -> None:
        """Note the connection's final figures, then close it or keep it for the next round."""
        channel, self.channel = self.channel, None
        if channel is None:
            return
        self.tcp = _sum(channel.sock.tcp_facts(), self.tcp)
        if channel.certificate is not None:
            with contextlib.suppress(ValueError):  # an unverified certificate may be any bytes
                self.not_after = not_after(channel.certificate)
        if keep_as is not None and self.shared.idle is not None:
            self.shared.idle.put(keep_as, channel)
        else:
            channel.end()


def _sum(latest: TcpFacts | None, before: TcpFacts | None) -> TcpFacts | None:
    """Return the latest figures of the path, where there are any, with the retransmits of both."""
    if latest is None or before is None:
        return latest or before
    return replace(latest, retransmits=latest.retransmits + before.retransmits)
