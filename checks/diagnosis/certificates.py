"""Certificates that will end soon, or have ended where nobody verifies them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from checks.diagnosis.causes import Cause, at
from checks.diagnosis.scene import Scene

SOON_SECONDS = 14 * 86_400.0


@dataclass(frozen=True, slots=True)
class Ending:
    """A certificate that ends within 14 days. ``left`` is in seconds, negative once it ended; ``nodes`` saw it."""

    cause: Cause
    left: float
    nodes: tuple[str, ...]
    seen_by: int


def find_ending(scene: Scene) -> list[Ending]:
    """Return the certificates that end soon, each once."""
    found = []
    for of, seen in sorted(scene.evidence.certificates.items()):
        everyone = {node for node, _ in seen}
        ending = [(ends, node) for node, ends in seen if ends - scene.evidence.collected_at < SOON_SECONDS]
        nodes = {node for _, node in ending}
        # All see the same certificate, or those of a few replicas: a single agent among many is not believed.
        if not ending or (of != "neighbour" and len(everyone) > 2 and len(nodes) < 2):
            continue
        left = min(ending)[0] - scene.evidence.collected_at
        found.append(Ending(at("certificate", of=of), left, tuple(sorted(nodes)), len(everyone)))
    return found
