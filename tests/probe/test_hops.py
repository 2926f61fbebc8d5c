"""The last hop that answers: on loopback, and over two routers of network namespaces where those can be made."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.probe.hops import Hop, last_hop
from checks.probe.sockets import Abort
from tests.support.servers import GENEROUS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def abort() -> Iterator[Abort]:
    """An Abort that is not thrown."""
    made = Abort()
    yield made
    made.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_address_that_is_one_hop_away(abort: Abort, address: str) -> None:
    """An address that answers itself is the last hop."""
    found = last_hop(address, time.perf_counter() + GENEROUS, abort)
    assert found == Hop(1, address, "reached", is_target=True)


def test_a_name_is_no_address(abort: Abort) -> None:
    """Nothing is looked up."""
    with pytest.raises(ValueError, match="not an IP address"):
        last_hop("localhost", time.perf_counter() + GENEROUS, abort)


def test_abort_ends_it(abort: Abort) -> None:
    """At the agent's end no answer is waited for."""
    abort.throw()
    with pytest.raises(OSError, match="the agent is ending") as caught:
        # The reserved end of loopback's range: nobody is asked on another machine.
        last_hop("127.255.255.254", time.perf_counter() + GENEROUS, abort)
    assert caught.value.errno == errno.ECANCELED


# client - first - second - server, each in a network namespace of its own; all of it ends with the process.
_WAY = """
import ctypes, os, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def ip(*words): subprocess.run(["ip", *words], check=True)
def unshare():
    if libc.unshare(0x40000000): raise OSError(ctypes.get_errno(), "unshare")
unshare()
here = os.open("/proc/self/ns/net", os.O_RDONLY)
spaces = [here]
for _ in range(3):
    unshare()
    spaces.append(os.open("/proc/self/ns/net", os.O_RDONLY))
def enter(space): libc.setns(spaces[space], 0x40000000)
def write(name, value): open("/proc/sys/net/" + name, "w").write(value)
for left in range(3):
    enter(left)
    ip("link", "add", f"r{left}", "type", "veth", "peer", "name", f"l{left + 1}")
    os.set_inheritable(spaces[left + 1], True)
    subprocess.run(["ip", "link", "set", f"l{left + 1}", "netns", f"/proc/self/fd/{spaces[left + 1]}"],
                   check=True, close_fds=False)
def address(space, device, end, net):
    ip("address", "add", f"10.9.{net}.{end}/24", "dev", device)
    ip("address", "add", f"fd09:{net}::{end}/64", "dev", device, "nodad")
    ip("link", "set", device, "up")
for space in range(4):
    enter(space)
    ip("link", "set", "lo", "up")
    if space: address(space, f"l{space}", 2, space)
    if space < 3: address(space, f"r{space}", 1, space + 1)
for space in range(4):
    enter(space)
    write("ipv4/ip_forward", "1")
    write("ipv6/conf/all/forwarding", "1")
    if space < 3:
        ip("route", "add", "10.9.0.0/16", "via", f"10.9.{space + 1}.2")
        ip("-6", "route", "add", "fd09::/16", "via", f"fd09:{space + 1}::2")
    else:
        ip("route", "add", "10.9.0.0/16", "via", "10.9.3.1")
        ip("-6", "route", "add", "fd09::/16", "via", "fd09:3::1")
enter(2)
ip("route", "add", "10.9.1.0/24", "via", "10.9.2.1")
ip("-6", "route", "add", "fd09:1::/64", "via", "fd09:2::1")
from checks.probe.hops import last_hop
from checks.probe.sockets import Abort
def last(target): return last_hop(target, time.perf_counter() + 5, Abort())
def settled(target, ttl):
    # IPv6 addresses of links need a moment (RFC 4862, section 5.4), and routers bound their rate of errors.
    for _ in range(20):
        enter(0)
        found = last(target)
        if found and found.ttl == ttl: break
        time.sleep(0.2)
    print(found)
for target in sys.argv[1:]: settled(target, 3)
# The last router forwards nothing any more, silently.
enter(2)
ip("route", "add", "blackhole", "10.9.3.2/32")
ip("-6", "route", "add", "blackhole", "fd09:3::2/128")
ip("route", "del", "10.9.3.0/24")
ip("-6", "route", "del", "fd09:3::/64", "dev", "r2")
for target in sys.argv[1:]: settled(target, 1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_a_way_over_two_routers() -> None:
    """Three hops away an address answers itself. Where a router drops what is for it, the hop before is the last."""
    targets = ["10.9.3.2", "fd09:3::2"]
    done = subprocess.run(
        [sys.executable, "-c", _WAY, *targets], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        *(str(Hop(3, target, "reached", is_target=True)) for target in targets),
        *(str(Hop(1, first, "time exceeded", is_target=False)) for first in ("10.9.1.2", "fd09:1::2")),
    ]
