"""What the checks of one agent share."""

from __future__ import annotations

from dataclasses import dataclass

from checks.probe.idle import IdleChannels
from checks.probe.request import Preparer
from checks.probe.resolver import Pinned, Resolver
from checks.probe.sockets import Abort


@dataclass(frozen=True, slots=True)
class Shared:
    """What every check uses. ``timeout`` is in seconds; ``idle`` is None when each check opens a new connection."""

    timeout: float
    preparer: Preparer
    resolver: Resolver | Pinned
    idle: IdleChannels | None
    abort: Abort
