"""Names are resolved within a deadline, whatever the system's resolver does."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from checks.probe.resolver import MOST_LOOKUPS, Address, Resolver, literal_address, system_addresses
from tests.support.servers import GENEROUS, SHORT
from tests.support.waiting import until

FIRST: Address = (socket.AF_INET, ("127.0.0.1", 80))
SECOND: Address = (socket.AF_INET6, ("::1", 80, 0, 0))


def soon() -> float:
    """A deadline that is not reached."""
    return time.perf_counter() + GENEROUS


class Oracle:
    """A lookup that answers when the test lets it, and records the questions."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.answer: list[Address] | Exception = [FIRST]
        self.answered = threading.Event()

    def __call__(self, host: str, port: int) -> list[Address]:
        """Answer."""
        self.asked.append((host, port))
        assert self.answered.wait(GENEROUS)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    """An oracle that answers everything at the end of the test."""
    made = Oracle()
    yield made
    made.answered.set()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("resolve-")])


def test_the_system_s_resolver() -> None:
    """A name of the hosts file resolves to addresses with the port, as connect takes them."""
    addresses, _ = Resolver().resolve("localhost", 8080, soon())
    assert (socket.AF_INET, ("127.0.0.1", 8080)) in addresses
    assert len(addresses) == len(set(addresses))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fd00::5", "10.1.2.3"])
def test_literal_addresses(host: str) -> None:
    """An IP address needs no resolver; the result is the one that the system would give."""
    assert literal_address(host, 80) == system_addresses(host, 80)[0]


@pytest.mark.parametrize("host", ["localhost", "", "127.1", "1.2.3.4.5", "::g", "[::1]", "fe80::1%lo"])
def test_other_hosts_are_no_literal_addresses(host: str) -> None:
    """A name, a short form or a scope is left to the system."""
    assert literal_address(host, 80) is None


def test_all_addresses_in_their_order() -> None:
    """The addresses come in the resolver's order, with the moment when they came."""
    before = time.perf_counter()
    addresses, moment = Resolver(lambda _host, _port: [SECOND, FIRST]).resolve("a.test", 80, soon())
    assert addresses == [SECOND, FIRST]
    assert before <= moment <= time.perf_counter()


@pytest.mark.parametrize("host", ["x" * 64, "a..b", ".a"])
def test_invalid_names(host: str) -> None:
    """An invalid host name is an unknown name."""
    with pytest.raises(socket.gaierror) as caught:
        Resolver().resolve(host, 80, soon())
    assert caught.value.errno == socket.EAI_NONAME


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        OSError(errno.EMFILE, "Too many open files"),
    ],
)
def test_errors_reach_all_callers(oracle: Oracle, error: OSError) -> None:
    """Each caller that waits for a failing name gets its own instance of the error."""
    oracle.answer = error
    resolver = Resolver(oracle)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(resolver.resolve, "a.test", 80, soon()) for _ in range(2)]
        until(lambda: len(oracle.asked) == 1)
        oracle.answered.set()
        errors = [future.exception(GENEROUS) for future in waiting]
    assert [(type(found), found.args) for found in errors if found] == [(type(error), error.args)] * 2
    assert errors[0] is not errors[1]


def test_a_name_without_addresses() -> None:
    """An answer without addresses is an unknown name, never an empty list."""
    with pytest.raises(socket.gaierror):
        Resolver(lambda _host, _port: []).resolve("a.test", 80, soon())


def test_a_lookup_that_breaks() -> None:
    """A lookup that raises an unexpected error fails the name instead of hanging."""

    def broken(_host: str, _port: int) -> list[Address]:
        raise RuntimeError("as told")

    with pytest.raises(OSError, match="as told"):
        Resolver(broken).resolve("a.test", 80, soon())


