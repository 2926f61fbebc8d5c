"""What a resolv.conf says, read as the C library reads it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.probe.resolv_conf import MOST_NDOTS, MOST_SEARCH, MOST_SERVERS, ResolvConf, parse

POD = """# written by the kubelet
search kube-system.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.96.0.10
options ndots:5
"""


def test_the_file_of_a_pod() -> None:
    """Name server, search domains and ndots of a Pod."""
    conf = parse(POD)
    assert conf == ResolvConf(
        servers=("10.96.0.10",),
        search=("kube-system.svc.cluster.local", "svc.cluster.local", "cluster.local"),
        ndots=5,
        options=("ndots:5",),
    )
    assert conf.candidates("kubernetes.default.svc") == (
        "kubernetes.default.svc.kube-system.svc.cluster.local.",
        "kubernetes.default.svc.svc.cluster.local.",
        "kubernetes.default.svc.cluster.local.",
        "kubernetes.default.svc.",
    )


def test_names_with_many_dots_are_tried_as_they_are_first() -> None:
    """A name with at least ndots dots is tried before the search domains, a name with a final dot only as it is."""
    conf = ResolvConf(search=("b.test",), ndots=2)
    assert conf.candidates("x.y.z") == ("x.y.z.", "x.y.z.b.test.")
    assert conf.candidates("x.y") == ("x.y.b.test.", "x.y.")
    assert conf.candidates("x.") == ("x.",)


@pytest.mark.parametrize(
    ("text", "conf"),
    [
        ("", ResolvConf()),
        ("nameserver", ResolvConf()),
        ("nameserver example.test\nnameserver 300.1.1.1", ResolvConf()),
        (" nameserver 10.0.0.1", ResolvConf()),
        ("#nameserver 10.0.0.1\n;nameserver 10.0.0.1", ResolvConf()),
        ("nameserver\t10.0.0.1 # the first", ResolvConf(("10.0.0.1",))),
        ("nameserver fe80::1%eth0\nnameserver ::1", ResolvConf(("fe80::1%eth0", "::1"))),
        ("".join(f"nameserver 10.0.0.{n}\n" for n in range(1, 6)), ResolvConf(("10.0.0.1", "10.0.0.2", "10.0.0.3"))),
        ("domain a.test\nsearch b.test c.test", ResolvConf(search=("b.test", "c.test"))),
        ("search b.test c.test\ndomain a.test. d.test", ResolvConf(search=("a.test",))),
        ("search .", ResolvConf()),
        ("options ndots:3 rotate\noptions ndots:x", ResolvConf(ndots=3, options=("ndots:3", "rotate", "ndots:x"))),
        ("options ndots:99", ResolvConf(ndots=MOST_NDOTS, options=("ndots:99",))),
        ("options ndots:0002", ResolvConf(ndots=2, options=("ndots:0002",))),
    ],
)
def test_lines(text: str, conf: ResolvConf) -> None:
    """Each kind of line, good and bad, means what resolv.conf(5) says."""
    assert parse(text) == conf


PIECES = [
    "nameserver ",
    "search ",
    "domain ",
    "options ndots:",
    "\n",
    "1",
    ".",
    ":",
    "::1",
    "10.0.0.1",
    " ",
    "#",
    "\u0663",
]


@given(st.text(st.characters(exclude_categories=())) | st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text(text: str) -> None:
    """Any text gives name servers that are addresses, a bounded number of domains and a bounded ndots."""
    conf = parse(text)
    assert 1 <= len(conf.servers) <= MOST_SERVERS
    assert all(ipaddress.ip_address(server) for server in conf.servers)
    assert len(conf.search) <= MOST_SEARCH
    assert 0 <= conf.ndots <= MOST_NDOTS
    assert all(name.endswith(".") for name in conf.candidates("a.test"))
