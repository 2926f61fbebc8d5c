"""Each kind of witness, on real sockets: what it tests, and what it says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from checks.model import CheckResult, Target
from checks.probe.prober import Prober
from checks.probe.resolver import Resolver
from checks.probe.witness import LARGE_ANSWER, LARGE_REQUEST, Examiner, Failure
from tests.support.dns_server import REFUSED, SERVFAIL, DnsServer, Respond, nothing, zone
from tests.support.servers import (
    GENEROUS,
    BlackHole,
    Conversation,
    FixedCredentials,
    Handler,
    Server,
    always,
    answer,
    certificate,
    probing,
    refusing,
    resolver_of,
    server_context,
    target,
)

NAME = "kubenurse.default.svc"
FULL = f"{NAME}.cluster.local"
RESOLV_CONF = "nameserver 127.0.0.1\nsearch kube-system.svc.cluster.local cluster.local\noptions ndots:5\n"


def failure(checked: Target, last_address: str = "") -> Failure:
    """Return a failure of a target; why it failed does not matter here."""
    return Failure(checked, CheckResult(checked.type, "dns: timed out after 5s", "timeout"), last_address)


@contextmanager
def examining(
    directory: Path, prober: Prober, udp: Respond = nothing, tcp: Respond | None = None, text: str = RESOLV_CONF
) -> Iterator[tuple[Examiner, DnsServer]]:
    """An examiner whose name server is one of the test's."""
    path = directory / "resolv.conf"
    path.write_text(text)
    with DnsServer(udp, tcp) as dns:
        yield Examiner(prober.shared, node_port=1, resolv_conf=path, dns_port=dns.port), dns


@pytest.mark.parametrize("kind", ["dns_udp", "dns_tcp"])
@pytest.mark.parametrize(
    ("addresses", "name", "ok", "detail"),
    [
        ({f"{FULL}.": "10.96.0.9"}, FULL, True, "no error, 10.96.0.9"),
        ({f"{FULL}.": "fd00::9"}, FULL, True, "no error, fd00::9"),
        ({}, f"{NAME}.kube-system.svc.cluster.local", False, "no such name (NXDOMAIN)"),
        ({f"{FULL}.": SERVFAIL}, FULL, False, "server failure (SERVFAIL)"),
        ({f"{NAME}.": REFUSED}, NAME, False, "refused (REFUSED)"),
    ],
)
def test_the_question_is_put_to_the_name_server(
    tmp_path: Path, kind: str, addresses: Mapping[str, str | int], name: str, ok: bool, detail: str
) -> None:
    """The names that the C library tries are asked for until one has an address; the decisive answer is told."""
    with probing() as prober, examining(tmp_path, prober, zone(addresses)) as (examiner, dns):
        before = time.time()
        (witness,) = examiner.by_kind[kind](failure(target(f"http://{NAME}/")))
    assert (witness.kind, witness.target, witness.name) == (kind, "127.0.0.1", name)
    assert (witness.ok, witness.detail) == (ok, detail)
    assert 0 < witness.seconds < GENEROUS
    assert before <= witness.at <= time.time()
    assert {protocol for protocol, _, _ in dns.asked} == {kind.removeprefix("dns_")}


def test_udp_is_dropped_and_tcp_passes(tmp_path: Path) -> None:
    """A name server that is reached by TCP only shows as such."""
    with probing() as prober, examining(tmp_path, prober, nothing, zone({f"{FULL}.": "10.96.0.9"})) as (examiner, _):
        checked = failure(target(f"http://{NAME}/"))
        (by_udp,), (by_tcp,) = examiner.dns_udp(checked), examiner.dns_tcp(checked)
    assert (by_udp.ok, by_udp.detail) == (False, "timed out after 2s")
    assert by_tcp.ok


