"""Requirements of the cluster of namespaces, and their installation from Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.debian import install, search_path

# Commands, and the Debian packages that contain them.
COMMANDS = {
    "ip": "iproute2",
    "iptables-restore": "iptables",
    "ip6tables-restore": "iptables",
    "nginx": "nginx-light",
    "dnsmasq": "dnsmasq-base",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}
FAKETIME_PATTERN = "*/faketime/libfaketimeMT.so.1"
FAKETIME_PACKAGE = "libfaketime"

# Required abilities of the kernel, tried in a namespace that ends with its process.
_ABILITIES = {
    "network namespaces with veth pairs and bridges": "ip link add type veth && ip link add type bridge",
    "IPv6": "ip link set lo up && ip -6 addr add fd00::1/128 dev lo",
    **{
        f"{command} with nat, statistic, conntrack and length": (
            f"{command} -t nat -A OUTPUT -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to :80"
            f" && {command} -A INPUT -m conntrack --ctstate INVALID -m length --length 600:65535 -j REJECT"
        )
        for command in ("iptables", "ip6tables")
    },
}


def faketime_library() -> Path | None:
    """Return the path of the library that changes the time of day."""
    return next(iter(sorted(Path("/usr/lib").glob(FAKETIME_PATTERN))), None)


def missing_packages() -> list[str]:
    """Return the Debian packages of missing commands and libraries."""
    missing = {package for command, package in COMMANDS.items() if shutil.which(command, path=search_path()) is None}
    if faketime_library() is None:
        missing.add(FAKETIME_PACKAGE)
    return sorted(missing)


def reason_to_skip() -> str:
    """Return why the cluster cannot be built here, empty when it can."""
    if not sys.platform.startswith("linux"):
        return f"needs Linux's network namespaces, this is {sys.platform}"
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if missing := missing_packages():
        return f"needs Debian's packages {', '.join(missing)}"
    for ability, script in _ABILITIES.items():
        probe = subprocess.run(
            ["unshare", "--net", "sh", "-c", script],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={"PATH": search_path()},
        )
        if probe.returncode != 0:
            return f"needs {ability}: {probe.stderr.strip()}"
    return ""


if __name__ == "__main__":
    install(missing_packages())
