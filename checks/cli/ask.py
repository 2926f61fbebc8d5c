"""Asks a running agent for a JSON document, in bounded time and memory."""

from __future__ import annotations

import json
import threading
from typing import Any

import urllib3

from checks.addresses import host_port
from checks.config.settings import Config
from checks.probe.trust import TrustStore
from checks.text import printable

# For the whole answer, from the look-up of the name to the last byte.
DEADLINE_SECONDS = 10.0
LARGEST_ANSWER_BYTES = 16 * 1024 * 1024
_LONGEST_REASON = 300


class NoAnswerError(Exception):
    """No usable answer came; the message says why, on one line without control characters."""

    def __init__(self, why: object) -> None:
        super().__init__(printable(str(why), _LONGEST_REASON))


def local_url(config: Config) -> str:
    """Return the URL of the agent that runs beside this command with the same configuration."""
    address = config.listen_address
    everywhere = address in ("", "0.0.0.0", "::")  # noqa: S104 # compared, not bound
    return f"http://{host_port('127.0.0.1' if everywhere else address, config.port)}"


def ask(config: Config, url: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """Return the JSON document at ``url``, within ``seconds``.

    Raises:
        NoAnswerError: when no usable answer comes in time.
    """
    answers: list[Any] = []

    def fetch() -> None:
        try:
            answers.append(_fetch(config, url, seconds))
        except (urllib3.exceptions.HTTPError, OSError, ValueError, RecursionError) as error:
            answers.append(NoAnswerError(getattr(error, "reason", None) or error))

    # A server may send a byte a second: no timeout of a single read ends that, so the whole runs beside this thread.
    asking = threading.Thread(target=fetch, name="ask", daemon=True)
    asking.start()
    asking.join(seconds)
    if not answers:
        raise NoAnswerError(f"no whole answer within {seconds:g} s")
    if isinstance(answers[0], NoAnswerError):
        raise answers[0]
    return answers[0]


def _fetch(config: Config, url: str, seconds: float) -> Any:
    trust = TrustStore([config.extra_ca] if config.extra_ca else [], system=True, verify=not config.insecure)
    context = trust.context() if url.lower().startswith("https:") else None
    with urllib3.PoolManager(ssl_context=context) as pool:
        response = pool.request("GET", url, timeout=seconds, retries=False, preload_content=False)
        with response:
            if response.status != 200:
                raise ValueError(f"{response.status} {response.reason}, expected kubenurse's answer")
            body = response.read(LARGEST_ANSWER_BYTES + 1)
    if len(body) > LARGEST_ANSWER_BYTES:
        raise ValueError(f"more than {LARGEST_ANSWER_BYTES} bytes, expected kubenurse's answer")
    return json.loads(body)
