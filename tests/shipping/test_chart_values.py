"""Single values of the Helm chart: what they do, which are refused, and what the notes say."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from checks import __version__
from checks.config.variables import VARIABLES
from tests.support.chart import agent_config, set_values
from tests.support.rendering import (
    CHART,
    ROOT,
    container,
    environment,
    helm,
    one,
    pod_spec,
    refused,
    template,
)
from tools import chart_readme, image, shipped_rules


def test_every_variable_can_be_set() -> None:
    """All but four variables of the agent have a value in the chart; extraEnvs accepts every variable."""
    objects = template(
        *set_values(
            **dict.fromkeys(["cert_file", "cert_key", "extra_ca"], "/etc/file"),
            **dict.fromkeys(["http_proxy", "https_proxy"], "http://proxy.example.org:3128"),
            no_proxy=".svc",
            neighbour_tls_name="kubenurse",
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
    assert container(template(*set_values(daemonset__extraEnvs=given)))["env"] == given


def test_the_default_filter_goes_with_the_name() -> None:
    """The Pods' label and the default filter follow nameOverride; another filter stays unchanged."""
    assert agent_config(template(*set_values(nameOverride="nurse"))).neighbour_filter == "app.kubernetes.io/name=nurse"
    objects = template(*set_values(nameOverride="nurse", neighbour_filter="app=nurse"))
    assert agent_config(objects).neighbour_filter == "app=nurse"


def test_two_releases_share_nothing_of_the_cluster() -> None:
    """Releases of the same name in two namespaces have different ClusterRoles."""
    names = {one(template(namespace=each), "ClusterRole")["metadata"]["name"] for each in ("one", "two")}
    assert len(names) == 2


def test_a_mounted_secret_is_served() -> None:
    """tls_secret mounts the Secret, readable by the agent's group alone, and sets the paths of its files."""
    objects = template(*set_values(use_tls=True, tls_secret="served"))
    environ, (volume,) = environment(objects), pod_spec(objects)["volumes"]
    (mount,) = container(objects)["volumeMounts"]
    assert volume["secret"] == {"secretName": "served", "defaultMode": 0o440}
    assert environ["KUBENURSE_CERT_FILE"] == f"{mount['mountPath']}/tls.crt"
    assert environ["KUBENURSE_CERT_KEY"] == f"{mount['mountPath']}/tls.key"
    assert environ["KUBENURSE_USE_TLS"] == "true"


