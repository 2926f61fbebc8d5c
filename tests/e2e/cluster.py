"""The whole cluster: network, API server, Services, DNS, ingress, agents, and a neighbour of the Go kind."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from checks.model import API_SERVER_DIRECT, API_SERVER_DNS, ME_INGRESS, ME_SERVICE
from sandbox.apiserver import ApiServer
from sandbox.certificates import CertificateAuthority, ServiceAccountDirectory
from sandbox.objects import LABELS, NAMESPACE, make_node, make_pod
from tests.e2e import dns, ingress, services
from tests.e2e.namespaces import exclusively
from tests.e2e.network import GATEWAY_NUMBER, Addresses, Member, Network
from tests.e2e.nginx import write_configuration
from tests.e2e.nodes import PORT, Node
from tests.e2e.processes import Processes
from tests.e2e.services import Endpoint, Service
from tests.e2e.watcher import DISCOVERY, Timeline, Watcher
from tests.support.waiting import PROCESS_START, until

# This variable names a directory for the logs of all parts.
KEEP_LOGS = "KUBENURSE_E2E_LOGS"
DIRECTORY_PREFIX = "kubenurse-e2e-"
AGENTS = 5
INTERVAL = 1.0
TIMEOUT = 1.0
# This node's Pod has an IPv6 address in the API, so the cluster is dual-stack in both directions.
IPV6_NODE = 4
GO_NUMBER = 9
GO_NODE = "node-go"
API_PORT = 6443
# An extra check, of something outside the cluster.
OUTSIDE = "outside"
FIXED_TYPES = (API_SERVER_DIRECT, API_SERVER_DNS, ME_INGRESS, ME_SERVICE, OUTSIDE, DISCOVERY)

API_IP = Addresses("10.96.0.1", "fd00:10:96::1")
DNS_IP = Addresses("10.96.0.10", "fd00:10:96::a")
KUBENURSE_IP = Addresses("10.96.0.80", "fd00:10:96::50")
SERVICE_NAME = f"kubenurse.{NAMESPACE}.svc.{dns.DOMAIN}"
API_FULL_NAME = f"kubernetes.default.svc.{dns.DOMAIN}"
API_NAMES = (API_FULL_NAME, "kubernetes.default.svc", "kubernetes.default", "kubernetes")


class Cluster:
    """The running cluster, made by ``running_cluster``. Faults are injected through its attributes."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        self.directory = directory
        self.processes = processes
        self.network = Network(directory)
        self.plane = self.network.join("plane", GATEWAY_NUMBER)
        self.dns_member = self.network.join("dns", GATEWAY_NUMBER - 1)
        self.ingress_member = self.network.join("ingress", GATEWAY_NUMBER - 2)
        self.prometheus_member = self.network.join("prometheus", GATEWAY_NUMBER - 3)
        self.members = [self.network.join(f"node-{number}", number) for number in range(1, AGENTS + 1)]
        self.go = self.network.join(GO_NODE, GO_NUMBER)
        self.network.finish()
        self.authority = CertificateAuthority(directory / "pki")
        self._start_api_server()
        self._start_services()
        self._start_ingress()
        self.timeline = Timeline()
        self.nodes = [self._make_node(member) for member in self.members]
        self.by_name = {node.name: node for node in self.nodes}

    def _start_api_server(self) -> None:
        certificate = self.authority.issue("api-server", *API_NAMES, API_IP.v4, API_IP.v6)
        self.token = "the-first-token"
        self.api = ApiServer("::", API_PORT, context=certificate.server_context(), tokens={self.token})
        self.start_api_server()

    def start_api_server(self) -> None:
        """Start the API server, or start it again."""
        self.plane.namespace.call(self.api.start)

    def _start_services(self) -> None:
        self._ready: dict[str, Addresses] = {}
        self.kubernetes = Service("kubernetes", API_IP, 443, endpoints=(Endpoint(self.plane.host, API_PORT),))
        self.kube_dns = Service("kube-dns", DNS_IP, 53, ("udp", "tcp"), (Endpoint(self.dns_member.host, 53),))
        self.kubenurse = Service("kubenurse", KUBENURSE_IP, PORT)
        for member in (*self.members, self.ingress_member):
            services.prepare(member.namespace)
        names = {API_FULL_NAME: API_IP, SERVICE_NAME: KUBENURSE_IP, ingress.HOST: self.ingress_member.host}
        names[ingress.OUTSIDE_HOST] = self.ingress_member.host
        self.dns = dns.Dns(self.dns_member, self.processes, names)

    def _start_ingress(self) -> None:
        self.ingress_certificate = self.authority.issue("ingress", ingress.HOST)
        self.ingress = ingress.Ingress(
            self.ingress_member, self.processes, self.ingress_certificate, KUBENURSE_IP, PORT
        )

    def _make_node(self, member: Member) -> Node:
        version = 6 if member.number == IPV6_NODE else 4
        account = ServiceAccountDirectory(
            member.namespace.directory / "account", token=self.token, ca=self.authority.pem, namespace=NAMESPACE
        )
        member.namespace.write_resolv_conf(dns.resolv_conf(NAMESPACE, DNS_IP.of_family(version)))
        environ = {
            "HOME": str(member.namespace.directory),
            "KUBERNETES_SERVICE_HOST": API_IP.of_family(version),
            "KUBERNETES_SERVICE_PORT": "443",
            "KUBENURSE_SERVICEACCOUNT_DIR": str(account.path),
            "KUBENURSE_NEIGHBOUR_FILTER": ",".join(f"{key}={value}" for key, value in LABELS.items()),
            "KUBENURSE_SERVICE_URL": f"http://{SERVICE_NAME}:{PORT}",
            "KUBENURSE_INGRESS_URL": f"https://{ingress.HOST}",
            "KUBENURSE_EXTRA_CHECKS": f"{OUTSIDE}:http://{ingress.OUTSIDE_HOST}/",
            "KUBENURSE_EXTRA_CA": str(self.authority.file),
            "KUBENURSE_CHECK_INTERVAL": f"{INTERVAL:g}s",
            "KUBENURSE_CHECK_TIMEOUT": f"{TIMEOUT:g}s",
            "KUBENURSE_SHUTDOWN_DURATION": f"{INTERVAL:g}s",
        }
        return Node(member, self, self.processes, account, environ, version)

    def start_agents(self) -> None:
        """Start the Go neighbour and all agents, and wait until they see each other."""
        self._start_go_neighbour()
        self.install_services()
        for node in self.nodes:
            node.create_pod()
        for node in self.nodes:
            node.become_ready()

    def _start_go_neighbour(self) -> None:
        """Start a Pod that answers as kubenurse v1.15 does: 200, empty, without further headers."""
        configuration = write_configuration(self.go.namespace.directory, _GO_SERVER.format(port=PORT))
        self.processes.start("nginx", self.go.namespace, ["nginx", "-c", str(configuration)])
        addresses = self.go.pod_addresses(1)
        self.go.move_pod(addresses)
        self.api.put("nodes", make_node(GO_NODE, ip=self.go.host.v4))
        self.api.put("pods", make_pod("kubenurse-go", GO_NODE, addresses.v4, host_ip=self.go.host.v4))

    def service_endpoints(self) -> tuple[Endpoint, ...]:
        """Return the endpoints that the kubenurse Service should have."""
        return tuple(Endpoint(addresses, PORT) for addresses in self._ready.values())

    def set_ready(self, node: str, addresses: Addresses | None) -> None:
        """Change the kubenurse Service's endpoints on all nodes."""
        if addresses is None:
            self._ready.pop(node, None)
        else:
            self._ready[node] = addresses
        self.install_services()

    def install_services(
        self, kubenurse: tuple[Endpoint, ...] | None = None, kube_dns: tuple[Endpoint, ...] | None = None
    ) -> None:
        """Install the rules on all nodes. Endpoints given here replace those of their Service."""
        rules = (
            self.kubernetes,
            self.kube_dns if kube_dns is None else self.kube_dns.with_endpoints(kube_dns),
            self.kubenurse.with_endpoints(self.service_endpoints() if kubenurse is None else kubenurse),
        )
        for member in (*self.members, self.ingress_member):
            services.install(member.namespace, rules)

    def expected_types(self, node: Node) -> set[str]:
        """Return the types that a node's agent checks when nothing is wrong."""
        others = {other.path_type for other in self.nodes if other is not node and not other.cordoned}
        return {*FIXED_TYPES, *others, f"path_{GO_NODE}"}

    def calm(self, since: float) -> bool:
        """Tell whether every agent has exactly the expected checks, all ok, with results since a moment (epoch)."""
        return not self.complaints(since)

    def complaints(self, since: float) -> list[str]:
        """Return the reasons why the cluster is not calm."""
        latest = self.timeline.latest()
        found = []
        for node in self.nodes:
            shown = {kind for name, kind in latest if name == node.name}
            if shown != self.expected_types(node):
                found.append(f"{node.name} shows {sorted(shown)}, not {sorted(self.expected_types(node))}")
        for (name, kind), seen in latest.items():
            if not seen.ok:
                found.append(f"{name} {kind}: {seen.state}")
            elif kind != DISCOVERY and seen.started_at < since:
                found.append(f"{name} {kind}: no result since")
        return found

    def wait_calm(self, timeout: float = 30.0) -> None:
        """Wait until a whole round of all agents is ok."""
        since = time.time()
        if not self.timeline.wait_for(lambda: self.calm(since), timeout):
            raise AssertionError(f"not calm after {timeout:g} s: " + "; ".join(self.complaints(since)))


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Build the cluster, wait until it is healthy, and remove everything in the end."""
    processes = Processes()
    with contextlib.ExitStack() as stack:
        stack.enter_context(exclusively())
        for left in Path(tempfile.gettempdir()).glob(DIRECTORY_PREFIX + "*"):  # by a run that crashed
            shutil.rmtree(left, ignore_errors=True)
        directory = Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        if keep := os.environ.get(KEEP_LOGS):
            stack.callback(_keep_logs, directory, Path(keep))
        stack.callback(processes.close)
        cluster = Cluster(directory, processes)
        stack.callback(cluster.api.stop)
        cluster.start_agents()
        for node in cluster.nodes:
            stack.callback(Watcher(node, cluster.timeline).close)
        until(lambda: len({node for node, _ in cluster.timeline.latest()}) == AGENTS, PROCESS_START)
        cluster.wait_calm()
        yield cluster


def _keep_logs(directory: Path, where: Path) -> None:
    for log in directory.glob("*/*.log"):
        where.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, where / f"{log.parent.name}-{log.name}")


_GO_SERVER = """
  server {{
    listen {port};
    listen [::]:{port};
    server_tokens off;
    location = /alwayshappy {{ return 200; }}
    location / {{ return 404; }}
  }}
"""
