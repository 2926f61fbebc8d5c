"""Every kustomization, built by the real kustomize: valid, admissible, and in step with the agent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from checks import __version__
from checks.config.load import load
from checks.config.selector import parse_selector
from checks.web.endpoints import ENDPOINTS
from kubenurse import make_agent
from sandbox.labels import match
from tests.support import rendering
from tests.support.kube import Kube
from tests.support.kustomization import CLUSTER_WIDE, agent_config, with_certificate
from tests.support.rendering import MANIFESTS, ROOT, Object, against_restricted, build, container, environment, of, one
from tools import image

OVERLAYS = sorted(path.parent.name for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))


@pytest.fixture(scope="module", params=["base", *(f"overlays/{name}" for name in OVERLAYS)])
def kustomization(request: pytest.FixtureRequest) -> str:
    """Return the path of each kustomization that operators apply."""
    return str(request.param)


@pytest.fixture(scope="module")
def objects(manifests: Path, kustomization: str) -> list[Object]:
    """Return the objects of the kustomization."""
    return build(manifests / kustomization)


@pytest.fixture(scope="module")
def base(manifests: Path) -> list[Object]:
    """Return the objects of the base."""
    return build(manifests / "base")


def test_the_overlays_are_those_that_the_readme_explains() -> None:
    """The README's table lists every overlay and nothing else."""
    rows = re.findall(r"^\| `overlays/([a-z-]+)` \|", (MANIFESTS / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == OVERLAYS


def test_every_object_is_valid(objects: list[Object]) -> None:
    """Each object is valid by the strict schemas of an old and a new Kubernetes."""
    assert rendering.problems(objects) == []


def test_the_schemas_do_object(base: list[Object]) -> None:
    """The schemas find a misspelt field and a wrong type, so the test above can fail."""
    pod = rendering.pod_spec(base)
    wrong = {**one(base, "DaemonSet")}
    wrong["spec"] = {**wrong["spec"], "template": {"spec": {**pod, "enableServiceLink": False, "hostNetwork": "no"}}}
    found = "\n".join(rendering.problems([wrong]))
    assert "enableServiceLink" in found
    assert "'no' is not of type" in found


def test_everything_is_in_one_namespace(objects: list[Object]) -> None:
    """All objects and the subjects of all bindings are in kube-system, and all objects carry the label."""
    assert {each["metadata"].get("namespace") for each in objects if each["kind"] not in CLUSTER_WIDE} == {
        "kube-system"
    }
    subjects = [subject for each in objects for subject in each.get("subjects", ())]
    assert {subject["namespace"] for subject in subjects} == {"kube-system"}
    assert {each["metadata"]["labels"]["app.kubernetes.io/name"] for each in objects} == {"kubenurse"}


def test_the_pods_are_restricted(objects: list[Object], kustomization: str) -> None:
    """The Pods meet the Pod security standard "restricted", except in the overlay host-network."""
    expected = ["hostNetwork"] if kustomization == "overlays/host-network" else []
    assert list(against_restricted(rendering.pod_spec(objects))) == expected


def test_nothing_can_be_written_and_every_user_is_named(objects: list[Object]) -> None:
    """The root file system and all mounts are read-only, and the user is a fixed number."""
    own = container(objects)
    assert own["securityContext"]["readOnlyRootFilesystem"] is True
    assert all(mount["readOnly"] for mount in own.get("volumeMounts", ()))
    assert rendering.pod_spec(objects)["securityContext"]["runAsUser"] > 0


def test_only_the_daemonset_gets_the_token(objects: list[Object]) -> None:
    """The service account mounts no token by default; the DaemonSet's Pods mount it."""
    assert one(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    assert rendering.pod_spec(objects)["automountServiceAccountToken"] is True


def test_rbac_grants_what_the_agent_asks_for(objects: list[Object], tmp_path: Path) -> None:
    """An agent with the rendered environment requests exactly what the roles allow."""
    kube = Kube(tmp_path)
    with kube.server:
        environ = environment(objects) | {
            "KUBERNETES_SERVICE_HOST": kube.server.address,
            "KUBERNETES_SERVICE_PORT": str(kube.server.port),
            "KUBENURSE_SERVICEACCOUNT_DIR": str(kube.account.path),
        }
        agent = make_agent(load(with_certificate(environ, kube)))
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


def test_the_agent_takes_the_environment(objects: list[Object], kustomization: str, tmp_path: Path) -> None:
    """The agent's own parser accepts every variable, knows every name, and reads the overlay's settings."""
    config = agent_config(objects, tmp_path)
    assert config.warnings == ()
    assert config.pod_name == "kubenurse-x7k2p"
    assert config.node_name == "node-1"
    assert config.namespace == "kube-system"
    assert config.service_url == "http://kubenurse.kube-system.svc:8080"
    assert config.ingress_url == ""
    assert config.allow_unschedulable is (kustomization == "overlays/no-nodes")
    assert config.use_tls is (kustomization == "overlays/tls")
    assert not config.insecure
    assert config.listen_address == ("10.0.0.7" if kustomization == "overlays/host-network" else "")


def test_neighbours_are_the_daemonsets_pods(objects: list[Object], tmp_path: Path) -> None:
    """The neighbour filter and all selectors match the Pods."""
    labels = one(objects, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
    assert match(parse_selector(agent_config(objects, tmp_path).neighbour_filter), labels)
    selectors = [
        one(objects, "DaemonSet")["spec"]["selector"]["matchLabels"],
        *(each["spec"]["selector"] for each in of(objects, "Service")),
        *(each["spec"]["podSelector"]["matchLabels"] for each in of(objects, "NetworkPolicy")),
        *(each["spec"]["selector"]["matchLabels"] for each in of(objects, "PodMonitor")),
    ]
    assert len(selectors) >= 3
    assert all(selector.items() <= labels.items() for selector in selectors)


def test_ports_lead_to_where_the_agent_listens(objects: list[Object], tmp_path: Path) -> None:
    """Services, ingress and probes use ports and paths that the agent serves."""
    config, own = agent_config(objects, tmp_path), container(objects)
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


def test_the_grace_period_outlasts_the_shutdown(objects: list[Object], tmp_path: Path) -> None:
    """Kubernetes waits longer than the agent serves after SIGTERM; one number of the update strategy is 0."""
    grace = rendering.pod_spec(objects)["terminationGracePeriodSeconds"]
    assert grace >= agent_config(objects, tmp_path).shutdown_duration + 5
    rolling = one(objects, "DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]
    assert sorted(str(number) != "0" for number in rolling.values()) == [False, True]


def test_pods_run_where_and_with_what_they_need(objects: list[Object]) -> None:
    """The Pods have no service links, run on Linux nodes, have requests and a memory limit, and search DNS less."""
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


def test_an_apply_on_either_side_agrees(objects: list[Object]) -> None:
    """Each fieldRef has the apiVersion that the API server adds, so both kinds of apply send the same object."""
    references = [
        variable["valueFrom"]["fieldRef"] for variable in container(objects)["env"] if "valueFrom" in variable
    ]
    assert len(references) >= 3
    assert all(reference["apiVersion"] == "v1" for reference in references)


def test_the_image_is_of_this_version(base: list[Object]) -> None:
    """The image is the one that ``make image`` builds, with the version of the code."""
    assert container(base)["image"] == f"{image.NAME}:{__version__}"


def test_the_user_is_that_of_our_image(base: list[Object]) -> None:
    """The Pods run as the user and group of the Dockerfile."""
    (user,) = re.findall(r"^USER (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    context = rendering.pod_spec(base)["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
