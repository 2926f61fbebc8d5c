"""Servers on real sockets of loopback that do what a test tells them and record their requests."""

from __future__ import annotations

import contextlib
import datetime
import re
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Self

import trustme

from checks.config.proxies import Proxies
from checks.model import Target
from checks.probe.prober import Prober
from checks.probe.request import ApiCredentials, Trust
from checks.probe.resolver import Address, Resolver

# Nothing on loopback takes this long: a test that waits for it fails.
GENEROUS = 20.0
# The timeout of checks that are meant to run into it.
SHORT = 0.3
# More than the buffers of a connection hold, at both ends.
LARGE = "x" * 16_000_000
# The events that failures are counted under: the closed set of the contract.
EVENTS = re.compile(
    "dns_done|connect_done|tls_handshake_done|wrote_request|got_first_resp_byte"
    "|status_code_[1-9][0-9]{2}|redirect|timeout|round_trip_error"
)


class Conversation:
    """A server's end of one connection."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self.sock = sock
        self._server = server

    def read_head(self) -> bytes:
        """Read and record the next request, which has no body. Return nothing when the client has left."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = self.sock.recv(1)
            if not data:
                return b""
            head += data
        self._server.received.append(head)
        return head

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def dribble(self, data: bytes, pause: float = 0.01) -> None:
        """Send a byte at a time, until the client leaves or the data ends."""
        for byte in data:
            self.send(bytes([byte]))
            self._server.stopping.wait(pause)

    def send_forever(self, data: bytes) -> None:
        """Send the same again and again until the client leaves."""
        while True:
            self.send(data)

    def wait_for_the_end(self) -> None:
        """Say nothing until the client leaves."""
        while self.sock.recv(65536):
            pass

    def reset(self) -> None:
        """End the connection with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Handler = Callable[[Conversation], None]


class Server:
    """A TCP server, over TLS if a context is given, that leaves each connection to ``handle`` in a thread of its own.

    ``received`` is the heads of the requests as they came. At the end of the ``with`` block every thread has ended,
    and an error of a handler, other than the client's leaving, is raised.
    """

    def __init__(self, handle: Handler, *, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._handle = handle
        self._context = context
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=64)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self.received: list[bytes] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._errors: list[Exception] = []
        self._lock = threading.Lock()
        self._acceptor = threading.Thread(target=self._accept, name="test-server", daemon=True)
        self._threads: list[threading.Thread] = []

    def url(self, path: str = "/", host: str = "") -> str:
        """Return the URL of a path, by another name of the host if given."""
        host = host or self.host
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}{path}"

    @property
    def address(self) -> Address:
        """Its address as a resolver gives it."""
        if ":" in self.host:
            return socket.AF_INET6, (self.host, self.port, 0, 0)
        return socket.AF_INET, (self.host, self.port)

    def header(self, name: str, request: int = -1) -> str | None:
        """Return a header's value in one of the requests received, None when it was not there."""
        for line in self.received[request].decode("ascii").split("\r\n")[1:]:
            found, _, value = line.partition(": ")
            if found.lower() == name.lower():
                return value
        return None

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(GENEROUS)
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):  # below TLS, whose state is its thread's
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(GENEROUS)
        assert not any(thread.is_alive() for thread in (self._acceptor, *self._threads))
        self._listener.close()
        if self._errors and exception[0] is None:
            raise self._errors[0]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock,), name="test-conversation", daemon=True)
            with self._lock:
                self._open.add(sock)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        spoken = sock
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                with self._lock:
                    self._open.discard(sock)
                    spoken = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                    self._open.add(spoken)
                spoken.do_handshake()
            self._handle(Conversation(spoken, self))
        except OSError:
            pass  # the client left, as clients do
        except Exception as error:  # raised where the test sees it
            self._errors.append(error)
        finally:
            with self._lock:
                self._open.discard(spoken)
            spoken.close()


