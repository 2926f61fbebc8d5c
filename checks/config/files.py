"""Small files that other programs write, such as tokens: read without waiting and without growing."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_regular(path: Path, longest: int) -> bytes:
    """Return the content of a regular file of at most ``longest`` bytes; symbolic links are followed.

    A FIFO, a socket or a device is refused at once: reading it could wait for ever or never end.

    Raises:
        OSError: when the file is missing, unreadable, not a regular file or longer; ``strerror`` says which.
    """
    # Without O_NONBLOCK, opening a FIFO waits until somebody writes to it. For a regular file the flag has no effect.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = bytearray()
        # A file of procfs is regular, has no size and may go on for ever, so the bytes read are counted.
        while chunk := os.read(descriptor, longest + 1 - len(content)):
            content += chunk
            if len(content) > longest:
                raise OSError(errno.EFBIG, f"more than {longest} bytes", str(path))
        return bytes(content)
    finally:
        os.close(descriptor)
