"""Series are bounded whatever comes, and threads do not disturb each other."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from checks.report.metrics import Metrics
from checks.report.state import ERROR_EVENTS, MAX_CODES
from tests.report.scraping import (
    OPENMETRICS,
    Agent,
    bad,
    good,
    label_values,
    parse_openmetrics,
    samples,
    scrape,
    value,
)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(min_value=-10, max_value=100_000)),
            st.one_of(st.text(), st.sampled_from(sorted(ERROR_EVENTS)), st.from_regex(r"status_code_\d{3}")),
        ),
        max_size=60,
    )
)
def test_hostile_answers_make_few_series(answers: list[tuple[int | None, str]]) -> None:
    """Whatever codes and events come, each request and each error counts once and labels stay few and well-formed."""
    metrics = Agent().metrics()
    for code, event in answers:
        metrics.take(bad(event, code=code))
    got = samples(metrics)
    requests = {dict(labels)["code"]: n for (name, labels), n in got.items() if name.endswith("_requests_total")}
    errors = {dict(labels)["event"]: n for (name, labels), n in got.items() if name == "kubenurse_errors_total"}
    assert sum(requests.values()) == sum(errors.values()) == len(answers)
    assert len(requests) <= MAX_CODES + 2
    assert len(errors) <= MAX_CODES + len(ERROR_EVENTS) + 1
    assert all(re.fullmatch(r"[1-5]\d\d|round_trip_error|other", code) for code in requests)
    assert all(event in ERROR_EVENTS or re.fullmatch(r"status_code_([1-5]\d\d|other)", event) for event in errors)


def test_every_status_code_at_once(metrics: Metrics) -> None:
    """An endpoint that answers every possible status makes a few series; the rest counts as other."""
    for code in range(100, 600):
        metrics.take(bad(f"status_code_{code}", code=code))
    metrics.take(bad("timeout"))
    codes = label_values(metrics, "kubenurse_httpclient_requests_total", "code")
    events = label_values(metrics, "kubenurse_errors_total", "event")
    assert len(codes) == MAX_CODES + 2
    assert {"100", "other", "round_trip_error"} <= codes
    assert len(events) == MAX_CODES + 2
    assert {"status_code_100", "status_code_other", "timeout"} <= events
    assert value(metrics, "kubenurse_errors_total", type="me_ingress", event="status_code_other") == 500 - MAX_CODES


def test_series_of_a_neighbour_that_left_are_gone(agent: Agent, metrics: Metrics) -> None:
    """A type no longer checked keeps its series for a while and loses them all within a minute, without a new round."""
    metrics.take(good("me_ingress"))
    metrics.take(good("path_node-1"))
    metrics.take(bad(check_type="path_node-1"))
    metrics.retain({"me_ingress"})
    agent.now += 30
    assert value(metrics, "kubenurse_check_success", type="path_node-1") == 0
    agent.now += 25
    text = scrape(metrics)
    assert "path_node-1" not in text
    assert value(metrics, "kubenurse_check_success", type="me_ingress") == 1


def test_restarted_neighbour_goes_on_counting(agent: Agent, metrics: Metrics) -> None:
    """A Pod that is away for less than 45 s does not reset its node's counters, however often."""
    for _ in range(5):
        metrics.take(good("path_node-1"))
        metrics.retain({"path_node-1"})
        metrics.retain(set())
        agent.now += 30
    assert value(metrics, "kubenurse_request_duration_count", type="path_node-1") == 5


def test_rare_rounds_do_not_end_series(agent: Agent, metrics: Metrics) -> None:
    """What is still checked keeps its series however long the interval between rounds is."""
    metrics.take(good())
    metrics.retain({"me_ingress"})
    agent.now += 24 * 3600
    assert value(metrics, "kubenurse_request_duration_count", type="me_ingress") == 1


def test_cluster_that_rolls_does_not_grow(agent: Agent, metrics: Metrics) -> None:
    """With ever new nodes the number of series is that of the latest ones."""
    highest = 0
    for number in range(60):
        current = {f"path_node-{number + offset}" for offset in range(3)}
        for check_type in current:
            metrics.take(good(check_type))
        metrics.retain(current)
        agent.now += 30
        highest = max(highest, len(label_values(metrics, "kubenurse_check_success", "type")))
    assert highest <= 5


def test_threads_write_while_others_scrape(agent: Agent) -> None:
    """With threads that write, come and go and scrape at once, nothing is lost and each scrape is consistent."""
    metrics, rounds, writers = agent.metrics(), 200, 4
    start, done = threading.Barrier(writers + 2), threading.Event()

    def write(writer: int) -> None:
        start.wait(timeout=30)
        for number in range(rounds):
            metrics.take(good("shared"))
            metrics.take(good(f"path_{writer}_{number % 7}"))
            metrics.neighbour_called(f"pod-{number}")
            metrics.discovery_failed("timeout")
            metrics.retain({"shared"})

    def read() -> int:
        start.wait(timeout=30)
        scrapes = 0
        while not done.is_set() or not scrapes:
            # The parser checks each histogram: buckets in order, +Inf equal to the count.
            assert parse_openmetrics(scrape(metrics, OPENMETRICS))
            scrapes += 1
        return scrapes

    with ThreadPoolExecutor(writers + 2, thread_name_prefix="metrics-test") as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for writing in [pool.submit(write, writer) for writer in range(writers)]:
                writing.result(timeout=60)
        finally:
            done.set()
        assert all(reader.result(timeout=60) for reader in readers)
    assert value(metrics, "kubenurse_request_duration_count", type="shared") == rounds * writers
    assert value(metrics, "kubenurse_discovery_errors_total", reason="timeout") == rounds * writers
    assert value(metrics, "kubenurse_neighbourhood_incoming_checks") == rounds
