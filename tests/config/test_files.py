"""Files of other programs: read within bounds of time and size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from checks.config.files import read_regular
from checks.config.load import load


def test_a_regular_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    """A file of exactly the longest size is read, also through a symbolic link; one byte more is an error."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"12345")
    link.symlink_to(file)
    assert read_regular(link, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_regular(file, 4)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_a_device_is_refused(path: str) -> None:
    """A device is no file to read from; a terminal that does not exist is an error as well."""
    with pytest.raises(OSError, match=r"not a regular file|No such device"):
        read_regular(Path(path), 100)


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    """Nobody writes to the FIFO, and the call returns all the same; no descriptor is left open."""
    os.mkfifo(tmp_path / "fifo")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(tmp_path / "fifo", 100)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_fifo_as_namespace_file_does_not_hold_up_the_start(tmp_path: Path) -> None:
    """The configuration is loaded, without a namespace, where the service account's file is a FIFO."""
    os.mkfifo(tmp_path / "namespace")
    assert load({"KUBENURSE_SERVICEACCOUNT_DIR": str(tmp_path)}).namespace == ""