def test_a_check_does_not_wait_for_a_lookup_that_outlasted_another_one() -> None:
    """A question that outlasted a check is asked anew, so that a recovered name server is seen at once."""
    lost = threading.Event()
    questions: list[str] = []

    def lookup(host: str, _port: int) -> list[Address]:
        questions.append(host)
        if len(questions) == 1:
            assert lost.wait(GENEROUS)
            raise socket.gaierror(socket.EAI_NONAME, "what the server said long ago")
        return [FIRST]

    resolver = Resolver(lookup)
    with pytest.raises(TimeoutError):
        resolver.resolve("a.test", 80, time.perf_counter() + SHORT / 10)
    assert resolver.resolve("a.test", 80, soon())[0] == [FIRST]
    lost.set()
    assert resolver.resolve("a.test", 80, soon())[0] == [FIRST]


def test_hung_lookups_are_few(oracle: Oracle) -> None:
    """The number of hung lookups of a name is bounded; a late answer goes to the checks that wait for it."""
    resolver = Resolver(oracle)
    for _ in range(MOST_LOOKUPS + 3):
        with pytest.raises(TimeoutError) as caught:
            resolver.resolve("a.test", 80, time.perf_counter() + SHORT / 10)
        assert caught.value.errno is None
    assert oracle.asked == [("a.test", 80)] * MOST_LOOKUPS
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(resolver.resolve, "a.test", 80, soon())
        oracle.answered.set()
        assert waiting.result(GENEROUS)[0] == [FIRST]


@pytest.mark.parametrize("waiting", [False, True])
def test_without_a_thread_to_be_had(oracle: Oracle, waiting: bool) -> None:
    """A lookup whose thread cannot be started fails its check in words, and nothing of it is left behind."""
    resolver = Resolver(oracle)
    if waiting:
        with pytest.raises(TimeoutError):
            resolver.resolve("a.test", 80, time.perf_counter())
    # No address space holds such a stack, however the system overcommits memory.
    before = threading.stack_size(1 << 47)
    try:
        with pytest.raises(OSError, match=r"\Athe system has no thread to look the name up\Z"):
            resolver.resolve("a.test", 80, soon())
    finally:
        threading.stack_size(before)
    oracle.answered.set()
    assert resolver.resolve("a.test", 80, soon())[0] == [FIRST]
    until(lambda: not resolver._under_way)


def test_answers_are_not_kept(oracle: Oracle) -> None:
    """Each check asks anew, so that changes in DNS are seen."""
    oracle.answered.set()
    resolver = Resolver(oracle)
    for count in range(1, 4):
        resolver.resolve("a.test", 80, soon())
        assert len(oracle.asked) == count


def test_one_hung_name_holds_up_no_other(oracle: Oracle) -> None:
    """While one name hangs, others are looked up."""
    resolver = Resolver(lambda host, port: oracle(host, port) if host == "hangs.test" else [FIRST])
    with pytest.raises(TimeoutError):
        resolver.resolve("hangs.test", 80, time.perf_counter())
    assert resolver.resolve("b.test", 80, soon())[0] == [FIRST]


def test_abort_ends_all_lookups(oracle: Oracle) -> None:
    """Waiting callers get an error at once, and later callers ask no more questions."""
    resolver = Resolver(oracle)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(resolver.resolve, name, 80, soon()) for name in ("a.test", "b.test")]
        until(lambda: len(oracle.asked) == 2)
        resolver.abort()
        for future in waiting:
            error = future.exception(GENEROUS)
            assert isinstance(error, OSError)
            assert error.errno == errno.ECANCELED
    with pytest.raises(OSError, match="the agent is ending"):
        resolver.resolve("c.test", 80, soon())
    assert len(oracle.asked) == 2


def test_hung_threads_do_not_hold_the_process_up(oracle: Oracle) -> None:
    """The thread of a lookup is a daemon named after the host."""
    with pytest.raises(TimeoutError):
        Resolver(oracle).resolve("daemon.test", 80, time.perf_counter())
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "resolve-daemon.test"]
    assert thread.daemon
