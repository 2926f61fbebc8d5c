"""What the kernel says of this process's CPU time: throttling and pressure of its control group. Pure but for Reader.

Sources: the kernel's Documentation: admin-guide/cgroup-v2.rst (cpu.stat, cpu.pressure), scheduler/sched-bwc.rst
(cpu.stat of version 1), accounting/psi.rst; proc(5) for mountinfo, cgroups(7) for /proc/self/cgroup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# None of the files has more; a longer one is cut.
_MOST_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class CpuCounters:
    """Counters of one control group, rising since it was made; None where the kernel does not tell.

    ``periods`` are those in which the group wanted to run under a CPU limit, ``throttled`` those of them in which it
    used up its share and had to wait. ``waited`` is seconds in which at least one of its threads waited for a CPU.
    ``group`` is the group's directory: counters of two groups cannot be compared.
    """

    group: str = ""
    periods: int | None = None
    throttled: int | None = None
    waited: float | None = None


def parse_stat(text: str) -> tuple[int, int] | None:
    """Return periods and throttled periods of a ``cpu.stat`` of either version; None when it has none."""
    counts = dict(re.findall(r"^(nr_periods|nr_throttled) (\d{1,20})$", text, re.MULTILINE))
    if len(counts) < 2:
        return None
    return int(counts["nr_periods"]), int(counts["nr_throttled"])


def parse_pressure(text: str) -> float | None:
    """Return the seconds of a ``cpu.pressure`` in which some thread waited; None when it does not say."""
    found = re.search(r"^some .*\btotal=(\d{1,20})$", text, re.MULTILINE)
    return int(found[1]) / 1e6 if found else None


def group_directories(own_groups: str, mountinfo: str) -> tuple[str, str]:
    """Return the directories of this process's groups: with the CPU controller of version 1, and of version 2.

    ``own_groups`` is /proc/self/cgroup, ``mountinfo`` /proc/self/mountinfo. A directory is empty when there is none. A
    group above what is mounted (a container that sees its own group only) is the mounted one.
    """
    paths = {}
    for line in own_groups.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if "cpu" in controllers.split(","):
            paths["cgroup"] = path
        elif line.startswith("0::"):
            paths["cgroup2"] = path
    return _directory(paths, mountinfo, "cgroup", "cpu"), _directory(paths, mountinfo, "cgroup2", "")


def _directory(paths: dict[str, str], mountinfo: str, kind: str, controller: str) -> str:
    if kind not in paths:
        return ""
    for root, mount_point in _mounts(mountinfo, kind, controller):
        own = PurePosixPath(paths[kind])
        below = own.relative_to(root) if own.is_relative_to(root) else PurePosixPath()
        # ``..``: the group is outside the namespace of groups that this process sees.
        return mount_point if ".." in below.parts else str(PurePosixPath(mount_point) / below)
    return ""


def _mounts(mountinfo: str, kind: str, controller: str) -> Iterable[tuple[str, str]]:
    """Yield root and mount point of the mounts of one kind of file system (with a controller)."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, of_file_system = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(of_file_system) < 3 or of_file_system[0] != kind:
            continue
        if not controller or controller in of_file_system[2].split(","):
            yield fields[3], fields[4]


class Reader:
    """Reads the counters of the group that this process is in, which may change while it runs.

    ``proc`` is where /proc/self is, ``root`` is put before the paths of mounts; tests give directories of their own.
    A file that is absent or cannot be read means that the kernel does not tell.
    """

    def __init__(self, proc: Path = Path("/proc/self"), root: Path = Path("/")) -> None:
        self._proc = proc
        self._root = root
        self._mountinfo: str | None = None

    def __call__(self) -> CpuCounters:
        """Read at most five small files of the kernel."""
        if self._mountinfo is None:
            self._mountinfo = _text(self._proc / "mountinfo")
        first, second = group_directories(_text(self._proc / "cgroup"), self._mountinfo)
        stat = parse_stat(self._file(first, "cpu.stat")) or parse_stat(self._file(second, "cpu.stat"))
        # The file cgroup.type is in all groups but the root, whose pressure is that of the whole machine.
        own = bool(self._file(second, "cgroup.type"))
        return CpuCounters(
            group=f"{first}:{second}",
            periods=stat[0] if stat else None,
            throttled=stat[1] if stat else None,
            waited=parse_pressure(self._file(second, "cpu.pressure")) if own else None,
        )

    def _file(self, directory: str, name: str) -> str:
        return _text(self._root / directory.lstrip("/") / name) if directory else ""


def _text(path: Path) -> str:
    """Return the beginning of a file of the kernel, empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
