"""Lists and watches of the Kubernetes API over urllib3, in little memory.

Protocol: "Kubernetes API Concepts" (https://kubernetes.io/docs/reference/using-api/api-concepts/). Each list and each
watch has a connection of its own. Redirects are not followed and proxies are not used: the token goes to the API
server only.
"""

from __future__ import annotations

import contextlib
import random as random_module
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlencode, urlsplit

from checks import __version__
from checks.kube.answer import Answer
from checks.kube.credentials import Credentials
from checks.kube.decode import Object, section, text_of
from checks.kube.errors import CONNECTION, GONE, ApiError, translated
from checks.kube.listing import LARGEST_LIST, MOST_ITEMS, Page, Progress
from checks.kube.watching import Event, events
from checks.kube.wire import Connection
from checks.probe.resolver import Resolver

__all__ = ["Event", "KubeApi", "Object", "Page", "section", "text_of"]

# The page size of client-go and kubectl. A page is decoded as it arrives, so memory does not depend on its size.
PAGE_LIMIT = 500
LIST_RESTARTS = 2
# Bytes, including those of the body that are read with the head.
LARGEST_HEAD = 128 * 1024
# Seconds that a server may be late in ending a watch.
WATCH_GRACE = 30.0


class KubeApi:
    """A client for one API server. Any thread may call its methods. All times are in seconds.

    - ``connect_timeout``: for name resolution, TCP and the TLS handshake together.
    - ``request_timeout``: from a request to the end of the answer's head, for lists and watches.
    - ``list_timeout``: for a whole list with all its pages.
    - ``watch_seconds``: a watch lasts a random time between these two, so that the watches of a fleet end at different
      times. ``watch_grace`` later the client ends a watch that the server has not ended.
    - ``silence``: a watch without a complete event for so long is ended. Bookmarks arrive every minute.
    - ``page_limit``: the objects of a page, if the server pages.
    - ``most_items``, ``largest_list``: the most objects and bytes of a whole list.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        connect_timeout: float = 5.0,
        request_timeout: float = 15.0,
        list_timeout: float = 30.0,
        watch_seconds: tuple[float, float] = (120.0, 240.0),
        watch_grace: float = WATCH_GRACE,
        silence: float = 90.0,
        page_limit: int = PAGE_LIMIT,
        most_items: int = MOST_ITEMS,
        largest_list: int = LARGEST_LIST,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._credentials = credentials
        self._connect_timeout = connect_timeout
        self._request_timeout = request_timeout
        self._list_timeout = list_timeout
        self._watch_seconds = watch_seconds
        self._watch_grace = watch_grace
        self._silence = silence
        self._page_limit = page_limit
        self._most_items = most_items
        self._largest_list = largest_list
        self._random = random
        self._resolver = Resolver()
        self._lock = threading.Lock()
        self._closed = False
        # Bounded by the requests under way, one for each calling thread.
        self._open: set[Connection] = set()

    def list_pages(self, path: str, params: Mapping[str, str]) -> Iterator[Page]:
        """Yield a list page by page, all of one version. Read a page's ``items`` before the next page.

        ``resourceVersion`` in ``params`` selects the version. 0, the default, takes the one that the API server has in
        memory. It then answers with a single page, unless it runs without a watch cache. An empty value takes the
        newest version from etcd. Any other value takes that version or a newer one.
        If the version expires between two pages, the list begins again with the newest version, at most
        ``LIST_RESTARTS`` times.

        Raises:
            ApiError: for any failure. ``items`` of a page raises it too.
        """
        until = time.perf_counter() + self._list_timeout
        progress = Progress(self._most_items, self._largest_list)
        restarts = 0
        token = ""
        with self._connection() as connection:
            while True:
                query = self._list_query(params, token, newest=restarts > 0)
                with self._ask(connection, path, query, until, encoding="gzip") as answer:
                    if answer.status != 200:
                        error = answer.refusal()
                        if error.kind != GONE or not token or restarts == LIST_RESTARTS:
                            raise error
                        restarts += 1
                        token = ""
                        progress = Progress(self._most_items, self._largest_list)
                        continue
                    # Small chunks have as many bytes of framing as of content.
                    answer.wire.allow(until, 2 * self._largest_list, self._late(self._list_timeout))
                    page = Page(answer.body(self._largest_list), progress, first=not token)
                    yield page
                    for _ in page.items:
                        pass  # the token may follow items that the caller has not read
                    token = progress.next_token(page)
                if not token:
                    return

    @contextlib.contextmanager
    def watch(self, path: str, params: Mapping[str, str], resource_version: str) -> Iterator[Iterator[Event]]:
        """Open a watch from a version on. It yields events until it ends, and leaving the ``with`` block closes it.

        The end of its time and too long a silence end it without an error.

        Raises:
            ApiError: for any failure, of kind ``gone`` if the version is too old.
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
        until = time.perf_counter() + seconds + self._watch_grace
        # API servers do not pack watches, and packing would delay events.
        with (
            self._connection() as connection,
            self._ask(connection, path, query, until, encoding="identity") as answer,
        ):
            if answer.status != 200:
                raise answer.refusal()
            yield events(answer, self._silence, until)

    def close(self) -> None:
        """End the requests under way, with an ApiError to their callers, and refuse new ones."""
        with self._lock:
            self._closed = True
            open_now = tuple(self._open)
        self._resolver.abort()
        for connection in open_now:
            connection.shut()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        """Hold a verified connection that ``close`` can end. Errors in the block become ApiErrors."""
        with translated():
            connection = Connection(self._credentials, self._connect_timeout, self._resolver)
            try:
                with self._lock:
                    self._open.add(connection)
                yield connection
            finally:
                with self._lock:
                    self._open.discard(connection)
                connection.end()

    def _ask(self, connection: Connection, path: str, query: Mapping[str, str], until: float, encoding: str) -> Answer:
        """Send a request and return the answer as soon as its head has arrived."""
        if self._closed:
            raise ApiError(CONNECTION, "this client is closed")
        headers = self._credentials.headers()
        secret = headers.get("Authorization", "").rpartition(" ")[2]
        headers |= {
            "Accept": "application/json",
            "Accept-Encoding": encoding,
            "User-Agent": f"kubenurse/{__version__}",
        }
        wire = connection.wire()
        in_time = min(until, time.perf_counter() + self._request_timeout)
        wire.allow(in_time, LARGEST_HEAD, self._late(self._request_timeout))
        prefix = urlsplit(self._credentials.base_url).path.rstrip("/")
        connection.request("GET", f"{prefix}{path}?{urlencode(query)}", headers=headers, preload_content=False)
        return Answer(connection.getresponse(), wire, secret)

    def _list_query(self, params: Mapping[str, str], token: str, *, newest: bool) -> dict[str, str]:
        query = {"resourceVersion": "0", **params, "limit": str(self._page_limit)}
        if token:
            query["continue"] = token
        if token or newest or not query["resourceVersion"]:
            # A continue token contains its version.
            del query["resourceVersion"]
        elif query["resourceVersion"] != "0":
            query["resourceVersionMatch"] = "NotOlderThan"
        return query

    @staticmethod
    def _late(seconds: float) -> str:
        return f"the answer took longer than {seconds:g} s"
