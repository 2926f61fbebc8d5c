"""The document that /alive answers. Its shape is that of kubenurse v1.4, on which dashboards and scripts rely."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from checks.model import BUILT_IN_TYPES, SKIPPED, Neighbour, Report
from checks.web.agent import Agent
from checks.web.answers import json_bytes, json_response
from checks.web.http1 import Request, Response
from checks.web.redaction import shown_headers, shown_target

NOT_CHECKED = "not checked yet"


@dataclass(frozen=True, slots=True)
class Findings:
    """What /alive answers everybody: the status, and the document's parts before and after those about the request."""

    status: int
    before: bytes
    after: bytes


def findings(agent: Agent, report: Report) -> Findings:
    """Return what a report says to everybody."""
    states = _states(report)
    before = {
        **{name: states[name] for name in BUILT_IN_TYPES},
        "hostname": agent.pod_name,
        "neighbourhood_state": report.neighbourhood.state,
        "neighbourhood": [_as_v1_4(neighbour) for neighbour in report.neighbourhood.neighbours],
    }
    status = HTTPStatus.OK if report.ok else HTTPStatus.INTERNAL_SERVER_ERROR
    # Both parts of an object lose the brace that faces the part between them.
    return Findings(
        status,
        before=json_bytes(before, indent=1).removesuffix(b"\n}") + b",",
        after=b"," + json_bytes({"last_check_result": states}, indent=1).removeprefix(b"{"),
    )


def alive_response(found: Findings, request: Request) -> Response:
    """Return the answer to one request; what it shares with others is not copied."""
    about_request = {
        "headers": shown_headers(request.headers),
        "user_agent": request.header("User-Agent"),
        "request_uri": shown_target(request.target),
        "remote_addr": request.remote_addr,
    }
    between = json_bytes(about_request, indent=1).removeprefix(b"{").removesuffix(b"\n}")
    return json_response(found.status, found.before, between, found.after)


def _states(report: Report) -> dict[str, str]:
    """Every check's state by type: the built-in ones first, then the others sorted."""
    states = {name: SKIPPED if name in report.skipped else NOT_CHECKED for name in BUILT_IN_TYPES}
    others = dict.fromkeys(report.missing, NOT_CHECKED) | {name: found.state for name, found in report.results.items()}
    return states | dict(sorted(others.items()))


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
