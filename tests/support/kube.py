"""The sandbox's API server for tests, and a server that gives the answers of a test."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from checks.kube.client import Event, KubeApi, Object
from checks.kube.credentials import ServiceAccount
from checks.kube.errors import KINDS, ApiError
from sandbox.apiserver import ApiServer
from sandbox.certificates import CertificateAuthority, ServiceAccountDirectory
from sandbox.listener import Listener
from sandbox.objects import NAMESPACE, make_pod
from tests.support.servers import answer

TOKEN = "the-token"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


class Kube:
    """An API server on loopback, and a service account that may read it."""

    def __init__(self, directory: Path, address: str = "127.0.0.1", **options: Any) -> None:
        self.authority = CertificateAuthority(directory / "authority")
        certificate = self.authority.issue("api", address, "localhost")
        self.server = ApiServer(address, context=certificate.server_context(), tokens=[TOKEN], **options)
        self.account = ServiceAccountDirectory(
            directory / "account", token=TOKEN, ca=self.authority.pem, namespace=NAMESPACE
        )

    def credentials(self) -> ServiceAccount:
        """Return the service account."""
        return ServiceAccount(self.server.address, self.server.port, self.account.path)

    def client(self, **options: Any) -> KubeApi:
        """Return a client with that service account and short timeouts."""
        return KubeApi(self.credentials(), **{"connect_timeout": 5.0, "request_timeout": 5.0, **options})

    def put_pods(self, *names: str, **fields: Any) -> None:
        """Put a Pod for each name. Each has a node of its own."""
        for name in names:
            number = int(name.rpartition("-")[2])
            self.server.put("pods", make_pod(name, f"node-{number}", f"10.0.{number // 256}.{number % 256}", **fields))


class ScriptedServer(Listener):
    """Reads one request of each TLS connection, sends the next of ``answers`` and closes. The last answer is repeated.

    With ``wait`` it closes after the client has closed. ``heard`` holds the requests.
    """

    def __init__(self, context: ssl.SSLContext, *answers: bytes, wait: bool = False) -> None:
        super().__init__("scripted", "127.0.0.1")
        self.context = context
        self.answers = list(answers)
        self.wait = wait
        self.heard: list[bytes] = []

    def handle_connection(self, connection: socket.socket, client_address: Any) -> None:
        """Serve one connection."""
        connection.settimeout(20)
        tls = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self.track(tls):
            tls.do_handshake()
            heard = b""
            while b"\r\n\r\n" not in heard:
                data = tls.recv(65536)
                if not data:
                    return
                heard += data
            self.heard.append(heard)
            tls.sendall(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
            if self.wait:
                tls.recv(1)


class Scripted:
    """A scripted server, and a service account whose API server it is."""

    def __init__(self, directory: Path, *answers: bytes, wait: bool = False) -> None:
        self.authority = CertificateAuthority(directory / "authority")
        certificate = self.authority.issue("api", "127.0.0.1", "api.example")
        self.server = ScriptedServer(certificate.server_context(), *answers, wait=wait)
        self.account = ServiceAccountDirectory(
            directory / "account", token=TOKEN, ca=self.authority.pem, namespace=NAMESPACE
        )
        self.credentials = ServiceAccount("127.0.0.1", self.server.port, self.account.path)

    def client(self, **options: Any) -> KubeApi:
        """Return a client with that service account, and short timeouts."""
        return KubeApi(self.credentials, **{"connect_timeout": 5.0, "request_timeout": 5.0, **options})


def document_answer(document: object, *headers: str, status: str = "200 OK") -> bytes:
    """Return an answer with a JSON document."""
    return answer(status, *headers, body=json.dumps(document).encode())


def stream_answer(*events: object, headers: str = "", end: bool = True) -> bytes:
    """Return the answer of a watch, with each event in a chunk. Without ``end``, the body has no end."""
    lines = [json.dumps(event).encode() + b"\n" for event in events]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in lines)
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{headers}\r\n".encode()
    return head + chunks + (b"0\r\n\r\n" if end else b"")


class Read(NamedTuple):
    """A page that was read to its end."""

    items: list[Object]
    resource_version: str
    first: bool


def read(api: KubeApi, **params: str) -> Iterator[Read]:
    """Yield the pages of the Pods' list, each read to its end."""
    for page in api.list_pages(PODS, params):
        yield Read(list(page.items), page.resource_version, page.first)


def pages(api: KubeApi, **params: str) -> list[Read]:
    """Return all pages of the Pods' list."""
    return list(read(api, **params))


def watched(api: KubeApi, since: str = "7") -> list[Event]:
    """Return all events of a watch that ends by itself."""
    with api.watch(PODS, {}, since) as events:
        return list(events)


def failure(call: Callable[[], object]) -> ApiError:
    """Return the error that a call raises."""
    with pytest.raises(ApiError) as caught:
        call()
    assert caught.value.kind in KINDS
    assert TOKEN not in str(caught.value)
    return caught.value