def test_host_network_listens_on_the_nodes_address_only() -> None:
    """Under hostNetwork the agent binds the Pod IP unless listen_address is set, and resolves names as Pods do."""
    objects = template(*set_values(daemonset__hostNetwork=True))
    assert agent_config(objects).listen_address == "10.0.0.7"
    assert pod_spec(objects)["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert agent_config(template(*set_values(daemonset__hostNetwork=True, listen_address="::"))).listen_address == "::"


def test_the_rules_are_the_projects() -> None:
    """The PrometheusRule equals rules/kubenurse.rules.yml; runbookPrefix comes before the runbooks' paths."""
    rules = yaml.safe_load((ROOT / shipped_rules.RULES).read_text())
    assert one(template(*set_values(prometheusRule__enabled=True)), "PrometheusRule")["spec"] == rules
    arguments = set_values(prometheusRule__enabled=True, prometheusRule__runbookPrefix="https://git.example.org/")
    prefixed = one(template(*arguments), "PrometheusRule")["spec"]["groups"]
    runbooks = [rule["annotations"]["runbook_url"] for group in prefixed for rule in group["rules"] if "alert" in rule]
    assert runbooks
    assert all(each.startswith("https://git.example.org/docs/runbooks/") for each in runbooks)


PATHS = [path for path, _ in chart_readme.documented((CHART / "values.yaml").read_text())]
GROUPS = sorted({"".join(f"{name}." for name in path[:depth]) for path in PATHS for depth in range(len(path))})


@pytest.mark.parametrize("group", GROUPS)
def test_a_misspelt_value_is_refused(group: str) -> None:
    """In every group, helm refuses a value that the chart does not know, and names it."""
    assert "'enabeld' not allowed" in refused("--set", f"{group}enabeld=true")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (set_values(check_interval="5"), "/check_interval"),
        (set_values(neighbour_limit=-1), "/neighbour_limit"),
        (set_values(neighbour_limit=None), "missing property 'neighbour_limit'"),
        (set_values(port=70000), "/port"),
        (set_values(ingress=None), "missing property 'ingress'"),
        (set_values(daemonset__image=None), "missing property 'image'"),
        (set_values(rbac__allow_unschedulable=None), "missing property 'allow_unschedulable'"),
        (set_values(service__labels=None), "missing property 'labels'"),
        (set_values(insecure="maybe"), "/insecure"),
        (set_values(log_level="verbose"), "/log_level"),
        (set_values(service__name="Web"), "/service/name"),
        (set_values(ingress__url="https://kubenurse.example.org"), "/ingress/url"),
        (set_values(daemonset__containerImagePullPolicy="Sometimes"), "/daemonset/containerImagePullPolicy"),
        (set_values(daemonset__extraEnvs=[{"value": "1"}]), "missing property 'name'"),
        (set_values(use_tls=True), "set tls_secret, or cert_file"),
        (set_values(use_tls=True, cert_file="/tls.crt"), "set tls_secret, or cert_key"),
        (set_values(podMonitor__enabled=True, serviceMonitor__enabled=True), "choose one"),
        (set_values(daemonset__hostNetwork=True, daemonset__rollingUpdate__maxSurge=1), "has to be 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_is_refused(arguments: list[str], complaint: str) -> None:
    """Helm refuses a value that cannot work, with the value's name, before anything reaches the cluster."""
    assert complaint in refused(*arguments)


# port-forward connects from inside the Pod, where an agent on one address does not listen.
ON_ONE_ADDRESS = [
    "kubectl --namespace network exec daemonset/kubenurse -- kubenurse status",
    "kubectl get --raw /api/v1/namespaces/network/pods/POD:8080/proxy/alive",
]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ["localhost/kubenurse-python, which no registry has", "ingress.url is the default", "podMonitor.enabled"]),
        (set_values(daemonset__image__repository="postfinance/kubenurse"), ["the image of the Go kubenurse"]),
        (set_values(use_tls=True, tls_secret="served", insecure=False), ["have to name the Pods' addresses"]),
        (set_values(use_tls=True, tls_secret="served"), ["do not verify the neighbours' certificates"]),
        (set_values(ready_when_cordoned=True), ["Agents on cordoned nodes stay ready"]),
        (set_values(daemonset__rollingUpdate__maxUnavailable="50%"), ["maxUnavailable (50%)"]),
        (set_values(daemonset__hostNetwork=True), ON_ONE_ADDRESS),
        (set_values(listen_address="192.0.2.7"), ON_ONE_ADDRESS),
        (set_values(daemonset__hostNetwork=True, listen_address="::"), ["ingress.url is the default"]),
        (
            set_values(
                daemonset__image__repository="registry.example.org/kubenurse-python",
                ingress__url="kubenurse.example.org",
                podMonitor__enabled=True,
            ),
            [],
        ),
    ],
    ids=[
        "defaults",
        "the Go image",
        "TLS",
        "insecure TLS",
        "ready when cordoned",
        "not ready when cordoned",
        "host network",
        "one address",
        "all addresses",
        "settled",
    ],
)
def test_the_notes_tell_what_is_left_to_do(arguments: list[str], told: list[str], tmp_path: Path) -> None:
    """The notes show how to see results and warn about values that will not work; settled values give no warning."""
    # helm template leaves the notes out. In this copy of the chart they are an ordinary template.
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
    """Helm accepts the guide's example, which sets the image and the ingress."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / guide).read_text(), re.DOTALL)
    (example,) = (block for block in blocks if block.startswith("daemonset:"))
    file = tmp_path / "values.yaml"
    file.write_text(example)
    objects = template("--values", str(file))
    assert container(objects)["image"] == f"registry.example.org/kubenurse-python:{__version__}"
    assert agent_config(objects).ingress_url == f"https://{one(objects, 'Ingress')['spec']['rules'][0]['host']}"


def test_the_chart_is_of_this_version() -> None:
    """Version and appVersion of the chart are the version of the code, and so is the image's default tag."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
    assert container(template())["image"] == f"{image.NAME}:{__version__}"


def test_the_readme_has_every_value() -> None:
    """The README's table is the one that python -m tools.chart_readme makes from values.yaml."""
    readme, values = (CHART / "README.md").read_text(), (CHART / "values.yaml").read_text()
    assert chart_readme.with_table(readme, values) == readme, "run python -m tools.chart_readme"
    documented = {".".join(path) for path, _ in chart_readme.documented(values)}
    for name in yaml.safe_load(values):
        assert any(path == name or path.startswith(f"{name}.") for path in documented), f"{name} has no comment"
