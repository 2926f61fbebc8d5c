"""Pods and nodes as a real API server shows them, as plain JSON-like dictionaries.

Layout: the Kubernetes API reference, core/v1 Pod and Node (https://kubernetes.io/docs/reference/kubernetes-api/).
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

Object = dict[str, Any]

NAMESPACE = "kubenurse"
LABELS = {"app": "kubenurse"}
UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
# Padding repeats this. 28 hexadecimal digits of the Pod's own follow each, so that gzip leaves a sixth.
_COMMON = (
    " and, in each Pod of a DaemonSet, what all of them have in common: images, mounts, tolerations, probes, fields: "
)
_CREATED = "2026-01-02T03:04:05Z"
# The tolerations that the DaemonSet controller adds to its Pods.
_TOLERATED = ("not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")


def make_pod(
    name: str,
    node: str,
    ip: str,
    labels: Mapping[str, str] | None = None,
    phase: str = "Running",
    *,
    namespace: str = NAMESPACE,
    host_ip: str = "",
    terminating: bool = False,
    started: str = "",
    size: int = 0,
) -> Object:
    """Return an agent's Pod. ``ip`` may be empty, as before the Pod has an address.

    ``labels`` default to ``LABELS``, ``host_ip`` to ``ip`` (right under hostNetwork), ``started``, in RFC 3339's
    format, to now. The Pod is padded to at least ``size`` bytes of compact JSON. Its own size is about 3.5 KB. In a
    list, gzip makes 1.4 KB of a Pod of 12 KB, as was measured in a real cluster.
    """
    metadata: Object = {
        "name": name,
        "generateName": "kubenurse-",
        "namespace": namespace,
        "creationTimestamp": _CREATED,
        "labels": dict(LABELS if labels is None else labels),
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "name": "kubenurse",
                "uid": _uid("kubenurse"),
                "controller": True,
            }
        ],
        "managedFields": [_managed("kube-controller-manager", ""), _managed("kubelet", "status")],
    }
    if terminating:
        metadata |= {"deletionTimestamp": _CREATED, "deletionGracePeriodSeconds": 30}
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": _pod_spec(node),
        "status": _pod_status(phase, ip, host_ip or ip, started),
    }
    return _padded(pod, size)


def make_node(name: str, *, unschedulable: bool = False, taints: Iterable[str] = (), ip: str = "192.0.2.1") -> Object:
    """Return a node. ``taints`` are keys of NoSchedule taints. A cordoned node has the field and the taint."""
    keys = [*taints, *([UNSCHEDULABLE_TAINT] if unschedulable else [])]
    spec: Object = {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"], "providerID": f"sandbox://{name}"}
    if unschedulable:
        spec["unschedulable"] = True
    if keys:
        spec["taints"] = [{"key": key, "effect": "NoSchedule", "timeAdded": _CREATED} for key in keys]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "creationTimestamp": _CREATED,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
            "managedFields": [_managed("kubelet", "status")],
        },
        "spec": spec,
        "status": {
            "addresses": [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}],
            "capacity": {"cpu": "4", "memory": "16Gi", "pods": "110"},
            "allocatable": {"cpu": "4", "memory": "15Gi", "pods": "110"},
            "conditions": [_condition("Ready", True, "KubeletReady"), _condition("DiskPressure", False, "Enough")],
        },
    }


def _pod_spec(node: str) -> Object:
    tolerations = [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoSchedule"} for key in _TOLERATED
    ]
    container = {
        "name": "kubenurse",
        "image": "registry.example/kubenurse:2",
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "KUBENURSE_INGRESS_URL", "value": "https://kubenurse.example"},
            {"name": "KUBENURSE_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 5},
        "resources": {"limits": {"memory": "128Mi"}, "requests": {"cpu": "10m", "memory": "64Mi"}},
        "volumeMounts": [
            {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
        ],
    }
    return {
        "nodeName": node,
        "serviceAccountName": "kubenurse",
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "containers": [container],
        "tolerations": tolerations,
        "volumes": [{"name": "token", "projected": {"sources": [], "defaultMode": 420}}],
    }


def _pod_status(phase: str, ip: str, host_ip: str, started: str) -> Object:
    started = started or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    running = phase == "Running"
    status: Object = {
        "phase": phase,
        "startTime": started,
        "qosClass": "Burstable",
        "conditions": [
            _condition("Initialized", True, ""),
            _condition("Ready", running, "" if running else "ContainersNotReady"),
            _condition("ContainersReady", running, "" if running else "ContainersNotReady"),
            _condition("PodScheduled", True, ""),
        ],
        "containerStatuses": [
            {
                "name": "kubenurse",
                "image": "registry.example/kubenurse:2",
                "imageID": "registry.example/kubenurse@sha256:" + 64 * "a",
                "containerID": "containerd://" + 64 * "b",
                "ready": running,
                "restartCount": 0,
                "state": {"running": {"startedAt": started}} if running else {"waiting": {"reason": "Creating"}},
            }
        ],
    }
    if host_ip:
        status |= {"hostIP": host_ip, "hostIPs": [{"ip": host_ip}]}
    if ip:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    return status


def _condition(kind: str, holds: bool, reason: str) -> Object:
    """Return one condition, with the field names of real conditions."""
    return {
        "type": kind,
        "status": str(holds),
        "reason": reason,
        "lastProbeTime": None,
        "lastHeartbeatTime": _CREATED,
        "lastTransitionTime": _CREATED,
    }


def _managed(manager: str, subresource: str) -> Object:
    fields: Object = {
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {"f:containers": {'k:{"name":"kubenurse"}': {}}},
    }
    return {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "v1",
        "time": _CREATED,
        "fieldsType": "FieldsV1",
        "fieldsV1": {**fields, "f:status": {"f:phase": {}, "f:podIP": {}, "f:hostIP": {}, "f:conditions": {}}},
        "subresource": subresource,
    }


def _uid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def _padded(pod: Object, size: int) -> Object:
    missing = size - len(json.dumps(pod, separators=(",", ":")))
    if missing > 0:
        pod["metadata"]["annotations"] = {"kubenurse.example/padding": _padding(pod["metadata"]["name"], missing)}
    return pod


def _padding(name: str, length: int) -> str:
    """Return text that gzip packs about as well as a real Pod. Most of it is the same in all Pods."""
    parts = range(length // len(_COMMON) + 1)
    return "".join(_COMMON + _digest(f"{name} {part}") for part in parts)[:length]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:28]
