"""What is wanted now: the fixed targets, and the neighbours chosen from those that discovery knows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from checks.config.settings import Config
from checks.model import Neighbour, Neighbourhood, Target
from checks.targets import api_server, extra, me, neighbours


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is checked at one moment.

    ``neighbours`` are those chosen by KUBENURSE_NEIGHBOUR_LIMIT, ``targets`` everything to check, in order, and
    ``by_type`` the same by type; types are unique.
    """

    neighbours: tuple[Neighbour, ...]
    targets: tuple[Target, ...]
    by_type: Mapping[str, Target]

    @property
    def types(self) -> Collection[str]:
        """The types of the targets."""
        return self.by_type.keys()


class Selection:
    """Answers what is wanted now; it chooses anew only when the neighbours or the own node have changed.

    ``neighbourhood`` returns what discovery knows, at once. ``api_server_url`` is ``https://HOST:PORT``, empty where
    there is no API server. Any thread may ask: two threads that find a change at the same time make the same choice.
    """

    def __init__(self, config: Config, api_server_url: str, neighbourhood: Callable[[], Neighbourhood]) -> None:
        self._config = config
        self._neighbourhood = neighbourhood
        self._fixed = (
            *api_server.targets(config, api_server_url),
            *me.targets(config),
            *extra.targets(config),
        )
        # What was chosen, and from what. Replaced as a whole, so that a reader never sees half of a change.
        self._latest: tuple[tuple[Neighbour, ...], str, Wanted] = ((), "", self._make(()))

    def now(self) -> Wanted:
        """Return what is wanted now; the same object until that changes."""
        known = self._neighbourhood()
        node = self._config.node_name or known.own_node
        chosen_from, chosen_for, wanted = self._latest
        if known.neighbours is not chosen_from or node != chosen_for:
            chosen = neighbours.choose(known.neighbours, node, self._config.neighbour_limit)
            if chosen != wanted.neighbours:
                wanted = self._make(chosen)
            self._latest = (known.neighbours, node, wanted)
        return wanted

    def wants(self, target: Target) -> bool:
        """Tell whether a target is still wanted."""
        return target in self.now().targets

    def _make(self, chosen: tuple[Neighbour, ...]) -> Wanted:
        config = self._config
        scheme, port = ("https", config.tls_port) if config.use_tls else ("http", config.port)
        paths = neighbours.targets(chosen, scheme, port, config.pod_name, config.neighbour_tls_name)
        targets = (*self._fixed, *paths)
        return Wanted(chosen, targets, {target.type: target for target in targets})
