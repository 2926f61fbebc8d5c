"""TCP connections under a deadline, measured by the kernel."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from checks.probe.connecting import STAGGER_SECONDS, Connected, connect
from checks.probe.resolver import Address
from checks.probe.sockets import (
    MOST_RECEIVED_BYTES,
    Abort,
    KernelClock,
    MeasuredSocket,
    TooMuchReceivedError,
    _clocks,
)
from tests.support.servers import GENEROUS, LARGE, SHORT, BlackHole, Server, refusing, silent
from tests.support.waiting import until

# Addresses that fail before anything is sent: one of a family without TCP, and a broadcast address.
IMPOSSIBLE: Address = (socket.AF_UNIX, ("nowhere",))
BROADCAST: Address = (socket.AF_INET, ("255.255.255.255", 9))


@pytest.fixture
def abort() -> Iterator[Abort]:
    """An Abort that is not thrown."""
    made = Abort()
    yield made
    made.close()


@pytest.fixture(autouse=True, scope="module")
def clock() -> Iterator[KernelClock]:
    """Time stamps, switched on in the kernel."""
    made = KernelClock()
    yield made
    made.close()


def later(seconds: float = GENEROUS) -> float:
    """A deadline."""
    return time.perf_counter() + seconds


@contextmanager
def connected(abort: Abort, deadline: float) -> Iterator[tuple[MeasuredSocket, socket.socket]]:
    """Both ends of a connection: the measured one and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = connect([(socket.AF_INET, listener.getsockname())], deadline, abort)
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(GENEROUS)
            measured = MeasuredSocket(made.sock, deadline, abort)
            try:
                yield measured, peer
            finally:
                measured.close()


def readable(sock: socket.socket) -> bool:
    """Wait until something can be read."""
    return bool(select.select([sock], [], [], GENEROUS)[0])


def test_the_kernel_stamps(clock: KernelClock) -> None:
    """On Linux the kernel stamps what arrives, and ``source`` says so."""
    assert clock.available
    assert clock.source == "kernel"


def test_a_system_that_does_not_stamp() -> None:
    """A socket that cannot be stamped, as on other systems than Linux, is no error."""
    made, closed = KernelClock(), socket.socket()
    closed.close()
    made.available = made.enable(closed)
    assert made.source == "perf_counter"
    made.close()


def test_what_was_sent_is_received(abort: Abort) -> None:
    """Bytes go both ways, also into a buffer of the caller."""
    with connected(abort, later()) as (measured, peer):
        measured.sendall(b"request")
        assert peer.recv(100) == b"request"
        peer.sendall(b"answer")
        buffer = bytearray(3)
        assert measured.recv_into(memoryview(buffer)) == 3
        assert (bytes(buffer), measured.recv(100)) == (b"ans", b"wer")
        peer.shutdown(socket.SHUT_WR)
        assert measured.recv(100) == b""


def test_arrival_is_when_it_arrived_and_not_when_it_was_read(abort: Abort) -> None:
    """Bytes that are read late have the moment of their arrival."""
    with connected(abort, later()) as (measured, peer):

        def is_right() -> bool:
            before = time.perf_counter()
            peer.sendall(b"x")
            until(lambda: not measured.is_silent())
            there = time.perf_counter()
            until(lambda: time.perf_counter() > there + 0.02)
            assert measured.recv(10) == b"x"
            # The wall clock, which the stamps are of, and perf_counter may drift apart by a little.
            return before - 0.005 <= measured.last_arrival <= there + 0.005

        # The kernel begins to stamp with some delay.
        until(is_right)


class Fickle(socket.socket):
    """A socket that poll reports as readable a few times before it is (poll(2), BUGS)."""

    false_alarms = 3

    def recvmsg_into(self, *arguments: Any) -> Any:
        """Fail as a socket without input does, a few times."""
        if self.false_alarms:
            self.false_alarms -= 1
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return super().recvmsg_into(*arguments)


def test_a_false_alarm_is_no_failure(abort: Abort) -> None:
    """A socket that is reported as readable and has nothing to read is waited for again."""
    ours, theirs = socket.socketpair()
    fickle = Fickle(fileno=ours.detach())
    with theirs:
        measured = MeasuredSocket(fickle, later(), abort)
        theirs.sendall(b"x")
        assert (measured.recv(10), fickle.false_alarms) == (b"x", 0)
        measured.close()


def test_a_stamp_from_before_the_request_is_not_believed(abort: Abort) -> None:
    """The moment of reading replaces a stamp from before the request, as after a step of the clock."""
    with connected(abort, later()) as (measured, peer):
        peer.sendall(b"x")
        until(lambda: not measured.is_silent())
        measured.sendall(b"request")
        assert measured.recv(10) == b"x"
        assert measured.sent <= measured.last_arrival <= time.perf_counter()


