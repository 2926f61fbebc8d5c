"""Figures of a process from proc(5)."""

from __future__ import annotations

import os
from pathlib import Path


def rss_megabytes(pid: int) -> float:
    """Return a process's resident memory, in units of 2^20 bytes."""
    return _megabytes(pid, "VmRSS")


def most_rss_megabytes(pid: int) -> float:
    """Return the most resident memory that a process has had, in units of 2^20 bytes."""
    return _megabytes(pid, "VmHWM")


def _megabytes(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def cpu_seconds(pid: int) -> float:
    """Return a process's user and system time so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
