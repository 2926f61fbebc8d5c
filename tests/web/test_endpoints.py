"""What the endpoints answer, without a socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.model import BUILT_IN_TYPES, OK, SKIPPED, CheckResult, Neighbour, Neighbourhood, Report, TcpFacts
from checks.web.alive import NOT_CHECKED
from checks.web.endpoints import LARGEST_PADDING
from checks.web.http1 import Header, Response
from tests.web.agents import ALL_OK, NEIGHBOUR, FixedAgent, document, get, header, sent, whole

ALIVE_KEYS = [
    *BUILT_IN_TYPES,
    "hostname",
    "neighbourhood_state",
    "neighbourhood",
    "headers",
    "user_agent",
    "request_uri",
    "remote_addr",
    "last_check_result",
]


def test_the_root_redirects_to_alive() -> None:
    """/ answers 301 to /alive, and so does an authority without a path."""
    assert get("http://10.0.0.1:8080").status == 301
    response = get("/")
    assert (response.status, header(response, "Location")) == (301, "/alive")


def test_an_unknown_path_is_404_and_names_the_endpoints() -> None:
    """A path that is no endpoint is answered with a list of those there are."""
    response = get("/nothing")
    assert response.status == 404
    assert b"/alive " in response.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "get"])
@pytest.mark.parametrize("target", ["/alive", "/nothing", "*"])
def test_other_methods_are_405(method: str, target: str) -> None:
    """Whatever is neither GET nor HEAD is refused with the methods that are allowed, and runs nothing."""
    agent = FixedAgent()
    response = get(target, agent, method=method)
    assert (response.status, header(response, "Allow")) == (405, "GET, HEAD")
    assert agent.calls == []


@pytest.mark.parametrize(
    "target", ["/alwayshappy?a=b", "/alwayshappy#x", "http://10.0.0.1:8080/alwayshappy", "HTTPS://host/alwayshappy?"]
)
def test_query_and_authority_do_not_matter(target: str) -> None:
    """The query is ignored, and so is the authority that a proxy's client sends."""
    assert get(target).status == 200


def test_alwayshappy_is_empty_names_the_pod_and_runs_nothing() -> None:
    """/alwayshappy is an empty 200 with the Pod's name; no check runs and nothing is counted without an origin."""
    agent = FixedAgent()
    response = get("/alwayshappy", agent)
    assert (response.status, response.body, header(response, "KUBENURSE-POD")) == (200, b"", "kubenurse-a")
    assert agent.calls == []


def test_alwayshappy_counts_the_neighbour() -> None:
    """The origin that a neighbour announces is counted, in whatever case the header comes."""
    agent = FixedAgent()
    get("/alwayshappy", agent, ("kubenurse-Neighbour-origin", "kubenurse-b"))
    assert agent.calls == ["called by kubenurse-b"]


@pytest.mark.parametrize("number", [0, 1, 100, LARGEST_PADDING])
def test_alwayshappy_answers_with_as_many_bytes_as_are_asked_for(number: int) -> None:
    """/alwayshappy?bytes=N answers with N bytes, and is else what it is without."""
    agent = FixedAgent()
    response = get(f"/alwayshappy?a=b&bytes={number}", agent, ("KUBENURSE-NEIGHBOUR-ORIGIN", "kubenurse-b"))
    assert (response.status, len(response.body)) == (200, number)
    assert header(response, "KUBENURSE-POD") == "kubenurse-a"
    assert agent.calls == ["called by kubenurse-b"]


@pytest.mark.parametrize("number", ["", "16385", "-1", "+1", "1e3", "0x10", "1_0", "²", "9" * 5000, "1&bytes=1", "%31"])
def test_a_wrong_number_of_bytes_is_400_in_words(number: str) -> None:
    """What is no number, or a larger one, is refused with what is expected."""
    response = get(f"/alwayshappy?bytes={number}")
    assert (response.status, response.body) == (400, b"bytes: expected one number from 0 to 16384\n")


