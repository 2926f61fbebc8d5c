"""The Helm chart, rendered by the real helm with many values files: each result is valid, and the agent accepts it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from checks.config.selector import parse_selector
from checks.config.variables import VARIABLES
from sandbox.certificates import CertificateAuthority
from sandbox.labels import match
from tests.support import rendering
from tests.support.chart import agent_config
from tests.support.rendering import (
    CHART,
    Object,
    container,
    helm,
    of,
    one,
    pod_spec,
    template,
)

VALUES = Path(__file__).resolve().parent / "values"


# Values files that operators can have. Each result must be valid, and the agent must accept it.
MATRIX: dict[str, Object] = {
    "defaults": {},
    "seed": {
        "namespace": "network",
        "serviceAccount": {"name": "nurse"},
        "rbac": {"allow_unschedulable": {"enabled": True}},
        "ingress": {"enabled": False},
    },
    "texts for booleans and numbers": {
        "insecure": "false",
        "use_tls": "false",
        "allow_unschedulable": "yes",
        "neighbour_limit": "5",
        "service": {"port": "80"},
        "daemonset": {"rollingUpdate": {"maxUnavailable": "1"}},
    },
    "nothing but the agent's own defaults": {
        **dict.fromkeys(["check_interval", "check_timeout", "cache_ttl", "shutdown_duration", "trace_events"]),
        **dict.fromkeys(["insecure", "kubernetes_service_dns", "neighbour_filter", "log_level", "log_format"]),
        "ingress": {"url": None},
    },
    "annotated": {"daemonset": {"podAnnotations": {"prometheus.io/scrape": "false", "team": "network"}}},
    "host network": {"daemonset": {"hostNetwork": True}, "port": 18080, "networkPolicy": {"enabled": True}},
    "surge": {"daemonset": {"rollingUpdate": {"maxSurge": "10%"}}},
    "one more, please": {"daemonset": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
    "pod monitor": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "relabelings": [{"targetLabel": "zone"}]},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "service monitor": {"serviceMonitor": {"enabled": True}, "service": {"labels": {"app.kubernetes.io/name": "no"}}},
    "policy with TLS": {
        "networkPolicy": {"enabled": True, "extraEgress": [{"ports": [{"protocol": "TCP", "port": 5432}]}]},
        "use_tls": True,
        "tls_secret": "served",
        "tls_port": 9443,
    },
    "OpenShift": {"daemonset": {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}},
    "route of one's own": {"ingress": {"enabled": False, "url": "kubenurse.apps.example.org/base"}},
    "narrow ingress": {"ingress": {"className": "", "path": "/alwayshappy"}},
    "own settings": {
        "check_timeout": "2s500ms",
        "cache_ttl": "0",
        "trace_events": "none",
        "listen_address": "::",
        "log_level": "debug",
        "log_format": "json",
        "http_proxy": "http://proxy.example.org:3128",
        "https_proxy": "http://proxy.example.org:3128",
        "no_proxy": ".svc,10.0.0.0/8",
        "histogram_buckets": 0.5,
    },
    "long names": {"nameOverride": "n" * 63, "fullnameOverride": "f" * 63},
}


@pytest.fixture(scope="module", params=[*MATRIX, "v1.15", "v1.15-changed"])
def values(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a values file, and the certificates that it names."""
    directory = tmp_path_factory.mktemp("values")
    file = directory / "values.yaml"
    if request.param in MATRIX:
        file.write_text(yaml.safe_dump(MATRIX[request.param]))
    else:
        text = (VALUES / f"{request.param}.yaml").read_text()
        file.write_text(text.replace("CERTIFICATES", str(directory)))
        CertificateAuthority(directory).issue("tls", "kubenurse")
    return file


@pytest.fixture(scope="module")
def objects(values: Path) -> list[Object]:
    """Return the objects that the chart makes of the values file."""
    return template("--values", str(values))


def test_helm_finds_nothing_to_object_to(values: Path) -> None:
    """``helm lint --strict`` accepts the chart with each values file."""
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "--values", str(values))


def test_every_object_is_valid(objects: list[Object]) -> None:
    """Each object is valid by the strict schemas of an old and a new Kubernetes; names and labels are short enough."""
    assert rendering.problems(objects) == []
    for each in objects:
        assert len(each["metadata"]["name"]) <= (253 if "Cluster" in each["kind"] else 63)
        assert all(len(value) <= 63 for value in each["metadata"].get("labels", {}).values())