def test_without_stamps_it_is_the_moment_of_reading(abort: Abort) -> None:
    """A socket without stamps gives the moment of reading, and one without TCP gives no facts."""
    ours, theirs = socket.socketpair()
    with theirs:
        measured = MeasuredSocket(ours, later(), abort)
        theirs.sendall(b"x")
        before = time.perf_counter()
        assert measured.recv(10) == b"x"
        assert before <= measured.last_arrival <= time.perf_counter()
        assert measured.tcp_facts() is None
        measured.close()


def test_reading_ends_at_the_deadline(abort: Abort) -> None:
    """A read from a silent peer ends at the deadline."""
    with connected(abort, later(SHORT)) as (measured, _):
        begun = time.perf_counter()
        with pytest.raises(TimeoutError) as caught:
            measured.recv(10)
        assert caught.value.errno is None
        assert time.perf_counter() - begun < GENEROUS / 2


def test_sending_ends_at_the_deadline(abort: Abort) -> None:
    """A write to a peer that reads nothing ends at the deadline."""
    with connected(abort, later(SHORT)) as (measured, _), pytest.raises(TimeoutError):
        measured.sendall(LARGE.encode())


def test_large_requests_are_sent_whole(abort: Abort) -> None:
    """A request larger than the buffers is sent as the peer reads it."""
    with connected(abort, later()) as (measured, peer), ThreadPoolExecutor(1) as pool:
        sending = pool.submit(measured.sendall, LARGE.encode())
        count = 0
        while count < len(LARGE):
            count += len(peer.recv(1 << 20))
        sending.result(GENEROUS)


def receive_all(measured: MeasuredSocket) -> None:
    """Receive until the end."""
    while measured.recv(65536):
        pass


def test_an_endless_answer(abort: Abort) -> None:
    """A bounded part of an endless answer is read; each request on a connection counts from zero."""
    with connected(abort, later()) as (measured, peer), ThreadPoolExecutor(1) as pool:
        sending = pool.submit(peer.sendall, b"x" * 2 * MOST_RECEIVED_BYTES)
        received = 0
        while received <= MOST_RECEIVED_BYTES - 4096:
            received += len(measured.recv(4096))
        with pytest.raises(TooMuchReceivedError, match=f"longer than {MOST_RECEIVED_BYTES} bytes"):
            receive_all(measured)
        measured.rearm(later())
        assert measured.recv(4096)
        measured.close()
        assert isinstance(sending.exception(GENEROUS), ConnectionError | None)


def test_errors_of_the_socket_pass(abort: Abort) -> None:
    """A reset raises the system's error."""
    with connected(abort, later()) as (measured, peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        peer.close()
        with pytest.raises(ConnectionResetError):
            measured.recv(10)


def test_a_connection_is_silent_until_something_comes(abort: Abort) -> None:
    """A connection with input, or at its end, is no longer silent."""
    with connected(abort, later()) as (measured, peer):
        assert measured.is_silent()
        peer.shutdown(socket.SHUT_WR)
        assert readable(measured._sock)
        assert not measured.is_silent()


def test_facts_of_the_connection(abort: Abort) -> None:
    """The kernel's figures of a loopback connection: a short round trip, and the MTU of loopback."""
    mtu = int(Path("/sys/class/net/lo/mtu").read_text("ascii"))
    with connected(abort, later()) as (measured, _):
        facts = measured.tcp_facts()
        assert facts is not None
        assert facts.rtt_seconds is not None
        assert 0 < facts.rtt_seconds < 1
        assert facts.path_mtu_bytes == min(mtu, 65535)
        assert facts.retransmits == 0
    assert measured.tcp_facts() is None


def test_segments_sent_again_count_once(abort: Abort) -> None:
    """Retransmits of one request do not count for the next request on the connection."""
    with BlackHole() as hole, ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(connect, [hole.address], later(), abort)
        until(hole.is_tried)
        with hole.accept():
            made = connecting.result(GENEROUS)
            measured = MeasuredSocket(made.sock, later(), abort)
            first = measured.tcp_facts()
            measured.rearm(later())
            second = measured.tcp_facts()
            measured.rearm(later())
            third = measured.tcp_facts()
            measured.close()
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.retransmits >= 1
    assert second.retransmits == third.retransmits == 0


def test_segments_sent_again_for_nothing_do_not_count(abort: Abort) -> None:
    """A segment that was sent again although it had arrived, since the ACK was slow, is no retransmit."""
    with connected(abort, later()) as (measured, peer):
        for _ in range(3):  # after a few of these the peer's kernel waits with its ACK for an answer to go along with
            measured.sendall(b"request")
            peer.sendall(peer.recv(100))
            measured.recv(100)
        measured.sendall(b"two segments")
        measured.sendall(b"and no answer")
        until(lambda: duplicates(measured) >= 1)
        facts = measured.tcp_facts()
        assert facts is not None
        assert facts.retransmits == 0


def duplicates(measured: MeasuredSocket) -> int:
    """How many segments the peer reported as duplicates: tcpi_dsack_dups."""
    info = measured._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 220)
    return int(struct.unpack_from("@I", info, 216)[0])


