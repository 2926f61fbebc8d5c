"""Label selectors as the API server applies them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from checks.config.selector import Requirement, is_integer


def match(requirements: Sequence[Requirement], labels: Mapping[str, str]) -> bool:
    """Tell whether the labels meet every requirement; without any, everything matches."""
    return all(_meets(requirement, labels.get(requirement.key)) for requirement in requirements)


def _meets(requirement: Requirement, value: str | None) -> bool:
    """Tell whether a label's value meets a requirement; a label that is missing meets ``notin`` and ``!``."""
    if value is None:
        return requirement.operator in ("notin", "!")
    if requirement.operator in (">", "<"):
        return _compares(requirement, value)
    if requirement.operator == "in":
        return value in requirement.values
    if requirement.operator == "notin":
        return value not in requirement.values
    return requirement.operator == "exists"


def _compares(requirement: Requirement, value: str) -> bool:
    if not is_integer(value):
        return False
    (limit,) = requirement.values
    return int(value) > int(limit) if requirement.operator == ">" else int(value) < int(limit)
