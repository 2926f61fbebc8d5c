"""Kubeconfig files: read, merged and checked before anything in them is run or sent; and updated.

The rules of merging are kubectl's: of all files, the first that names a cluster, context or user counts, and so does
the first current-context. Relative paths start at the file that holds them.
Format: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from checks.config.files import read_regular
from checks.kube.credentials import KubeconfigError

LONGEST_FILE = 16 * 1024 * 1024
_CLUSTER_FILES = ("certificate-authority",)
_USER_FILES = ("tokenFile", "client-certificate", "client-key")


@dataclass(frozen=True, slots=True)
class Context:
    """A context with its cluster and its user, whose paths are absolute. ``user_file`` holds the user, if any does."""

    name: str
    namespace: str
    cluster: Mapping[str, Any]
    user: Mapping[str, Any]
    user_name: str
    user_file: Path | None


def read_context(paths: Sequence[Path], name: str) -> Context:
    """Return a context of that name, of the current one if it is empty.

    Raises:
        KubeconfigError: for files that hold no such context, or a cluster that is not reached over verified TLS.
    """
    documents = [(path, _document(path)) for path in paths if path.exists()]
    currents = (document.get("current-context") for _, document in documents)
    name = name or next((each for each in currents if isinstance(each, str) and each), "")
    if not name:
        raise KubeconfigError("there is no current-context: kubectl config use-context NAME")
    _, context = _named(documents, "context", name)
    file, cluster = _named(documents, "cluster", context.get("cluster"))
    cluster = _with_absolute_paths(cluster, file, _CLUSTER_FILES)
    _check_cluster(cluster)
    user_name = context.get("user")
    user_file, user = _named(documents, "user", user_name) if user_name else (None, {})
    if user_file is not None:
        user = _with_absolute_paths(user, user_file, _USER_FILES)
    namespace = context.get("namespace")
    namespace = namespace if isinstance(namespace, str) and namespace else "default"
    return Context(name, namespace, cluster, user, str(user_name), user_file)


def update_provider(path: Path, user_name: str, changes: Mapping[str, Any]) -> None:
    """Write new settings of a user's auth-provider into a file, as kubectl does with renewed tokens.

    Raises:
        OSError: when the file cannot be replaced.
        KubeconfigError: when it cannot be read any more.
    """
    path = path.resolve()
    document = _document(path)
    for entry in _entries(document, "user"):
        if entry.get("name") == user_name:
            entry["user"]["auth-provider"]["config"].update(changes)
            break
    # In place of the old file at once: a reader sees the old or the new content. mkstemp lets only the owner read.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yaml.safe_dump(document, file, default_flow_style=False)
        temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(read_regular(path, LONGEST_FILE))
    except OSError as error:
        raise KubeconfigError(f"{path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # The error's text quotes the file.
        mark = getattr(error, "problem_mark", None)
        raise KubeconfigError(f"{path}: not YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    if not isinstance(document, dict):
        raise KubeconfigError(f"{path}: {'empty' if document is None else 'not a kubeconfig'}")
    return document


def _named(documents: Sequence[tuple[Path, dict[str, Any]]], kind: str, name: object) -> tuple[Path, dict[str, Any]]:
    """Return what is in the first entry of a name, and its file."""
    for path, document in documents:
        for entry in _entries(document, kind):
            if entry.get("name") == name:
                found = entry.get(kind)
                if not isinstance(found, dict):
                    raise KubeconfigError(f"{kind} {name!r} is empty")
                return path, found
    raise KubeconfigError(f"there is no {kind} named {name!r}")


def _entries(document: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    entries = document.get(f"{kind}s")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _with_absolute_paths(settings: Mapping[str, Any], file: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return settings whose files are regular and have absolute paths. A file beside its data is not looked at."""
    found = dict(settings)
    for name in names:
        if not found.get(name) or found.get("token" if name == "tokenFile" else f"{name}-data"):
            continue
        path = file.absolute().parent / str(found[name])
        try:
            regular = stat.S_ISREG(path.stat().st_mode)
        except OSError as error:
            raise KubeconfigError(f"{name} {path}: {error.strerror}") from None
        if not regular:
            raise KubeconfigError(f"{name} {path}: not a regular file")
        found[name] = str(path)
    return found


def _check_cluster(cluster: Mapping[str, Any]) -> None:
    """Refuse a cluster whose settings would send credentials over anything but verified TLS."""
    if cluster.get("insecure-skip-tls-verify"):
        raise KubeconfigError(
            "insecure-skip-tls-verify is refused, the token travels over verified TLS only: "
            "give the cluster's certificate-authority"
        )
    if not _is_server(cluster.get("server")):
        raise KubeconfigError("server must be https://HOST[:PORT]")
    if cluster.get("proxy-url"):
        raise KubeconfigError("proxy-url is not supported, the API server is asked directly")


def _is_server(text: object) -> bool:
    try:
        server = urlsplit(text if isinstance(text, str) else "")
        return server.scheme == "https" and bool(server.hostname) and server.username is None and server.port != 0
    except ValueError:  # malformed brackets, a malformed port
        return False
