"""Files read with a bound: regular files only, never longer than the caller allows, never a wait for a writer."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def read_regular(path: Path, longest: int) -> bytes:
    """Return what is in a regular file of at most ``longest`` bytes. Symbolic links are followed.

    Raises:
        OSError: when the file cannot be read, is longer, or is a FIFO, a device, a socket or a directory.
    """
    with open_regular(path, longest) as file:
        data = file.read(longest + 1)
    if len(data) > longest:  # it grew after it was opened
        raise _too_long(path, longest)
    return data


def open_regular(path: Path, longest: int) -> BinaryIO:
    """Open a regular file of at most ``longest`` bytes for reading. Symbolic links are followed.

    Raises:
        OSError: as ``read_regular`` does.
    """
    # Without O_NONBLOCK the open of a FIFO waits until somebody writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if found.st_size > longest:
            raise _too_long(path, longest)
        return open(descriptor, "rb")  # noqa: PTH123 # the caller closes it; a descriptor has no path
    except BaseException:
        os.close(descriptor)
        raise


def _too_long(path: Path, longest: int) -> OSError:
    return OSError(errno.EFBIG, f"longer than {longest} bytes", str(path))