@pytest.mark.parametrize("origin", ["", "x" * 254])
def test_an_origin_that_is_no_pod_name_is_not_counted(origin: str) -> None:
    """Neither an empty origin nor one longer than any Pod's name is remembered."""
    agent = FixedAgent()
    assert get("/alwayshappy", agent, ("KUBENURSE-NEIGHBOUR-ORIGIN", origin)).status == 200
    assert agent.calls == []


def test_ready_says_why_not() -> None:
    """/ready is 200, or 503 with the reason."""
    assert get("/ready").status == 200
    response = get("/ready", FixedAgent(reason="node is cordoned"))
    assert (response.status, response.body) == (503, b"node is cordoned\n")


def test_metrics_get_what_the_client_accepts() -> None:
    """/metrics passes both accept headers on, repeated ones joined, and what comes back as it is."""
    response = get("/metrics", None, ("accept", "a"), ("Accept", "b"), ("Accept-Encoding", "gzip"))
    assert response == Response(200, [("Content-Type", "a, b"), ("Content-Encoding", "gzip")], b"metrics")


def test_alive_has_the_shape_of_v1_4() -> None:
    """/alive shows states, neighbours and the request with the names and in the order of kubenurse v1.4."""
    results = ALL_OK | {"path_node-b": CheckResult("path_node-b", OK), "db": CheckResult("db", OK)}
    agent = FixedAgent(Report(results, Neighbourhood(OK, (NEIGHBOUR,))))
    response = get("/alive?a=b", agent, ("user-agent", "curl/8"), ("Accept", "2"), ("x-a", "1"), ("accept", "3"))
    assert response.status == 200
    assert header(response, "Content-Type") == "application/json"
    assert header(response, "Cache-Control") == "no-store"
    answer = document(response)
    assert list(answer) == ALIVE_KEYS
    assert answer["neighbourhood"] == [
        {
            "PodName": "kubenurse-b",
            "PodIP": "10.0.0.2",
            "HostIP": "192.168.0.2",
            "NodeName": "node-b",
            "Phase": "Running",
            "NodeSchedulable": "Schedulable",
        }
    ]
    assert answer["headers"] == {"Accept": ["2", "3"], "User-Agent": ["curl/8"], "X-A": ["[redacted]"]}
    assert [answer[key] for key in ("hostname", "user_agent")] == ["kubenurse-a", "curl/8"]
    assert [answer[key] for key in ("request_uri", "remote_addr")] == ["/alive?a=[redacted]", "10.0.0.9:4711"]
    assert list(answer["last_check_result"]) == [*BUILT_IN_TYPES, "db", "path_node-b"]
    assert whole(response).startswith(b'{\n "api_server_direct": "ok",\n')


@pytest.mark.parametrize(("schedulable", "word"), [(True, "Schedulable"), (False, "Unschedulable"), (None, "Unknown")])
def test_schedulability_is_a_word(schedulable: bool | None, word: str) -> None:
    """A neighbour's node is Schedulable, Unschedulable or, with nodes not read, Unknown."""
    neighbour = Neighbour("p", "", "", "", "Running", schedulable)
    answer = document(get("/alive", FixedAgent(Report(ALL_OK, Neighbourhood(OK, (neighbour,))))))
    assert answer["neighbourhood"][0]["NodeSchedulable"] == word


def test_alive_runs_the_checks_for_head_too() -> None:
    """HEAD /alive is a full check whose body the transport keeps."""
    agent = FixedAgent()
    assert whole(get("/alive", agent, method="HEAD"))
    assert agent.calls == ["alive"]


@pytest.mark.parametrize(
    "report",
    [
        Report(ALL_OK | {"path_b": CheckResult("path_b", "timeout")}, Neighbourhood(OK)),
        Report(ALL_OK | {"me_service": CheckResult("me_service", "404 Not Found")}, Neighbourhood(OK)),
        Report(ALL_OK, Neighbourhood("403 Forbidden")),
        Report({}, Neighbourhood(OK)),
    ],
)
def test_alive_is_500_when_something_fails(report: Report) -> None:
    """A failing neighbour, check or discovery, or a check that has not run, makes /alive 500."""
    assert get("/alive", FixedAgent(report)).status == 500


