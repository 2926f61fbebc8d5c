"""Whether the agent itself is starved: its timers, and what the kernel says of its CPU time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.schedule.cpu import CpuCounters, Reader, group_directories, parse_pressure, parse_stat
from checks.schedule.own import LATE_SECONDS, THROTTLED_RATIO, WAITING_RATIO, WINDOW_SECONDS, Own

V2_STAT = """usage_usec 90000
user_usec 60000
system_usec 30000
nr_periods 400
nr_throttled 100
throttled_usec 8000000
nr_bursts 0
burst_usec 0
"""
V1_STAT = "nr_periods 40\nnr_throttled 10\nthrottled_time 800000000\n"
PRESSURE = """some avg10=12.34 avg60=10.00 avg300=5.00 total=2500000
full avg10=1.00 avg60=1.00 avg300=1.00 total=100000
"""
V1_GROUPS = "4:memory:/kubepods/pod1/c1\n2:cpu,cpuacct:/kubepods/pod1/c1\n1:name=systemd:/kubepods/pod1/c1\n"
V1_MOUNTS = """31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs rw,mode=755
32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 {root} /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
"""
UNIFIED_MOUNT = "41 31 0:38 / /sys/fs/cgroup/unified ro - cgroup2 cgroup2 rw,nsdelegate\n"
V2_MOUNTS = "31 23 0:28 {root} /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n"


class Clock:
    """A clock that stands still until told."""

    now = 1000.0

    def __call__(self) -> float:
        """Return monotonic seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock for one test."""
    return Clock()


def test_files_of_both_versions_are_read() -> None:
    """Periods of cpu.stat, old and new, and the time waited of cpu.pressure; without them there is nothing."""
    assert parse_stat(V2_STAT) == (400, 100)
    assert parse_stat(V1_STAT) == (40, 10)
    assert parse_pressure(PRESSURE) == 2.5
    for text in ("", "usage_usec 1\n", "nr_periods 1\n", "nr_periods x\nnr_throttled -1\n", "full avg10=0 total=1"):
        assert parse_stat(text) is None
        assert parse_pressure(text) is None


@pytest.mark.parametrize(
    ("groups", "mounts", "expected"),
    [
        # Version 1: on the node, and in a container without a namespace of groups, which sees its own group only.
        (V1_GROUPS, V1_MOUNTS.format(root="/"), ("/sys/fs/cgroup/cpu,cpuacct/kubepods/pod1/c1", "")),
        (V1_GROUPS, V1_MOUNTS.format(root="/kubepods/pod1/c1"), ("/sys/fs/cgroup/cpu,cpuacct", "")),
        # Version 2: on the node, in a container, and moved out of what it sees.
        ("0::/kubepods.slice/c1\n", V2_MOUNTS.format(root="/"), ("", "/sys/fs/cgroup/kubepods.slice/c1")),
        ("0::/\n", V2_MOUNTS.format(root="/"), ("", "/sys/fs/cgroup")),
        ("0::/../other\n", V2_MOUNTS.format(root="/"), ("", "/sys/fs/cgroup")),
        ("0::/a\n", V2_MOUNTS.format(root="/b"), ("", "/sys/fs/cgroup")),
        # Both, as systemd's hybrid has it; and neither.
        (V1_GROUPS + "0::/c1\n", V1_MOUNTS.format(root="/") + UNIFIED_MOUNT,
         ("/sys/fs/cgroup/cpu,cpuacct/kubepods/pod1/c1", "/sys/fs/cgroup/unified/c1")),
        # The path has colons, and another controller of version 1 is mounted first.
        ("2:cpu:/pod:1:2:c\n", "35 31 0:32 / /memory ro - cgroup a b,memory\n32 31 0:29 / /cpu ro - cgroup a rw,cpu\n",
         ("/cpu/pod:1:2:c", "")),
        # A line that is cut off is passed over.
        ("0::/c1\n", "31 23 0:28 / /cut - cgroup2 cgroup2 rw\n" + V2_MOUNTS.format(root="/"),
         ("", "/sys/fs/cgroup/c1")),
        ("", "", ("", "")),
        ("0::/\n", "", ("", "")),
    ],
)  # fmt: skip
def test_the_own_group_is_found(groups: str, mounts: str, expected: tuple[str, str]) -> None:
    """The directory of the process's group follows from its path and from what is mounted where."""
    assert group_directories(groups, mounts) == expected