@contextmanager
def connecting(abort: Abort, *addresses: Address, seconds: float = GENEROUS) -> Iterator[Connected]:
    """Connect for the ``with`` block."""
    made = connect(addresses, later(seconds), abort)
    with made.sock:
        yield made


def test_the_first_address_that_answers(abort: Abort) -> None:
    """The first address is used when it works; the others are not tried."""
    with Server(silent) as first, Server(silent) as second:
        before = time.perf_counter()
        with connecting(abort, first.address, second.address) as made:
            assert made.address == first.address
            assert before <= made.started <= time.perf_counter()
            assert not made.sock.getblocking()
        until(lambda: first.connections == 1)
    assert second.connections == 0


def test_addresses_that_fail_at_once_cost_no_time(abort: Abort) -> None:
    """After an address that refuses, or that cannot be tried, the next one is tried at once."""
    with Server(silent) as server, refusing() as refused:
        begun = time.perf_counter()
        with connecting(abort, *[IMPOSSIBLE, BROADCAST, refused] * 10, server.address) as made:
            assert made.address == server.address
        assert time.perf_counter() - begun < 10 * STAGGER_SECONDS


def test_an_address_that_swallows_packets_is_overtaken(abort: Abort) -> None:
    """The next address is tried a moment later; the time is counted from the first attempt."""
    with Server(silent) as server, BlackHole() as hole:
        begun = time.perf_counter()
        with connecting(abort, hole.address, server.address) as made:
            assert made.address == server.address
            assert begun <= made.started <= time.perf_counter() - STAGGER_SECONDS / 2


def test_addresses_that_fail_cost_no_time_beside_one_that_waits(abort: Abort) -> None:
    """After a refusal the next address is tried at once, also while an earlier one is pending."""
    with Server(silent) as server, BlackHole() as hole, refusing() as refused:
        begun = time.perf_counter()
        with connecting(abort, hole.address, *[refused] * 20, server.address) as made:
            assert made.address == server.address
        assert time.perf_counter() - begun < 10 * STAGGER_SECONDS


def test_a_slow_address_goes_on(abort: Abort) -> None:
    """An address that answers late is used when the others fail."""
    with BlackHole() as slow, BlackHole() as never, refusing() as refused, ThreadPoolExecutor(1) as pool:
        addresses = [slow.address, never.address, refused]
        winning = pool.submit(connect, addresses, later(), abort)
        until(lambda: slow.is_tried() and never.is_tried())
        with slow.accept():
            made = winning.result(GENEROUS)
            made.sock.close()
    assert made.address == slow.address


def test_all_addresses_fail(abort: Abort) -> None:
    """When no address works, the error of the first failure is raised."""
    with refusing() as refused:
        with pytest.raises(ConnectionRefusedError):
            connect([refused, IMPOSSIBLE], later(), abort)
        with pytest.raises(OSError) as caught:  # noqa: PT011 # whichever it is here
            connect([IMPOSSIBLE, refused], later(), abort)
        assert caught.value.errno != errno.ECONNREFUSED


def test_connecting_ends_at_the_deadline(abort: Abort) -> None:
    """Connecting to any number of addresses that swallow packets ends at the deadline."""
    with BlackHole() as hole:
        begun = time.perf_counter()
        with pytest.raises(TimeoutError) as caught:
            connect([hole.address] * 3, later(SHORT), abort)
        assert caught.value.errno is None
        assert SHORT <= time.perf_counter() - begun < GENEROUS / 2


def test_abort_ends_all_waits(abort: Abort) -> None:
    """Once thrown, it ends every wait, also those that begin later."""
    with connected(abort, later()) as (measured, _), BlackHole() as hole, ThreadPoolExecutor(2) as pool:
        reading = pool.submit(measured.recv, 10)
        connecting = pool.submit(connect, [hole.address], later(), abort)
        until(hole.is_tried)
        abort.throw()
        abort.throw()
        for error in (reading.exception(GENEROUS), connecting.exception(GENEROUS)):
            assert isinstance(error, OSError)
            assert error.errno == errno.ECANCELED


def test_the_two_clocks_are_read_at_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that was suspended between the two readings reads both clocks again."""
    apart = time.time() - time.perf_counter()
    read, waits = time.time_ns, iter((0.2, 0.1, 0.0, 0.0))

    def after_a_wait() -> int:
        time.sleep(next(waits))
        return read()

    monkeypatch.setattr(time, "time_ns", after_a_wait)
    now, wall = _clocks()
    assert wall / 1e9 - now == pytest.approx(apart, abs=0.05)
