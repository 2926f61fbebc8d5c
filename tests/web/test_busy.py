"""What the endpoints answer when more ask than can be served at the same time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from checks.model import Report
from checks.web.endpoints import MOST_SCRAPES, MOST_WAITING, respond, waiting
from checks.web.http1 import Header, Request, Response
from tests.support.waiting import until
from tests.web.agents import FixedAgent, document, header
from tests.web.clients import PATIENCE


class SlowAgent(FixedAgent):
    """An agent whose checks and metrics take until they are let go on, and that counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.rendering = threading.Semaphore(1)

    def alive(self) -> Report:
        """Wait."""
        report = super().alive()
        assert self.go_on.wait(PATIENCE)
        return report

    def render_metrics(self, accept: str, accept_encoding: str) -> tuple[list[Header], bytes]:
        """Wait, alone."""
        self.calls.append("metrics")
        assert self.rendering.acquire(blocking=False), "two renderings at the same time"
        assert self.go_on.wait(PATIENCE)
        self.rendering.release()
        return super().render_metrics(accept, accept_encoding)


def ask_at_once(agent: SlowAgent, number: int, path: str, accept: Callable[[int], str] = str) -> list[Response]:
    """Let that many clients ask for one path before the first of them has its answer."""

    def ask(client: int) -> Response:
        headers = (("Accept", accept(client)),)
        return respond(Request("GET", path, headers, f"10.0.{client // 9}.1:4711"), agent)

    with ThreadPoolExecutor(number) as pool:
        asked = [pool.submit(ask, client) for client in range(number)]
        until(lambda: agent.calls, PATIENCE)
        # Callers without room are answered; the others wait for the first of them.
        until(lambda: sum(one.done() for one in asked) + waiting() >= number, PATIENCE)
        agent.go_on.set()
        return [one.result(PATIENCE) for one in asked]


def test_scrapes_at_the_same_time_share_one_rendering() -> None:
    """Scrapes in the same format get the same rendering; more than may wait get 503 with the advice to ask again."""
    agent = SlowAgent()
    answers = ask_at_once(agent, 60, "/metrics", lambda _: "text/plain")
    assert agent.calls == ["metrics"]
    assert Counter(answer.status for answer in answers) == {200: MOST_SCRAPES, 503: 60 - MOST_SCRAPES}
    refused = next(answer for answer in answers if answer.status == 503)
    assert header(refused, "Retry-After") == "1"
    assert {id(answer.body) for answer in answers if answer.status == 200} == {id(answers[0].body)}


def test_scrapes_in_different_formats_are_rendered_one_after_the_other() -> None:
    """Each format is rendered, and never two at the same time."""
    agent = SlowAgent()
    answers = ask_at_once(agent, 5, "/metrics")
    assert [header(answer, "Content-Type") for answer in answers] == ["0", "1", "2", "3", "4"]
    assert len(agent.calls) == 5


def test_alive_is_checked_and_written_once_for_callers_at_the_same_time() -> None:
    """Callers that wait for the same checks share what they found, each with its own request."""
    agent = SlowAgent()
    answers = ask_at_once(agent, MOST_WAITING, "/alive")
    assert agent.calls == ["alive"]
    assert sorted(int(document(answer)["headers"]["Accept"][0]) for answer in answers) == list(range(MOST_WAITING))


def test_further_callers_of_alive_get_the_latest_results() -> None:
    """With as many waiting for checks as may wait, a further one gets cached results at once."""
    agent = SlowAgent()
    answers = ask_at_once(agent, MOST_WAITING + 5, "/alive")
    assert agent.calls[0] == "alive"
    assert set(agent.calls[1:]) == {"latest"}
    assert {answer.status for answer in answers} == {200}