@given(st.text(max_size=300), st.text(max_size=300))
def test_nothing_that_a_file_has_is_an_error(one: str, other: str) -> None:
    """Whatever the texts are, the parsers return."""
    parse_stat(one)
    parse_pressure(one)
    group_directories(one, other)
    group_directories("0::/" + one, V2_MOUNTS.format(root="/") + other)


def machine(directory: Path, *, version: int, root: bool = False) -> Reader:
    """A reader of files as a kernel has them."""
    proc, group = directory / "proc", directory / "sys/fs/cgroup"
    proc.mkdir()
    if version == 2:
        (proc / "cgroup").write_text("0::/\n")
        (proc / "mountinfo").write_text(V2_MOUNTS.format(root="/"))
    else:
        group /= "cpu,cpuacct"
        (proc / "cgroup").write_text(V1_GROUPS)
        (proc / "mountinfo").write_text(V1_MOUNTS.format(root="/kubepods/pod1/c1"))
    group.mkdir(parents=True)
    (group / "cpu.stat").write_text(V2_STAT if version == 2 else V1_STAT)
    (group / "cpu.pressure").write_text(PRESSURE)
    if version == 2 and not root:
        (group / "cgroup.type").write_text("domain\n")
    return Reader(proc, directory)


def test_reading_the_files(tmp_path: Path) -> None:
    """Both versions tell of throttling, and version 2 of the group's own pressure, not of the whole machine's."""
    for name in ("v1", "v2", "root"):
        (tmp_path / name).mkdir()
    v1 = machine(tmp_path / "v1", version=1)()
    v2 = machine(tmp_path / "v2", version=2)()
    root = machine(tmp_path / "root", version=2, root=True)()
    assert (v1.periods, v1.throttled, v1.waited) == (40, 10, None)
    assert (v2.periods, v2.throttled, v2.waited) == (400, 100, 2.5)
    assert root.waited is None
    assert Reader(tmp_path / "none", tmp_path)() == CpuCounters(group=":")


def test_this_machine_can_be_read() -> None:
    """The files of the kernel that runs this test are read without an error."""
    counters = Reader()()
    assert counters.throttled is None or counters.throttled >= 0


