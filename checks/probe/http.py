"""The one place that opens a connection for a check: Target -> CheckResult, with truthful times."""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPResponse, IncompleteRead
from typing import Protocol
from urllib.parse import urljoin

from checks import __version__
from checks.addresses import host_port
from checks.config.proxies import Proxies
from checks.model import OK, ORIGIN_HEADER, CheckResult, Target, TcpFacts
from checks.probe import failures, urls
from checks.probe.certificate import not_after
from checks.probe.channel import Channel
from checks.probe.failures import CheckError
from checks.probe.idle import Keeper, Key
from checks.probe.resolver import Address, Resolver, literal_address
from checks.probe.sockets import Abort, KernelClock, MeasuredSocket, connect
from checks.probe.urls import Endpoint, Url

log = logging.getLogger("kubenurse.probe")

REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5
# As much of a body as is read to its end; of a longer one no more is asked for.
MOST_BODY_BYTES = 64 * 1024


class Trust(Protocol):
    """Whose certificates are believed."""

    def context(self) -> ssl.SSLContext:
        """Return the TLS context as the files behind it are now. Raises OSError when those cannot be used."""
        ...


class ApiCredentials(Trust, Protocol):
    """What a request to the API server carries; the context of these always verifies.

    ``server_name`` is the name in the server's certificate where it is not the host asked, else None.
    """

    @property
    def server_name(self) -> str | None:
        """The name to verify."""
        ...

    def headers(self) -> Mapping[str, str]:
        """Return the Authorization header, fresh. Raises when there is none to be had."""
        ...


class Prober:
    """Runs checks, each in its caller's thread, from name resolution to the answer's end within one timeout.

    ``timeout`` is in seconds. ``credentials`` is None when there is no API server to talk to. With
    ``reuse_connections`` a direct connection that is still good is kept for the target's next check.
    """

    def __init__(
        self,
        *,
        timeout: float,
        trust: Trust,
        credentials: ApiCredentials | None = None,
        proxies: Proxies | None = None,
        resolver: Resolver | None = None,
        reuse_connections: bool = False,
    ) -> None:
        self.timeout = timeout
        self.trust = trust
        self.credentials = credentials
        self.proxies = proxies or Proxies()
        self.resolver = resolver or Resolver()
        self.keeper = Keeper() if reuse_connections else None
        self.kernel_clock = KernelClock()
        self.abort = Abort()

    def check(self, target: Target) -> CheckResult:
        """Check one target. Whatever goes wrong is the result: this does not raise."""
        return _Check(self, target).run()

    def stop(self) -> None:
        """Make the checks under way end now, with an error, and let the kept connections go."""
        self.abort.throw()
        self.resolver.abort()
        if self.keeper is not None:
            self.keeper.close()

    def close(self) -> None:
        """Give the descriptors back; no check may be under way any more."""
        self.stop()
        self.abort.close()
        self.kernel_clock.close()


@dataclass(frozen=True, slots=True)
class _Request:
    """All that is settled before the clock starts."""

    url: Url
    headers: Mapping[str, str]
    context: ssl.SSLContext | None
    server_name: str
    proxy: Url | None

    @property
    def endpoint(self) -> Endpoint:
        return self.url.endpoint


