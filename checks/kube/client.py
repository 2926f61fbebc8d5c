"""Lists and watches of the Kubernetes API over urllib3, in little memory.

Protocol: "Kubernetes API Concepts" (https://kubernetes.io/docs/reference/using-api/api-concepts/). Every request has a
connection of its own, except that the pages of one list share theirs. Redirects are not followed and proxies not
used: the token goes to the API server and nowhere else.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random as random_module
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.response import HTTPResponse

from checks import __version__
from checks.kube.credentials import Credentials
from checks.kube.errors import CONNECTION, GONE, PROTOCOL, TIMEOUT, ApiError, integer, refusal, translated

# A page is in memory while it is read, as bytes and parsed: with 250 Pods of 6 KB that is 2 MB more.
PAGE_LIMIT = 100
# etcd takes objects of 1.5 MiB by default; as JSON, with an event around it, one is not three times as large.
LONGEST_LINE = 4 * 1024 * 1024
LARGEST_PAGE = 64 * 1024 * 1024
LARGEST_ERROR = 64 * 1024
LIST_RESTARTS = 2
_CHUNK = 64 * 1024

# A peer that is gone without a word is noticed after about a minute and a half, also where nothing is sent to it.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}

Object = dict[str, Any]

# All that is kept of any object, wherever it stands; what an object is made of beyond this is gone while it is parsed.
_LIST_FIELDS = ("metadata", "items", "resourceVersion", "continue")
_OBJECT_FIELDS = ("name", "deletionTimestamp", "spec", "nodeName", "unschedulable", "taints", "key")
_STATUS_FIELDS = ("status", "phase", "podIP", "hostIP", "conditions", "kind", "code", "message")
_START_FIELDS = ("startTime", "containerStatuses", "state", "running", "startedAt")
_REFUSAL_FIELDS = ("details", "retryAfterSeconds")
_EVENT_FIELDS = ("type", "object")
_KEPT = frozenset((*_LIST_FIELDS, *_OBJECT_FIELDS, *_STATUS_FIELDS, *_START_FIELDS, *_REFUSAL_FIELDS, *_EVENT_FIELDS))


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list. ``first``: what earlier pages said is void, the list begins (again)."""

    items: list[Object]
    resource_version: str
    first: bool


@dataclass(frozen=True, slots=True)
class Event:
    """What a watch tells: ``type`` is ADDED, MODIFIED, DELETED or BOOKMARK (which has no more than a version)."""

    type: str
    object: Object

    @property
    def resource_version(self) -> str:
        """The version to go on from after this event."""
        return text_of(section(self.object, "metadata"), "resourceVersion")


