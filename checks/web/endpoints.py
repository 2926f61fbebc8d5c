"""What the agent answers at which path: a request and facts in, a response out. Nothing here knows of sockets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus

from checks.model import ALWAYS_HAPPY_PATH, ORIGIN_HEADER, POD_HEADER
from checks.web.agent import Agent
from checks.web.alive import Findings, alive_response, findings
from checks.web.answers import busy_response, json_bytes, json_response, text_response
from checks.web.http1 import Header, Request, Response
from checks.web.sharing import BusyError, SharedWork, Turn
from checks.web.state import state_document

__all__ = [
    "ENDPOINTS",
    "LARGEST_PADDING",
    "LONGEST_POD_NAME",
    "MOST_SCRAPES",
    "MOST_WAITING",
    "Agent",
    "respond",
    "state_document",
    "waiting",
]

# The longest name a Pod can have (RFC 1123 subdomain); whatever is longer was not sent by a neighbour.
LONGEST_POD_NAME = 253
# The most bytes that /alwayshappy?bytes=N answers with.
LARGEST_PADDING = 16_384
_PADDING = bytes(b"." * LARGEST_PADDING)
_NUMBER = re.compile(r"[0-9]{1,5}", re.ASCII)

# How many requests may wait at the same time. Together they leave a quarter of the server's connections to requests
# that are answered at once.
MOST_WAITING = 48
MOST_SCRAPES = 40
_MOST_STATES = 8
_MOST_CONNECTIONS = 1024
# Longer than checks usually take: a request for /alive waits as long as the checks, and then gets the latest results.
_ALIVE_SECONDS = 90.0
_RENDERING_SECONDS = 5.0

# What these bound is the interpreter's time and the memory: they belong to the process, not to an agent.
_fresh = SharedWork[Findings](most=MOST_WAITING, most_of_address=MOST_WAITING, seconds=_ALIVE_SECONDS)
# This never waits for checks, so the server's connections are bound enough.
_latest = SharedWork[Findings](most=_MOST_CONNECTIONS, most_of_address=_MOST_CONNECTIONS, seconds=_RENDERING_SECONDS)
_states = SharedWork[bytes](most=_MOST_STATES, most_of_address=_MOST_STATES - 2, seconds=_RENDERING_SECONDS)
_histories = SharedWork[bytes](most=_MOST_STATES, most_of_address=_MOST_STATES - 2, seconds=_RENDERING_SECONDS)
_scrapes = SharedWork[tuple[list[Header], bytes]](
    most=MOST_SCRAPES, most_of_address=MOST_SCRAPES - 8, seconds=_RENDERING_SECONDS
)
_rendering = Turn(_RENDERING_SECONDS)


def respond(request: Request, agent: Agent) -> Response:
    """Answer one request: 405 for anything but GET and HEAD, 404 for a path that is no endpoint, 503 when too busy."""
    if request.method not in ("GET", "HEAD"):
        allow = ("Allow", "GET, HEAD")
        return text_response(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered here", allow)
    endpoint = ENDPOINTS.get(request.path)
    if endpoint is None:
        return text_response(HTTPStatus.NOT_FOUND, "no such endpoint; there are " + " ".join(ENDPOINTS))
    try:
        return endpoint(request, agent)
    except BusyError as error:
        return busy_response(str(error))


def waiting() -> int:
    """Return how many requests wait for checks or for a rendering."""
    return sum(shared.waiting for shared in (_fresh, _latest, _states, _histories, _scrapes))


def _root(_request: Request, _agent: Agent) -> Response:
    return text_response(HTTPStatus.MOVED_PERMANENTLY, "see /alive", ("Location", "/alive"))


def _always_happy(request: Request, agent: Agent) -> Response:
    """Answer at once, whatever else goes on: neighbours measure this, so it must cost nothing."""
    origin = request.header(ORIGIN_HEADER)
    if 0 < len(origin) <= LONGEST_POD_NAME:
        agent.neighbour_called(origin)
    headers = ((POD_HEADER, agent.pod_name), ("Cache-Control", "no-store"))
    asked = request.parameters("bytes")
    if not asked:
        return Response(HTTPStatus.OK, headers)
    if len(asked) > 1 or not _NUMBER.fullmatch(asked[0]) or int(asked[0]) > LARGEST_PADDING:
        return text_response(HTTPStatus.BAD_REQUEST, f"bytes: expected one number from 0 to {LARGEST_PADDING}")
    return Response(HTTPStatus.OK, (*headers, ("Content-Type", "text/plain")), _PADDING[: int(asked[0])])


def _ready(_request: Request, agent: Agent) -> Response:
    reason = agent.not_ready()
    if reason:
        return text_response(HTTPStatus.SERVICE_UNAVAILABLE, reason)
    return text_response(HTTPStatus.OK, "ready")


def _metrics(request: Request, agent: Agent) -> Response:
    """Answer a scrape: one rendering at a time, shared by those who want the same format."""
    wanted = (request.header("Accept"), request.header("Accept-Encoding"))
    key = (id(agent), *wanted)
    headers, body = _scrapes.result(key, request.client, lambda: _rendering.take(lambda: agent.render_metrics(*wanted)))
    return Response(HTTPStatus.OK, headers, body)


def _alive(request: Request, agent: Agent) -> Response:
    """Answer with results that are young enough; further callers than may wait get the latest results."""
    key = id(agent)
    try:
        found = _fresh.result(key, request.client, lambda: findings(agent, agent.alive()))
    except BusyError:
        found = _latest.result(key, request.client, lambda: findings(agent, agent.latest()))
    return alive_response(found, request)


def _state(request: Request, agent: Agent) -> Response:
    document = _states.result(id(agent), request.client, lambda: json_bytes(state_document(agent, agent.latest())))
    return json_response(HTTPStatus.OK, document)


def _history(request: Request, agent: Agent) -> Response:
    document = _histories.result(id(agent), request.client, lambda: json_bytes(agent.history()))
    return json_response(HTTPStatus.OK, document)


ENDPOINTS: Mapping[str, Callable[[Request, Agent], Response]] = {
    "/": _root,
    "/alive": _alive,
    ALWAYS_HAPPY_PATH: _always_happy,
    "/ready": _ready,
    "/metrics": _metrics,
    "/state": _state,
    "/history": _history,
}