def test_each_name_server_is_asked(tmp_path: Path) -> None:
    """One witness for each name server: one dead of two shows."""
    text = "nameserver 127.0.0.1\nnameserver 127.0.0.2\n"
    with probing() as prober, examining(tmp_path, prober, zone({f"{NAME}.": "10.96.0.9"}), text=text) as (examiner, _):
        found = examiner.dns_udp(failure(target(f"http://{NAME}/")))
    assert [(witness.target, witness.ok) for witness in found] == [("127.0.0.1", True), ("127.0.0.2", False)]
    assert found[1].detail == "connection refused"


def test_an_address_needs_no_name_server(tmp_path: Path) -> None:
    """A check by address has no witness that is about names."""
    with probing() as prober, examining(tmp_path, prober) as (examiner, dns):
        checked = failure(target("http://127.0.0.1:1/"), "127.0.0.1")
        for make in (examiner.dns_udp, examiner.dns_tcp, examiner.last_address, examiner.other_address):
            assert make(checked) == ()
    assert dns.asked == []


def test_without_a_resolv_conf_the_local_server_is_asked(tmp_path: Path) -> None:
    """Without the file the C library asks 127.0.0.1, and so does the witness."""
    with probing() as prober, DnsServer(zone({f"{NAME}.": "10.96.0.9"})) as dns:
        examiner = Examiner(prober.shared, node_port=1, resolv_conf=tmp_path / "none", dns_port=dns.port)
        (witness,) = examiner.dns_udp(failure(target(f"http://{NAME}/")))
    assert (witness.target, witness.ok) == ("127.0.0.1", True)


def test_the_last_address(tmp_path: Path) -> None:
    """The check is made at its last good address without resolving, with the same Host, TLS name and token."""

    def broken(_host: str, _port: int) -> list[tuple[int, tuple[str, int]]]:
        raise OSError("no name server answers")

    context = server_context(certificate("api.test"))
    with (
        Server(always(answer()), context=context) as server,
        probing(resolver=Resolver(broken), credentials=FixedCredentials("token")) as prober,
        examining(tmp_path, prober) as (examiner, _),
    ):
        checked = target(server.url("/version", host="api.test"), to_api_server=True)
        assert prober.check(checked).phase == "dns"
        (witness,) = examiner.last_address(failure(checked, server.host))
        assert examiner.last_address(failure(checked)) == ()
    assert (witness.kind, witness.target, witness.ok, witness.detail) == ("last_address", server.host, True, "ok")
    assert server.header("Host") == f"api.test:{server.port}"
    assert server.header("Authorization") == "Bearer token"


def test_the_last_address_fails_too(tmp_path: Path) -> None:
    """A failure at the last address has the words of the check."""
    with refusing() as (_, (host, port)), probing() as prober, examining(tmp_path, prober) as (examiner, _):
        (witness,) = examiner.last_address(failure(target(f"http://{NAME}:{port}/"), host))
    assert (witness.ok, witness.detail) == (False, "connect: connection refused")


def test_again() -> None:
    """The check is made once more."""
    with Server(always(answer("503 Busy"))) as server, probing() as prober:
        (witness,) = Examiner(prober.shared, node_port=0).again(failure(target(server.url())))
    assert (witness.kind, witness.target, witness.ok, witness.detail) == ("again", server.host, False, "503 Busy")
    assert server.connections == 1


def test_other_addresses(tmp_path: Path) -> None:
    """Each address of a name that has several is checked by itself; a name with one has no other."""
    with Server(always(answer())) as server, probing(resolver=resolver_of(server.address)) as prober:
        checked = failure(target(server.url(host=NAME)))
        with examining(tmp_path, prober) as (examiner, _):
            assert examiner.other_address(checked) == ()
        second = (server.address[0], ("127.0.0.2", server.port))
        with (
            probing(resolver=resolver_of(server.address, second)) as several,
            examining(tmp_path, several) as (examiner, _),
        ):
            found = examiner.other_address(checked)
    assert [(witness.target, witness.ok) for witness in found] == [("127.0.0.1", True), ("127.0.0.2", False)]


@contextmanager
def listening() -> Iterator[int]:
    """A port on which somebody listens."""
    with Server(lambda conversation: None) as server:
        yield server.port


