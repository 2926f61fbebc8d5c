"""The ingress: nginx terminates TLS and passes requests to the kubenurse Service; and its faults."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from sandbox.certificates import Certificate
from tests.e2e.network import Addresses, Member
from tests.e2e.nginx import write_configuration
from tests.e2e.processes import Processes

HOST = "kubenurse.example"
# Something outside the cluster, without TLS.
OUTSIDE_HOST = "outside.example"
LOGIN_URL = "https://login.example/start"
# Nothing listens there, so that nginx answers 502 by itself.
_NOBODY = "http://127.0.0.1:9"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The behaviour of the ingress: its certificate, and the destination of a request."""

    certificate: Certificate
    dead_backend: bool = False
    redirect_to: str = ""


class Ingress:
    """nginx on a member, in front of a Service's cluster IP; ``right`` is its behaviour without a fault."""

    def __init__(
        self, member: Member, processes: Processes, certificate: Certificate, service: Addresses, port: int
    ) -> None:
        self._namespace = member.namespace
        self._upstream = f"http://{service.v4}:{port}"
        self.right = Behaviour(certificate)
        configuration = self._write(self.right)
        self._process = processes.start("nginx", self._namespace, ["nginx", "-c", str(configuration)])

    def become(self, behaviour: Behaviour) -> None:
        """Change the behaviour for new connections. Open connections keep the old behaviour."""
        self._write(behaviour)
        self._process.signal(signal.SIGHUP)

    def _write(self, behaviour: Behaviour) -> Path:
        answer = f"proxy_pass {_NOBODY if behaviour.dead_backend else self._upstream};"
        if behaviour.redirect_to:
            answer = f"return 302 {behaviour.redirect_to};"
        servers = _SERVERS.format(
            chain=behaviour.certificate.chain,
            key=behaviour.certificate.key,
            answer=answer,
            outside=OUTSIDE_HOST,
        )
        return write_configuration(self._namespace.directory, servers)


_SERVERS = """
  server {{
    listen 80;
    listen [::]:80;
    server_name {outside};
    location / {{ return 200; }}
  }}
  server {{
    listen 443 ssl;
    listen [::]:443 ssl;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    location / {{
      {answer}
      proxy_connect_timeout 2s;
      proxy_set_header Host $host;
    }}
  }}
"""
