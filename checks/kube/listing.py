"""The pages of a list, and the bounds of a list in bytes, objects and pages.

Source: "Retrieving large results sets in chunks" of the Kubernetes API Concepts
(https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from checks.kube.decode import ListDocument, Object, section, text_of
from checks.kube.errors import PROTOCOL, ApiError, translated

# Pages of 500 objects reach ``MOST_ITEMS`` before this.
MOST_PAGES = 100
# Four times the largest cluster that Kubernetes supports, https://kubernetes.io/docs/setup/best-practices/cluster-large/.
MOST_ITEMS = 20_000
# Bytes of JSON, unpacked: 20,000 Pods of 12 KB.
LARGEST_LIST = 256 * 1024 * 1024
# Characters. A token is a name and a version in base64.
LONGEST_TOKEN = 4096


class Page:
    """A part of a list. ``items`` can be iterated once, reads the page as it goes and raises ApiError.

    ``first`` is True if the list begins, or begins again, with this page. Earlier pages are void then.
    """

    def __init__(self, chunks: Iterable[bytes], progress: Progress, *, first: bool) -> None:
        self._document = ListDocument(progress.counted(chunks))
        self.items: Iterator[Object] = self._items(progress)
        self.first = first

    @property
    def resource_version(self) -> str:
        """The version of the list. It is valid after the end of ``items``."""
        return text_of(self._document.metadata, "resourceVersion")

    @property
    def token(self) -> object:
        """The continue token as it came, if any. It is valid after the end of ``items``."""
        return self._document.metadata.get("continue")

    def _items(self, progress: Progress) -> Iterator[Object]:
        with translated():
            for item in self._document.items():
                progress.add(item)
                yield item


class Progress:
    """Counts the bytes, objects and pages of a list and holds their bounds."""

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
        """Return the continue token of the next page, empty after the last page.

        Raises:
            ApiError: of kind ``protocol`` if the list does not advance or has too many pages.
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