class KubeApi:
    """A client for one API server. Methods may be called from any thread; all times are in seconds.

    ``connect_timeout`` is for connecting and the TLS handshake, each; ``request_timeout`` for a whole page, and for
    the begin of a watch. A watch lasts a random time within ``watch_seconds``, so that a fleet's don't end together,
    and ends early when nothing at all came for ``silence``: bookmarks come every minute. A page of a list has at most
    ``page_limit`` objects and ``largest_page`` bytes.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        connect_timeout: float = 5.0,
        request_timeout: float = 15.0,
        watch_seconds: tuple[float, float] = (120.0, 240.0),
        silence: float = 90.0,
        page_limit: int = PAGE_LIMIT,
        largest_page: int = LARGEST_PAGE,
        random: Callable[[], float] = random_module.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._credentials = credentials
        self._connect_timeout = connect_timeout
        self._request_timeout = request_timeout
        self._watch_seconds = watch_seconds
        self._silence = silence
        self._page_limit = page_limit
        self._largest_page = largest_page
        self._random = random
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = False
        # Bounded by the requests under way, one for each calling thread. The sockets are kept too, as a connection
        # forgets its own once the server says that it will close it: the answer still comes by it.
        self._open: dict[HTTPSConnection, socket.socket] = {}

    def list_pages(self, path: str, params: Mapping[str, str]) -> Iterator[Page]:
        """Yield a list page by page, all of one version.

        When that version expires on the way, the list begins again, at most ``LIST_RESTARTS`` times: the page says so.

        Raises:
            ApiError: for anything that goes wrong.
        """
        restarts = 0
        token = ""
        with self._connection() as connection:
            while True:
                query = {**params, "limit": str(self._page_limit), **({"continue": token} if token else {})}
                try:
                    document = self._get(connection, path, query)
                except ApiError as error:
                    if error.kind != GONE or not token or restarts == LIST_RESTARTS:
                        raise
                    restarts += 1
                    token = ""
                    continue
                metadata = section(document, "metadata")
                items = [item for item in document.get("items") or () if isinstance(item, dict)]
                yield Page(items, text_of(metadata, "resourceVersion"), first=not token)
                token = text_of(metadata, "continue")
                if not token:
                    return

    @contextlib.contextmanager
    def watch(self, path: str, params: Mapping[str, str], resource_version: str) -> Iterator[Iterator[Event]]:
        """Open a watch from a version on; within the ``with``, it is open, and yields events until it ends.

        It ends in peace at its time, and when it was silent for too long. Leaving the ``with`` closes it.

        Raises:
            ApiError: for anything else; of kind ``gone`` when the version is too old.
        """
        shortest, longest = self._watch_seconds
        seconds = max(1, round(shortest + (longest - shortest) * self._random()))
        query = {
            **params,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
        }
        with self._connection() as connection, contextlib.closing(self._ask(connection, path, query)) as response:
            if response.status != 200:
                raise self._refusal(response)
            self._open[connection].settimeout(self._silence)
            yield self._events(response)

    def close(self) -> None:
        """End the requests under way, with an ApiError to their callers, and refuse new ones."""
        with self._lock:
            self._closed = True
            open_now = tuple(self._open.values())
        for sock in open_now:
            _shut(sock)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[HTTPSConnection]:
        """Hold a verified connection that ``close`` can end; errors within come out as ApiError."""
        with translated():
            url = urlsplit(self._credentials.base_url)
            connection = HTTPSConnection(
                url.hostname or "",
                url.port or 443,
                timeout=self._connect_timeout,
                ssl_context=self._credentials.context(),
                server_hostname=self._credentials.server_name,
                socket_options=_socket_options(),
            )
            try:
                yield connection
            finally:
                with self._lock:
                    self._open.pop(connection, None)
                connection.close()

    def _ask(self, connection: HTTPSConnection, path: str, query: Mapping[str, str]) -> HTTPResponse:
        """Send a request and return the answer, of which the body is still to come."""
        headers = {
            **self._credentials.headers(),
            "Accept": "application/json",
            "User-Agent": f"kubenurse/{__version__}",
        }
        if connection.sock is None:
            self._connect(connection)
        connection.timeout = self._request_timeout
        prefix = urlsplit(self._credentials.base_url).path.rstrip("/")
        connection.request("GET", f"{prefix}{path}?{urlencode(query)}", headers=headers, preload_content=False)
        return connection.getresponse()

    def _connect(self, connection: HTTPSConnection) -> None:
        """Connect, and let ``close`` know of it."""
        if not self._closed:
            connection.timeout = self._connect_timeout
            connection.connect()
        with self._lock:
            if self._closed or connection.sock is None:
                raise ApiError(CONNECTION, "this client is closed")
            self._open[connection] = connection.sock

    def _get(self, connection: HTTPSConnection, path: str, query: Mapping[str, str]) -> Object:
        """Return the answer's document."""
        with contextlib.closing(self._ask(connection, path, query)) as response:
            if response.status != 200:
                raise self._refusal(response)
            return _parse(self._body(response, self._largest_page))

    def _body(self, response: HTTPResponse, largest: int) -> bytearray:
        """Return a whole body of at most ``largest`` bytes, in time."""
        deadline = self._clock() + self._request_timeout
        body = bytearray()
        # Whatever has come is taken at once: to wait for more would be to look at the clock once that is there.
        while chunk := response.read1(_CHUNK):
            body += chunk
            if len(body) > largest:
                raise ApiError(PROTOCOL, f"an answer of more than {largest} bytes")
            if self._clock() > deadline:
                raise ApiError(TIMEOUT, f"the answer took longer than {self._request_timeout:g} s")
        return body

    def _refusal(self, response: HTTPResponse) -> ApiError:
        """Translate an answer other than 200; what is in its body, a Status object if all is well, says why."""
        try:
            status = _parse(self._body(response, LARGEST_ERROR))
        except (ApiError, HTTPError, OSError, http.client.HTTPException):
            status = {}
        # An HTTP date (RFC 9110, section 10.2.3) is not what API servers send here.
        after = response.headers.get("Retry-After", "")
        return refusal(response.status, status, float(after) if after.isdecimal() else None)

    def _events(self, response: HTTPResponse) -> Iterator[Event]:
        """Yield a watch's events until it ends."""
        with translated():
            for line in _lines(response):
                event = _parse(line)
                item = event.get("object")
                if not isinstance(item, dict):
                    raise ApiError(PROTOCOL, "a watch event without an object")
                if event.get("type") == "ERROR":
                    raise refusal(integer(item.get("code")), item, None)
                yield Event(text_of(event, "type"), item)


def section(item: Object, name: str) -> Object:
    """Return the object in a field, empty when there is none."""
    value = item.get(name)
    return value if isinstance(value, dict) else {}


def text_of(item: Object, name: str) -> str:
    """Return the string in a field, empty when there is none."""
    value = item.get(name)
    return value if isinstance(value, str) else ""


def _lines(response: HTTPResponse) -> Iterator[bytearray]:
    """Yield the lines of a body that goes on, as they come; end after silence."""
    rest = bytearray()
    chunks = response.stream(_CHUNK)
    while True:
        try:
            chunk = next(chunks, None)
        except ReadTimeoutError:
            return
        if chunk is None:
            return
        rest += chunk
        *lines, remains = rest.split(b"\n")
        yield from filter(None, lines)
        rest = remains
        if len(rest) > LONGEST_LINE:
            raise ApiError(PROTOCOL, f"a watch event of more than {LONGEST_LINE} bytes")


def _keep(fields: Object) -> Object:
    return {name: value for name, value in fields.items() if name in _KEPT}


def _parse(text: bytes | bytearray) -> Object:
    """Parse a document, keeping no more of it than ``_KEPT``; the rest never exists all at once."""
    try:
        document = json.loads(text, object_hook=_keep)
    except (ValueError, RecursionError) as error:
        raise ApiError(PROTOCOL, f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ApiError(PROTOCOL, "not a JSON object")
    return document


def _socket_options() -> list[tuple[int, int, int | bytes]]:
    options: list[tuple[int, int, int | bytes]] = [
        *HTTPSConnection.default_socket_options,
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    for name, value in _KEEPALIVE.items():
        # What the platform does not have is left at its default.
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def _shut(sock: socket.socket) -> None:
    """End a connection that another thread is blocked on, below TLS: that thread is in the middle of its state."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
