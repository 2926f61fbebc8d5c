"""The facts that travel through the agent: frozen, slotted, without behaviour that touches the outside.

Durations and offsets are seconds (float). Points in time are either *monotonic* (``time.monotonic()``, only to be
compared within the process) or *epoch* (seconds since 1970, for people and metrics); each field says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

OK = "ok"
SKIPPED = "skipped"
NOT_SYNCED = "not synced yet"
# The phase of a Pod whose containers run.
RUNNING = "Running"

API_SERVER_DIRECT = "api_server_direct"
API_SERVER_DNS = "api_server_dns"
ME_INGRESS = "me_ingress"
ME_SERVICE = "me_service"
BUILT_IN_TYPES = (API_SERVER_DIRECT, API_SERVER_DNS, ME_INGRESS, ME_SERVICE)
PATH_PREFIX = "path_"

ALWAYS_HAPPY_PATH = "/alwayshappy"

ORIGIN_HEADER = "KUBENURSE-NEIGHBOUR-ORIGIN"
POD_HEADER = "KUBENURSE-POD"

# Where a check failed: a closed set. STATUS is an answer with another status than 200.
SETUP = "setup"
DNS = "dns"
CONNECT = "connect"
TLS = "tls"
REQUEST = "request"
RESPONSE = "response"
STATUS = "status"
REDIRECT = "redirect"
PROXY = "proxy"
PHASES = (SETUP, DNS, CONNECT, TLS, REQUEST, RESPONSE, STATUS, REDIRECT, PROXY)

# How a target is checked.
HTTP = "http"

# The events of a request, in the order they happen, named as Go's net/http/httptrace names its hooks.
TRACE_EVENTS = (
    "dns_start",
    "dns_done",
    "connect_start",
    "connect_done",
    "tls_handshake_start",
    "tls_handshake_done",
    "got_conn",
    "wrote_request",
    "got_first_resp_byte",
)


def _no_trace() -> Mapping[str, float]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to check: where a request goes and what may go with it.

    ``type`` is the value of the metrics' ``type`` label and unique within a round.
    ``to_api_server`` targets carry the API credentials and are verified against the API server's trust, always.
    ``follow_redirects`` allows redirects to the same host; ``use_proxy`` honours the proxy variables.
    ``origin`` is the Pod name to announce to a neighbour, or empty. ``server_name`` is the name to ask for and to
    verify in the TLS handshake, empty for the URL's host; the Host header is the URL's in any case. ``node`` is the
    neighbour's node, empty where the target is no neighbour. ``kind`` says how the target is checked: HTTP is the only
    kind so far.
    """

    type: str
    url: str
    to_api_server: bool = False
    follow_redirects: bool = False
    use_proxy: bool = False
    origin: str = ""
    server_name: str = ""
    node: str = ""
    kind: str = HTTP


@dataclass(frozen=True, slots=True)
class TcpFacts:
    """What the kernel measured on a check's connections (Linux ``TCP_INFO``).

    ``rtt_seconds`` is the smoothed round-trip time and ``path_mtu_bytes`` the largest packet the path is known to
    carry, both of the last connection established and None when there was none. ``retransmits`` is the segments sent
    again on all connections of this check, on failed attempts too.
    """

    rtt_seconds: float | None
    path_mtu_bytes: int | None
    retransmits: int


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found.

    ``state`` is ``ok`` or the reason in words; ``event`` is the label of ``kubenurse_errors_total`` (empty when ok).
    ``phase`` is where it failed (of PHASES), empty when ok.
    ``kind`` is the target's. ``status_code`` is the answer's, None when there was none or the kind of check has none:
    whether the check succeeded is told by ``ok`` alone. ``duration`` is seconds from the start to the first byte of the
    answer, or to the failure. ``trace`` maps the events reached (of TRACE_EVENTS) to seconds since the start of the
    last request of a chain of redirects.
    ``started_at`` is epoch, ``finished`` monotonic. ``not_after`` is epoch: when the certificate shown ends.
    ``remote`` is the address of the last connection, empty when there was none. ``answered_by`` is the Pod name that
    the answer's POD_HEADER gives, empty without one.
    """

    type: str
    state: str
    event: str = ""
    status_code: int | None = None
    duration: float = 0.0
    trace: Mapping[str, float] = field(default_factory=_no_trace)
    started_at: float = 0.0
    finished: float = 0.0
    tcp: TcpFacts | None = None
    not_after: float | None = None
    remote: str = ""
    phase: str = ""
    kind: str = HTTP
    answered_by: str = ""

    @property
    def ok(self) -> bool:
        """True when the check succeeded."""
        return self.state == OK


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another agent's Pod. ``schedulable`` is None when nodes are not read. ``zone`` is empty if unknown.

    ``started_at`` is when its containers were last started, in epoch seconds by the node's clock, None if not known.
    """

    pod_name: str
    pod_ip: str
    host_ip: str
    node_name: str
    phase: str
    schedulable: bool | None = None
    started_at: float | None = field(default=None, compare=False)
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """What discovery knows at one moment.

    ``state`` is ``ok``, ``skipped``, ``not synced yet`` or why discovery fails; while it fails the last known Pods
    stay. ``neighbours`` are the Pods that may be checked (before LIMIT), ``cordoned`` counts the Pods left out
    because their node is cordoned, ``known`` all other Pods of the selection. ``own_pod_unselected`` is True when the
    own Pod exists and the selector leaves it out.
    ``own_zone`` is the zone of the own node, empty while unknown.
    ``synced_at`` is monotonic: when the API server last confirmed this picture, None before the first time.
    """

    state: str
    neighbours: tuple[Neighbour, ...] = ()
    known: int = 0
    cordoned: int = 0
    own_node: str = ""
    own_node_cordoned: bool = False
    own_zone: str = ""
    synced_at: float | None = None
    own_pod_unselected: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """The latest of everything, for the endpoints: one result a check type, and the neighbourhood.

    ``results`` maps a check's type to its latest result, ``skipped`` names the built-in types not checked and
    ``missing`` the chosen checks without a result so far. ``checked`` is the neighbours chosen by LIMIT, ``targets``
    everything that is checked.
    ``started_at`` and ``finished_at`` are epoch: the oldest start and the newest end among the results, 0 without any.
    """

    results: Mapping[str, CheckResult]
    neighbourhood: Neighbourhood
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    checked: tuple[Neighbour, ...] = ()
    started_at: float = 0.0
    finished_at: float = 0.0

    @property
    def ok(self) -> bool:
        """True when every chosen check has a result and is ok, and the neighbourhood is known or skipped."""
        all_made = not self.missing and all(kind in self.results or kind in self.skipped for kind in BUILT_IN_TYPES)
        all_ok = all(result.ok for result in self.results.values())
        return all_made and all_ok and self.neighbourhood.state in (OK, SKIPPED)
