"""The answers of the sandbox's API server: documents, lists, watches and Status objects."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from sandbox.bodies import LAST_CHUNK, Body, chunk, document_pieces, list_pieces
from sandbox.faults import Request, StatusError
from sandbox.objects import Object
from sandbox.store import KINDS, GoneError, Selection

if TYPE_CHECKING:
    from sandbox.apiserver import ApiListener, OpenWatch

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


class ApiHandler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    server_version = "sandbox"
    timeout = _IDLE_TIMEOUT
    server: ApiListener
    connection: ssl.SSLSocket

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server named it
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer a request to read."""
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
            self._send(error.code, document_pieces(error.body()), error.retry_after)

    def _refuse(self) -> None:
        self.close_connection = True
        error = StatusError(405, f"{self.command} is not supported: this cluster is changed from Python")
        self._send(error.code, document_pieces(error.body()))

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
            self._send(200, document_pieces(_DOCUMENTS[request.path]))
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
        self._send(200, document_pieces(item))

    def _list(self, selection: Selection, query: Mapping[str, str]) -> None:
        api, token, asked = self.server.api, query.get("continue", ""), query.get("resourceVersion", "")
        if token and asked not in ("", "0"):
            raise StatusError(400, "specifying resource version is not allowed when using continue")
        if int(asked or 0) > api.store.version:
            raise StatusError(504, f"Too large resource version: {asked}, current: {api.store.version}", retry_after=1)
        # The watch cache answers lists that need not be the newest. It ignores the limit.
        cached = bool(asked) and not token and api.watch_cache
        api.count(etcd_reads=not cached)
        limit = 0 if cached else int(query.get("limit") or 0)
        try:
            version, items, following, remaining = api.store.page(selection, limit, token)
        except GoneError as error:
            raise StatusError(410, "The provided continue parameter is too old") from error
        metadata: Object = {"resourceVersion": str(version)}
        if following:
            metadata["continue"] = following
            if not selection.labels and not selection.fields:
                metadata["remainingItemCount"] = remaining
        self._send(200, list_pieces(KINDS[selection.kind], metadata, items))

    def _send(self, code: int, pieces: Iterable[bytes], retry_after: int | None = None) -> None:
        body = Body(pieces, self.headers.get("Accept-Encoding", ""))
        self.send_response(code, HTTPStatus(code).phrase)
        self.send_header("Content-Type", "application/json")
        for name, value in body.headers.items():
            self.send_header(name, value)
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        for data in body.chunks:
            self._write(data)

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.server.api.count(body_bytes=len(data))

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
        self, watch: OpenWatch, selection: Selection, version: int, deadline: float, *, bookmarks: bool
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

    def _wait(self, watch: OpenWatch, version: int, until: float) -> str:
        """Wait for a version newer than ``version``, an order or the time (monotonic). Return the order, if any.

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
            self._write(chunk(b'{"type":"MODIFIED","object":{"metadata":{"na'))
        if order in ("cut", "stop"):
            self.close_connection = True
        else:
            self._write(LAST_CHUNK)

    def _write_event(self, kind: str, item: Object) -> None:
        self._write(chunk(json.dumps({"type": kind, "object": item}, separators=(",", ":")).encode() + b"\n"))

    def _write_bookmark(self, selection: Selection, version: int) -> None:
        """Write an object with its kind and the version, like a real server."""
        metadata = {"resourceVersion": str(version), "creationTimestamp": None}
        self._write_event("BOOKMARK", {"kind": KINDS[selection.kind], "apiVersion": "v1", "metadata": metadata})


def _too_old(version: int) -> StatusError:
    return StatusError(410, f"too old resource version: {version}")