def test_the_agent_takes_the_environment(objects: list[Object]) -> None:
    """The agent's own parser accepts every variable and knows every name."""
    config = agent_config(objects)
    assert config.warnings == ()
    assert config.namespace == one(objects, "DaemonSet")["metadata"]["namespace"]
    assert (config.pod_name, config.node_name) == ("kubenurse-x7k2p", "node-1")
    names = [variable["name"] for variable in container(objects)["env"]]
    assert len(names) == len(set(names))
    assert set(names) <= {variable.name for variable in VARIABLES} | {"GOMAXPROCS"}


def test_roles_are_what_the_agent_asks_for(objects: list[Object]) -> None:
    """The roles grant list and watch on Pods, and on nodes unless cordoned nodes are checked too; nothing else."""
    config = agent_config(objects)
    wanted = {(verb, "pods", config.namespace) for verb in ("list", "watch")}
    if not config.allow_unschedulable:
        wanted |= {("list", "nodes", ""), ("watch", "nodes", "")}
    assert rendering.granted(objects) == wanted


def test_everything_finds_its_pods_and_ports(objects: list[Object]) -> None:
    """Filter, selectors, Services, ingress, probes and policy match the Pods and their ports."""
    daemonset, config = one(objects, "DaemonSet"), agent_config(objects)
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    if config.neighbour_filter:
        assert match(parse_selector(config.neighbour_filter), labels)
    assert daemonset["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}
    assert ports["http"] == config.port
    services = of(objects, "Service")
    assert sorted(each["spec"].get("clusterIP", "") for each in services) == ["", "None"]
    for each in services:
        assert each["spec"]["selector"].items() <= labels.items()
        assert {port["targetPort"] for port in each["spec"]["ports"]} == ports.keys()
    for ingress in of(objects, "Ingress"):
        backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        service = one(objects, "Service", backend["name"])
        # A port name needs a letter here, and 8080-8080 has none. The schemas do not know that rule.
        assert backend["port"] == {"number": service["spec"]["ports"][0]["port"]}
        host = ingress["spec"]["rules"][0]["host"]
        assert config.ingress_url in ("", f"https://{host}")
        # The check uses https, with the controller's own certificate if there is no other.
        assert [each["hosts"] for each in ingress["spec"].get("tls", ())] == ([[host]] if host else [])
    for policy in of(objects, "NetworkPolicy"):
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        assert [port["port"] for port in policy["spec"]["ingress"][0]["ports"]] == list(ports.values())
        (outwards,) = ({port["port"] for port in rule["ports"]} for rule in policy["spec"]["egress"] if _has_443(rule))
        assert outwards == {443, 6443, 80, 8443, 8080, 8000}


def _has_443(rule: Object) -> bool:
    return any(port["port"] == 443 for port in rule["ports"])


def test_each_agent_is_scraped_by_annotations_or_by_a_monitor(objects: list[Object]) -> None:
    """The Pods have annotations for Prometheus unless the chart makes a monitor."""
    annotations = one(objects, "DaemonSet")["spec"]["template"]["metadata"].get("annotations", {})
    found = {name: value for name, value in annotations.items() if name.startswith("prometheus.io/")}
    if of(objects, "PodMonitor") or of(objects, "ServiceMonitor"):
        assert found.keys() <= {"prometheus.io/scrape"}
    else:
        where = {"port": str(agent_config(objects).port), "path": "/metrics", "scheme": "http"}
        assert found.items() >= {f"prometheus.io/{name}": value for name, value in where.items()}.items()
        assert found["prometheus.io/scrape"] == ("false" if annotations.get("team") else "true")


def test_monitors_find_each_agent_once(objects: list[Object]) -> None:
    """A ServiceMonitor selects the headless Service only, a PodMonitor the Pods, and their ports exist."""
    for monitor in of(objects, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"].items()
        (service,) = (each for each in of(objects, "Service") if selector <= each["metadata"]["labels"].items())
        assert service["spec"]["clusterIP"] == "None"
        assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    for monitor in of(objects, "PodMonitor"):
        labels = one(objects, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_pods_are_restricted_unless_told_otherwise(objects: list[Object]) -> None:
    """The Pods meet the Pod security standard "restricted", except for hostNetwork when a value sets it."""
    spec = pod_spec(objects)
    assert list(rendering.against_restricted(spec)) == (["hostNetwork"] if "hostNetwork" in spec else [])
    assert container(objects)["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is True


def test_the_grace_period_outlasts_the_shutdown(objects: list[Object]) -> None:
    """Kubernetes waits longer than the agent serves after SIGTERM; one number of the update strategy is 0."""
    assert pod_spec(objects)["terminationGracePeriodSeconds"] == int(agent_config(objects).shutdown_duration) + 10
    rolling = one(objects, "DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]
    assert sorted(str(number) != "0" for number in rolling.values()) == [False, True]
