"""What is built from files, and built again when those change: one rule for all certificates."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

Signature = tuple[tuple[int, int, int] | None, ...]

# Longest wait, in seconds, for the first build that another thread is making.
LONGEST_WAIT = 5.0


class Reloading(Generic[T]):
    """A value built from files by ``build``, built again by the first caller that finds one of the files changed.

    The rule for a build that fails: the value from before stays in use, and ``complain`` is told why, once in a row for
    each reason. When a file's content is wrong (``ssl.SSLError``) the next build waits for the next change; after any
    other error, such as a lack of descriptors, the next call tries again. Without a value from before the error is the
    caller's.

    No lock is held while files are read: one thread builds, and meanwhile the others use the value from before, or wait
    up to LONGEST_WAIT seconds for the first one.
    """

    def __init__(self, files: Sequence[Path], build: Callable[[], T], complain: Callable[[str], None]) -> None:
        self._files = tuple(files)
        self._build = build
        self._complain = complain
        self._lock = threading.Lock()
        self._built: tuple[Signature, T] | None = None
        self._building: Future[T] | None = None
        self._complaint = ""

    def current(self) -> T:
        """Return the value for the files as they are now.

        Raises:
            OSError: (``ssl.SSLError`` included) when there is no value from before and a file cannot be used.
        """
        signature = tuple(file_signature(path) for path in self._files)
        with self._lock:
            built = self._built
            if built is not None and (built[0] == signature or self._building is not None):
                return built[1]
            others = self._building
            if others is None:
                mine: Future[T] = Future()
                self._building = mine
        if others is not None:
            return self._wait_for(others)
        return self._rebuild(signature, built, mine)

    def _wait_for(self, building: Future[T]) -> T:
        try:
            return building.result(LONGEST_WAIT)
        except TimeoutError:
            raise OSError(f"not read within {LONGEST_WAIT:g} s: {', '.join(map(str, self._files))}") from None

    def _rebuild(self, signature: Signature, before: tuple[Signature, T] | None, mine: Future[T]) -> T:
        built, why = before, ""
        try:
            built = (signature, self._build())
        except Exception as error:
            if before is None:
                mine.set_exception(error)
                raise
            why = str(error)
            built = (signature if isinstance(error, ssl.SSLError) else before[0], before[1])
        finally:
            with self._lock:
                self._built, self._building = built, None
        mine.set_result(built[1])
        if why != self._complaint:
            self._complaint = why
            if why:
                self._complain(why)
        return built[1]


def file_signature(path: Path) -> tuple[int, int, int] | None:
    """Return what tells one version of a file from the next; a Secret's symbolic links are followed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
