"""An ingress: it terminates TLS and passes requests to a Service over plain HTTP."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterable, Mapping
from enum import Enum
from http.server import BaseHTTPRequestHandler
from typing import Any

from sandbox.certificates import Certificate, CertificateAuthority
from sandbox.listener import Listener
from sandbox.service import Address

UPSTREAM_TIMEOUT = 10.0
# Bounds a handshake, an idle connection, a hanging answer and a slow one.
CLIENT_TIMEOUT = 60.0
SLOW_BYTE = 0.2
ELSEWHERE = "https://login.invalid/"
_REDIRECTED = "redirected"
# RFC 9110, section 7.6.1.
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length")
)


class Fault(Enum):
    """What is wrong with the ingress."""

    NONE = "nothing"
    BAD_GATEWAY = "every request is answered 502"
    REDIRECT_ELSEWHERE = "every request is redirected to the login page of another host"
    REDIRECT_HERE = "every request is redirected to the same host, where it works"
    REDIRECT_LOOP = "every request is redirected to itself"
    EXPIRED = "the certificate shown has ended"
    SELF_SIGNED = "the certificate shown vouches for itself"
    WRONG_NAME = "the certificate shown is for another name"
    HANG = "requests are never answered"
    SLOW_HEADERS = "the answer's header comes a byte at a time and never ends"
    CUT_HEAD = "the connection ends within the answer's header"
    CUT_BODY = "the connection ends within the answer's body"


class Ingress(Listener):
    """A reverse proxy with TLS for one host name, before one Service.

    ``fault`` may be set at any time. It applies to later connections (certificates) and later requests (all others).
    When the Service gives no answer, the client gets 502, or 504 after ``upstream_timeout`` seconds. An answer is read
    completely before it is passed on, since agents' answers are small. Each request goes over a new connection.
    """

    def __init__(
        self, authority: CertificateAuthority, upstream: Address, address: str = "127.0.0.1", host: str = "localhost"
    ) -> None:
        super().__init__("sandbox-ingress", address)
        self.upstream = upstream
        self.host = host
        self.upstream_timeout = UPSTREAM_TIMEOUT
        self.fault = Fault.NONE
        self._context = authority.issue("ingress", host, address).server_context()
        self._other_contexts = _faulty_contexts(authority, host, address)

    @property
    def url(self) -> str:
        """The ingress's URL."""
        return f"https://{self.host}:{self.port}"

    def show(self, certificate: Certificate) -> None:
        """Present this certificate on new connections."""
        self._context = certificate.server_context()

    def handle_connection(self, connection: socket.socket, client_address: Any) -> None:
        """Terminate TLS and serve the requests."""
        connection.settimeout(CLIENT_TIMEOUT)
        context = self._other_contexts.get(self.fault, self._context)
        # The handshake comes after the socket is tracked, so that stopping need not wait for a silent client.
        tls = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self.track(tls):
            tls.do_handshake()
            _Exchange(tls, client_address, self)


def _faulty_contexts(authority: CertificateAuthority, *identities: str) -> Mapping[Fault, ssl.SSLContext]:
    return {
        Fault.EXPIRED: authority.issue_expired("expired", *identities).server_context(),
        Fault.SELF_SIGNED: authority.issue_self_signed("self-signed").server_context(),
        Fault.WRONG_NAME: authority.issue("wrong-name", "somebody-else.invalid").server_context(),
    }


class _Exchange(BaseHTTPRequestHandler):
    """The requests of one connection."""

    server: Ingress
    protocol_version = "HTTP/1.1"
    # Head and body leave in one segment.
    wbufsize = -1

    def do_GET(self) -> None:
        """Answer as the fault says, or with the Service's answer."""
        match self.server.fault:
            case Fault.BAD_GATEWAY:
                self._answer(502, b"bad gateway\n")
            case Fault.REDIRECT_ELSEWHERE:
                self._redirect(ELSEWHERE)
            case Fault.REDIRECT_HERE if not self.path.endswith(_REDIRECTED):
                self._redirect(f"{self.server.url}{self.path}?{_REDIRECTED}")
            case Fault.REDIRECT_LOOP:
                self._redirect(f"{self.server.url}{self.path}")
            case Fault.HANG:
                self.rfile.read()
            case Fault.SLOW_HEADERS:
                self._dribble()
            case Fault.CUT_HEAD:
                self._end_with(b"HTTP/1.1 200 OK\r\nContent-Ty")
            case Fault.CUT_BODY:
                self._end_with(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
            case _:
                self._pass_on()

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *_arguments: object) -> None:
        """Keep no access log: the agents report their results."""

    def _pass_on(self) -> None:
        upstream = http.client.HTTPConnection(*self.server.upstream, timeout=self.server.upstream_timeout)
        with contextlib.closing(upstream):
            try:
                upstream.request(self.command, self.path, headers=self._forwarded())
                answer = upstream.getresponse()
                body = answer.read()
            except TimeoutError:
                self._answer(504, b"gateway timeout\n")
            except (OSError, http.client.HTTPException):
                self._answer(502, b"bad gateway\n")
            else:
                self._answer(answer.status, body, answer.getheaders(), answer.getheader("Content-Length"))

    def _forwarded(self) -> dict[str, str]:
        passed = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        return passed | {
            "X-Forwarded-For": str(self.client_address[0]),
            "X-Forwarded-Host": self.headers.get("Host", ""),
            "X-Forwarded-Proto": "https",
            "Connection": "close",
        }

    def _answer(
        self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = (), length: str | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        # What HEAD would have got is only known to the Service.
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _redirect(self, location: str) -> None:
        self._answer(302, b"", [("Location", location)])

    def _dribble(self) -> None:
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(int(CLIENT_TIMEOUT / SLOW_BYTE)):
            self.wfile.write(b"s")
            self.wfile.flush()
            if self.server.stopping.wait(SLOW_BYTE):
                return

    def _end_with(self, beginning: bytes) -> None:
        self.close_connection = True
        self.wfile.write(beginning)