def test_lateness_is_the_worst_of_the_last_minute(clock: Clock) -> None:
    """The latest timer counts for 55 to 60 seconds, a timer that was early counts as on time."""
    own = Own(CpuCounters, clock)
    assert own.lateness == 0
    for late in (0.001, 0.25, -0.5, 0.125):
        own.note(clock.now, clock.now + late)
    assert own.lateness == 0.25
    clock.now += 54
    own.note(clock.now, clock.now + 0.0625)
    assert own.lateness == 0.25
    clock.now += 6
    assert own.lateness == 0.0625
    clock.now += WINDOW_SECONDS
    assert own.lateness == 0


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 3)), max_size=80))
def test_lateness_whatever_the_course(course: list[tuple[float, float]]) -> None:
    """It is the worst of the five-second slices of the last minute."""
    clock, noted = Clock(), list[tuple[int, float]]()
    own = Own(CpuCounters, clock)
    for pause, late in course:
        clock.now += pause + late
        own.note(clock.now - late, clock.now)
        noted.append((int(clock.now // 5), late))
    current = int(clock.now // 5)
    assert own.lateness == pytest.approx(max((late for slot, late in noted if slot > current - 12), default=0))


def test_ratios_are_of_the_last_minute(clock: Clock) -> None:
    """Throttling and waiting are shares of the last minute, and what the kernel does not tell is None."""
    counters = [CpuCounters("g", 0, 0, 0.0)]
    own = Own(lambda: counters[0], clock)
    assert own.document() == {
        "starved": False,
        "lateness_seconds": 0,
        "throttled_ratio": None,
        "waiting_ratio": None,
    }
    for round_ in range(100):
        clock.now += 5
        busy = round_ >= 94
        last = counters[0]
        counters[0] = CpuCounters(
            "g", (last.periods or 0) + 10, (last.throttled or 0) + 5 * busy, (last.waited or 0.0) + busy
        )
        own.sample()
    document = own.document()
    assert document["throttled_ratio"] == 0.25
    assert document["waiting_ratio"] == 0.1
    assert document["starved"]


@pytest.mark.parametrize(("step", "expected"), [(20.0, (0.6, 0.6)), (100.0, (0.9, 0.9))])
def test_ratios_of_rare_samples(clock: Clock, step: float, expected: tuple[float, float]) -> None:
    """Ratios begin with the oldest sample of the last minute, or with the sample before where that is older."""
    counters = CpuCounters("g", 0, 0, 0.0)
    own = Own(lambda: counters, clock)
    for ratio in (0.0, 0.0, 0.3, 0.6, 0.9):
        clock.now += step
        counters = CpuCounters(
            "g",
            (counters.periods or 0) + 10,
            (counters.throttled or 0) + round(10 * ratio),
            (counters.waited or 0.0) + ratio * step,
        )
        own.sample()
    document = own.document()
    assert (document["throttled_ratio"], document["waiting_ratio"]) == expected


def test_an_agent_that_never_waits_has_ratios_of_nothing(clock: Clock) -> None:
    """Counters that stay at 0 give 0, and not None: the kernel told that nothing was throttled."""
    own = Own(lambda: CpuCounters("g", round(clock.now), 0, 0.0), clock)
    own.sample()
    clock.now += 10
    own.sample()
    document = own.document()
    assert (document["throttled_ratio"], document["waiting_ratio"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("lateness", "throttled", "waited", "starved"),
    [
        (0.0, 0, 0.0, False),
        (LATE_SECONDS, 0, 0.0, True),
        (LATE_SECONDS - 0.01, round(100 * THROTTLED_RATIO) - 1, 10 * WAITING_RATIO - 0.1, False),
        (0.0, round(100 * THROTTLED_RATIO), 0.0, True),
        (0.0, 0, 10 * WAITING_RATIO, True),
    ],
)
def test_what_starves_an_agent(clock: Clock, lateness: float, throttled: int, waited: float, *, starved: bool) -> None:
    """A timer half a second late, a quarter of the periods throttled or half of the time waited: each is enough."""
    counters = iter([CpuCounters("g", 0, 0, 0.0), CpuCounters("g", 100, throttled, waited)])
    own = Own(lambda: next(counters), clock)
    own.sample()
    clock.now += 10
    own.sample()
    own.sample()
    own.note(clock.now - lateness, clock.now)
    assert own.starved == own.document()["starved"] == starved


def test_a_process_that_is_moved_is_judged_anew(clock: Clock) -> None:
    """Counters of another group are not compared with those of the one before."""
    found = CpuCounters("a", 1000, 0, 0.0)
    own = Own(lambda: found, clock)
    own.sample()
    clock.now += 5
    found = CpuCounters("b", 1010, 900, 500.0)
    own.sample()
    assert (own.document()["throttled_ratio"], own.document()["waiting_ratio"]) == (0, 0)


STOPPED = """
import os, signal, subprocess, sys, time
from checks.schedule.own import Own
own = Own()
subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(1); os.kill({os.getpid()}, 18)"])
planned = time.monotonic() + 0.01
os.kill(os.getpid(), signal.SIGSTOP)
while time.monotonic() < planned:
    time.sleep(0.001)
own.note(planned, time.monotonic())
print(own.starved, own.lateness)
"""


def test_a_stopped_process_says_that_it_was() -> None:
    """A process that is stopped and continued finds its timer late, and itself starved."""
    done = subprocess.run(
        [sys.executable, "-c", STOPPED],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    starved, lateness = done.stdout.split()
    assert starved == "True"
    assert float(lateness) >= LATE_SECONDS
