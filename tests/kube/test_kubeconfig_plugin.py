"""Credentials that an exec plugin of a kubeconfig gives: a real script, run again when they expire."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.kube import kubeconfig
from checks.kube.kubeconfig import KubeconfigError
from checks.kube.kubeconfig_login import PLUGIN_AGAIN_AFTER, RETRY_AFTER
from tests.support.kube import TOKEN, Kube
from tests.support.kube_home import API_VERSION, SECRET, Home, Plugin, answers, bearer, certificate, serving
from tests.support.process import Running, heeding_ctrl_c
from tests.support.waiting import until


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster that takes client certificates, too."""
    with serving(tmp_path) as kube:
        yield kube


@pytest.fixture
def home(tmp_path: Path, kube: Kube) -> Home:
    """A home directory with a kubeconfig for it, by default with a token."""
    return Home(tmp_path, kube)


def test_plugin_gives_the_token(home: Home) -> None:
    """An exec plugin runs once for many requests, and the API server accepts its token."""
    plugin = Plugin(home)
    plugin.give(token=TOKEN, seconds=3600)
    credentials = home.load()
    assert all(answers(credentials) for _ in range(3))
    assert plugin.runs == 1


def test_plugin_runs_again_before_its_token_expires(home: Home) -> None:
    """Late in a token's life the plugin runs again, in the background, while the old token is sent."""
    plugin = Plugin(home)
    plugin.give(token="first", seconds=3600)
    credentials = home.load()
    plugin.give(token="second", seconds=3600)
    home.clock.now += 2600
    assert bearer(credentials) == "first"
    assert plugin.runs == 1
    home.clock.now += 200
    until(lambda: bearer(credentials) == "second", timeout=20)
    assert plugin.runs == 2


def test_plugin_runs_again_when_its_token_has_expired(home: Home) -> None:
    """After a long sleep the old token is not sent any more: the caller waits for the new one."""
    plugin = Plugin(home)
    plugin.give(token="first", seconds=3600)
    credentials = home.load()
    plugin.give(token=TOKEN, seconds=3600)
    home.clock.now += 7200
    assert bearer(credentials) == TOKEN
    assert answers(credentials)
    assert plugin.runs == 2


def test_plugin_that_gives_no_expiry_runs_again_after_a_while(home: Home) -> None:
    """A token without an expiry is renewed every ten minutes, and is used meanwhile."""
    plugin = Plugin(home)
    plugin.give(token="first")
    credentials = home.load()
    plugin.give(token="second")
    home.clock.now += PLUGIN_AGAIN_AFTER
    until(lambda: bearer(credentials) == "second", timeout=20)
    assert plugin.runs == 2


def test_plugin_whose_tokens_are_expired_does_not_run_for_each_request(home: Home) -> None:
    """Some seconds pass between two runs of a plugin, whatever expiry it reports."""
    plugin = Plugin(home)
    plugin.give(token=TOKEN, seconds=-3600)
    credentials = home.load()
    assert [bearer(credentials) for _ in range(5)] == [TOKEN] * 5
    assert plugin.runs == 1
    home.clock.now += RETRY_AFTER
    assert bearer(credentials) == TOKEN
    assert plugin.runs == 2


def test_plugin_gives_a_client_certificate(home: Home) -> None:
    """The API server accepts a plugin's client certificate; the next one is used when the first expires."""
    plugin = Plugin(home)
    contents = []
    for _ in range(2):
        chain, key = certificate(home)
        contents.append({"clientCertificateData": chain.read_text(), "clientKeyData": key.read_text()})
    plugin.give(seconds=3600, **contents[0])
    credentials = home.load()
    assert credentials.headers() == {}
    assert answers(credentials)
    context = credentials.context()
    plugin.give(seconds=3600, **contents[1])
    home.clock.now += 7200
    assert credentials.context() is not context
    assert answers(credentials)
    assert plugin.runs == 2


