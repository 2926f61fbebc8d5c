"""Cluster DNS: dnsmasq as the only name server, and its faults."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping

from tests.e2e.network import Addresses, Member
from tests.e2e.processes import Process, Processes

DOMAIN = "cluster.local"
_RELAY_PORT = 5300
_LARGEST_MESSAGE = 4096
_MOST_WAITING = 1000
_POLL = 0.02
_MOST_QUESTIONS = 10
_LONGEST_DRAIN = 1.0


def resolv_conf(namespace: str, server: str) -> str:
    """Return what kubelet writes for a Pod with ``dnsPolicy: ClusterFirst``."""
    search = f"{namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}"
    return f"search {search}\nnameserver {server}\noptions ndots:5\n"


class Dns:
    """The DNS server on a member. It knows ``names``; all other names do not exist."""

    def __init__(self, member: Member, processes: Processes, names: Mapping[str, Addresses]) -> None:
        self.member = member
        self.names = dict(names)
        self._processes = processes
        self._hosts = member.namespace.directory / "hosts"
        self.publish()
        self._process = self._start()

    def publish(self, names: Mapping[str, Addresses] | None = None, *, families: tuple[int, ...] = (4, 6)) -> None:
        """Answer with these names from now on (by default with all correct names)."""
        known = self.names if names is None else names
        lines = [f"{addresses.of_family(version)} {name}" for name, addresses in known.items() for version in families]
        self._hosts.write_text("\n".join([*lines, ""]), encoding="ascii")
        if hasattr(self, "_process"):
            self._process.signal(signal.SIGHUP)

    def stop(self) -> None:
        """End the server: its port is closed."""
        self._process.stop()

    def start(self) -> None:
        """Start it again."""
        self._process = self._start()

    @contextlib.contextmanager
    def slowed(self, seconds: float) -> Iterator[None]:
        """Delay every answer over UDP by so many seconds."""
        redirect = f"-t nat {{}} PREROUTING -p udp --dport 53 -j REDIRECT --to-ports {_RELAY_PORT}"
        # The kernel follows connections only as long as a rule asks for it, and then forgets what it redirected.
        follow = "{} INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT"
        relay = _SlowRelay(self.member, seconds)
        for rule in (follow, redirect):
            self._iptables(rule.format("-A"))
        try:
            yield
        finally:
            self._iptables(redirect.format("-D"))
            # A lookup under way may ask its next questions from the same port, which goes on being redirected: so that
            # nobody waits for what never comes, all of its questions still get their answers.
            time.sleep(min(_MOST_QUESTIONS * seconds, _LONGEST_DRAIN))
            self._iptables(follow.format("-D"))
            relay.close()

    def _iptables(self, rule: str) -> None:
        for command in ("iptables", "ip6tables"):
            self.member.namespace.run(command, *rule.split())

    def _start(self) -> Process:
        command = [
            "dnsmasq",
            "--keep-in-foreground",
            "--log-facility=-",
            "--conf-file=/dev/null",
            "--user=root",
            "--pid-file=",
            "--no-resolv",
            "--no-hosts",
            "--cache-size=0",
            f"--addn-hosts={self._hosts}",
            "--local=/#/",
        ]
        return self._processes.start("dnsmasq", self.member.namespace, command)


class _SlowRelay:
    """Passes DNS messages on at once, and the answers back ``seconds`` later, over IPv4 and IPv6."""

    def __init__(self, member: Member, seconds: float) -> None:
        self._seconds = seconds
        self._stopping = threading.Event()
        self._listener = member.namespace.call(_listener)
        self._member = member
        self._thread = threading.Thread(target=self._run, name="slow-dns", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it. Waiting questions get no answer."""
        self._stopping.set()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        self._member.namespace.enter()
        waiting: deque[tuple[float, bytes, tuple[object, ...]]] = deque(maxlen=_MOST_WAITING)
        asked: dict[socket.socket, tuple[object, ...]] = {}
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stopping.is_set():
                for key, _ in selector.select(_POLL):
                    ready = key.fileobj
                    assert isinstance(ready, socket.socket)
                    if ready is self._listener:
                        message, client = ready.recvfrom(_LARGEST_MESSAGE)
                        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                        server.connect(("127.0.0.1", 53))
                        server.send(message)
                        asked[server] = client
                        selector.register(server, selectors.EVENT_READ)
                    else:
                        selector.unregister(ready)
                        client = asked.pop(ready)
                        with ready, contextlib.suppress(OSError):
                            waiting.append((time.monotonic() + self._seconds, ready.recv(_LARGEST_MESSAGE), client))
                while waiting and waiting[0][0] <= time.monotonic():
                    _, answer, client = waiting.popleft()
                    self._listener.sendto(answer, client)
            for server in asked:
                server.close()


def _listener() -> socket.socket:
    listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", _RELAY_PORT))
    return listener
