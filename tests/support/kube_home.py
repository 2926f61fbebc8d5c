"""A home directory with a kubeconfig, an exec plugin, and the API server that both are for."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checks.kube import kubeconfig
from checks.kube.client import KubeApi
from checks.kube.kubeconfig import Kubeconfig, KubeconfigError
from tests.support.kube import TOKEN, Kube, pages

API_VERSION = "client.authentication.k8s.io/v1"
SECRET = "hunter2-hunter2"


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[Kube]:
    """Serve a cluster that accepts client certificates, too."""
    kube = Kube(directory)
    kube.server.context.verify_mode = ssl.CERT_OPTIONAL
    kube.server.context.load_verify_locations(kube.authority.file)
    with kube.server:
        yield kube


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self.now


class Home:
    """A directory with a kubeconfig for a cluster, and the files that it names."""

    def __init__(self, directory: Path, kube: Kube) -> None:
        self.directory = directory / "home"
        self.directory.mkdir()
        self.kube = kube
        self.clock = Clock()
        self.cluster: dict[str, Any] = {"server": kube.server.url, "certificate-authority": str(kube.authority.file)}
        self.context: dict[str, Any] = {"cluster": "here", "user": "me", "namespace": "nurses"}
        self.user: dict[str, Any] = {"token": TOKEN}
        self.file = self.directory / "config"

    def document(self, **changes: Any) -> dict[str, Any]:
        """Return the kubeconfig."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "work",
            "clusters": [{"name": "here", "cluster": self.cluster}],
            "contexts": [{"name": "work", "context": self.context}],
            "users": [{"name": "me", "user": self.user}],
            **changes,
        }

    def write(self, **changes: Any) -> None:
        """Write the kubeconfig; JSON is YAML."""
        self.file.write_text(json.dumps(self.document(**changes)), "utf-8")

    def load(self, **changes: Any) -> Kubeconfig:
        """Write the kubeconfig and load it."""
        self.write(**changes)
        found = kubeconfig.load([self.file], clock=self.clock, patience=5.0)
        assert found is not None
        return found

    def refused(self, **changes: Any) -> str:
        """Write a kubeconfig that cannot be used and return why."""
        with pytest.raises(KubeconfigError) as caught:
            self.load(**changes)
        message = str(caught.value)
        assert message.startswith(f"kubeconfig {self.file}: ")
        assert SECRET not in message
        assert caught.value.__cause__ is None or SECRET not in repr(caught.value.__cause__)
        return message.removeprefix(f"kubeconfig {self.file}: ")


class Plugin:
    """An exec plugin: a script that prints a given answer, fails or hangs, and notes each run."""

    def __init__(self, home: Home) -> None:
        self.answer = home.directory / "answer"
        self.runs_file = home.directory / "runs"
        self.script = home.directory / "plugin"
        self.script.write_text(
            f"#!/bin/sh\necho run >> {self.runs_file}\nif [ -e {self.answer}.fifo ]; then cat {self.answer}.fifo; fi\n"
            f'if [ -e {self.answer} ]; then cat {self.answer}; else echo "not logged in" >&2; exit 3; fi\n'
        )
        self.script.chmod(stat.S_IRWXU)
        home.user = {"exec": {"apiVersion": API_VERSION, "command": str(self.script), "interactiveMode": "Never"}}

    def give(self, *, seconds: float | None = None, **status: str) -> None:
        """Answer with this status from now on, good for so many seconds."""
        if seconds is not None:
            end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
            status["expirationTimestamp"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
        document = {"apiVersion": API_VERSION, "kind": "ExecCredential", "status": status}
        self.answer.write_text(json.dumps(document), "utf-8")

    def hang(self) -> Path:
        """Let the plugin hang from now on, until the pipe returned is opened and closed."""
        pipe = Path(f"{self.answer}.fifo")
        os.mkfifo(pipe)
        return pipe

    @property
    def runs(self) -> int:
        """The number of runs."""
        return len(self.runs_file.read_text().splitlines()) if self.runs_file.exists() else 0


def answers(credentials: Kubeconfig) -> bool:
    """Tell whether the API server accepts these credentials."""
    return len(pages(KubeApi(credentials))) == 1


def bearer(credentials: Kubeconfig) -> str:
    """Return the token that is sent."""
    return credentials.headers()["Authorization"].removeprefix("Bearer ")


def certificate(home: Home) -> tuple[Path, Path]:
    """Return a client certificate and its key."""
    mine = home.kube.authority.issue("me", "me.example")
    return mine.chain, mine.key
