"""Credentials from a kubeconfig, used against the sandbox's API server over real TLS."""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from checks.kube import kubeconfig
from checks.kube.credentials import CredentialsError
from checks.kube.errors import TLS, UNAUTHORIZED
from checks.kube.kubeconfig import KubeconfigError
from checks.kube.kubeconfig_login import READ_AGAIN_AFTER, RETRY_AFTER
from tests.support.kube import TOKEN, Kube, failure
from tests.support.kube_home import SECRET, Home, Plugin, answers, bearer, certificate, serving


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A served cluster that takes client certificates, too."""
    with serving(tmp_path) as kube:
        yield kube


@pytest.fixture
def home(tmp_path: Path, kube: Kube) -> Home:
    """A home directory with a kubeconfig for it, by default with a token."""
    return Home(tmp_path, kube)


def test_token(home: Home) -> None:
    """A token in the file is sent to the context's server, and the namespace is the context's."""
    credentials = home.load()
    assert answers(credentials)
    assert (credentials.namespace, credentials.base_url) == ("nurses", home.kube.server.url)
    assert home.kube.server.requests[0].authorization


def test_the_namespace_is_default_without_one(home: Home) -> None:
    """A context without a namespace means the one called default, as for kubectl."""
    del home.context["namespace"]
    assert home.load().namespace == "default"


def test_wrong_token_is_refused_by_the_server(home: Home) -> None:
    """The API server decides whether a token is good."""
    home.user = {"token": "wrong"}
    credentials = home.load()
    assert failure(lambda: answers(credentials)).kind == UNAUTHORIZED


@pytest.mark.parametrize("inline", [False, True])
def test_client_certificate(home: Home, inline: bool) -> None:
    """A client certificate, in files or in the kubeconfig, is accepted without any token."""
    chain, key = certificate(home)
    if inline:
        encoded = [base64.b64encode(path.read_bytes()).decode() for path in (chain, key)]
        home.user = dict(zip(("client-certificate-data", "client-key-data"), encoded, strict=True))
        home.cluster["certificate-authority-data"] = base64.b64encode(home.kube.authority.pem.encode()).decode()
        del home.cluster["certificate-authority"]
    else:
        home.user = {"client-certificate": str(chain), "client-key": str(key)}
    credentials = home.load()
    assert credentials.headers() == {}
    assert answers(credentials)
    assert not home.kube.server.requests[0].authorization


def test_paths_are_relative_to_the_file(home: Home) -> None:
    """Relative paths in the kubeconfig start at its directory."""
    (home.directory / "ca.crt").write_text(home.kube.authority.pem)
    (home.directory / "token").write_text(f"{TOKEN}\n")
    home.cluster["certificate-authority"] = "ca.crt"
    home.user = {"tokenFile": "token"}
    assert answers(home.load())


def test_token_file_is_read_again(home: Home) -> None:
    """A rotated token file is read within a minute; the error for a missing one names it."""
    token = home.directory / "token"
    token.write_text(TOKEN)
    home.user = {"tokenFile": str(token)}
    credentials = home.load()
    token.write_text("the-next")
    assert bearer(credentials) == TOKEN
    home.clock.now += READ_AGAIN_AFTER
    assert bearer(credentials) == "the-next"
    token.unlink()
    home.clock.now += READ_AGAIN_AFTER
    with pytest.raises(KubeconfigError, match=f"{token}"):
        credentials.headers()
    token.write_text("back")
    home.clock.now += RETRY_AFTER
    assert bearer(credentials) == "back"


def test_password(home: Home) -> None:
    """A user name and password are sent as such (RFC 7617)."""
    home.user = {"username": "me", "password": SECRET}
    assert home.load().headers() == {"Authorization": "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()}


def test_no_file_is_no_kubeconfig(tmp_path: Path) -> None:
    """Where there is no file there are no credentials, and nothing is raised."""
    assert kubeconfig.load([tmp_path / "none"]) is None
    assert kubeconfig.load([]) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"current-context": None}, "there is no current-context"),
        ({"current-context": ""}, "there is no current-context"),
        ({"current-context": "other"}, "there is no context named 'other'"),
        ({"clusters": []}, "there is no cluster named 'here'"),
        ({"contexts": []}, "there is no context named 'work'"),
        ({"contexts": [5, {"name": "work", "context": 5}]}, "context 'work' is empty"),
        ({"clusters": SECRET}, "there is no cluster named 'here'"),
        ({"users": []}, "there is no user named 'me'"),
        ({"users": [{"name": "me", "user": None}]}, "user 'me' is empty"),
        ({"users": [{"name": "me", "user": {"password": SECRET}}]}, "no token and no client certificate"),
        ({"users": [{"user": {"token": SECRET}}]}, ""),
        ({"users": [{"name": "me", "user": {"tokenFile": "/no/such/token"}}]}, "/no/such/token"),
        ({"users": [{"name": "me", "user": {"token": f"{SECRET}\nX: y"}}]}, "the user's token is not a token"),
        ({"users": [{"name": "me", "user": {"token": f"{SECRET}\u20ac"}}]}, "the user's token is not a token"),
        ({"users": [{"name": "me", "user": {"token": SECRET * 10_000}}]}, "the user's token is not a token"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_without_its_secrets(home: Home, changes: dict[str, Any], why: str) -> None:
    """The error for an unusable kubeconfig says why in a line, without any secret of it."""
    assert why in home.refused(**changes)


@pytest.mark.parametrize("place", ["tokenFile", "client-certificate", "certificate-authority"])
def test_a_fifo_is_refused_before_it_is_read(home: Home, place: str) -> None:
    """A file of the kubeconfig that nobody writes to does not hold up the start."""
    fifo = home.directory / "fifo"
    os.mkfifo(fifo)
    (home.cluster if place == "certificate-authority" else home.user)[place] = str(fifo)
    home.user.pop("token")
    assert home.refused() == f"{place} {fifo}: not a regular file"


def test_a_renewal_without_a_thread_is_tried_again(home: Home) -> None:
    """While the system has no thread to give, a token that is good no more is an error with the reason."""
    threads: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        threads.append(thread)
        if len(threads) == 1:
            raise RuntimeError("can't start new thread")
        thread.start()

    home.write()
    found = kubeconfig.load([home.file], clock=home.clock, patience=5.0, start_thread=start)
    assert found is not None
    home.clock.now += READ_AGAIN_AFTER
    for _ in range(3):
        with pytest.raises(KubeconfigError, match="no thread to renew the credentials: can't start new thread"):
            found.headers()
    home.clock.now += RETRY_AFTER
    assert bearer(found) == TOKEN
    assert len(threads) == 2


@pytest.mark.parametrize("text", ["", "- 1\n", "a: b: c", f"users: [{{token: {SECRET}", "\x00", "just words"])
def test_what_is_no_kubeconfig_is_an_error(home: Home, text: str) -> None:
    """A file that is empty, broken or something else is refused, and the error does not quote it."""
    home.file.write_text(text)
    with pytest.raises(KubeconfigError) as caught:
        kubeconfig.load([home.file])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify is refused"),
        ({"server": "http://127.0.0.1:1"}, "server must be https://HOST[:PORT]"),
        ({"server": "https://127.0.0.1:99999"}, "server must be https://HOST[:PORT]"),
        ({"server": "https://[::1"}, "server must be https://HOST[:PORT]"),
        ({"server": ""}, "server must be https://HOST[:PORT]"),
        ({"server": "https://me:hunter2@127.0.0.1:1"}, "server must be https://HOST[:PORT]"),
        ({"proxy-url": "http://127.0.0.1:1"}, "proxy-url is not supported"),
    ],
)
def test_a_server_that_is_not_verified_gets_no_credentials(home: Home, change: dict[str, Any], why: str) -> None:
    """A cluster that is not reached over verified TLS is refused before a plugin runs."""
    plugin = Plugin(home)
    plugin.give(token=TOKEN)
    home.cluster |= change
    assert why in home.refused()
    assert plugin.runs == 0


@pytest.mark.parametrize("authority", [{}, {"certificate-authority": "other"}])
def test_a_server_of_another_authority_is_not_believed(home: Home, tmp_path: Path, authority: dict[str, str]) -> None:
    """With another CA, or the system's CAs only, the server's certificate is refused and no token is sent."""
    other = Kube(tmp_path / "other")
    del home.cluster["certificate-authority"]
    if authority:
        home.cluster["certificate-authority"] = str(other.authority.file)
    credentials = home.load()
    assert failure(lambda: answers(credentials)).kind == TLS
    assert not home.kube.server.requests


def test_extra_ca_is_trusted_as_well(home: Home, tmp_path: Path) -> None:
    """The file of KUBENURSE_EXTRA_CA is trusted besides the cluster's CA."""
    home.cluster["certificate-authority"] = str(Kube(tmp_path / "other").authority.file)
    home.write()
    credentials = kubeconfig.load([home.file], home.kube.authority.file)
    assert credentials is not None
    assert answers(credentials)