def test_plugin_that_fails_later_is_said_once_its_token_expires(home: Home) -> None:
    """While the old token is good nothing fails; then the error is the plugin's, which runs every few seconds."""
    plugin = Plugin(home)
    plugin.give(token="first", seconds=3600)
    credentials = home.load()
    plugin.answer.unlink()
    home.clock.now += 3000
    assert bearer(credentials) == "first"
    until(lambda: plugin.runs == 2, timeout=20)
    home.clock.now += 1000
    for _ in range(3):
        with pytest.raises(KubeconfigError, match=r"exec: process returned 3\. not logged in"):
            credentials.headers()
    runs = plugin.runs
    assert runs <= 3
    plugin.give(token="second", seconds=3600)
    home.clock.now += RETRY_AFTER
    assert bearer(credentials) == "second"
    assert plugin.runs == runs + 1


def test_plugin_that_hangs_delays_no_caller_for_long(home: Home) -> None:
    """While a plugin hangs, a good token is sent at once; without a good token the caller gets an error in time."""
    plugin = Plugin(home)
    plugin.give(token="first", seconds=3600)
    home.write()
    credentials = kubeconfig.load([home.file], clock=home.clock, patience=0.1)
    assert credentials is not None
    fifo = plugin.hang()
    home.clock.now += 3000
    assert bearer(credentials) == "first"
    until(lambda: plugin.runs == 2, timeout=20)
    home.clock.now += 1000
    for _ in range(2):
        with pytest.raises(KubeconfigError, match=r"no new credentials within 0\.1 s"):
            credentials.headers()
    assert plugin.runs == 2
    plugin.give(token="second", seconds=3600)
    fifo.write_text("")
    fifo.unlink()

    def sent() -> str:
        try:
            return bearer(credentials)
        except KubeconfigError as error:
            return str(error)

    until(lambda: sent() == "second", timeout=20)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "exec: process returned 3. not logged in"),
        ("no json", "exec: failed to decode process output"),
        (json.dumps({"apiVersion": API_VERSION, "kind": "ExecCredential"}), "exec: malformed response. missing key"),
        (
            json.dumps({"apiVersion": "x/v0", "kind": "ExecCredential", "status": {"token": SECRET}}),
            "exec: plugin api version x/v0 does not match",
        ),
        (
            json.dumps({"apiVersion": API_VERSION, "kind": "ExecCredential", "status": {}}),
            "exec: missing token or clientCertificateData",
        ),
        (
            json.dumps({"apiVersion": API_VERSION, "kind": "ExecCredential", "status": {"clientCertificateData": "x"}}),
            "exec: missing clientKeyData",
        ),
    ],
)
def test_plugin_that_gives_nothing(home: Home, said: str | None, why: str) -> None:
    """A plugin that fails or gives a wrong answer is named as the reason."""
    plugin = Plugin(home)
    if said is not None:
        plugin.answer.write_text(said)
    assert why in home.refused()


def test_plugin_that_is_not_there(home: Home) -> None:
    """A command that cannot be run is named."""
    home.user = {"exec": {"apiVersion": API_VERSION, "command": "/no/such/plugin"}}
    assert "/no/such/plugin" in home.refused()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_plugin_that_hangs_at_the_start_does_not_keep_the_agent(
    home: Home, tmp_path: Path, number: signal.Signals
) -> None:
    """A signal during the wait for a plugin ends the agent with code 0: nothing has gone wrong."""
    plugin = Plugin(home)
    pipe = plugin.hang()
    home.write()
    with heeding_ctrl_c():
        running = Running(tmp_path, {"KUBECONFIG": str(home.file)})
    until(lambda: plugin.runs, timeout=20)
    assert running.end(number) == 0
    assert "Traceback" not in running.log()
    # The plugin itself goes on where its agent was no container's first process.
    os.close(os.open(pipe, os.O_WRONLY))