class _Check:
    """One check while it runs: which phase it is in, and what was measured so far.

    Of a chain of redirects ``requested``, ``moments`` and ``status`` are the last request's, ``start`` the first's.
    """

    def __init__(self, prober: Prober, target: Target) -> None:
        self.prober = prober
        self.target = target
        self.started_at = time.time()
        self.start = self.requested = time.perf_counter()
        self.deadline = self.start + prober.timeout
        self.phase = failures.SETUP
        self.moments: dict[str, float] = {}
        self.channel: Channel | None = None
        self.answer_began = False
        self.status: int | None = None
        self.remote = ""
        self.tcp: TcpFacts | None = None
        self.not_after: float | None = None

    def run(self) -> CheckResult:
        """Follow the target's URL to its answer and say what came of it."""
        state, event, failed_at = OK, "", self.start
        try:
            self._follow()
        except Exception as error:  # whatever it is, it is what this check found
            failed_at = time.perf_counter()
            state, event = self._explain(error)
        finally:
            self._leave_channel(keep_as=None)
        end = failed_at if self.status is None else self.moments["got_first_resp_byte"]
        return CheckResult(
            type=self.target.type,
            state=state,
            event=event,
            status_code=self.status,
            duration=end - self.start,
            trace={name: max(0.0, moment - self.requested) for name, moment in self.moments.items()},
            started_at=self.started_at,
            finished=time.monotonic(),
            tcp=self.tcp,
            not_after=self.not_after,
            remote=self.remote,
        )

    def _explain(self, error: Exception) -> tuple[str, str]:
        # Apart from run, whose frame is in the error's traceback and so must not hold the error.
        failure = failures.translate(error, self.phase, self.prober.timeout, answer_began=self.answer_began)
        if not isinstance(error, (CheckError, OSError)):
            log.debug("check raised", exc_info=error, extra={"facts": {"type": self.target.type}})
        return failure.state, failure.event

    def _follow(self) -> None:
        """Request the target's URL, and what it redirects to on the same host where that is allowed."""
        url = self.target.url
        request = self._prepare(urls.parse_configured(url))
        # Reading files and parsing is over: from here on it is the network's time.
        self.start = self.requested = time.perf_counter()
        self.deadline = self.start + self.prober.timeout
        for _ in range(MOST_REDIRECTS + 1):
            location = self._perform(request)
            if location is None:
                return
            try:
                url = urljoin(url, location)
                following = urls.parse(url)
            except ValueError as error:
                raise failures.redirected("redirect to a place that is not an http or https URL") from error
            # The final dot of a full name is for the resolver; servers leave it out of what they redirect to.
            if following.endpoint.host.rstrip(".") != request.endpoint.host.rstrip("."):
                raise failures.redirected(f"redirect to another host: {following}")
            request = self._prepare(following)
            self.requested = time.perf_counter()
        raise failures.redirected(f"more than {MOST_REDIRECTS} redirects, the last to {request.url}")

    def _prepare(self, url: Url) -> _Request:
        """Settle what a request to a URL carries, whom it believes and which way it goes."""
        self.phase = failures.SETUP
        endpoint = url.endpoint
        headers = {
            "Host": url.authority,
            "User-Agent": f"kubenurse/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        if self.prober.keeper is None:
            headers["Connection"] = "close"
        if self.target.origin:
            headers[ORIGIN_HEADER] = self.target.origin
        trust: Trust = self.prober.trust
        server_name = endpoint.host.rstrip(".")
        credentials = self.prober.credentials
        if self.target.to_api_server:
            if credentials is None:
                raise failures.unprepared("no credentials for the API server")
            if endpoint.scheme != "https":
                raise failures.unprepared("the credentials go to the API server by https only")
            trust = credentials
            server_name = credentials.server_name or server_name
            headers.update(credentials.headers())
        headers.update(url.authorization())
        proxy = self.prober.proxies.for_url(*_parts(endpoint)) if self.target.use_proxy else ""
        return _Request(
            url=url,
            headers=headers,
            context=trust.context() if endpoint.scheme == "https" else None,
            server_name=server_name,
            proxy=_proxy(proxy) if proxy else None,
        )

    def _perform(self, request: _Request) -> str | None:
        """Ask, over a kept connection or a new one; return where the answer redirects to, None when it is a whole 200.

        Raises:
            CheckError: for any other answer; the errors of the socket and of http.client pass.
        """
        # What was noted is of the request before, when that was redirected here.
        self.answer_began, self.status = False, None
        self.moments.clear()
        key = (self.target, request.endpoint)
        response = self._ask_kept(request, key)
        if response is None:
            response = self._ask(self._open(request), request)
        # The API server's checks follow nothing: the token goes where the configuration says.
        may_follow = self.target.follow_redirects and not self.target.to_api_server
        location = response.headers.get("Location", "") if may_follow else ""
        redirects = bool(location) and response.status in REDIRECT_STATUSES
        if response.status != 200 and not redirects:
            raise failures.wrong_status(response.status, response.reason or "")
        whole = _drain(response)
        self._leave_channel(keep_as=key if whole and request.proxy is None and not response.will_close else None)
        return location if redirects else None

    def _ask_kept(self, request: _Request, key: Key) -> HTTPResponse | None:
        """Ask over the connection kept from the last round; None when there is none or it turns out to be dead."""
        channel = self.prober.keeper.take(key) if self.prober.keeper is not None else None
        if channel is None:
            return None
        self._take(channel)
        channel.begin(self.deadline)
        self.moments["got_conn"] = time.perf_counter()
        try:
            return self._ask(channel, request)
        except OSError as error:
            # A server may end an idle connection just when it is used again. That is no failure of the path: ask anew.
            if isinstance(error, TimeoutError) or self.answer_began:
                raise
            self._leave_channel(keep_as=None)
            self.moments.clear()
            return None

    def _open(self, request: _Request) -> Channel:
        """Open a new connection, directly or through the proxy, with TLS where the URL says so."""
        proxy = request.proxy
        if proxy is None:
            channel = self._connect(request.endpoint, failures.DNS, failures.CONNECT)
        else:
            channel = self._connect(proxy.endpoint, failures.PROXY_DNS, failures.PROXY_CONNECT)
        if request.context is not None:
            if proxy is not None:
                self._tunnel(channel, request, proxy)
            self.phase = failures.TLS
            self.moments["tls_handshake_start"] = time.perf_counter()
            channel.handshake(request.context, request.server_name)
            self.moments["tls_handshake_done"] = time.perf_counter()
        self.moments["got_conn"] = time.perf_counter()
        return channel

    def _connect(self, endpoint: Endpoint, dns_phase: str, connect_phase: str) -> Channel:
        """Resolve the host and connect to the first of its addresses that answers."""
        literal = literal_address(endpoint.host, endpoint.port)
        self.phase = dns_phase
        addresses = [literal] if literal is not None else self._resolve(endpoint)
        self.phase = connect_phase
        self.moments["connect_start"] = time.perf_counter()
        connected = connect(addresses, self.deadline, self.prober.abort)
        self.moments["connect_start"] = connected.started
        self.moments["connect_done"] = time.perf_counter()
        sock = MeasuredSocket(connected.sock, self.deadline, self.prober.abort)
        channel = Channel(sock, remote=str(connected.address[1][0]))
        self._take(channel)
        return channel

    def _resolve(self, endpoint: Endpoint) -> list[Address]:
        asked = self.moments["dns_start"] = time.perf_counter()
        addresses, answered = self.prober.resolver.resolve(endpoint.host, endpoint.port, self.deadline)
        self.moments["dns_done"] = max(asked, answered)
        return addresses

    def _tunnel(self, channel: Channel, request: _Request, proxy: Url) -> None:
        """Ask the proxy for a way through to the request's endpoint (RFC 9110, section 9.3.6)."""
        self.phase = failures.PROXY
        endpoint = request.endpoint
        way = host_port(endpoint.host, endpoint.port)
        channel.send_request("CONNECT", way, {"Host": way, **proxy.proxy_authorization()})
        answer = channel.read_head("CONNECT")
        if answer.status != 200:
            raise failures.refused_by_proxy(answer.status, answer.reason)
        channel.first_byte = None  # that one was the proxy's

    def _ask(self, channel: Channel, request: _Request) -> HTTPResponse:
        """Send the request and read the head of the answer."""
        target, headers = request.url.target, request.headers
        if request.proxy is not None and request.context is None:
            target, headers = request.url.absolute(), {**headers, **request.proxy.proxy_authorization()}
        self.phase = failures.REQUEST
        channel.send_request("GET", target, headers)
        self.moments["wrote_request"] = channel.wrote_request or time.perf_counter()
        self.phase = failures.RESPONSE
        try:
            response = channel.read_head("GET")
        finally:
            if channel.first_byte is not None:
                self.answer_began = True
                # A thread that runs again late finds the request written after its answer had come.
                self.moments["wrote_request"] = min(self.moments["wrote_request"], channel.first_byte)
                self.moments["got_first_resp_byte"] = channel.first_byte
        self.status = response.status
        return response

    def _take(self, channel: Channel) -> None:
        self.channel, self.remote = channel, channel.remote

    def _leave_channel(self, keep_as: Key | None) -> None:
        """Take from the connection what it tells at its end, then close it or keep it for the next round."""
        channel, self.channel = self.channel, None
        if channel is None:
            return
        self.tcp = channel.sock.tcp_facts()
        if channel.certificate is not None:
            with contextlib.suppress(ValueError):  # an unverified certificate may be any bytes
                self.not_after = not_after(channel.certificate)
        if keep_as is not None and self.prober.keeper is not None:
            self.prober.keeper.keep(keep_as, channel)
        else:
            channel.end()


def _parts(endpoint: Endpoint) -> tuple[str, str, int]:
    return endpoint.scheme, endpoint.host, endpoint.port


def _proxy(text: str) -> Url:
    proxy = urls.parse_configured(text)
    if proxy.endpoint.scheme != "http":
        raise failures.unprepared(f"proxy {proxy} is not supported, expected http://")
    return proxy


def _drain(response: HTTPResponse) -> bool:
    """Read the body, up to MOST_BODY_BYTES; tell whether that was all of it.

    Raises:
        http.client.IncompleteRead: when it ends before its announced end.
    """
    unread = MOST_BODY_BYTES
    while unread > 0:
        data = response.read(min(unread, 16 * 1024))
        if not data:
            if response.length:  # http.client says nothing of a body that ends before its Content-Length
                raise IncompleteRead(b"", response.length)
            return True
        unread -= len(data)
    return response.isclosed()
