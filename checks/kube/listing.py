"""A list page by page: what a page is, and when a list has gone on for too long.

Source: "Retrieving large results sets in chunks" of the Kubernetes API Concepts
(https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from checks.kube.decode import ListDocument, Object, section, text_of
from checks.kube.errors import PROTOCOL, ApiError, translated

# With pages of 500 objects this is more than ``MOST_ITEMS``.
MOST_PAGES = 100
# Four times the largest cluster that Kubernetes supports, https://kubernetes.io/docs/setup/best-practices/cluster-large/.
MOST_ITEMS = 20_000
# Bytes of JSON, unpacked: 20,000 Pods of 12 KB.
LARGEST_LIST = 256 * 1024 * 1024
# A token is a name and a version in base64, some hundred characters.
LONGEST_TOKEN = 4096


class Page:
    """A part of a list. ``items`` can be gone through once, and raises ApiError as the rest of the page is read.

    ``first`` tells that the list begins (again) with this page: the pages before it are void.
    """

    def __init__(self, chunks: Iterable[bytes], progress: Progress, *, first: bool) -> None:
        self._document = ListDocument(progress.counted(chunks))
        self.items: Iterator[Object] = self._items(progress)
        self.first = first

    @property
    def resource_version(self) -> str:
        """The version that the list is of; valid once ``items`` has come to its end."""
        return text_of(self._document.metadata, "resourceVersion")

    @property
    def token(self) -> object:
        """What the server calls the next page, nothing on the last one; valid once ``items`` has come to its end."""
        return self._document.metadata.get("continue")

    def _items(self, progress: Progress) -> Iterator[Object]:
        with translated():
            for item in self._document.items():
                progress.add(item)
                yield item


class Progress:
    """What a list has brought so far, in bytes, objects and pages, none of which has more than its bound."""

    def __init__(self, most_items: int = MOST_ITEMS, largest: int = LARGEST_LIST) -> None:
        self._most_items = most_items
        self._largest = largest
        self._bytes = self._items = self._pages = self._items_before = 0
        self._first_name = ""
        # Tokens and first names of the pages so far: of each at most MOST_PAGES.
        self._seen: set[tuple[str, str]] = set()

    def counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Count the bytes of a page.

        Raises:
            ApiError: of kind ``protocol`` beyond the bound of the whole list.
        """
        for chunk in chunks:
            self._bytes += len(chunk)
            if self._bytes > self._largest:
                raise ApiError(PROTOCOL, f"a list of more than {self._largest} bytes")
            yield chunk

    def add(self, item: Object) -> None:
        """Count an object.

        Raises:
            ApiError: of kind ``protocol`` beyond the bound.
        """
        if self._items == self._items_before:
            self._first_name = text_of(section(item, "metadata"), "name")
        self._items += 1
        if self._items > self._most_items:
            raise ApiError(PROTOCOL, f"a list of more than {self._most_items} objects")

    def next_token(self, page: Page) -> str:
        """Return what to ask for the page after this one with, empty when it was the last.

        Raises:
            ApiError: of kind ``protocol`` when the list does not advance or has too many pages.
        """
        token = page.token
        if not token:
            return ""
        if not isinstance(token, str) or len(token) > LONGEST_TOKEN:
            raise ApiError(PROTOCOL, "a list's continue token is not a token")
        marks = {("token", token), ("name", self._first_name)} - {("name", "")}
        if self._items == self._items_before or marks & self._seen:
            raise ApiError(PROTOCOL, "a list goes on without anything new")
        self._seen |= marks
        self._items_before = self._items
        self._pages += 1
        if self._pages >= MOST_PAGES:
            raise ApiError(PROTOCOL, f"a list of more than {MOST_PAGES} pages")
        return token
