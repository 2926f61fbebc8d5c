"""The own Pod where the selector of the neighbours leaves it out: its node, and a warning that it is left out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from checks.kube.client import KubeApi
from checks.kube.errors import ApiError
from checks.kube.objects import OddObjectError, name_of, read_pod

log = logging.getLogger("kubenurse.discovery")

# Seconds from a request that failed to the next one.
ASK_AGAIN_AFTER = 5.0


class OwnPod:
    """Asks the API server for the Pod of a name, once; for one thread at a time, its attributes for any.

    ``exists`` and ``node`` are what the answer says, False and empty before. ``asked`` tells that a request was made,
    whatever became of it. ``on_error`` is called with the kind of each failed request.
    """

    def __init__(
        self,
        api: KubeApi,
        path: str,
        name: str,
        selector: str,
        on_error: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self.exists = self.asked = False
        self.node = ""
        self._api = api
        self._path = path
        self._name = name
        self._selector = selector
        self._on_error = on_error
        self._clock = clock
        self._answered = False
        self._asked_at = -math.inf

    def ask(self) -> None:
        """Ask, unless there is an answer or a request failed just before."""
        if self._answered or self._clock() < self._asked_at + ASK_AGAIN_AFTER:
            return
        self._asked_at = self._clock()
        try:
            self._look()
            self._answered = True
        except ApiError as error:
            self._on_error(error.kind)
        self.asked = True
        if self._answered:
            self._tell()

    def _look(self) -> None:
        # By a list: to read a single Pod takes another permission.
        for page in self._api.list_pages(self._path, {"fieldSelector": f"metadata.name={self._name}"}):
            for item in page.items:
                try:
                    if name_of(item) == self._name:
                        self.exists, self.node = True, read_pod(item).neighbour.node_name
                except OddObjectError:
                    continue

    def _tell(self) -> None:
        facts = {"pod": self._name, "KUBENURSE_NEIGHBOUR_FILTER": self._selector}
        if self.exists:
            why = "the neighbours may be Pods of something else; expected a selector that this Pod's labels match"
            log.warning("neighbour filter does not select this pod", extra={"facts": {**facts, "why": why}})
        else:
            why = "no Pod of this name in the namespace; in a cluster, set KUBENURSE_POD_NAME to metadata.name"
            log.info("own pod not found", extra={"facts": {**facts, "why": why}})
