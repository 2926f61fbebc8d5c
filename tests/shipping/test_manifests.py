"""The kustomizations: built by the real kustomize, valid, admissible, and in step with what the agent does."""

from __future__ import annotations

import base64
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from checks import __version__
from checks.config.load import load
from checks.config.selector import parse_selector
from checks.config.settings import Config
from checks.web.endpoints import ENDPOINTS
from kubenurse import make_agent
from sandbox.labels import match
from tests.support import rendering
from tests.support.kube import Kube
from tests.support.rendering import MANIFESTS, ROOT, Object, against_restricted, build, container, environment, of, one
from tools import image, shipped_rules

OVERLAYS = sorted(path.parent.name for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))
COMPONENTS = sorted(path.parent.name for path in MANIFESTS.glob("components/*/kustomization.yaml"))
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "PriorityClass"}
TLS_DIRECTORY = "/etc/kubenurse/tls"


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the manifests with a single file to vendor, which a clean checkout has not built."""
    copy = tmp_path_factory.mktemp("checkout") / "kubenurse" / "manifests"
    shutil.copytree(MANIFESTS, copy)
    with zipfile.ZipFile(copy / "components/vendored/kubenurse.pyz", "w") as archive:
        archive.writestr("__main__.py", "print('kubenurse')\n")
    return copy


@pytest.fixture(scope="module", params=["base", *(f"overlays/{name}" for name in OVERLAYS)])
def kustomization(request: pytest.FixtureRequest) -> str:
    """Each kustomization that is there to be applied."""
    return str(request.param)


@pytest.fixture(scope="module")
def objects(manifests: Path, kustomization: str) -> list[Object]:
    """What it makes."""
    return build(manifests / kustomization)


@pytest.fixture(scope="module")
def base(manifests: Path) -> list[Object]:
    """What the base makes."""
    return build(manifests / "base")


def test_the_overlays_are_those_that_the_readme_explains() -> None:
    """Every overlay is in the README's table, and nothing else is."""
    rows = re.findall(r"^\| `overlays/([a-z-]+)` \|", (MANIFESTS / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == OVERLAYS


def test_every_object_is_valid(objects: list[Object]) -> None:
    """The schemas of an old and a new Kubernetes, which know no unknown field, have nothing against any object."""
    assert rendering.problems(objects) == []


def test_the_schemas_do_object(base: list[Object]) -> None:
    """A misspelt field and a wrong type are found, so that the test above can fail."""
    pod = rendering.pod_spec(base)
    wrong = {**one(base, "DaemonSet")}
    wrong["spec"] = {**wrong["spec"], "template": {"spec": {**pod, "enableServiceLink": False, "hostNetwork": "no"}}}
    found = "\n".join(rendering.problems([wrong]))
    assert "enableServiceLink" in found
    assert "'no' is not of type" in found


def test_everything_is_in_one_namespace(objects: list[Object]) -> None:
    """All that has a namespace is in kube-system, also what bindings name, and all carries the label."""
    assert {each["metadata"].get("namespace") for each in objects if each["kind"] not in CLUSTER_WIDE} == {
        "kube-system"
    }
    subjects = [subject for each in objects for subject in each.get("subjects", ())]
    assert {subject["namespace"] for subject in subjects} == {"kube-system"}
    assert {each["metadata"]["labels"]["app.kubernetes.io/name"] for each in objects} == {"kubenurse"}


def test_the_pods_are_restricted(objects: list[Object], kustomization: str) -> None:
    """The Pods meet the Pod security standard "restricted", but for hostNetwork where that is the purpose."""
    expected = ["hostNetwork"] if kustomization == "overlays/host-network" else []
    assert list(against_restricted(rendering.pod_spec(objects))) == expected


def test_nothing_can_be_written_and_every_user_is_named(objects: list[Object]) -> None:
    """The root file system and all mounts are read-only, and the user is a number that no image can change."""
    own = container(objects)
    assert own["securityContext"]["readOnlyRootFilesystem"] is True
    assert all(mount["readOnly"] for mount in own.get("volumeMounts", ()))
    assert rendering.pod_spec(objects)["securityContext"]["runAsUser"] > 0


def test_only_the_daemonset_gets_the_token(objects: list[Object]) -> None:
    """The service account mounts no token of itself; the DaemonSet's Pods ask for it."""
    assert one(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    assert rendering.pod_spec(objects)["automountServiceAccountToken"] is True


def test_rbac_grants_what_the_agent_asks_for(objects: list[Object], tmp_path: Path) -> None:
    """An agent with the rendered environment asks the API server for exactly what the roles allow."""
    kube = Kube(tmp_path)
    with kube.server:
        environ = environment(objects) | {
            "KUBERNETES_SERVICE_HOST": kube.server.address,
            "KUBERNETES_SERVICE_PORT": str(kube.server.port),
            "KUBENURSE_SERVICEACCOUNT_DIR": str(kube.account.path),
        }
        agent = make_agent(load(_with_certificate(environ, kube)))
        try:
            agent.start_discovery()
            wanted = rendering.granted(objects)
            for verb, resource, _ in wanted:
                path = f"/{resource}"
                assert kube.server.wait_for_request(lambda r, v=verb, p=path: r.verb == v and r.path.endswith(p))  # type: ignore[misc] # the defaults bind now
        finally:
            agent.close()
        asked = {(request.verb, *_resource(request.path)) for request in kube.server.requests}
    assert asked == wanted


def _resource(path: str) -> tuple[str, str]:
    found = re.fullmatch(r"/api/v1(?:/namespaces/([^/]+))?/([a-z]+)", path)
    assert found, path
    return found[2], found[1] or ""


def _with_certificate(environ: dict[str, str], kube: Kube) -> dict[str, str]:
    """Let what the Secret would hold be where the environment says, below another directory."""
    certificate = kube.authority.issue("kubenurse", "kubenurse")
    files = {f"{TLS_DIRECTORY}/tls.crt": str(certificate.chain), f"{TLS_DIRECTORY}/tls.key": str(certificate.key)}
    return {name: files.get(value, value) for name, value in environ.items()}


def _config(objects: Sequence[Object], tmp_path: Path) -> Config:
    return load(_with_certificate(environment(objects), Kube(tmp_path)))


def test_the_agent_takes_the_environment(objects: list[Object], kustomization: str, tmp_path: Path) -> None:
    """The agent's own parser takes every variable, knows all of them, and reads what the overlay is for."""
    config = _config(objects, tmp_path)
    assert config.warnings == ()
    assert config.pod_name == "kubenurse-x7k2p"
    assert config.node_name == "node-1"
    assert config.namespace == "kube-system"
    assert config.service_url == "http://kubenurse.kube-system.svc:8080"
    assert config.ingress_url == ""
    assert config.allow_unschedulable is (kustomization == "overlays/no-nodes")
    assert config.use_tls is config.insecure is (kustomization == "overlays/tls")
    assert config.listen_address == ("10.0.0.7" if kustomization == "overlays/host-network" else "")


def test_neighbours_are_the_daemonsets_pods(objects: list[Object], tmp_path: Path) -> None:
    """The neighbour filter, the selectors of DaemonSet and Services and those of the policies all match the Pods."""
    labels = one(objects, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
    assert match(parse_selector(_config(objects, tmp_path).neighbour_filter), labels)
    selectors = [
        one(objects, "DaemonSet")["spec"]["selector"]["matchLabels"],
        *(each["spec"]["selector"] for each in of(objects, "Service")),
        *(each["spec"]["podSelector"]["matchLabels"] for each in of(objects, "NetworkPolicy")),
        *(each["spec"]["selector"]["matchLabels"] for each in of(objects, "PodMonitor")),
    ]
    assert len(selectors) >= 3
    assert all(selector.items() <= labels.items() for selector in selectors)


def test_ports_lead_to_where_the_agent_listens(objects: list[Object], tmp_path: Path) -> None:
    """Services, ingress and probes lead to the ports and paths that the agent serves."""
    config, own = _config(objects, tmp_path), container(objects)
    ports = {port["name"]: port["containerPort"] for port in own["ports"]}
    assert ports == {"http": config.port} | ({"https": config.tls_port} if config.use_tls else {})
    services = {each["metadata"]["name"]: each["spec"] for each in of(objects, "Service")}
    assert services.keys() == {"kubenurse", "kubenurse-headless"}
    for spec in services.values():
        assert {port["targetPort"] for port in spec["ports"]} == ports.keys()
    assert services["kubenurse-headless"]["clusterIP"] == "None"
    assert [port["port"] for port in services["kubenurse"]["ports"] if port["name"] == "http"] == [8080]
    for probe, path in (("readinessProbe", "/ready"), ("livenessProbe", "/alwayshappy")):
        assert own[probe]["httpGet"] == {"path": path, "port": "http"}
        assert path in ENDPOINTS
    (rule,), (secured,) = (one(objects, "Ingress")["spec"][name] for name in ("rules", "tls"))
    assert secured == {"hosts": [rule["host"]]}
    assert rule["http"]["paths"] == [
        {
            "path": "/alwayshappy",
            "pathType": "Exact",
            "backend": {"service": {"name": "kubenurse", "port": {"name": "http"}}},
        }
    ]


def test_the_pod_may_end_in_peace(objects: list[Object], tmp_path: Path) -> None:
    """Kubernetes waits longer than the agent serves after SIGTERM, and takes the update strategy (not both numbers)."""
    grace = rendering.pod_spec(objects)["terminationGracePeriodSeconds"]
    assert grace >= _config(objects, tmp_path).shutdown_duration + 5
    rolling = one(objects, "DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]
    assert sorted(str(number) != "0" for number in rolling.values()) == [False, True]


def test_a_reviewer_finds_the_rest(objects: list[Object]) -> None:
    """No service links in the environment, Linux nodes only, requests and a memory limit, fewer DNS searches."""
    spec, own = rendering.pod_spec(objects), container(objects)
    assert spec["enableServiceLinks"] is False
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert spec["dnsConfig"]["options"] == [{"name": "ndots", "value": "3"}]
    assert own["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in own["resources"]["limits"]
    assert {each["key"] for each in spec["tolerations"]} == {
        "node-role.kubernetes.io/control-plane",
        "node-role.kubernetes.io/master",
    }


def test_the_image_is_of_this_version(base: list[Object]) -> None:
    """The image is the one that ``make image`` builds, of the version of the code beside it."""
    assert container(base)["image"] == f"{image.NAME}:{__version__}"


def test_no_nodes_needs_nothing_of_the_cluster(manifests: Path) -> None:
    """Who may administer only the namespace can apply the overlay no-nodes."""
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
    """The overlay vendored mounts the very file and starts it with a stock Python image."""
    objects = build(manifests / "overlays/vendored")
    own, (volume,) = container(objects), rendering.pod_spec(objects)["volumes"]
    (mount,) = own["volumeMounts"]
    data = one(objects, "ConfigMap", volume["configMap"]["name"])["binaryData"]
    file = manifests / "components/vendored/kubenurse.pyz"
    assert {name: base64.b64decode(text) for name, text in data.items()} == {file.name: file.read_bytes()}
    assert own["command"] == ["python3", "-I", "-S", f"{mount['mountPath']}/{file.name}"]
    assert own["image"].startswith("docker.io/library/python:3.")


def test_tls_serves_what_the_certificate_is_for(manifests: Path, tmp_path: Path) -> None:
    """The certificate's Secret is mounted where the settings look for it, readable by the agent's group alone."""
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
    assert files == {environ["KUBENURSE_CERT_FILE"], environ["KUBENURSE_CERT_KEY"]}


def test_network_policy_opens_the_agents_ports(manifests: Path, tmp_path: Path) -> None:
    """Neighbours may come in on the ports that agents serve, and go out to them, to DNS, API server and ingress."""
    objects = build(manifests / "overlays/network-policy")
    spec = one(objects, "NetworkPolicy")["spec"]
    config = _config(objects, tmp_path)
    assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} == {config.port, config.tls_port}
    outgoing = {(port["protocol"], port["port"]) for rule in spec["egress"] for port in rule["ports"]}
    assert outgoing >= {("TCP", config.port), ("TCP", config.tls_port), ("TCP", 443), ("TCP", 6443), ("UDP", 53)}
    # Also by the ports of common ingress controllers' own Pods, to which their Service leads.
    (anywhere,) = (
        {port["port"] for port in rule["ports"]}
        for rule in spec["egress"]
        if {"port": 443, "protocol": "TCP"} in rule["ports"]
    )
    assert anywhere == {443, 6443, 80, 8443, 8080, 8000}


def test_the_operator_gets_the_rules_of_the_project(manifests: Path) -> None:
    """The PrometheusRule holds what rules/kubenurse.rules.yml does: python -m tools.shipped_rules makes it so."""
    rules = (ROOT / shipped_rules.RULES).read_text()
    for path, text in shipped_rules.shipped(rules):
        assert (ROOT / path).read_text() == text, f"{path}: run python -m tools.shipped_rules"
    rule = one(build(manifests / "overlays/prometheus-operator"), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(rules)


def test_the_operator_scrapes_each_agent_once(manifests: Path, tmp_path: Path) -> None:
    """Either monitor selects one way to each agent, and both name the node."""
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
    """Build the base with these components."""
    document = {
        "resources": ["../kubenurse/manifests/base"],
        "components": [f"../kubenurse/manifests/components/{name}" for name in components],
    }
    return _built_beside(manifests, tmp_path, yaml.safe_dump(document))


def _built_beside(manifests: Path, tmp_path: Path, kustomization: str) -> list[Object]:
    """Build a kustomization in a directory of its own beside the checkout."""
    directory = manifests.parent.parent / tmp_path.name
    directory.mkdir()
    (directory / "kustomization.yaml").write_text(kustomization)
    return build(directory)


@pytest.mark.parametrize("reverse", [False, True], ids=["in order", "reversed"])
def test_components_go_together(manifests: Path, tmp_path: Path, reverse: bool) -> None:
    """All components at once, in whatever order, make valid objects that the agent can run with."""
    objects = _combined(manifests, tmp_path, *sorted(COMPONENTS, reverse=reverse))
    assert rendering.problems(objects) == []
    config = _config(objects, tmp_path)
    assert config.warnings == ()
    assert config.use_tls
    assert config.allow_unschedulable
    assert config.listen_address
    assert {volume["name"] for volume in rendering.pod_spec(objects)["volumes"]} == {"tls", "pyz"}


@pytest.mark.parametrize("guide", ["manifests/README.md", "docs/install.md"])
def test_the_kustomization_in_a_guide_works(guide: str, manifests: Path, tmp_path: Path) -> None:
    """The example, in another namespace too, gives what it says."""
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
    """The stock Python of the overlay vendored is the one that the Dockerfile builds on, with the same variables."""
    dockerfile, objects = (ROOT / "Dockerfile").read_text(), build(manifests / "overlays/vendored")
    assert container(objects)["image"] == re.findall(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)[0]
    variables = dict(re.findall(r"^ENV (\w+)=(\S+)$", dockerfile, re.MULTILINE))
    assert variables
    assert environment(objects).items() >= variables.items()


def test_the_user_is_that_of_our_image(base: list[Object]) -> None:
    """The Pods run as the user and group that the Dockerfile sets."""
    (user,) = re.findall(r"^USER (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    context = rendering.pod_spec(base)["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
