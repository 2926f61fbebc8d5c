"""What the agent answers: a request and the agent's facts in, a response out. Nothing here knows of sockets.

The shape of ``/alive`` is that of kubenurse v1.4, from which dashboards and scripts come.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Protocol
from urllib.parse import unquote_plus

from checks.model import BUILT_IN_TYPES, ORIGIN_HEADER, POD_HEADER, SKIPPED, CheckResult, Neighbour, Report
from checks.web.http1 import Header, Request, Response

NOT_CHECKED = "not checked yet"
REDACTED = "[redacted]"

# The longest name a Pod can have (RFC 1123 subdomain); whatever is longer was not sent by a neighbour.
LONGEST_POD_NAME = 253

# A header's name (RFC 9110, section 5.1).
_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_CREDENTIAL_NAME = re.compile(
    r"auth|token|secret|passw|pwd|apikey|accesskey|privatekey|session|jwt|cookie|credential|signature"
    r"|^(?:key|sig|sid|pass|code|otp)$"
)
_CREDENTIAL_VALUE = re.compile(r"\s*(?:bearer|basic|digest|negotiate)\s", re.IGNORECASE)
# A JSON Web Token (RFC 7519) by itself, as proxies add it in headers of any name: its header begins with {".
_JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*")
_QUERY_PARAMETER = re.compile(r"([?&;#])([^=?&;#\s]*)=[^&;#\s]*")
_USER_INFO = re.compile(r"://[^/?#\s]*@")


class Agent(Protocol):
    """What the endpoints need of the agent."""

    @property
    def pod_name(self) -> str:
        """The name of this Pod."""

    @property
    def node_name(self) -> str:
        """The name of the node this Pod runs on, empty while unknown."""

    def alive(self) -> Report:
        """Return a report not older than the cache's TTL; runs the checks, which may take seconds, if there is none."""

    def latest(self) -> Report:
        """Return the latest report at once."""

    def not_ready(self) -> str:
        """Return why no traffic should come here, in words; empty when it may."""

    def neighbour_called(self, origin: str) -> None:
        """Count a check made by the neighbour of this Pod name; at once."""

    def render_metrics(self, accept: str, accept_encoding: str) -> tuple[list[Header], bytes]:
        """Return headers and body of the metrics in the format that the two request headers ask for."""

    def about(self) -> Mapping[str, object]:
        """Return facts about this agent for /state: version, clock source, interval and the like."""