def test_skipped_checks_are_fine() -> None:
    """With everything skipped /alive is 200 and says so."""
    response = get("/alive", FixedAgent(Report({}, Neighbourhood(SKIPPED), skipped=BUILT_IN_TYPES)))
    answer = document(response)
    assert response.status == 200
    assert {answer[name] for name in BUILT_IN_TYPES} == {SKIPPED}
    assert set(answer["last_check_result"].values()) == {SKIPPED}


def test_a_check_that_has_not_run_says_so() -> None:
    """Before its first result a check is neither ok nor skipped."""
    answer = document(get("/alive", FixedAgent(Report({}, Neighbourhood(OK)))))
    assert answer["me_ingress"] == answer["last_check_result"]["me_ingress"] == NOT_CHECKED


def test_state_shows_times_and_tcp_facts() -> None:
    """/state is the latest round in compact JSON, without running a check."""
    result = CheckResult(
        "me_service",
        "503 Service Unavailable",
        "status_code_503",
        503,
        0.12345678,
        {"dns_start": 0.0, "dns_done": 0.001},
        started_at=1_700_000_000.5,
        tcp=TcpFacts(0.0005, 1500, 2),
        not_after=1_800_000_000.0,
        remote="10.0.0.3:8080",
        phase="status",
        answered_by="kubenurse-c",
    )
    report = Report(
        {"me_service": result, "db": CheckResult("db", OK)},
        Neighbourhood(OK, (NEIGHBOUR,), known=3, cordoned=1, own_node_cordoned=True),
        skipped=("me_ingress",),
        checked=(NEIGHBOUR,),
        started_at=1.0,
        finished_at=2.0,
    )
    agent = FixedAgent(report, reason="shutting down", facts={"version": "2", "interval": 5.0, "odd": {1}})
    response = get("/state", agent)
    assert response.status == 200
    assert b'": ' not in whole(response)
    assert agent.calls == ["latest"]
    answer = document(response)
    assert answer["schema"] == 2
    assert answer["checks"]["me_service"] == {
        "state": "503 Service Unavailable",
        "phase": "status",
        "event": "status_code_503",
        "status_code": 503,
        "duration": 0.123457,
        "trace": {"dns_start": 0.0, "dns_done": 0.001},
        "started_at": 1_700_000_000.5,
        "tcp": {"rtt_seconds": 0.0005, "path_mtu_bytes": 1500, "retransmits": 2},
        "not_after": 1_800_000_000.0,
        "remote": "10.0.0.3:8080",
        "answered_by": "kubenurse-c",
        "window": agent.window("me_service"),
        "witnesses": [],
    }
    assert answer["checks"]["db"]["tcp"] is None
    assert answer["about"] == {"version": "2", "interval": 5.0, "odd": "{1}"}
    who = [answer[key] for key in ("pod_name", "node_name", "not_ready")]
    assert who == ["kubenurse-a", "node-a", "shutting down"]
    assert answer["skipped"] == ["me_ingress"]
    assert (answer["started_at"], answer["finished_at"]) == (1.0, 2.0)
    neighbourhood = answer["neighbourhood"]
    assert (neighbourhood["known"], neighbourhood["cordoned"], neighbourhood["own_node_cordoned"]) == (3, 1, True)
    assert [neighbour["pod_name"] for neighbour in neighbourhood["checked"]] == ["kubenurse-b"]


seconds = st.floats(min_value=0, max_value=1e10)
states = st.just(OK) | st.text(max_size=20)
neighbours = st.builds(Neighbour, *[st.text(max_size=10)] * 5, schedulable=st.none() | st.booleans())


