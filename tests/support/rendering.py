"""Kubernetes objects as kustomize and Helm render them: the tools, the schemas, and what a kubelet makes of a Pod."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate.utils
import pytest
import referencing
import referencing.jsonschema
import yaml

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
CHART = ROOT / "helm" / "kubenurse"
INSTALLED = ROOT / ".tools" / "bin"
CRD_SCHEMAS = ROOT / "tests" / "shipping" / "schemas"
# The oldest with all that is used here, and the newest known to kubernetes-validate.
KUBERNETES_VERSIONS = ("1.25", "1.37")
_SECONDS = 60.0
_REMEDY = "Remedy: make manifests-test, which installs it where Go is"


def _program(name: str) -> str | None:
    installed = INSTALLED / name
    return str(installed) if installed.exists() else shutil.which(name)


def kustomize_command() -> list[str]:
    """Return the command that builds a kustomization; skips the test where there is none."""
    if kustomize := _program("kustomize"):
        return [kustomize, "build"]
    if kubectl := _program("kubectl"):
        return [kubectl, "kustomize"]
    pytest.skip(f"no kustomize or kubectl here. {_REMEDY}")


def helm_command() -> str:
    """Return the path of helm; skips the test where there is none."""
    if helm := _program("helm"):
        return helm
    pytest.skip(f"no helm here. {_REMEDY}")


def build(kustomization: Path) -> list[Object]:
    """Return the objects of a kustomization."""
    return _documents(_run([*kustomize_command(), str(kustomization)]))


def template(*arguments: str, namespace: str = "kube-system") -> list[Object]:
    """Return the objects that the chart makes with further arguments of ``helm template``."""
    return _documents(helm("template", "kubenurse", str(CHART), "--namespace", namespace, *arguments))


def helm(*arguments: str) -> str:
    """Run helm and return its output; AssertionError, with what it said, when it fails."""
    return _run([helm_command(), *arguments])


def refused(*arguments: str) -> str:
    """Return what ``helm template`` says to arguments that it must not accept."""
    command = [helm_command(), "template", "kubenurse", str(CHART), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode != 0, f"accepted: {arguments}"
    return done.stderr


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stderr}"
    return done.stdout


def _documents(text: str) -> list[Object]:
    return [document for document in yaml.safe_load_all(text) if document]


def one(objects: Sequence[Object], kind: str, name: str = "") -> Object:
    """Return the only object of a kind (and name)."""
    (found,) = of(objects, kind, name)
    return found


def of(objects: Sequence[Object], kind: str, name: str = "") -> list[Object]:
    """Return the objects of a kind (and name)."""
    return [each for each in objects if each["kind"] == kind and name in ("", each["metadata"]["name"])]


def pod_spec(objects: Sequence[Object]) -> Object:
    """Return the spec of the DaemonSet's Pods."""
    spec: Object = one(objects, "DaemonSet")["spec"]["template"]["spec"]
    return spec


def container(objects: Sequence[Object]) -> Object:
    """Return the only container of the DaemonSet's Pods."""
    (found,) = pod_spec(objects)["containers"]
    assert isinstance(found, dict)
    return found


def problems(objects: Sequence[Object]) -> list[str]:
    """Return what the schemas of Kubernetes, old and new, and of the custom resources say against the objects."""
    return [
        f"{each['kind']} {each['metadata']['name']} ({version}): {error.json_path}: {error.message}"
        for version in KUBERNETES_VERSIONS
        for each in objects
        for error in _validator(each["apiVersion"], each["kind"], version).iter_errors(each)
    ]


@functools.cache
def _validator(api_version: str, kind: str, version: str) -> jsonschema.Draft202012Validator:
    custom = CRD_SCHEMAS / f"{kind.lower()}.json"
    if custom.exists():
        schema = json.loads(custom.read_text())
        assert schema["properties"]["apiVersion"]["const"] == api_version
        return jsonschema.Draft202012Validator(schema)
    directory = f"kubernetes-json-schema/v{version}.0-local-strict"
    group, _, rest = api_version.partition("/")
    file = f"{kind.lower()}-{group.partition('.')[0]}{'-' + rest if rest else ''}.json"
    schema = kubernetes_validate.utils.schema_contents(f"{directory}/{file}", version)
    return jsonschema.Draft202012Validator(schema, registry=_definitions(directory, version))


@functools.cache
def _definitions(directory: str, version: str) -> referencing.jsonschema.SchemaRegistry:
    contents = kubernetes_validate.utils.schema_contents(f"{directory}/_definitions.json", version)
    return referencing.Resource.from_contents(contents) @ referencing.Registry()


def environment(objects: Sequence[Object]) -> dict[str, str]:
    """Return the container's environment as the kubelet makes it, the API server's variables included.

    Rules: EnvFromSource, EnvVar and "Dependent environment variables" in the Kubernetes documentation.
    """
    own = container(objects)
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    for source in own.get("envFrom", ()):
        environ |= one(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in own.get("env", ()):
        environ[variable["name"]] = _value(variable, environ, one(objects, "DaemonSet")["metadata"]["namespace"])
    return environ


def _value(variable: Mapping[str, Any], environ: Mapping[str, str], namespace: str) -> str:
    if "valueFrom" not in variable:
        return re.sub(r"\$\((\w+)\)", lambda found: environ.get(found[1], found[0]), variable.get("value", ""))
    return {
        "metadata.name": "kubenurse-x7k2p",
        "metadata.namespace": namespace,
        "spec.nodeName": "node-1",
        "status.podIP": "10.0.0.7",
    }[variable["valueFrom"]["fieldRef"]["fieldPath"]]


def granted(objects: Sequence[Object]) -> set[tuple[str, str, str]]:
    """Return what RBAC lets the agents' service account do: (verb, resource, namespace or "" for all)."""
    account = {"kind": "ServiceAccount", "name": pod_spec(objects)["serviceAccountName"]}
    account["namespace"] = one(objects, "DaemonSet")["metadata"]["namespace"]
    return {
        (verb, f"{group}/{resource}" if group else resource, binding["metadata"].get("namespace", ""))
        for binding in (*of(objects, "RoleBinding"), *of(objects, "ClusterRoleBinding"))
        if account in binding["subjects"]
        for rule in one(objects, binding["roleRef"]["kind"], binding["roleRef"]["name"])["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def against_restricted(spec: Object) -> Iterator[str]:
    """Yield what in a Pod's spec is against the Pod security standard "restricted" (Kubernetes documentation)."""
    yield from (field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field))
    for volume in spec.get("volumes", ()):
        if not volume.keys() & {"configMap", "secret", "emptyDir", "projected", "downwardAPI", "csi"}:
            yield f"volume {volume['name']}"
    for own in (*spec["containers"], *spec.get("initContainers", ())):
        if any(port.get("hostPort") for port in own.get("ports", ())):
            yield "hostPort"
        yield from _context_against_restricted({**spec.get("securityContext", {}), **own.get("securityContext", {})})


def _context_against_restricted(context: Object) -> Iterator[str]:
    capabilities = context.get("capabilities", {})
    allowed = {
        "privileged": not context.get("privileged"),
        "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
        "capabilities": capabilities.get("drop") == ["ALL"] and not capabilities.get("add"),
        "runAsNonRoot": context.get("runAsNonRoot") is True,
        "runAsUser": context.get("runAsUser") != 0,
        "seccompProfile": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
    }
    yield from (field for field, is_allowed in allowed.items() if not is_allowed)
