"""A whole agent whose API server is hostile: it goes on serving, says what is wrong, and never shows its token."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from checks.kube.client import LARGEST_HEAD
from checks.kube.errors import LONGEST_SHARED
from checks.kube.listing import MOST_ITEMS, MOST_PAGES
from tests.support.kube import Kube, document_answer
from tests.support.process import Running, agent
from tests.support.servers import Conversation, Handler, Server, answer
from tests.support.waiting import until

# Seconds, less than the 30 that a list may take.
IN_TIME = 20.0
SECRET = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ." + 30 * "cGF5bG9hZC0" + ".c2lnbmF0dXJl"


def state(running: Running) -> str:
    """Return the state of an agent's discovery."""
    return str(json.loads(running.get("/state")[1])["neighbourhood"]["state"])


def to_discovery(answers: Callable[[int], bytes]) -> Handler:
    """Return a handler that gives discovery one answer a request by its number, and the checks of this agent a 200."""
    numbers = itertools.count()

    def handle(conversation: Conversation) -> None:
        while head := conversation.read_head():
            conversation.send(answers(next(numbers)) if b"limit=" in head else answer(body=b"{}"))

    return handle


def flood(conversation: Conversation) -> None:
    """Answer discovery with 100 Continue for ever."""
    while b"limit=" not in conversation.read_head():
        conversation.send(answer(body=b"{}"))
    conversation.send_forever(100 * b"HTTP/1.1 100 Continue\r\n\r\n")


def page(number: int) -> bytes:
    """Return one of the pages of a list without an end."""
    items = [{"metadata": {"name": f"pod-{number}"}}]
    return document_answer({"metadata": {"continue": f"token-{number}"}, "items": items})


TINY_PODS = answer(
    "200 OK",
    "Content-Encoding: gzip",
    body=zlib.compress(b'{"items":[' + 450_000 * b'{"metadata":{}},' + b"{}]}", wbits=31),
)


@pytest.mark.parametrize(
    ("handle", "reason"),
    [
        pytest.param(flood, f"more than {LARGEST_HEAD} bytes on the wire", id="100 Continue"),
        pytest.param(to_discovery(page), f"a list of more than {MOST_PAGES} pages", id="endless continue"),
        pytest.param(to_discovery(lambda _: TINY_PODS), f"a list of more than {MOST_ITEMS} objects", id="tiny Pods"),
        pytest.param(to_discovery(lambda _: document_answer({"items": 5})), "are not an array", id="no items"),
    ],
)
def test_discovery_leaves_a_hostile_answer_and_says_why(tmp_path: Path, handle: Handler, reason: str) -> None:
    """An answer without an end or bound becomes a state with a reason, while the agent serves."""
    kube = Kube(tmp_path)
    with Server(handle, context=kube.server.context) as server, agent(tmp_path, **variables(kube, server)) as running:
        until(lambda: reason in state(running), IN_TIME)
        assert running.get("/alwayshappy")[0] == 200
        assert "following objects failed" not in running.log()


def variables(kube: Kube, server: Server) -> dict[str, str]:
    """Return the variables of an agent for which a server is the API server."""
    return {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(server.port),
        "KUBENURSE_SERVICEACCOUNT_DIR": str(kube.account.path),
        "KUBENURSE_NEIGHBOUR_FILTER": "app=kubenurse",
        "KUBENURSE_ALLOW_UNSCHEDULABLE": "true",
        "KUBENURSE_CHECK_API_SERVER_DIRECT": "false",
        "KUBENURSE_CHECK_API_SERVER_DNS": "false",
    }


def test_a_server_that_echoes_the_token_to_discovery_shows_it_to_nobody(tmp_path: Path) -> None:
    """The token is in no state and no log line, though the API server has it in its reason phrase and its message."""
    kube = Kube(tmp_path)
    kube.account.rotate(token=SECRET)
    said = f"no way for Authorization: Bearer {SECRET}"
    echo = to_discovery(lambda _: document_answer({"message": said}, status=f"500 {said}"))
    with Server(echo, context=kube.server.context) as server, agent(tmp_path, **variables(kube, server)) as running:
        until(lambda: "500 Internal Server Error" in state(running), IN_TIME)
        seen = running.log() + "".join(running.get(path)[1].decode() for path in ("/state", "/alive", "/metrics"))
    assert "no way for Authorization: Bearer [redacted]" in seen
    assert not [at for at in range(len(SECRET) - LONGEST_SHARED) if SECRET[at : at + LONGEST_SHARED] in seen]
