"""Single overlays and components: each one does what it is for, alone and together with others."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from checks import __version__
from checks.config.load import load
from tests.support import rendering
from tests.support.kustomization import CLUSTER_WIDE, agent_config
from tests.support.rendering import MANIFESTS, ROOT, Object, build, container, environment, of, one
from tools import shipped_rules

COMPONENTS = sorted(path.parent.name for path in MANIFESTS.glob("components/*/kustomization.yaml"))


def test_no_nodes_needs_nothing_of_the_cluster(manifests: Path) -> None:
    """The overlay no-nodes has no object outside the namespace."""
    objects = build(manifests / "overlays/no-nodes")
    assert not CLUSTER_WIDE & {each["kind"] for each in objects}
    assert "priorityClassName" not in rendering.pod_spec(objects)
    assert rendering.granted(objects) == {(verb, "pods", "kube-system") for verb in ("list", "watch")}


def test_constrained_stays_in_64_mebibytes(manifests: Path) -> None:
    """The overlay constrained sets a limit of 64Mi and checks fewer neighbours less often."""
    objects = build(manifests / "overlays/constrained")
    assert container(objects)["resources"]["limits"] == {"cpu": "100m", "memory": "64Mi"}
    config = load(environment(objects))
    assert (config.neighbour_limit, config.check_interval) == (5, 15.0)


def test_vendored_runs_the_single_file(manifests: Path) -> None:
    """The overlay vendored mounts the single file and starts it with a stock Python image."""
    objects = build(manifests / "overlays/vendored")
    own, (volume,) = container(objects), rendering.pod_spec(objects)["volumes"]
    (mount,) = own["volumeMounts"]
    data = one(objects, "ConfigMap", volume["configMap"]["name"])["binaryData"]
    file = manifests / "components/vendored/kubenurse.pyz"
    assert {name: base64.b64decode(text) for name, text in data.items()} == {file.name: file.read_bytes()}
    assert own["command"] == ["python3", "-I", "-S", f"{mount['mountPath']}/{file.name}"]
    assert own["image"].startswith("docker.io/library/python:3.")


def test_tls_serves_and_verifies_the_certificate(manifests: Path) -> None:
    """Pair and CA of the certificate's Secret are where the settings say; the name to verify is one of its names."""
    objects = build(manifests / "overlays/tls")
    certificate = one(objects, "Certificate", "kubenurse-tls")["spec"]
    assert one(objects, "Issuer", certificate["issuerRef"]["name"])
    spec = rendering.pod_spec(objects)
    (volume,), (mount,) = spec["volumes"], container(objects)["volumeMounts"]
    assert volume["secret"]["secretName"] == certificate["secretName"]
    assert volume["secret"]["defaultMode"] == 0o440
    assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]
    environ = environment(objects)
    files = {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
    assert files == {environ[f"KUBENURSE_{name}"] for name in ("CERT_FILE", "CERT_KEY", "EXTRA_CA")}
    assert environ["KUBENURSE_NEIGHBOUR_TLS_NAME"] in certificate["dnsNames"]


def test_network_policy_opens_the_agents_ports(manifests: Path, tmp_path: Path) -> None:
    """The policy allows the agents' ports inwards, and neighbours, DNS, API server and ingress outwards."""
    objects = build(manifests / "overlays/network-policy")
    spec = one(objects, "NetworkPolicy")["spec"]
    config = agent_config(objects, tmp_path)
    assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} == {config.port, config.tls_port}
    outgoing = {(port["protocol"], port["port"]) for rule in spec["egress"] for port in rule["ports"]}
    assert outgoing >= {("TCP", config.port), ("TCP", config.tls_port), ("TCP", 443), ("TCP", 6443), ("UDP", 53)}
    # The ports of common ingress controllers' Pods, behind their Service, are included.
    (anywhere,) = (
        {port["port"] for port in rule["ports"]}
        for rule in spec["egress"]
        if {"port": 443, "protocol": "TCP"} in rule["ports"]
    )
    assert anywhere == {443, 6443, 80, 8443, 8080, 8000}