def test_a_ca_that_cannot_be_used_is_an_error(home: Home) -> None:
    """A missing CA file is an error at the start, a CA file without a certificate when it is used."""
    home.cluster["certificate-authority"] = "/no/such/ca.crt"
    assert "/no/such/ca.crt" in home.refused()
    empty = home.directory / "empty.crt"
    empty.touch()
    home.cluster["certificate-authority"] = str(empty)
    with pytest.raises(CredentialsError, match="CA or client certificate file"):
        home.load().context()


def test_tls_server_name(home: Home) -> None:
    """The server is verified by the name that the kubeconfig gives for it."""
    home.cluster["tls-server-name"] = "localhost"
    assert answers(home.load())
    home.cluster["tls-server-name"] = "another.example"
    credentials = home.load()
    assert failure(lambda: answers(credentials)).kind == TLS


def contexts(home: Home, names: Sequence[str]) -> dict[str, Any]:
    """Return contexts and users of these names, each with a token called like it."""
    return {
        "contexts": [{"name": name, "context": {"cluster": "here", "user": name}} for name in names],
        "users": [{"name": name, "user": {"token": f"token-of-{name}"}} for name in names],
    }


def test_the_current_context_counts(home: Home) -> None:
    """The current context of several is used."""
    assert bearer(home.load(**contexts(home, ["a", "b", "c"]), **{"current-context": "b"})) == "token-of-b"


