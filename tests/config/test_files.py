"""Files that are read with a bound."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from checks.config.files import read_regular


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    """A file of the greatest length is read whole, also through a symbolic link."""
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"12345")
    link.symlink_to(path)
    assert read_regular(path, 5) == read_regular(link, 5) == b"12345"


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """A longer file is an error that tells the bound, not a part of the file."""
    path = tmp_path / "file"
    path.write_bytes(b"123456")
    with pytest.raises(OSError, match="longer than 5 bytes"):
        read_regular(path, 5)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A missing file raises FileNotFoundError."""
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none", 5)


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "socket"])
def test_other_kinds_of_files_are_refused_at_once(tmp_path: Path, kind: str) -> None:
    """A FIFO without a writer, an endless device, a socket and a directory are errors, and nobody waits for them."""
    path = tmp_path / "file"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_regular, path, 5)
        try:
            assert isinstance(reading.exception(5), OSError)
        finally:
            if kind == "fifo" and not reading.done():  # let a reader that waits go
                threading.Thread(target=path.write_bytes, args=(b"",), daemon=True).start()


def test_descriptors_are_closed(tmp_path: Path) -> None:
    """Neither a good file nor a refused one leaves a descriptor open."""
    path = tmp_path / "file"
    path.write_bytes(b"123456")
    before = set(Path("/proc/self/fd").iterdir())
    read_regular(path, 6)
    for refused in (path, tmp_path):
        with pytest.raises(OSError, match=r"longer|regular"):
            read_regular(refused, 5)
    assert set(Path("/proc/self/fd").iterdir()) == before
