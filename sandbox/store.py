"""The memory of the sandbox's API server: objects, their versions and a bounded history.

Behaviour: "Kubernetes API Concepts" (https://kubernetes.io/docs/reference/using-api/api-concepts/), in particular
"Efficient detection of changes", "410 Gone responses" and "Retrieving large results sets in chunks".
"""

from __future__ import annotations

import copy
import itertools
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from checks.config.selector import Requirement, parse_selector
from sandbox.labels import match
from sandbox.objects import Object

HISTORY = 1000
SNAPSHOTS = 64

PODS = "pods"
NODES = "nodes"
KINDS = {PODS: "Pod", NODES: "Node"}

# The fields that a fieldSelector may name, and their values as text. A missing boolean is "false".
_FIELDS: Mapping[str, Mapping[str, Callable[[Object], str]]] = {
    PODS: {
        "metadata.name": lambda pod: str(pod["metadata"]["name"]),
        "metadata.namespace": lambda pod: str(pod["metadata"]["namespace"]),
        "spec.nodeName": lambda pod: str(pod["spec"].get("nodeName", "")),
        "status.phase": lambda pod: str(pod["status"].get("phase", "")),
    },
    NODES: {
        "metadata.name": lambda node: str(node["metadata"]["name"]),
        "spec.unschedulable": lambda node: str(bool(node["spec"].get("unschedulable"))).lower(),
    },
}


class GoneError(Exception):
    """The version or the continue token of a request is too old."""


@dataclass(frozen=True, slots=True)
class Change:
    """One object before and after a change. None stands for an object that does not exist."""

    version: int
    kind: str
    before: Object | None
    after: Object | None


@dataclass(frozen=True, slots=True)
class Selection:
    """The objects of a kind that a request selects."""

    kind: str
    namespace: str
    labels: tuple[Requirement, ...]
    fields: tuple[tuple[str, str, bool], ...]

    @classmethod
    def parse(cls, kind: str, namespace: str = "", labels: str = "", fields: str = "") -> Selection:
        """Read the selectors of a query.

        Raises:
            ValueError: for one that is malformed, or a field that cannot be selected by.
        """
        return cls(
            kind, namespace, parse_selector(labels), tuple(_field(kind, term) for term in fields.split(",") if term)
        )

    def matches(self, item: Object | None) -> bool:
        """Tell whether the object is selected."""
        if item is None or (self.namespace and item["metadata"].get("namespace") != self.namespace):
            return False
        read = _FIELDS[self.kind]
        return match(self.labels, item["metadata"].get("labels", {})) and all(
            (read[name](item) == value) is equal for name, value, equal in self.fields
        )

    def event(self, change: Change) -> tuple[str, Object] | None:
        """Return the watch event of a change for this selection. An object that leaves the selection is deleted."""
        if change.kind != self.kind:
            return None
        if self.matches(change.after):
            assert change.after is not None  # noqa: S101 - for the type checker
            return ("MODIFIED" if self.matches(change.before) else "ADDED"), change.after
        if self.matches(change.before):
            assert change.before is not None  # noqa: S101 - for the type checker
            return "DELETED", _with_version(change.before, change.version)
        return None


def _field(kind: str, term: str) -> tuple[str, str, bool]:
    """Read ``name=value``, ``name==value`` or ``name!=value``."""
    name, operator, value = term.partition("!=")
    if not operator:
        name, operator, value = term.partition("=")
        value = value.removeprefix("=")
    if not operator:
        raise ValueError(f"invalid field selector: {term}")
    if name.strip() not in _FIELDS[kind]:
        raise ValueError(f"field label not supported: {name.strip()}")
    return name.strip(), value.strip(), operator == "="


def _with_version(item: Object, version: int) -> Object:
    return {**item, "metadata": {**item["metadata"], "resourceVersion": str(version)}}


