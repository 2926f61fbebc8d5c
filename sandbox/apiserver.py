"""A Kubernetes API server on loopback: Pods and nodes to list and watch over TLS, with faults to order.

It behaves as the "Kubernetes API Concepts" describe (https://kubernetes.io/docs/reference/using-api/api-concepts/), so
far that the official client works against it: bearer tokens and client certificates, lists in chunks, watches with
bookmarks, resource versions that expire, label and field selectors, Status objects for errors.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from sandbox.faults import Faults, Request, StatusError
from sandbox.listener import Listener
from sandbox.objects import Object
from sandbox.store import KINDS, GoneError, Selection, Store

BOOKMARK_SECONDS = 60.0
REQUESTS_KEPT = 10_000
_HANDSHAKE_TIMEOUT = 10.0
_IDLE_TIMEOUT = 90.0
_LONGEST_WATCH = 3600.0
_RESOURCE = re.compile(r"/api/v1(?:/namespaces/(?P<namespace>[^/]+))?/(?P<kind>[a-z]+)(?:/(?P<name>[^/]+))?")
_VERSION = {
    "major": "1",
    "minor": "34",
    "gitVersion": "v1.34.0+sandbox",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-02T03:04:05Z",
    "goVersion": "",
    "compiler": "python",
    "platform": "linux/amd64",
}
_RESOURCES = [
    {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list", "watch"]},
    {"name": "nodes", "singularName": "node", "namespaced": False, "kind": "Node", "verbs": ["get", "list", "watch"]},
]
_DOCUMENTS: Mapping[str, Object] = {
    "/version": _VERSION,
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": _RESOURCES},
}


@dataclass(eq=False, slots=True)
class _OpenWatch:
    """A watch under way; ``order`` is what becomes of it: ``silence``, ``drop`` or ``cut``."""

    order: str = ""


class ApiServer:
    """The API server: ``start``/``stop`` (or a context manager), any number of times, always on the same port.

    ``context`` is the TLS server context; with ``CERT_OPTIONAL`` in it, client certificates count as credentials.
    ``tokens`` are those accepted now: change the set to rotate them. ``bookmark_seconds`` is how often a watch that
    asked for them gets a bookmark. ``gone_as_status`` answers a watch that is too old with status 410 instead of an
    ERROR event; real servers do either. The last ``REQUESTS_KEPT`` requests are remembered.
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
        self.faults = Faults()
        self.store = Store()
        self.requests: deque[Request] = deque(maxlen=REQUESTS_KEPT)
        self._arrived = threading.Condition()
        self._watches: set[_OpenWatch] = set()
        self._listener: _ApiListener | None = None

    @property
    def url(self) -> str:
        """The base URL."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"https://{host}:{self.port}"

    def start(self) -> Self:
        """Bind and serve; port 0 becomes the one that was free. OSError when it cannot be bound."""
        self._listener = _ApiListener(self)
        self.port = self._listener.port
        self._listener.start()
        return self

    def stop(self) -> None:
        """Stop serving and end all connections; objects and versions stay."""
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
        """Add or replace objects; ``kind`` is ``pods`` or ``nodes``."""
        for item in items:
            self.store.put(kind, item)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object; KeyError when there is none of that name."""
        self.store.delete(kind, name)

    def compact(self) -> None:
        """Let every version handed out so far be too old (410) for a new watch or the next page of a list."""
        self.store.compact()

    @property
    def open_watches(self) -> int:
        """How many watches are open now: those that an order to all of them reaches."""
        with self.store.changed:
            return len(self._watches)

    def silence_watches(self) -> None:
        """Let nothing more be heard from the watches open now; new ones work."""
        self._order("silence")

    def drop_watches(self) -> None:
        """End the watches open now, as at their timeout."""
        self._order("drop")

    def cut_watches(self) -> None:
        """Close the connections of the watches open now in the middle of a line."""
        self._order("cut")

    def wait_for_request(self, wanted: Callable[[Request], bool], timeout: float = 10.0, *, count: int = 1) -> bool:
        """Wait until ``count`` requests that are ``wanted`` are remembered; False after ``timeout`` seconds."""
        with self._arrived:
            return self._arrived.wait_for(lambda: sum(map(wanted, self.requests)) >= count, timeout)

    def note(self, request: Request) -> None:
        """Remember a request."""
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()

    @contextlib.contextmanager
    def opened_watch(self) -> Iterator[_OpenWatch]:
        """Register a watch for as long as it is open."""
        watch = _OpenWatch()
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


