"""Name resolution with a deadline: a hung resolver holds up neither a check nor the shutdown."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# (family, socket address) in the order getaddrinfo gives them.
Address = tuple[int, tuple[Any, ...]]
# Lookups of one name that may hang at the same time. By default glibc waits 10 s for a silent name server
# (resolv.conf(5): timeout, attempts), so this is enough for a new lookup every second.
MOST_LOOKUPS = 10
GetAddrInfo = Callable[[str, int], list[Address]]


def system_addresses(host: str, port: int) -> list[Address]:
    """Ask the system (hosts file, name servers) for a host's TCP addresses.

    Raises:
        socket.gaierror: when there are none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def literal_address(host: str, port: int) -> Address | None:
    """Return the address when the host is an IP literal, which needs no resolver."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return family, ((host, port) if family == socket.AF_INET else (host, port, 0, 0))
    return None


@dataclass(frozen=True, slots=True)
class Pinned:
    """Stands in for a Resolver: every name has this IP address."""

    address: str

    def resolve(self, _host: str, port: int, _deadline: float) -> tuple[list[Address], float]:
        """Return the address at once, and the moment by ``time.perf_counter``.

        Raises:
            socket.gaierror: when it is no IP address.
        """
        found = literal_address(self.address, port)
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "not an IP address")
        return [found], time.perf_counter()


@dataclass(slots=True, eq=False)
class _Lookup:
    """One question under way, shared by all checks that wait for it.

    ``outlasted`` is True once a check ran out of time while it waited.
    """

    outlasted: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    finished: float = 0.0
    addresses: list[Address] = field(default_factory=list)
    error: OSError | None = None


class Resolver:
    """Resolves names in threads of its own, since getaddrinfo cannot be interrupted.

    A check joins the lookup of its name that is under way, unless a check has already run out of time on that lookup:
    a question that was lost says nothing about the name server now. There are at most ``MOST_LOOKUPS`` threads for each
    name, and the names are those of the configuration. The threads are daemons: a hung one does not keep the process
    from ending.
    ``clock`` is monotonic seconds.
    """

    def __init__(self, lookup: GetAddrInfo = system_addresses, clock: Callable[[], float] = time.perf_counter) -> None:
        self._lookup = lookup
        self._clock = clock
        self._lock = threading.Lock()
        # By host and port, the latest last.
        self._under_way: dict[tuple[str, int], list[_Lookup]] = {}
        self._aborted = False

    def resolve(self, host: str, port: int, deadline: float) -> tuple[list[Address], float]:
        """Return the addresses, at least one, and the moment on the clock when the answer arrived.

        Raises:
            TimeoutError: when the answer has not arrived by ``deadline``.
            socket.gaierror: when the name has no address.
            OSError: when the system has no thread for the lookup; with ECANCELED, once aborted.
        """
        lookup, is_new = self._join_or_add(host, port)
        if is_new:
            self._start(host, port, lookup)
        if not lookup.done.wait(max(0.0, deadline - self._clock())):
            lookup.outlasted = True
            raise TimeoutError
        if self._aborted:
            raise OSError(errno.ECANCELED, "the agent is ending")
        if lookup.error is not None:
            # A new instance for each caller: a shared one would gather the tracebacks of all of them.
            raise type(lookup.error)(*lookup.error.args) from None
        return lookup.addresses, lookup.finished

    def abort(self) -> None:
        """Make all waiting and all later calls end with an error: the agent is ending."""
        with self._lock:
            self._aborted = True
            for lookups in self._under_way.values():
                for lookup in lookups:
                    lookup.done.set()

    def _join_or_add(self, host: str, port: int) -> tuple[_Lookup, bool]:
        """Return the lookup to wait for, and whether it is new and has to be started."""
        with self._lock:
            if self._aborted:
                raise OSError(errno.ECANCELED, "the agent is ending")
            lookups = self._under_way.get((host, port), [])
            is_new = not lookups or (lookups[-1].outlasted and len(lookups) < MOST_LOOKUPS)
            if is_new:
                self._under_way[host, port] = lookups = [*lookups, _Lookup()]
            return lookups[-1], is_new

    def _start(self, host: str, port: int, lookup: _Lookup) -> None:
        """Start the thread of a lookup, outside the lock: the start may take long or fail."""
        try:
            thread = threading.Thread(target=self._run, args=(host, port, lookup), name=f"resolve-{host}", daemon=True)
            thread.start()
        except (RuntimeError, MemoryError):
            lookup.error = OSError("the system has no thread to look the name up")
            self._finish(host, port, lookup)

    def _run(self, host: str, port: int, lookup: _Lookup) -> None:
        try:
            lookup.addresses = self._lookup(host, port)
            if not lookup.addresses:
                lookup.error = socket.gaierror(socket.EAI_NONAME, "no address")
        except OSError as error:
            lookup.error = error.with_traceback(None)  # the traceback holds this frame, and so the error itself
        except ValueError:  # a label that is empty or over 63 characters, found by the idna codec
            lookup.error = socket.gaierror(socket.EAI_NONAME, "not a host name")
        except Exception as error:  # such as MemoryError: the waiting checks have to be told
            lookup.error = OSError(str(error) or type(error).__name__)
        finally:
            self._finish(host, port, lookup)

    def _finish(self, host: str, port: int, lookup: _Lookup) -> None:
        lookup.finished = self._clock()
        with self._lock:
            lookups = self._under_way[host, port]
            lookups.remove(lookup)
            if not lookups:
                del self._under_way[host, port]
        lookup.done.set()