def test_the_operator_gets_the_rules_of_the_project(manifests: Path) -> None:
    """The copies of rules/kubenurse.rules.yml are those that python -m tools.shipped_rules makes."""
    rules = (ROOT / shipped_rules.RULES).read_text()
    for path, text in shipped_rules.shipped(rules):
        assert (ROOT / path).read_text() == text, f"{path}: run python -m tools.shipped_rules"
    rule = one(build(manifests / "overlays/prometheus-operator"), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(rules)


def test_the_operator_scrapes_each_agent_once(manifests: Path, tmp_path: Path) -> None:
    """Each monitor reaches every agent in one way and adds the label node."""
    pods = one(build(manifests / "overlays/prometheus-operator"), "PodMonitor")["spec"]
    objects = _combined(manifests, tmp_path, "service-monitor")
    services = one(objects, "ServiceMonitor")["spec"]
    selected = services["selector"]["matchLabels"].items()
    found = [
        each["metadata"]["name"] for each in of(objects, "Service") if selected <= each["metadata"]["labels"].items()
    ]
    assert found == ["kubenurse-headless"]
    assert pods["podMetricsEndpoints"] == services["endpoints"]
    (endpoint,) = services["endpoints"]
    assert endpoint["port"] in {port["name"] for port in container(objects)["ports"]}
    assert [each["targetLabel"] for each in endpoint["relabelings"]] == ["node"]


def _combined(manifests: Path, tmp_path: Path, *components: str) -> list[Object]:
    """Build the base with some components."""
    document = {
        "resources": ["../kubenurse/manifests/base"],
        "components": [f"../kubenurse/manifests/components/{name}" for name in components],
    }
    return _built_beside(manifests, tmp_path, yaml.safe_dump(document))


def _built_beside(manifests: Path, tmp_path: Path, kustomization: str) -> list[Object]:
    """Build a kustomization in a directory beside the checkout."""
    directory = manifests.parent.parent / tmp_path.name
    directory.mkdir()
    (directory / "kustomization.yaml").write_text(kustomization)
    return build(directory)


@pytest.mark.parametrize("reverse", [False, True], ids=["in order", "reversed"])
def test_components_go_together(manifests: Path, tmp_path: Path, reverse: bool) -> None:
    """All components together, in any order, make valid objects, and the agent accepts the settings."""
    objects = _combined(manifests, tmp_path, *sorted(COMPONENTS, reverse=reverse))
    assert rendering.problems(objects) == []
    config = agent_config(objects, tmp_path)
    assert config.warnings == ()
    assert config.use_tls
    assert config.allow_unschedulable
    assert config.listen_address
    assert {volume["name"] for volume in rendering.pod_spec(objects)["volumes"]} == {"tls", "pyz"}


@pytest.mark.parametrize("guide", ["manifests/README.md", "docs/install.md"])
def test_the_kustomization_in_a_guide_works(guide: str, manifests: Path, tmp_path: Path) -> None:
    """The guide's example works, also in another namespace."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / guide).read_text(), re.DOTALL)
    (example,) = (block for block in blocks if "kind: Kustomization" in block)
    objects = _built_beside(manifests, tmp_path, example.replace("namespace: kube-system", "namespace: monitoring"))
    assert rendering.problems(objects) == []
    assert "kube-system" not in yaml.safe_dump_all(objects)
    config = load(environment(objects))
    assert config.namespace == "monitoring"
    ingress = one(objects, "Ingress")["spec"]
    (rule,), (secured,) = ingress["rules"], ingress["tls"]
    assert secured == {"hosts": [rule["host"]], "secretName": "kubenurse-ingress"}
    assert ingress["ingressClassName"]
    assert config.ingress_url == f"https://{rule['host']}"
    assert container(objects)["image"] == f"registry.example.org/kubenurse-python:{__version__}"
    assert rendering.granted(objects) >= {("list", "pods", "monitoring"), ("list", "nodes", "")}


def test_vendored_is_as_our_image(manifests: Path) -> None:
    """The overlay vendored uses the Dockerfile's base image and variables."""
    dockerfile, objects = (ROOT / "Dockerfile").read_text(), build(manifests / "overlays/vendored")
    assert container(objects)["image"] == re.findall(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)[0]
    variables = dict(re.findall(r"^ENV (\w+)=(\S+)$", dockerfile, re.MULTILINE))
    assert variables
    assert environment(objects).items() >= variables.items()


def test_the_guide_deletes_unused_settings_only(tmp_path: Path) -> None:
    """The command of manifests/README.md deletes ConfigMaps that no Pod uses, and none when kubectl fails."""
    text = (MANIFESTS / "README.md").read_text().partition("## Settings of earlier rollouts")[2]
    command = "".join(re.findall(r"^    (.*\n)", text.partition("\n## ")[0], re.MULTILINE))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        """#!/bin/sh
case "$*" in
  *"get daemonset"*) test "$WORKS" && echo "kubenurse-new kubenurse-pyz-new" ;;
  *"get configmaps"*) printf 'configmap/%s\n' kubenurse-new kubenurse-old kubenurse-pyz-new kubenurse-pyz-old ;;
  *delete*) printf '%s\\n' "$*" >> "$0.deleted" ;;
esac
"""
    )
    kubectl.chmod(0o755)
    deleted = tmp_path / "kubectl.deleted"
    for works in ("", "yes"):
        environ = {"PATH": f"{tmp_path}:{os.defpath}:/usr/bin:/bin", "WORKS": works}
        subprocess.run(["bash", "-c", command], env=environ, check=False, timeout=30)
        assert deleted.exists() is bool(works)
    assert deleted.read_text() == "-n kube-system delete configmap/kubenurse-old configmap/kubenurse-pyz-old\n"
