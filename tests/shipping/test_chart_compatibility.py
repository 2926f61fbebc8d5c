"""The values of the charts of kubenurse 1.15 and 1.4 keep their names, defaults and effects."""

from __future__ import annotations

from pathlib import Path

import yaml

from checks import __version__
from checks.config.load import load
from checks.config.settings import Config
from sandbox.certificates import CertificateAuthority
from tests.support.chart import agent_config, set_values
from tests.support.rendering import (
    CHART,
    Object,
    container,
    of,
    one,
    pod_spec,
    template,
)

VALUES = Path(__file__).resolve().parent / "values"


def test_the_agent_gets_what_the_go_kubenurse_got() -> None:
    """With the values of 1.15 and their defaults the settings are the same, except for the Service URL's domain."""
    objects = template("--values", str(VALUES / "v1.15.yaml"), namespace="monitoring")
    config = agent_config(objects)
    assert config.ingress_url == "https://dummy-kubenurse.example.com"
    assert config.service_url == "http://kubenurse.monitoring.svc:8080"
    assert config.namespace == "monitoring"
    assert config.neighbour_filter == "app.kubernetes.io/name=kubenurse"
    assert config.api_dns == "kubernetes.default.svc.cluster.local"
    assert config.insecure
    assert not config.expose_metadata
    assert one(objects, "Ingress")["spec"]["ingressClassName"] == "nginx"
    assert [port["name"] for port in one(objects, "Service", "kubenurse")["spec"]["ports"]] == ["8080-8080"]
    assert container(objects)["image"] == f"postfinance/kubenurse:{__version__}"


def test_the_defaults_are_those_of_1_15() -> None:
    """Every value of 1.15 has its default here, except the image, the security contexts and the resources."""
    theirs = yaml.safe_load((VALUES / "v1.15.yaml").read_text())
    ours = yaml.safe_load((CHART / "values.yaml").read_text())
    closed = {"image", "podSecurityContext", "containerSecurityContext", "containerResources"}
    for name in closed:
        assert ours["daemonset"].pop(name) != theirs["daemonset"].pop(name)
    for name, value in theirs.items():
        assert (value.items() <= ours[name].items()) if isinstance(value, dict) and name != "daemonset" else True
    rolling = {"rollingUpdate": {**theirs["daemonset"].pop("rollingUpdate"), "maxSurge": 0}}
    assert ours["daemonset"].items() >= (theirs["daemonset"] | rolling).items()
    assert {name: ours[name] for name, value in theirs.items() if not isinstance(value, dict)} == {
        name: value for name, value in theirs.items() if not isinstance(value, dict)
    }


def test_each_value_of_1_15_has_its_effect(tmp_path: Path) -> None:
    """With every value of 1.15 changed, each change appears in the right place."""
    CertificateAuthority(tmp_path).issue("tls", "kubenurse")
    file = tmp_path / "values.yaml"
    file.write_text((VALUES / "v1.15-changed.yaml").read_text().replace("CERTIFICATES", str(tmp_path)))
    objects = template("--values", str(file))
    _assert_configured(agent_config(objects), tmp_path)
    _assert_deployed(objects, tmp_path)


