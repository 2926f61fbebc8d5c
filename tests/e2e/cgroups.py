"""A limit on a process's CPU time, by control groups of either version.

Source: Documentation/admin-guide/cgroup-v2.rst (cpu.max) and Documentation/scheduler/sched-bwc.rst (version 1).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_NAME = "kne2e-throttled"


def controller() -> Path | None:
    """Return the directory whose children can be limited; None when there is none."""
    version_1 = _ROOT / "cpu"
    if (version_1 / "cgroup.procs").exists():
        return version_1
    with contextlib.suppress(OSError):
        if "cpu" in (_ROOT / "cgroup.subtree_control").read_text(encoding="ascii").split():
            return _ROOT
    return None


def group(parent: Path) -> Path:
    """Return the group's directory below its controller's."""
    return parent / _NAME


@contextlib.contextmanager
def throttled(pid: int, share: float, period: float) -> Iterator[None]:
    """Leave a process this share of one CPU in each period (seconds, from 0.001 to 1).

    Raises:
        OSError: when this machine does not let its groups be changed.
    """
    parent = controller()
    if parent is None:
        raise OSError("no control group here limits CPU time")
    limited = group(parent)
    limited.mkdir(exist_ok=True)
    try:
        microseconds = round(period * 1_000_000)
        quota = round(share * microseconds)
        if parent == _ROOT:
            (limited / "cpu.max").write_text(f"{quota} {microseconds}", encoding="ascii")
        else:
            (limited / "cpu.cfs_period_us").write_text(str(microseconds), encoding="ascii")
            (limited / "cpu.cfs_quota_us").write_text(str(quota), encoding="ascii")
        (limited / "cgroup.procs").write_text(str(pid), encoding="ascii")
        yield
    finally:
        for member in (limited / "cgroup.procs").read_text(encoding="ascii").split():
            with contextlib.suppress(ProcessLookupError):
                (parent / "cgroup.procs").write_text(member, encoding="ascii")
        limited.rmdir()


def times_throttled(limited: Path) -> int:
    """Return how often the group had to wait for its next period."""
    found = re.search(r"^nr_throttled (\d+)$", (limited / "cpu.stat").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) if found else 0
