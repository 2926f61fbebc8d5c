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
# Lookups of one name that may hang at the same time. By default glibc gives a silent name server 10 s (resolv.conf(5):
# timeout, attempts), so this is enough for a new one every second.
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


@dataclass(slots=True, eq=False)
class _Lookup:
    """One question under way, asked once for all who wait for it; ``outlasted`` once it took longer than one did."""

    outlasted: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    finished: float = 0.0
    addresses: list[Address] = field(default_factory=list)
    error: OSError | None = None


class Resolver:
    """Resolves names in threads of its own, since getaddrinfo cannot be given up once called.

    A check whose name is being looked up already waits for that answer, unless a check's time has run out on it: what
    was lost on its way to the name server says nothing about the server now. At most ``MOST_LOOKUPS`` threads a name,
    and the names are those of the configuration and so few. The threads are daemons: one that hangs does not keep the
    process from ending.
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
        """Return the addresses, at least one, and the moment on the clock when the answer came.

        Raises:
            TimeoutError: when the answer has not come by ``deadline``.
            socket.gaierror: when the name has no address.
            OSError: with ECANCELED, once aborted.
        """
        lookup = self._join_or_start(host, port)
        if not lookup.done.wait(max(0.0, deadline - self._clock())):
            lookup.outlasted = True
            raise TimeoutError
        if self._aborted:
            raise OSError(errno.ECANCELED, "the agent is ending")
        if lookup.error is not None:
            # A new instance for each who waited: a shared one would gather the tracebacks of them all.
            raise type(lookup.error)(*lookup.error.args) from None
        return lookup.addresses, lookup.finished

    def abort(self) -> None:
        """Let everyone go who waits now or comes later, with an error: the agent is ending."""
        with self._lock:
            self._aborted = True
            for lookups in self._under_way.values():
                for lookup in lookups:
                    lookup.done.set()

    def _join_or_start(self, host: str, port: int) -> _Lookup:
        with self._lock:
            if self._aborted:
                raise OSError(errno.ECANCELED, "the agent is ending")
            lookups = self._under_way.get((host, port), [])
            if not lookups or (lookups[-1].outlasted and len(lookups) < MOST_LOOKUPS):
                lookup = _Lookup()
                name = f"resolve-{host}"
                threading.Thread(target=self._run, args=(host, port, lookup), name=name, daemon=True).start()
                self._under_way[host, port] = lookups = [*lookups, lookup]
            return lookups[-1]

    def _run(self, host: str, port: int, lookup: _Lookup) -> None:
        try:
            lookup.addresses = self._lookup(host, port)
            if not lookup.addresses:
                lookup.error = socket.gaierror(socket.EAI_NONAME, "no address")
        except OSError as error:
            lookup.error = error.with_traceback(None)  # which holds this frame, and so the error itself
        except ValueError:  # a label that is empty or over 63 characters, found by the idna codec
            lookup.error = socket.gaierror(socket.EAI_NONAME, "not a host name")
        except Exception as error:  # such as no memory: those who wait are told, whatever it is
            lookup.error = OSError(str(error) or type(error).__name__)
        finally:
            lookup.finished = self._clock()
            with self._lock:
                lookups = self._under_way[host, port]
                lookups.remove(lookup)
                if not lookups:
                    del self._under_way[host, port]
            lookup.done.set()