def _assert_configured(config: Config, certificates: Path) -> None:
    assert config == load(
        {
            "KUBERNETES_SERVICE_HOST": "10.96.0.1",
            "KUBENURSE_POD_NAME": "kubenurse-x7k2p",
            "KUBENURSE_NODE_NAME": "node-1",
            "KUBENURSE_NAMESPACE": "kube-system",
            "KUBENURSE_INGRESS_URL": "https://kubenurse.example.org",
            "KUBENURSE_SERVICE_URL": "https://kubenurse.example.org:8443/base",
            "KUBERNETES_SERVICE_DNS": "kubernetes.default.svc.cluster.example",
            "KUBENURSE_ALLOW_UNSCHEDULABLE": "true",
            "KUBENURSE_NEIGHBOUR_FILTER": "team in (network),app.kubernetes.io/name=nurse",
            "KUBENURSE_NEIGHBOUR_LIMIT": "1000000",
            "KUBENURSE_HISTOGRAM_BUCKETS": "0.001,0.01,1",
            "KUBENURSE_VICTORIAMETRICS_HISTOGRAM": "true",
            "KUBENURSE_EXTRA_CA": f"{certificates}/tls.crt",
            "KUBENURSE_EXTRA_CHECKS": "registry:https://registry.example.org/v2/|git:https://git.example.org",
            "KUBENURSE_CHECK_API_SERVER_DIRECT": "false",
            "KUBENURSE_CHECK_API_SERVER_DNS": "false",
            "KUBENURSE_CHECK_ME_INGRESS": "false",
            "KUBENURSE_CHECK_ME_SERVICE": "false",
            "KUBENURSE_CHECK_NEIGHBOURHOOD": "false",
            "KUBENURSE_CHECK_INTERVAL": "1m30s",
            "KUBENURSE_REUSE_CONNECTIONS": "true",
            "KUBENURSE_SHUTDOWN_DURATION": "1m1s",
            "KUBENURSE_USE_TLS": "true",
            "KUBENURSE_CERT_FILE": f"{certificates}/tls.crt",
            "KUBENURSE_CERT_KEY": f"{certificates}/tls.key",
            "HTTPS_PROXY": "http://proxy.example.org:3128",
        }
    )


def _assert_deployed(objects: list[Object], certificates: Path) -> None:
    own, spec, daemonset = container(objects), pod_spec(objects), one(objects, "DaemonSet")
    assert own["image"] == "registry.example.org/network/kubenurse-python:2.0.1"
    assert own["imagePullPolicy"] == "Always"
    assert own["resources"]["limits"] == {"memory": "64Mi"}
    assert own["securityContext"]["privileged"] is False
    assert [mount["mountPath"] for mount in own["volumeMounts"]] == [str(certificates)]
    assert spec["volumes"][0]["secret"] == {"secretName": "kubenurse-certificates"}
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["dnsConfig"] == {"options": [{"name": "ndots", "value": "2"}]}
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["serviceAccountName"] == "existing"
    assert not of(objects, "ServiceAccount")
    assert daemonset["metadata"]["name"] == "ward"
    assert daemonset["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == 2
    metadata = daemonset["spec"]["template"]["metadata"]
    assert metadata["labels"].items() >= {"team": "network", "app.kubernetes.io/name": "nurse"}.items()
    assert metadata["annotations"] == {"prometheus.io/scrape": "true"}
    service, ingress, monitor = (one(objects, kind, "ward") for kind in ("Service", "Ingress", "ServiceMonitor"))
    assert service["metadata"]["labels"]["team"] == "network"
    assert service["spec"]["ports"][0] == {"name": "web", "port": 80, "targetPort": "http"}
    assert ingress["metadata"]["annotations"] == {"haproxy.org/ssl-redirect": "true"}
    assert ingress["spec"]["ingressClassName"] == "haproxy"
    assert ingress["spec"]["tls"] == [{"hosts": ["kubenurse.example.org"], "secretName": "kubenurse-ingress"}]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert [each["targetLabel"] for each in monitor["spec"]["endpoints"][0]["relabelings"]] == ["node", "host"]
    assert {each["metadata"]["name"] for each in of(objects, "ConfigMap")} == {"kubenurse-extra", "ward-text"}


def test_settings_of_1_4_still_work() -> None:
    """The chart accepts two values of 1.4 that 1.15 dropped: the namespace and the switch for cordoned nodes."""
    objects = template(*set_values(namespace="network", rbac__allow_unschedulable__enabled=True), namespace="default")
    assert {each["metadata"]["namespace"] for each in objects} == {"network"}
    config = agent_config(objects)
    assert config.namespace == "network"
    assert config.service_url == "http://kubenurse.network.svc:8080"
    assert config.allow_unschedulable
