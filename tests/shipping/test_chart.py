"""The Helm chart: rendered by the real helm from many values, each result valid and taken by the agent."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from checks import __version__
from checks.config.load import load
from checks.config.selector import parse_selector
from checks.config.settings import Config
from checks.config.variables import VARIABLES
from sandbox.certificates import CertificateAuthority
from sandbox.labels import match
from tests.support import rendering
from tests.support.rendering import (
    CHART,
    ROOT,
    Object,
    container,
    environment,
    helm,
    of,
    one,
    pod_spec,
    refused,
    template,
)
from tools import chart_readme, image, shipped_rules

VALUES = Path(__file__).resolve().parent / "values"

# Values of all kinds, each a file that an operator may have; the result has to be valid and to run.
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
    """A values file; where it names certificates, they are there."""
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
    """What the chart makes of it."""
    return template("--values", str(values))


def _set(**values: object) -> list[str]:
    """Return the arguments of helm that set values, whose paths have ``__`` for dots."""
    return [
        argument
        for name, value in values.items()
        for argument in ("--set-json", f"{name.replace('__', '.')}={json.dumps(value)}")
    ]


def _config(objects: list[Object]) -> Config:
    """Return the configuration of the agent; what the Secret of ``tls_secret`` would hold is not looked at."""
    environ = environment(objects)
    if environ.get("KUBENURSE_CERT_FILE", "").startswith("/etc/kubenurse/tls/"):
        environ["KUBENURSE_USE_TLS"] = "false"
    return load(environ)


def test_helm_finds_nothing_to_object_to(values: Path) -> None:
    """``helm lint --strict`` accepts the chart with each values file."""
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "--values", str(values))


def test_every_object_is_valid(objects: list[Object]) -> None:
    """The schemas of an old and a new Kubernetes, which know no unknown field, have nothing against any object."""
    assert rendering.problems(objects) == []
    for each in objects:
        assert len(each["metadata"]["name"]) <= (253 if "Cluster" in each["kind"] else 63)
        assert all(len(value) <= 63 for value in each["metadata"].get("labels", {}).values())


def test_the_agent_takes_the_environment(objects: list[Object]) -> None:
    """The agent's own parser accepts every variable and knows each that has its prefix."""
    config = _config(objects)
    assert config.warnings == ()
    assert config.namespace == one(objects, "DaemonSet")["metadata"]["namespace"]
    assert (config.pod_name, config.node_name) == ("kubenurse-x7k2p", "node-1")
    names = [variable["name"] for variable in container(objects)["env"]]
    assert len(names) == len(set(names))
    assert set(names) <= {variable.name for variable in VARIABLES} | {"GOMAXPROCS"}


def test_roles_are_what_the_agent_asks_for(objects: list[Object]) -> None:
    """Pods of the namespace, and nodes unless the agent checks those on cordoned nodes too; nothing else."""
    config = _config(objects)
    wanted = {(verb, "pods", config.namespace) for verb in ("list", "watch")}
    if not config.allow_unschedulable:
        wanted |= {("list", "nodes", ""), ("watch", "nodes", "")}
    assert rendering.granted(objects) == wanted


def test_everything_finds_its_pods_and_ports(objects: list[Object]) -> None:
    """Filter, selectors, Services, ingress, probes and policy fit the Pods and what they serve."""
    daemonset, config = one(objects, "DaemonSet"), _config(objects)
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
        # Kubernetes takes no name without a letter here, such as 8080-8080, and the schemas don't know.
        assert backend["port"] == {"number": service["spec"]["ports"][0]["port"]}
        host = ingress["spec"]["rules"][0]["host"]
        assert config.ingress_url in ("", f"https://{host}")
        # It is asked by https, with the controller's own certificate where there is no other.
        assert [each["hosts"] for each in ingress["spec"].get("tls", ())] == ([[host]] if host else [])
    for policy in of(objects, "NetworkPolicy"):
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        assert [port["port"] for port in policy["spec"]["ingress"][0]["ports"]] == list(ports.values())
        (outwards,) = ({port["port"] for port in rule["ports"]} for rule in policy["spec"]["egress"] if _has_443(rule))
        assert outwards == {443, 6443, 80, 8443, 8080, 8000}


def _has_443(rule: Object) -> bool:
    return any(port["port"] == 443 for port in rule["ports"])