def results_of(name: str) -> st.SearchStrategy[CheckResult]:
    """Any result of a check of this type."""
    return st.builds(
        CheckResult,
        st.just(name),
        states,
        event=st.text(max_size=10),
        status_code=st.none() | st.integers(100, 599),
        duration=seconds,
        trace=st.dictionaries(st.sampled_from(["dns_start", "dns_done"]), seconds),
        started_at=seconds,
        tcp=st.none() | st.builds(TcpFacts, seconds, st.integers(0, 65535), st.integers(0, 10)),
        not_after=st.none() | seconds,
        remote=st.text(max_size=10),
    )


check_types = st.sampled_from(BUILT_IN_TYPES) | st.text(min_size=1, max_size=10)
results = st.lists(check_types.flatmap(results_of), max_size=8).map(lambda found: {one.type: one for one in found})
neighbourhoods = st.builds(Neighbourhood, states, st.lists(neighbours, max_size=3).map(tuple))
reports = st.builds(
    Report,
    results,
    neighbourhoods,
    skipped=st.sets(st.sampled_from(BUILT_IN_TYPES)).map(tuple),
    checked=st.lists(neighbours, max_size=3).map(tuple),
)
hostile_headers = st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=5)


@given(report=reports, headers=hostile_headers, query=st.text(max_size=30), pod_name=st.text())
def test_alive_is_valid_json_whatever_comes(report: Report, headers: list[Header], query: str, pod_name: str) -> None:
    """Any report and any request give JSON of one shape, and a status that agrees with the states shown."""
    response = get("/alive?" + query, FixedAgent(report, pod_name=pod_name), *headers)
    answer = document(response)
    assert list(answer) == ALIVE_KEYS
    assert set(answer["last_check_result"]) == {*BUILT_IN_TYPES, *report.results}
    assert all(answer[name] == answer["last_check_result"][name] for name in BUILT_IN_TYPES)
    shown = [answer["neighbourhood_state"], *answer["last_check_result"].values()]
    if all(result.state != SKIPPED for result in report.results.values()):
        assert response.status == (200 if set(shown) <= {OK, SKIPPED} else 500)
    assert all(isinstance(values, list) and values for values in answer["headers"].values())


@given(report=reports, about=st.dictionaries(st.text(), st.none() | st.text() | st.integers() | seconds))
def test_state_is_valid_json_whatever_comes(report: Report, about: dict[str, object]) -> None:
    """Any report gives compact JSON with one entry a check."""
    response = get("/state", FixedAgent(report, facts=about))
    answer = document(response)
    assert response.status == 200
    assert set(answer["checks"]) == set(report.results)
    assert answer["about"] == about
    assert len(answer["neighbourhood"]["checked"]) == len(report.checked)


@given(target=st.text(), headers=hostile_headers, method=st.text() | st.sampled_from(["GET", "HEAD"]))
def test_every_request_gets_an_answer(target: str, headers: list[Header], method: str) -> None:
    """No request is an error of the agent, and every answer can be put on the wire with its headers intact."""
    response = get(target, None, *headers, method=method)
    assert response.status in (200, 301, 404, 405)
    sent_head, _, body = sent(response).partition(b"\r\n\r\n")
    assert body == whole(response)
    assert sent_head.count(b"\r\n") == len(response.headers) + 3


@given(value=st.text())
def test_a_header_value_cannot_add_a_header(value: str) -> None:
    """Control characters in a Pod's name cannot break out of their line."""
    response = get("/alwayshappy", FixedAgent(pod_name=value))
    lines = sent(response, close=True).split(b"\r\n")
    assert b" ".join(line.split(b":")[0] for line in lines) == (
        b"HTTP/1.1 200 OK Server Date KUBENURSE-POD Cache-Control Content-Length Connection  "
    )
    assert not any(b"\n" in line or b"\r" in line for line in lines)


def test_head_has_the_length_but_not_the_body() -> None:
    """What HEAD gets differs from GET only by the missing body."""
    response = get("/ready")
    answer = sent(response)
    assert answer == sent(response, head_only=True) + b"ready\n"
    assert b"\r\nContent-Length: 6\r\n" in answer