class Store:
    """Objects by kind, namespace and name, with the last ``HISTORY`` changes and ``SNAPSHOTS`` unfinished listings.

    Objects are copied when put and never changed after, so readers share them. ``changed`` is notified at every
    change and is the lock of everything here.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._objects: dict[str, dict[tuple[str, str], Object]] = {kind: {} for kind in KINDS}
        self._history: deque[Change] = deque(maxlen=HISTORY)
        self._snapshots: OrderedDict[str, tuple[int, list[Object]]] = OrderedDict()
        # A new cluster has higher versions than all earlier ones, like an etcd that keeps its data.
        self._version = time.time_ns() // 1000
        self._oldest = self._version  # for new watches
        self._forgotten = self._version  # for those that are open
        self._tokens = itertools.count(1)

    @property
    def version(self) -> int:
        """The version of the latest change."""
        return self._version

    def put(self, kind: str, item: Object) -> None:
        """Add an object or replace the one with its namespace and name."""
        metadata = item["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        with self.changed:
            before = self._objects[kind].get(key)
            self._version += 1
            after = _with_version(copy.deepcopy(item), self._version)
            after["metadata"].setdefault("uid", before["metadata"]["uid"] if before else str(uuid.uuid4()))
            self._objects[kind][key] = after
            self._remember(Change(self._version, kind, before, after))

    def delete(self, kind: str, name: str) -> None:
        """Remove the objects of that name. Raises KeyError if there is none."""
        with self.changed:
            keys = [key for key in self._objects[kind] if key[1] == name]
            if not keys:
                raise KeyError(name)
            for key in keys:
                self._version += 1
                self._remember(Change(self._version, kind, self._objects[kind].pop(key), None))

    def _remember(self, change: Change) -> None:
        if len(self._history) == HISTORY:
            self._forgotten = self._history[0].version
            self._oldest = max(self._oldest, self._forgotten)
        self._history.append(change)
        self.changed.notify_all()

    def compact(self) -> None:
        """Make all versions up to now too old for new watches, and forget unfinished listings.

        Open watches continue, as they do when etcd compacts.
        """
        with self.changed:
            # The new version makes a client too old that has seen all changes.
            self._version += 1
            self._oldest = self._version
            self._snapshots.clear()

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return one object."""
        with self.changed:
            return self._objects[kind].get((namespace, name))

    def select(self, selection: Selection) -> tuple[int, list[Object]]:
        """Return the version and the selected objects, ordered by namespace and name."""
        with self.changed:
            objects = self._objects[selection.kind]
            return self._version, [objects[key] for key in sorted(objects) if selection.matches(objects[key])]

    def page(self, selection: Selection, limit: int, token: str) -> tuple[int, list[Object], str, int]:
        """Return the version, one page of a listing, the token of the next one (or empty), and how many remain.

        ``limit`` 0 is one page of everything. All pages of a listing are of the version of its first.

        Raises:
            GoneError: for a token whose listing is forgotten.
        """
        with self.changed:
            if token and token not in self._snapshots:
                raise GoneError
            version, items = self._snapshots.pop(token) if token else self.select(selection)
            if not limit or len(items) <= limit:
                return version, items, "", 0
            following = f"{version}-{next(self._tokens)}"
            self._snapshots[following] = (version, items[limit:])
            if len(self._snapshots) > SNAPSHOTS:
                self._snapshots.popitem(last=False)
            return version, items[:limit], following, len(items) - limit

    def is_watchable(self, version: int) -> bool:
        """Tell whether a new watch may begin at a version, because that is not too old."""
        with self.changed:
            return version >= self._oldest

    def changes_since(self, version: int) -> tuple[int, Sequence[Change]]:
        """Return the latest version, and the changes since the one that an open watch has seen.

        Raises:
            GoneError: when the watch was too slow for the history.
        """
        with self.changed:
            if version < self._forgotten:
                raise GoneError
            newer = itertools.takewhile(lambda change: change.version > version, reversed(self._history))
            return self._version, list(newer)[::-1]