def test_each_agent_is_scraped_by_annotations_or_by_a_monitor(objects: list[Object]) -> None:
    """Without a monitor of the chart the Pods tell Prometheus where they are; with one they do not."""
    annotations = one(objects, "DaemonSet")["spec"]["template"]["metadata"].get("annotations", {})
    found = {name: value for name, value in annotations.items() if name.startswith("prometheus.io/")}
    if of(objects, "PodMonitor") or of(objects, "ServiceMonitor"):
        assert found.keys() <= {"prometheus.io/scrape"}
    else:
        where = {"port": str(_config(objects).port), "path": "/metrics", "scheme": "http"}
        assert found.items() >= {f"prometheus.io/{name}": value for name, value in where.items()}.items()
        assert found["prometheus.io/scrape"] == ("false" if annotations.get("team") else "true")


def test_monitors_find_each_agent_once(objects: list[Object]) -> None:
    """A ServiceMonitor selects the headless Service alone, a PodMonitor the Pods, by ports that are there."""
    for monitor in of(objects, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"].items()
        (service,) = (each for each in of(objects, "Service") if selector <= each["metadata"]["labels"].items())
        assert service["spec"]["clusterIP"] == "None"
        assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    for monitor in of(objects, "PodMonitor"):
        labels = one(objects, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_pods_are_restricted_unless_told_otherwise(objects: list[Object]) -> None:
    """The Pods meet the Pod security standard "restricted", but for hostNetwork where it is asked for."""
    spec = pod_spec(objects)
    assert list(rendering.against_restricted(spec)) == (["hostNetwork"] if "hostNetwork" in spec else [])
    assert container(objects)["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is True


def test_the_pod_may_end_in_peace(objects: list[Object]) -> None:
    """Kubernetes waits longer than the agent serves after SIGTERM, and takes the update strategy (not both numbers)."""
    assert pod_spec(objects)["terminationGracePeriodSeconds"] == int(_config(objects).shutdown_duration) + 10
    rolling = one(objects, "DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]
    assert sorted(str(number) != "0" for number in rolling.values()) == [False, True]


def test_values_of_1_15_say_what_they_said() -> None:
    """With the values of 1.15 and their defaults the agent gets what the Go kubenurse got."""
    objects = template("--values", str(VALUES / "v1.15.yaml"), namespace="monitoring")
    config = _config(objects)
    assert config.ingress_url == "https://dummy-kubenurse.example.com"
    assert config.service_url == "http://kubenurse.monitoring.svc.cluster.local:8080"
    assert config.namespace == "monitoring"
    assert config.neighbour_filter == "app.kubernetes.io/name=kubenurse"
    assert config.api_dns == "kubernetes.default.svc.cluster.local"
    assert config.insecure
    assert not config.expose_metadata
    assert one(objects, "Ingress")["spec"]["ingressClassName"] == "nginx"
    assert [port["name"] for port in one(objects, "Service", "kubenurse")["spec"]["ports"]] == ["8080-8080"]
    assert container(objects)["image"] == f"postfinance/kubenurse:{__version__}"


def test_the_defaults_are_those_of_1_15() -> None:
    """Every value of 1.15 has its default here, but for the image and what is no longer left open."""
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
    """With none of the values of 1.15 at its default, each shows where it belongs."""
    CertificateAuthority(tmp_path).issue("tls", "kubenurse")
    file = tmp_path / "values.yaml"
    file.write_text((VALUES / "v1.15-changed.yaml").read_text().replace("CERTIFICATES", str(tmp_path)))
    objects = template("--values", str(file))
    _assert_configured(_config(objects), tmp_path)
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
    """The names of the seed's chart that 1.15 has no more: the namespace, and the switch for cordoned nodes."""
    objects = template(*_set(namespace="network", rbac__allow_unschedulable__enabled=True), namespace="default")
    assert {each["metadata"]["namespace"] for each in objects} == {"network"}
    config = _config(objects)
    assert config.namespace == "network"
    assert config.service_url == "http://kubenurse.network.svc.cluster.local:8080"
    assert config.allow_unschedulable


def test_every_variable_can_be_set() -> None:
    """All but four variables of the agent have a value of the chart; those and all others can be in extraEnvs."""
    objects = template(
        *_set(
            **dict.fromkeys(["cert_file", "cert_key", "extra_ca"], "/etc/file"),
            **dict.fromkeys(["http_proxy", "https_proxy"], "http://proxy.example.org:3128"),
            no_proxy=".svc",
            extra_checks="one:http://one.example.org",
            histogram_buckets="1,2",
            listen_address="10.0.0.1",
        )
    )
    by_values = {variable["name"] for variable in container(objects)["env"]}
    by_environment = {
        "KUBERNETES_SERVICE_HOST",
        "KUBERNETES_SERVICE_PORT",
        "KUBENURSE_SERVICEACCOUNT_DIR",
        "KUBECONFIG",
    }
    names = {variable.name for variable in VARIABLES}
    assert by_values == names - by_environment
    given = [{"name": name, "value": f"of {name}"} for name in sorted(names)]
    assert container(template(*_set(daemonset__extraEnvs=given)))["env"] == given


def test_the_default_filter_goes_with_the_name() -> None:
    """The Pods' label and the default filter both follow nameOverride; a filter of one's own stays."""
    assert _config(template(*_set(nameOverride="nurse"))).neighbour_filter == "app.kubernetes.io/name=nurse"
    objects = template(*_set(nameOverride="nurse", neighbour_filter="app=nurse"))
    assert _config(objects).neighbour_filter == "app=nurse"


def test_two_releases_share_nothing_of_the_cluster() -> None:
    """Releases of one name in two namespaces have ClusterRoles of their own."""
    names = {one(template(namespace=each), "ClusterRole")["metadata"]["name"] for each in ("one", "two")}
    assert len(names) == 2


def test_a_mounted_secret_is_served() -> None:
    """tls_secret mounts the Secret, readable by the agent's group alone, and names its files."""
    objects = template(*_set(use_tls=True, tls_secret="served"))
    environ, (volume,) = environment(objects), pod_spec(objects)["volumes"]
    (mount,) = container(objects)["volumeMounts"]
    assert volume["secret"] == {"secretName": "served", "defaultMode": 0o440}
    assert environ["KUBENURSE_CERT_FILE"] == f"{mount['mountPath']}/tls.crt"
    assert environ["KUBENURSE_CERT_KEY"] == f"{mount['mountPath']}/tls.key"
    assert environ["KUBENURSE_USE_TLS"] == "true"


def test_host_network_listens_on_the_nodes_address_only() -> None:
    """Under hostNetwork the agent binds its Pod's address, unless told another, and resolves names as Pods do."""
    objects = template(*_set(daemonset__hostNetwork=True))
    assert _config(objects).listen_address == "10.0.0.7"
    assert pod_spec(objects)["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert _config(template(*_set(daemonset__hostNetwork=True, listen_address="::"))).listen_address == "::"


def test_the_rules_are_the_projects() -> None:
    """The PrometheusRule holds rules/kubenurse.rules.yml, Prometheus' templates untouched, runbooks where one says."""
    rules = yaml.safe_load((ROOT / shipped_rules.RULES).read_text())
    assert one(template(*_set(prometheusRule__enabled=True)), "PrometheusRule")["spec"] == rules
    arguments = _set(prometheusRule__enabled=True, prometheusRule__runbookPrefix="https://git.example.org/")
    prefixed = one(template(*arguments), "PrometheusRule")["spec"]["groups"]
    runbooks = [rule["annotations"]["runbook_url"] for group in prefixed for rule in group["rules"] if "alert" in rule]
    assert runbooks
    assert all(each.startswith("https://git.example.org/docs/runbooks/") for each in runbooks)


GROUPS = ["", "daemonset.", "daemonset.image.", "daemonset.rollingUpdate.", "serviceAccount.", "rbac.", "service."]
GROUPS += [
    "rbac.allow_unschedulable.",
    "ingress.",
    "serviceMonitor.",
    "podMonitor.",
    "prometheusRule.",
    "networkPolicy.",
]


@pytest.mark.parametrize("group", GROUPS)
def test_a_misspelt_value_is_refused(group: str) -> None:
    """A value that the chart does not know is an error that names it, in every group."""
    assert "'enabeld' not allowed" in refused("--set", f"{group}enabeld=true")


def test_the_groups_are_all_of_them() -> None:
    """The test above knows every group that values.yaml has."""
    paths = [path for path, _ in chart_readme.documented((CHART / "values.yaml").read_text())]
    assert {"".join(f"{name}." for name in path[:-1]) for path in paths} | {"rbac."} == set(GROUPS)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (_set(check_interval="5"), "/check_interval"),
        (_set(neighbour_limit=-1), "/neighbour_limit"),
        (_set(neighbour_limit=None), "missing property 'neighbour_limit'"),
        (_set(port=70000), "/port"),
        (_set(ingress=None), "missing property 'ingress'"),
        (_set(daemonset__image=None), "missing property 'image'"),
        (_set(rbac__allow_unschedulable=None), "missing property 'allow_unschedulable'"),
        (_set(service__labels=None), "missing property 'labels'"),
        (_set(insecure="maybe"), "/insecure"),
        (_set(log_level="verbose"), "/log_level"),
        (_set(service__name="Web"), "/service/name"),
        (_set(ingress__url="https://kubenurse.example.org"), "/ingress/url"),
        (_set(daemonset__containerImagePullPolicy="Sometimes"), "/daemonset/containerImagePullPolicy"),
        (_set(daemonset__extraEnvs=[{"value": "1"}]), "missing property 'name'"),
        (_set(use_tls=True), "set tls_secret, or cert_file"),
        (_set(use_tls=True, cert_file="/tls.crt"), "set tls_secret, or cert_key"),
        (_set(podMonitor__enabled=True, serviceMonitor__enabled=True), "choose one"),
        (_set(daemonset__hostNetwork=True, daemonset__rollingUpdate__maxSurge=1), "has to be 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_is_refused(arguments: list[str], complaint: str) -> None:
    """What cannot work is refused before anything reaches the cluster, with the value's name."""
    assert complaint in refused(*arguments)


# What port-forward does not reach, since it comes from inside the Pod.
ON_ONE_ADDRESS = [
    "kubectl --namespace network exec daemonset/kubenurse -- kubenurse status",
    "kubectl get --raw /api/v1/namespaces/network/pods/POD:8080/proxy/alive",
]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ["localhost/kubenurse-python, which no registry has", "ingress.url is the default", "podMonitor.enabled"]),
        (_set(daemonset__image__repository="postfinance/kubenurse"), ["that is the Go kubenurse"]),
        (_set(use_tls=True, tls_secret="served", insecure=False), ["have to name the Pods' addresses"]),
        (_set(daemonset__hostNetwork=True), ON_ONE_ADDRESS),
        (_set(listen_address="192.0.2.7"), ON_ONE_ADDRESS),
        (_set(daemonset__hostNetwork=True, listen_address="::"), ["ingress.url is the default"]),
        (
            _set(
                daemonset__image__repository="registry.example.org/kubenurse-python",
                ingress__url="kubenurse.example.org",
                podMonitor__enabled=True,
            ),
            [],
        ),
    ],
    ids=["defaults", "the Go image", "TLS", "host network", "one address", "all addresses", "settled"],
)
def test_the_notes_tell_what_is_left_to_do(arguments: list[str], told: list[str], tmp_path: Path) -> None:
    """The notes say where to look, and warn of what will not work as it is; they say nothing needless."""
    # Helm shows notes at an installation only; in this copy of the chart they are a document like the others.
    copy = Path(shutil.copytree(CHART, tmp_path / "kubenurse"))
    (copy / "templates" / "NOTES.txt").rename(copy / "NOTES.txt")
    (copy / "templates" / "notes.yaml").write_text('notes: {{ tpl (.Files.Get "NOTES.txt") . | toJson }}\n')
    arguments = ["--namespace", "network", "--show-only", "templates/notes.yaml", *arguments]
    notes = " ".join(yaml.safe_load(helm("template", "kubenurse", str(copy), *arguments))["notes"].split())
    assert ("kubectl --namespace network port-forward daemonset/kubenurse 8080" in notes) is (told != ON_ONE_ADDRESS)
    for each in told:
        assert each in notes
    if not told:
        assert "NOTE" not in notes
        assert "podMonitor" not in notes


@pytest.mark.parametrize("guide", ["helm/kubenurse/README.md", "docs/install.md"])
def test_the_values_in_a_guide_are_enough(guide: str, tmp_path: Path) -> None:
    """The example is taken, and gives an ingress and an image of one's own."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / guide).read_text(), re.DOTALL)
    (example,) = (block for block in blocks if block.startswith("daemonset:"))
    file = tmp_path / "values.yaml"
    file.write_text(example)
    objects = template("--values", str(file))
    assert container(objects)["image"] == f"registry.example.org/kubenurse-python:{__version__}"
    assert _config(objects).ingress_url == f"https://{one(objects, 'Ingress')['spec']['rules'][0]['host']}"


def test_the_chart_is_of_this_version() -> None:
    """Chart and appVersion are the version of the code beside it, which is the image's default tag."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
    assert container(template())["image"] == f"{image.NAME}:{__version__}"


def test_the_readme_has_every_value() -> None:
    """The README's table is made of values.yaml: python -m tools.chart_readme makes it so."""
    readme, values = (CHART / "README.md").read_text(), (CHART / "values.yaml").read_text()
    assert chart_readme.with_table(readme, values) == readme, "run python -m tools.chart_readme"
    documented = {".".join(path) for path, _ in chart_readme.documented(values)}
    assert len(re.findall(r"^\| `", readme, re.MULTILINE)) == len(documented)
    for name in yaml.safe_load(values):
        assert any(path == name or path.startswith(f"{name}.") for path in documented), f"{name} has no comment"