def test_several_files_are_merged_as_kubectl_does(home: Home) -> None:
    """The first file that names an entry counts; each file adds the entries that the others do not have."""
    other = home.directory / "other"
    other.write_text(json.dumps(home.document(**contexts(home, ["b", "c"]), **{"current-context": "c"})))
    home.write(**contexts(home, ["a"]), **{"current-context": "b", "clusters": []})
    found = kubeconfig.load([home.file, home.directory / "missing", other])
    assert found is not None
    assert bearer(found) == "token-of-b"
    first = {"users": [{"name": "c", "user": {"token": "the-first-c"}}], "contexts": []}
    home.write(**first, **{"current-context": ""})
    found = kubeconfig.load([home.file, other])
    assert found is not None
    assert bearer(found) == "the-first-c"


def test_another_current_context_is_not_followed(home: Home) -> None:
    """A later change of the current context does not change cluster or credentials of a running agent."""
    credentials = home.load(**contexts(home, ["a", "b"]), **{"current-context": "a"})
    home.write(**contexts(home, ["a", "b"]), **{"current-context": "b"})
    home.clock.now += READ_AGAIN_AFTER
    assert bearer(credentials) == "token-of-a"


def test_credentials_of_another_server_go_nowhere(home: Home) -> None:
    """When the context gets another server, its credentials are not sent to the old one."""
    credentials = home.load()
    home.cluster["server"] = "https://elsewhere.example:6443"
    home.user = {"token": SECRET}
    home.write()
    home.clock.now += READ_AGAIN_AFTER
    with pytest.raises(KubeconfigError, match="the context has another server now: restart kubenurse"):
        credentials.headers()
    assert credentials.base_url == home.kube.server.url


def test_a_kubeconfig_that_breaks_later_recovers(home: Home) -> None:
    """A half-written file is an error for some seconds only."""
    credentials = home.load()
    home.file.write_text("users: [")
    home.clock.now += READ_AGAIN_AFTER
    with pytest.raises(KubeconfigError):
        credentials.context()
    home.write()
    home.clock.now += RETRY_AFTER
    assert bearer(credentials) == TOKEN


def test_the_package_missing_is_said(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the kubernetes package, the error names what to install."""
    monkeypatch.setitem(sys.modules, "kubernetes.config", None)
    monkeypatch.delitem(sys.modules, "checks.kube.kubeconfig_login", raising=False)
    assert home.refused().endswith("is missing: pip install kubernetes")


def test_the_clock_goes_on() -> None:
    """The clock is in seconds and does not go back."""
    before = kubeconfig.seconds_since_boot()
    assert before <= kubeconfig.seconds_since_boot() < before + 60
    assert kubeconfig.seconds_since_boot() >= time.monotonic() - 60