def answer(status: str = "200 OK", *headers: str, body: bytes = b"", version: str = "HTTP/1.1") -> bytes:
    """Return a whole HTTP answer."""
    lines = [f"{version} {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def always(data: bytes) -> Handler:
    """Return a handler that gives the same answer to each request on a connection."""

    def handle(conversation: Conversation) -> None:
        while conversation.read_head():
            conversation.send(data)

    return handle


def once(data: bytes) -> Handler:
    """Return a handler that reads one request, sends this and closes the connection."""

    def handle(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.send(data)

    return handle


def by_path(answers: Mapping[str, bytes]) -> Handler:
    """Return a handler that gives each path its answer."""

    def handle(conversation: Conversation) -> None:
        while head := conversation.read_head():
            conversation.send(answers[head.split(b" ")[1].decode()])

    return handle


def silent(conversation: Conversation) -> None:
    """Take everything and answer nothing."""
    conversation.wait_for_the_end()


def tunnel(conversation: Conversation) -> None:
    """Do what a proxy does with CONNECT: carry bytes between the client and the server that it asks for."""
    host, _, port = conversation.read_head().split(b" ")[1].decode().rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=GENEROUS) as upstream:
        conversation.send(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
        other = {conversation.sock: upstream, upstream: conversation.sock}
        while True:
            for ready in select.select(list(other), [], [])[0]:
                data = ready.recv(65536)
                if not data:
                    return
                other[ready].sendall(data)


@contextlib.contextmanager
def refusing() -> Iterator[Address]:
    """Hold an address that refuses every connection: bound, so that no other process gets it, but not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield socket.AF_INET, bound.getsockname()


class BlackHole:
    """An address that swallows packets: a listener whose backlog is full, for which Linux drops SYNs."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(1)
        self.port: int = self._listener.getsockname()[1]
        self._fillers = [socket.socket() for _ in range(4)]
        for filler in self._fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
        self._filler_ports = {filler.getsockname()[1] for filler in self._fillers}

    @property
    def address(self) -> Address:
        """Its address as a resolver gives it."""
        return socket.AF_INET, ("127.0.0.1", self.port)

    def is_tried(self) -> bool:
        """Tell whether a client other than the fillers is connecting to it: a socket in SYN_SENT (state 02)."""
        entries = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
        local = {f"0100007F:{port:04X}" for port in self._filler_ports}
        return any(
            entry[2] == f"0100007F:{self.port:04X}" and entry[3] == "02" and entry[1] not in local for entry in entries
        )

    def accept(self) -> socket.socket:
        """Make room for waiting clients and return the first connection that is not a filler's."""
        # The fillers go first: one that got in meanwhile could fill the backlog between the SYN and the ACK that are
        # waited for, and a listener that answers by SYN cookies then forgets that connection.
        for filler in self._fillers:
            filler.close()
        self._listener.settimeout(GENEROUS)
        while True:
            sock, (_, port) = self._listener.accept()
            if port not in self._filler_ports:
                return sock
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for sock in (*self._fillers, self._listener):
            sock.close()


# Certificates are made once a process: that is the slow part.


@cache
def authority(name: str) -> trustme.CA:
    """Return the certificate authority of that name; ``known`` is the trusted one."""
    return trustme.CA(organization_name=name)


@cache
def certificate(*identities: str, ca: str = "known", days: int = 30) -> trustme.LeafCert:
    """Return a certificate for names and addresses that ends so many days from now."""
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    return authority(ca).issue_cert(*identities, not_after=end)


def server_context(shown: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """Return the TLS context of a server that shows a certificate, by default a good one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (shown or certificate("127.0.0.1", "::1", "localhost")).configure_cert(context)
    return context


class FixedTrust:
    """Trusts the known authority, or with ``verify`` False every certificate."""

    def __init__(self, *, verify: bool = True) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if verify:
            authority("known").configure_trust(self._context)
        else:
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE

    def context(self) -> ssl.SSLContext:
        """Return the context."""
        return self._context


class FixedCredentials(FixedTrust):
    """Credentials with a token of the test's choice; they always verify."""

    def __init__(self, token: str, server_name: str | None = None) -> None:
        super().__init__()
        self._token = token
        self.server_name = server_name

    def headers(self) -> dict[str, str]:
        """Return the Authorization header."""
        return {"Authorization": f"Bearer {self._token}"}


def resolver_of(*addresses: Address) -> Resolver:
    """Return a resolver that gives every name these addresses."""
    return Resolver(lambda _host, _port: list(addresses))


@contextlib.contextmanager
def probing(
    *,
    timeout: float = GENEROUS,
    trust: Trust | None = None,
    credentials: ApiCredentials | None = None,
    proxies: Proxies | None = None,
    resolver: Resolver | None = None,
    reuse_connections: bool = False,
) -> Iterator[Prober]:
    """Make a prober for the ``with`` block."""
    prober = Prober(
        timeout=timeout,
        trust=trust or FixedTrust(),
        credentials=credentials,
        proxies=proxies,
        resolver=resolver,
        reuse_connections=reuse_connections,
    )
    try:
        yield prober
    finally:
        prober.close()


def target(url: str, **facts: bool | str) -> Target:
    """Return a target of no particular type."""
    return Target(type=str(facts.pop("type", "test")), url=url, **facts)  # type: ignore[arg-type] # Target's own fields