@contextmanager
def closed() -> Iterator[int]:
    """A port that refuses."""
    with refusing() as (_, (_, port)):
        yield port


@contextmanager
def swallowing() -> Iterator[int]:
    """A port whose packets are dropped."""
    with BlackHole() as hole:
        yield hole.port


@pytest.mark.parametrize(
    ("port", "ok", "detail"),
    [(listening, True, "connected"), (closed, True, "connection refused"), (swallowing, False, "timed out after 2s")],
)
def test_the_node(port: Callable[[], AbstractContextManager[int]], ok: bool, detail: str) -> None:
    """A node that takes or refuses a connection lives; silence says nothing good."""
    with port() as number, probing() as prober:
        examiner = Examiner(prober.shared, node_port=number)
        checked = target("http://127.0.0.9/", node="worker-1", node_address="127.0.0.1")
        (witness,) = examiner.node(failure(checked))
    assert (witness.kind, witness.target, witness.name) == ("node", "127.0.0.1", "worker-1")
    assert (witness.ok, witness.detail) == (ok, detail)


def test_no_node_to_try() -> None:
    """Port 0 switches the witness off; without an address there is nothing to try."""
    with probing() as prober:
        checked = target("http://127.0.0.9/", node="worker-1", node_address="127.0.0.1")
        assert Examiner(prober.shared, node_port=0).node(failure(checked)) == ()
        unknown = target("http://127.0.0.9/", node="worker-1")
        assert Examiner(prober.shared, node_port=10250).node(failure(unknown)) == ()


def test_the_hop(tmp_path: Path) -> None:
    """The last hop that answers is told; it is ok when it is the neighbour's address itself."""
    with probing() as prober, examining(tmp_path, prober) as (examiner, _):
        (witness,) = examiner.hop(failure(target("http://127.0.0.1:1/alwayshappy", node="worker-1")))
        assert examiner.hop(failure(target(f"http://{NAME}/"))) == ()
    assert (witness.kind, witness.target, witness.name) == ("hop", "127.0.0.1", "worker-1")
    assert (witness.ok, witness.detail) == (True, "hop 1, 127.0.0.1: reached")


def kubenurse(*, largest_answer: int = LARGE_ANSWER, largest_request: int = 100_000) -> Handler:
    """Answer as an agent does, over a path that silently loses what is larger than so many bytes."""

    def handle(conversation: Conversation) -> None:
        head = conversation.read_head()
        wanted = LARGE_ANSWER if b"?bytes=16384" in head else 0
        if len(head) > largest_request or wanted > largest_answer:
            conversation.wait_for_the_end()
        else:
            conversation.send(answer(body=b"x" * wanted))

    return handle


@pytest.mark.parametrize(
    ("handle", "found"),
    [
        (kubenurse(), {"answer": True, "request": True}),
        (kubenurse(largest_answer=9000), {"request": True, "answer": False}),
        (kubenurse(largest_request=9000), {"answer": True, "request": False}),
        (always(answer()), {"request": True}),
        (always(answer("431 Request Header Fields Too Large")), {}),
    ],
    ids=["both pass", "answers are lost", "requests are lost", "older version", "refuses"],
)
def test_sizes(handle: Handler, found: dict[str, bool]) -> None:
    """Which size passes in which direction; a failed one stands last, and what cannot be judged is left out."""
    with Server(handle) as server, probing(timeout=0.5) as prober:
        examiner = Examiner(prober.shared, node_port=0)
        checked = failure(target(server.url("/alwayshappy"), node="worker-1"))
        small, large = examiner.small(checked), examiner.large(checked)
    assert [witness.target for witness in (*small, *large)] == [server.host] * (1 + len(found))
    assert [(witness.name, witness.ok) for witness in large] == list(found.items())
    assert max(len(head) for head in server.received) > LARGE_REQUEST
    if not all(found.values()):
        assert large[-1].detail == "response: timed out after 500ms"
