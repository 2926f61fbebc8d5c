"""Tokens of an OpenID Connect issuer in a kubeconfig, renewed at a real issuer over verified TLS."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checks.kube.kubeconfig import READ_AGAIN_AFTER
from tests.support.kube import Kube
from tests.support.kube_home import SECRET, Home, answers, bearer
from tests.support.servers import Conversation, Server, answer


def id_token(seconds: float) -> str:
    """Return an ID token that is good for so many seconds (RFC 7519), unsigned: nobody here looks at that."""
    parts = [{"alg": "none"}, {"exp": int(time.time() + seconds), "sub": "me"}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2ln"])


class Issuer:
    """Says where it gives tokens, and gives one for a refresh token, with the next refresh token."""

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
    """Have a user of that issuer, and return its settings."""
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
    """Return the user's settings as they are in the file; what the package writes is YAML."""
    import yaml

    found: dict[str, Any] = yaml.safe_load(home.file.read_text())["users"][0]["user"]["auth-provider"]["config"]
    return found


def test_a_token_that_is_good_is_sent(home: Home, issuer: Issuer) -> None:
    """As long as the token in the file is good, the issuer is not asked."""
    token = id_token(1800)
    settings(home, issuer, token)
    credentials = home.load()
    assert bearer(credentials) == token
    assert answers(credentials)
    assert issuer.server.connections == 0


@pytest.mark.parametrize("inline", [False, True])
def test_an_expired_token_is_renewed_at_its_issuer(home: Home, issuer: Issuer, inline: bool) -> None:
    """The issuer gives a new token, and what it gave is in the file, as kubectl would have left it."""
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
    """An issuer without a CA of its own is held to the system's: no secret goes to one that those do not know."""
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
    """An issuer whose certificate the system's CAs signed renews the token, and the file gets no CA that it had not."""
    monkeypatch.setenv("SSL_CERT_FILE", str(home.kube.authority.file))
    before = settings(home, issuer, id_token(-60), **more)
    assert bearer(home.load()) == issuer.token
    assert on_disk(home) == {**before, "id-token": issuer.token, "refresh-token": "next"}


def test_a_token_that_expires_later_is_renewed(home: Home, issuer: Issuer) -> None:
    """The file is read again within a minute, and a token that has become old by then is renewed."""
    token = id_token(1800)
    authority = str(home.kube.authority.file)
    settings(home, issuer, token, **{"idp-certificate-authority": authority})
    credentials = home.load()
    settings(home, issuer, id_token(-60), **{"idp-certificate-authority": authority})
    home.write()
    home.clock.now += READ_AGAIN_AFTER
    assert bearer(credentials) == issuer.token
