"""The official Kubernetes client, for tests of the sandbox's API server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import urllib3
from kubernetes import watch
from kubernetes.client import ApiClient, ApiException, Configuration

from tests.support.kube import TOKEN, Kube

PATIENCE = 20

# The client has no types.
Watch: Any = watch.Watch


def official_client(kube: Kube, token: str = TOKEN) -> ApiClient:
    """Make an official client."""
    configuration = Configuration(host=kube.server.url)
    configuration.ssl_ca_cert = str(kube.authority.file)
    configuration.proxy = None
    configuration.retries = False
    # The setting's name differs from version to version of the client.
    configuration.api_key = dict.fromkeys(("BearerToken", "authorization"), f"Bearer {token}")
    return ApiClient(configuration)


def names(listing: Any) -> list[str]:
    """Return the names of a list's objects."""
    return [item.metadata.name for item in listing.items]


def status_of(error: ApiException) -> Any:
    """Return the Status object of a refusal."""
    return json.loads(error.body or "{}")


class Watcher(threading.Thread):
    """Collects the events of one watch of the official client until it ends."""

    def __init__(self, list_function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(name="watcher", daemon=True)
        self.call = (list_function, *args)
        self.kwargs = kwargs
        self.events: list[tuple[str, str]] = []
        self.error: ApiException | None = None
        self.arrived = threading.Condition()
        self.start()

    def run(self) -> None:
        """Watch."""
        try:
            for event in Watch().stream(*self.call, **self.kwargs):
                with self.arrived:
                    self.events.append((event["type"], event["raw_object"]["metadata"].get("name", "")))
                    self.arrived.notify_all()
        except ApiException as error:
            self.error = error
        except urllib3.exceptions.HTTPError:
            return  # the server went away, as it does at a test's end

    def wait_for(self, kind: str, name: str = "") -> None:
        """Wait for an event."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: (kind, name) in self.events, PATIENCE), self.events

    def named(self) -> list[tuple[str, str]]:
        """Return the events except bookmarks."""
        return [event for event in self.events if event[1]]


def wait_for_watch(kube: Kube) -> None:
    """Wait for the request of a watch."""
    assert kube.server.wait_for_request(lambda request: request.verb == "watch", PATIENCE)
