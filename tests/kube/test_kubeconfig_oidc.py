"""Tokens of an OpenID Connect issuer in a kubeconfig, renewed at a real issuer over verified TLS."""

from __future__ import annotations

import base64
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checks.kube import kubeconfig
from checks.kube.kubeconfig_login import READ_AGAIN_AFTER
from tests.support.kube import Kube
from tests.support.kube_home import SECRET, Home, answers, bearer
from tests.support.servers import Conversation, Server, answer


def id_token(seconds: float) -> str:
    """Return an ID token that is good for so many seconds (RFC 7519), unsigned: nothing here verifies it."""
    parts = [{"alg": "none"}, {"exp": int(time.time() + seconds), "sub": "me"}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2ln"])


class Issuer:
    """Names its token endpoint, and gives a token for a refresh token, with the next refresh token."""

    def __init__(self, kube: Kube) -> None:
        self.token = id_token(3600)
        self.bodies: list[str] = []
        context = kube.authority.issue("issuer", "127.0.0.1").server_context()
        self.server = Server(self.serve, context=context)

    def serve(self, conversation: Conversation) -> None:
        """Serve one connection."""
        while head := conversation.read_head().decode():
            if head.startswith("POST"):
                length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
                self.bodies.append(conversation.sock.recv(length).decode())
                said = {"access_token": "x", "token_type": "bearer", "id_token": self.token, "refresh_token": "next"}
            else:
                said = {"token_endpoint": self.server.url("/token")}
            conversation.send(answer("200 OK", "Content-Type: application/json", body=json.dumps(said).encode()))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A kubeconfig for a served cluster."""
    kube = Kube(tmp_path)
    with kube.server:
        yield Home(tmp_path, kube)


@pytest.fixture
def issuer(home: Home) -> Iterator[Issuer]:
    """An issuer whose certificate the cluster's CA signed."""
    issuer = Issuer(home.kube)
    with issuer.server:
        yield issuer


def settings(home: Home, issuer: Issuer, token: str, **more: str) -> dict[str, str]:
    """Set up a user of that issuer, and return its settings."""
    found = {
        "idp-issuer-url": issuer.server.url(""),
        "client-id": "kubenurse",
        "client-secret": SECRET,
        "id-token": token,
        "refresh-token": "the-first",
        **more,
    }
    home.user = {"auth-provider": {"name": "oidc", "config": found}}
    home.kube.server.tokens = {token, issuer.token}
    return found


def on_disk(home: Home) -> dict[str, Any]:
    """Return the user's settings in the file, which is YAML once it was written."""
    import yaml

    found: dict[str, Any] = yaml.safe_load(home.file.read_text())["users"][0]["user"]["auth-provider"]["config"]
    return found


def test_a_token_that_is_good_is_sent(home: Home, issuer: Issuer) -> None:
    """While the token in the file is good, the issuer is not asked."""
    token = id_token(1800)
    settings(home, issuer, token)
    credentials = home.load()
    assert bearer(credentials) == token
    assert answers(credentials)
    assert issuer.server.connections == 0


@pytest.mark.parametrize("inline", [False, True])
def test_an_expired_token_is_renewed_at_its_issuer(home: Home, issuer: Issuer, inline: bool) -> None:
    """The issuer gives a new token, which is saved in the file with the next refresh token, as kubectl does."""
    authority = {"idp-certificate-authority": str(home.kube.authority.file)}
    if inline:
        encoded = base64.b64encode(home.kube.authority.pem.encode()).decode()
        authority = {"idp-certificate-authority-data": encoded}
    before = settings(home, issuer, id_token(-60), **authority)
    credentials = home.load()
    assert bearer(credentials) == issuer.token
    assert answers(credentials)
    assert "refresh_token=the-first" in issuer.bodies[0]
    assert on_disk(home) == {**before, "id-token": issuer.token, "refresh-token": "next"}


@pytest.mark.parametrize("more", [{}, {"idp-certificate-authority": ""}, {"idp-certificate-authority-data": ""}])
def test_an_issuer_that_cannot_be_verified_gets_nothing(home: Home, issuer: Issuer, more: dict[str, str]) -> None:
    """An issuer without a CA of its own is verified by the system's CAs, and gets no secret if they do not know it."""
    settings(home, issuer, id_token(-60), **more)
    home.write()
    before = home.file.read_text()
    home.refused()
    assert issuer.server.received == []
    assert home.file.read_text() == before


@pytest.mark.parametrize("more", [{}, {"idp-certificate-authority": ""}])
def test_an_issuer_that_the_system_knows_is_asked(
    home: Home, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, more: dict[str, str]
) -> None:
    """An issuer that the system's CAs know renews the token; no CA is written into the file."""
    monkeypatch.setenv("SSL_CERT_FILE", str(home.kube.authority.file))
    before = settings(home, issuer, id_token(-60), **more)
    assert bearer(home.load()) == issuer.token
    assert on_disk(home) == {**before, "id-token": issuer.token, "refresh-token": "next"}


def test_a_token_that_expires_later_is_renewed(home: Home, issuer: Issuer) -> None:
    """The file is read again within a minute; a token that has expired by then is renewed."""
    token = id_token(1800)
    authority = str(home.kube.authority.file)
    settings(home, issuer, token, **{"idp-certificate-authority": authority})
    credentials = home.load()
    settings(home, issuer, id_token(-60), **{"idp-certificate-authority": authority})
    home.write()
    home.clock.now += READ_AGAIN_AFTER
    assert bearer(credentials) == issuer.token


def test_renewed_tokens_are_saved_where_the_user_is(home: Home, issuer: Issuer) -> None:
    """Of several files the one that holds the user is replaced, through a symbolic link, with its mode."""
    authority = {"idp-certificate-authority": str(home.kube.authority.file)}
    before = settings(home, issuer, id_token(-60), **authority)
    home.write()
    first = home.directory / "first"
    first.write_text(json.dumps({"current-context": "work"}))
    link = home.directory / "link"
    link.symlink_to(home.file)
    home.file.chmod(0o640)
    found = kubeconfig.load([first, link])
    assert found is not None
    assert bearer(found) == issuer.token
    assert link.is_symlink()
    assert stat.S_IMODE(home.file.stat().st_mode) == 0o640
    assert on_disk(home) == {**before, "id-token": issuer.token, "refresh-token": "next"}
    assert json.loads(first.read_text()) == {"current-context": "work"}


def test_renewed_tokens_that_cannot_be_saved_are_used(
    home: Home, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    """The token is good all the same; a line of the log says that it was not saved, and not what it is."""
    settings(home, issuer, id_token(-60), **{"idp-certificate-authority": str(home.kube.authority.file)})
    # A temporary file beside it would have a name that is too long.
    home.file = home.directory / ("x" * 250)
    assert bearer(home.load()) == issuer.token
    [record] = [each for each in caplog.records if each.getMessage() == "renewed tokens not saved"]
    assert record.__dict__["facts"] == {"file": str(home.file), "why": "File name too long"}
