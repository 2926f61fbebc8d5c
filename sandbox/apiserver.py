"""A Kubernetes API server on loopback. It serves Pods and nodes to list and watch over TLS, with faults on request.

It behaves as the "Kubernetes API Concepts" describe (https://kubernetes.io/docs/reference/using-api/api-concepts/), so
far that the official client works against it: bearer tokens and client certificates, lists in pages or whole from the
watch cache, gzip, watches with bookmarks, resource versions that expire, label and field selectors, Status objects for
errors. How requests are answered is in ``apihandler.py``.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from sandbox.apihandler import ApiHandler
from sandbox.faults import Faults, Request
from sandbox.listener import Listener
from sandbox.objects import Object
from sandbox.store import Store

BOOKMARK_SECONDS = 60.0
REQUESTS_KEPT = 10_000
_HANDSHAKE_TIMEOUT = 10.0


@dataclass(eq=False, slots=True)
class OpenWatch:
    """A watch under way. ``order`` is its next fault: ``silence``, ``drop``, ``cut`` or none."""

    order: str = ""


class ApiServer:
    """The API server. ``start`` and ``stop``, or a context manager, work repeatedly and keep the port.

    - ``context``: the TLS server context. With ``CERT_OPTIONAL`` in it, client certificates are credentials.
    - ``tokens``: the tokens that are accepted now. Change the set to rotate them.
    - ``bookmark_seconds``: the time between two bookmarks of a watch that asked for them.
    - ``gone_as_status``: answer a watch that is too old with status 410 instead of an ERROR event. Real ones do both.
    - ``watch_cache``: False for a server with ``--watch-cache=false``, which reads each list from etcd in pages.
    - ``etcd_reads``: the number of lists that a real server would have read from etcd.
    - ``body_bytes``: the number of bytes sent in bodies, as on the wire.
    - ``requests``: the last ``REQUESTS_KEPT`` requests.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        context: ssl.SSLContext,
        tokens: Iterable[str] = (),
        bookmark_seconds: float = BOOKMARK_SECONDS,
    ) -> None:
        self.address = address
        self.port = port
        self.context = context
        self.tokens = set(tokens)
        self.bookmark_seconds = bookmark_seconds
        self.gone_as_status = False
        self.watch_cache = True
        self.etcd_reads = 0
        self.body_bytes = 0
        self.faults = Faults()
        self.store = Store()
        self.requests: deque[Request] = deque(maxlen=REQUESTS_KEPT)
        self._arrived = threading.Condition()
        self._watches: set[OpenWatch] = set()
        self._listener: ApiListener | None = None

    @property
    def url(self) -> str:
        """The base URL."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"https://{host}:{self.port}"

    def start(self) -> Self:
        """Bind and serve. Port 0 takes a free port. Raises OSError if the port cannot be bound."""
        self._listener = ApiListener(self)
        self.port = self._listener.port
        self._listener.start()
        return self

    def stop(self) -> None:
        """Stop serving and end all connections. Objects and versions stay."""
        if self._listener is not None:
            self._listener.stopping.set()
            self._wake()
            self._listener.stop()
            self._listener = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def put(self, kind: str, *items: Object) -> None:
        """Add or replace objects. ``kind`` is ``pods`` or ``nodes``."""
        for item in items:
            self.store.put(kind, item)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object. Raises KeyError if there is none of that name."""
        self.store.delete(kind, name)

    def compact(self) -> None:
        """Make all versions up to now too old (410) for a new watch and for the next page of a list."""
        self.store.compact()

    @property
    def open_watches(self) -> int:
        """The number of watches that are open now."""
        with self.store.changed:
            return len(self._watches)

    def silence_watches(self) -> None:
        """Silence the watches that are open now. New watches work."""
        self._order("silence")

    def drop_watches(self) -> None:
        """End the watches that are open now, as at their timeout."""
        self._order("drop")

    def cut_watches(self) -> None:
        """Close the connections of the watches that are open now, each inside a line."""
        self._order("cut")

    def wait_for_request(self, wanted: Callable[[Request], bool], timeout: float = 10.0, *, count: int = 1) -> bool:
        """Wait for ``count`` requests that are ``wanted``. Return False after ``timeout`` seconds."""
        with self._arrived:
            return self._arrived.wait_for(lambda: sum(map(wanted, self.requests)) >= count, timeout)

    def note(self, request: Request) -> None:
        """Remember a request."""
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()

    def count(self, *, body_bytes: int = 0, etcd_reads: int = 0) -> None:
        """Add to ``body_bytes`` and ``etcd_reads``."""
        with self._arrived:
            self.body_bytes += body_bytes
            self.etcd_reads += etcd_reads

    @contextlib.contextmanager
    def opened_watch(self) -> Iterator[OpenWatch]:
        """Register a watch while it is open."""
        watch = OpenWatch()
        with self.store.changed:
            self._watches.add(watch)
        try:
            yield watch
        finally:
            with self.store.changed:
                self._watches.discard(watch)

    def _order(self, order: str) -> None:
        with self.store.changed:
            for watch in self._watches:
                watch.order = order
            self.store.changed.notify_all()

    def _wake(self) -> None:
        with self.store.changed:
            self.store.changed.notify_all()


class ApiListener(Listener):
    """The API server's connections. The TLS handshake and all requests run in the connection's own thread."""

    def __init__(self, api: ApiServer) -> None:
        if ":" in api.address:
            self.address_family = socket.AF_INET6
        super().__init__("sandbox-api-server", api.address, api.port)
        self.api = api

    def handle_connection(self, connection: socket.socket, client_address: Any) -> None:
        """Shake hands and answer requests until the client leaves."""
        connection.settimeout(_HANDSHAKE_TIMEOUT)
        tls = self.api.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self.track(tls):
            tls.do_handshake()
            ApiHandler(tls, client_address, self)