class _ApiListener(Listener):
    """The API server's connections: a TLS handshake, then requests, all in the connection's own thread."""

    def __init__(self, api: ApiServer) -> None:
        if ":" in api.address:
            self.address_family = socket.AF_INET6
        super().__init__("sandbox-api-server", api.address, api.port)
        self.api = api

    def handle_connection(self, connection: socket.socket, client_address: Any) -> None:
        connection.settimeout(_HANDSHAKE_TIMEOUT)
        tls = self.api.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self.track(tls):
            tls.do_handshake()
            _Handler(tls, client_address, self)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sandbox"
    timeout = _IDLE_TIMEOUT
    server: _ApiListener
    connection: ssl.SSLSocket

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server named it
        """Say nothing."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        authorization = self.headers.get("Authorization", "")
        # The official client asks for /version/.
        path = parts.path.rstrip("/")
        request = Request("GET", path, query, bool(authorization), self.headers.get("User-Agent", ""))
        api = self.server.api
        api.note(request)
        try:
            known = authorization in {f"Bearer {token}" for token in api.tokens}
            if not known and not self.connection.getpeercert():
                raise StatusError(401, "Unauthorized")
            self._inject_fault(request)
            self._answer(request)
        except StatusError as error:
            self._send(error.code, error.body(), error.retry_after)

    def _refuse(self) -> None:
        self.close_connection = True
        error = StatusError(405, f"{self.command} is not supported: this cluster is changed from Python")
        self._send(error.code, error.body())

    do_POST = do_PUT = do_PATCH = do_DELETE = _refuse  # noqa: N815 - the names that http.server calls

    def _inject_fault(self, request: Request) -> None:
        for fault in self.server.api.faults.active:
            if fault.hits(request):
                if fault.status is not None:
                    raise StatusError(fault.status, fault.message, retry_after=fault.retry_after)
                self.server.stopping.wait()
                self.close_connection = True
                raise StatusError(503, "the server is shutting down")

    def _answer(self, request: Request) -> None:
        if request.path in _DOCUMENTS:
            self._send(200, _DOCUMENTS[request.path])
            return
        found = _RESOURCE.fullmatch(request.path)
        if not found or found["kind"] not in KINDS or (found["namespace"] and found["kind"] == "nodes"):
            raise StatusError(404, "the server could not find the requested resource")
        kind, namespace = found["kind"], found["namespace"] or ""
        if found["name"]:
            self._get(kind, namespace, found["name"])
            return
        try:
            selection = Selection.parse(
                kind, namespace, request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
            )
            if request.verb == "watch":
                self._watch(selection, request.query)
            else:
                self._list(selection, request.query)
        except ValueError as error:
            raise StatusError(400, str(error)) from error

    def _get(self, kind: str, namespace: str, name: str) -> None:
        item = self.server.api.store.get(kind, namespace, name)
        if item is None:
            raise StatusError(404, f'{kind} "{name}" not found')
        self._send(200, item)

    def _list(self, selection: Selection, query: Mapping[str, str]) -> None:
        try:
            version, items, following, remaining = self.server.api.store.page(
                selection, int(query.get("limit") or 0), query.get("continue", "")
            )
        except GoneError as error:
            raise StatusError(410, "The provided continue parameter is too old") from error
        metadata: Object = {"resourceVersion": str(version)}
        if following:
            metadata["continue"] = following
            if not selection.labels and not selection.fields:
                metadata["remainingItemCount"] = remaining
        # Within a list, objects do not repeat their kind.
        bare = [{key: value for key, value in item.items() if key not in ("apiVersion", "kind")} for item in items]
        self._send(
            200, {"kind": f"{KINDS[selection.kind]}List", "apiVersion": "v1", "metadata": metadata, "items": bare}
        )

    def _send(self, code: int, document: Object, retry_after: int | None = None) -> None:
        body = json.dumps(document, separators=(",", ":")).encode()
        self.send_response(code, HTTPStatus(code).phrase)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(body)

    def _watch(self, selection: Selection, query: Mapping[str, str]) -> None:
        api = self.server.api
        seconds = min(float(query.get("timeoutSeconds") or _LONGEST_WATCH), _LONGEST_WATCH)
        start = int(query.get("resourceVersion") or 0)
        gone = bool(start) and not api.store.is_watchable(start)
        if gone and api.gone_as_status:
            raise _too_old(start)
        with api.opened_watch() as watch:
            self._begin_stream()
            if gone:
                self._write_event("ERROR", _too_old(start).body())
                self._end_stream()
                return
            if not start:
                start, items = api.store.select(selection)
                for item in items:
                    self._write_event("ADDED", item)
            bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
            self._stream(watch, selection, start, time.monotonic() + seconds, bookmarks=bookmarks)

    def _stream(
        self, watch: _OpenWatch, selection: Selection, version: int, deadline: float, *, bookmarks: bool
    ) -> None:
        """Write events until the deadline (monotonic), an order to end, or the end of the server."""
        store, pause = self.server.api.store, self.server.api.bookmark_seconds
        bookmark_at = time.monotonic() + pause
        while not (order := self._wait(watch, version, min(deadline, bookmark_at))):
            try:
                version, changes = store.changes_since(version)
            except GoneError:
                self._write_event("ERROR", _too_old(version).body())
                break
            for change in changes:
                if event := selection.event(change):
                    self._write_event(*event)
            now = time.monotonic()
            if now >= bookmark_at or now >= deadline:
                bookmark_at = now + pause
                if bookmarks:
                    self._write_bookmark(selection, version)
            if now >= deadline:
                break
        self._end_stream(order)

    def _wait(self, watch: _OpenWatch, version: int, until: float) -> str:
        """Wait for something newer than ``version``, an order or the time (monotonic); return the order, if any.

        A watch that was ordered to be silent waits here until another order or the end of the server.
        """
        store, stopping = self.server.api.store, self.server.stopping
        with store.changed:
            store.changed.wait_for(
                lambda: (
                    stopping.is_set() or watch.order in ("drop", "cut") or (not watch.order and store.version > version)
                ),
                max(0.0, until - time.monotonic()),
            )
            if watch.order == "silence":
                store.changed.wait_for(lambda: stopping.is_set() or watch.order != "silence")
            return "stop" if stopping.is_set() else watch.order

    def _begin_stream(self) -> None:
        self.send_response(200, "OK")
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _end_stream(self, order: str = "") -> None:
        if order == "cut":
            self._write_chunk(b'{"type":"MODIFIED","object":{"metadata":{"na')
        if order in ("cut", "stop"):
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _write_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _write_event(self, kind: str, item: Object) -> None:
        self._write_chunk(json.dumps({"type": kind, "object": item}, separators=(",", ":")).encode() + b"\n")

    def _write_bookmark(self, selection: Selection, version: int) -> None:
        """Write an object that holds nothing but its kind and the version, as real ones do."""
        metadata = {"resourceVersion": str(version), "creationTimestamp": None}
        self._write_event("BOOKMARK", {"kind": KINDS[selection.kind], "apiVersion": "v1", "metadata": metadata})


def _too_old(version: int) -> StatusError:
    return StatusError(410, f"too old resource version: {version}")