def respond(request: Request, agent: Agent) -> Response:
    """Answer one request: 405 for anything but GET and HEAD, 404 for a path that is no endpoint."""
    if request.method not in ("GET", "HEAD"):
        return _text(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered here", ("Allow", "GET, HEAD"))
    endpoint = ENDPOINTS.get(request.path)
    if endpoint is None:
        return _text(HTTPStatus.NOT_FOUND, "no such endpoint; there are " + " ".join(ENDPOINTS))
    return endpoint(request, agent)


def _root(_request: Request, _agent: Agent) -> Response:
    return _text(HTTPStatus.MOVED_PERMANENTLY, "see /alive", ("Location", "/alive"))


def _alwayshappy(request: Request, agent: Agent) -> Response:
    """Answer at once, whatever else goes on: neighbours measure this, so it must cost nothing."""
    origin = request.header(ORIGIN_HEADER)
    if 0 < len(origin) <= LONGEST_POD_NAME:
        agent.neighbour_called(origin)
    return Response(HTTPStatus.OK, ((POD_HEADER, agent.pod_name), ("Cache-Control", "no-store")))


def _ready(_request: Request, agent: Agent) -> Response:
    reason = agent.not_ready()
    if reason:
        return _text(HTTPStatus.SERVICE_UNAVAILABLE, reason)
    return _text(HTTPStatus.OK, "ready")


def _metrics(request: Request, agent: Agent) -> Response:
    headers, body = agent.render_metrics(request.header("Accept"), request.header("Accept-Encoding"))
    return Response(HTTPStatus.OK, headers, body)


def _alive(request: Request, agent: Agent) -> Response:
    report = agent.alive()
    states = _states(report)
    answer = {
        **{name: states[name] for name in BUILT_IN_TYPES},
        "hostname": agent.pod_name,
        "neighbourhood_state": report.neighbourhood.state,
        "neighbourhood": [_as_v1_4(neighbour) for neighbour in report.neighbourhood.neighbours],
        "headers": _shown_headers(request.headers),
        "user_agent": request.header("User-Agent"),
        "request_uri": _without_credentials(request.target),
        "remote_addr": request.remote_addr,
        "last_check_result": states,
    }
    return _json(HTTPStatus.OK if report.ok else HTTPStatus.INTERNAL_SERVER_ERROR, answer, indent=1)


def _states(report: Report) -> dict[str, str]:
    """Every check's state by type: the built-in ones first, then the others sorted."""
    states = {name: SKIPPED if name in report.skipped else NOT_CHECKED for name in BUILT_IN_TYPES}
    return states | {name: report.results[name].state for name in sorted(report.results)}


def _as_v1_4(neighbour: Neighbour) -> dict[str, str]:
    """A neighbour with the keys and the words of kubenurse v1.4."""
    schedulable = {True: "Schedulable", False: "Unschedulable", None: "Unknown"}[neighbour.schedulable]
    return {
        "PodName": neighbour.pod_name,
        "PodIP": neighbour.pod_ip,
        "HostIP": neighbour.host_ip,
        "NodeName": neighbour.node_name,
        "Phase": neighbour.phase,
        "NodeSchedulable": schedulable,
    }


def _state(_request: Request, agent: Agent) -> Response:
    return _json(HTTPStatus.OK, state_document(agent, agent.latest()))


def state_document(agent: Agent, report: Report) -> dict[str, object]:
    """Return a report as the JSON object of /state: seconds, and epoch for points in time."""
    neighbourhood = report.neighbourhood
    return {
        "pod_name": agent.pod_name,
        "node_name": agent.node_name,
        "not_ready": agent.not_ready(),
        "about": dict(agent.about()),
        "started_at": _rounded(report.started_at),
        "finished_at": _rounded(report.finished_at),
        "checks": {name: _check_facts(result) for name, result in report.results.items()},
        "skipped": list(report.skipped),
        # Only the neighbours chosen: all of them, from every agent, would grow with the square of the cluster.
        "neighbourhood": {
            "state": neighbourhood.state,
            "known": neighbourhood.known,
            "cordoned": neighbourhood.cordoned,
            "own_node_cordoned": neighbourhood.own_node_cordoned,
            "checked": [asdict(neighbour) for neighbour in report.checked],
        },
    }


def _check_facts(result: CheckResult) -> dict[str, object]:
    """A result for another agent to read: seconds, and epoch for points in time."""
    return {
        "state": result.state,
        "event": result.event,
        "status_code": result.status_code,
        "duration": _rounded(result.duration),
        "trace": {event: _rounded(offset) for event, offset in result.trace.items()},
        "started_at": _rounded(result.started_at),
        "tcp": asdict(result.tcp) if result.tcp else None,
        "not_after": result.not_after,
        "remote": result.remote,
    }


def _rounded(seconds: float) -> float:
    """Microseconds are the last digits that mean something; the rest would only make the answer longer."""
    return round(seconds, 6)


def _shown_headers(headers: Sequence[Header]) -> dict[str, list[str]]:
    """Header name -> values, names as Go writes them and sorted, without any credential."""
    shown: dict[str, list[str]] = {}
    for name, value in sorted((_canonical(name), value) for name, value in headers):
        if _is_credential(name):
            shown[name] = [REDACTED]
        else:
            shown.setdefault(name, []).append(_without_credentials(value))
    return shown


def _canonical(name: str) -> str:
    """``accept-encoding`` -> ``Accept-Encoding``, as Go's net/textproto.CanonicalMIMEHeaderKey does."""
    return "-".join(part.capitalize() for part in name.split("-")) if re.fullmatch(_NAME, name) else name


def _is_credential(name: str) -> bool:
    return _CREDENTIAL_NAME.search(name.lower().replace("-", "").replace("_", "")) is not None


def _without_credentials(value: str) -> str:
    """A header's value or a request target without passwords in URLs and without tokens."""
    if _CREDENTIAL_VALUE.match(value):
        return REDACTED
    shown = _JWT.sub(REDACTED, _USER_INFO.sub(f"://{REDACTED}@", value))
    return _QUERY_PARAMETER.sub(_redacted_parameter, shown)


def _redacted_parameter(parameter: re.Match[str]) -> str:
    separator, name = parameter.groups()
    return f"{separator}{name}={REDACTED}" if _is_credential(unquote_plus(name)) else parameter[0]


def _json(status: int, answer: Mapping[str, object], *, indent: int | None = None) -> Response:
    # Everything outside ASCII is escaped, so that whatever bytes a client sends come back as valid JSON.
    separators = None if indent else (",", ":")
    text = json.dumps(answer, indent=indent, separators=separators, allow_nan=False, default=str)
    headers = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
    return Response(status, headers, text.encode("ascii") + b"\n")


def _text(status: int, text: str, *headers: Header) -> Response:
    content = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
    return Response(status, (*content, *headers), text.encode("utf-8", "replace") + b"\n")


ENDPOINTS: Mapping[str, Callable[[Request, Agent], Response]] = {
    "/": _root,
    "/alive": _alive,
    "/alwayshappy": _alwayshappy,
    "/ready": _ready,
    "/metrics": _metrics,
    "/state": _state,
}
