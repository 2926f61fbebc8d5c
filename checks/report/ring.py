"""The course of one check in slots of equal length: nine bytes a slot."""

from __future__ import annotations

from array import array
from typing import Any

from checks.model import OK, CheckResult

# Different failures told apart in one ring; the rest is OTHER.
MOST_STATES = 8
# Characters of a state that are kept; the recorder has the whole of it.
LONGEST_STATE = 120
OTHER = "other"
# The largest count that a slot holds; higher ones stay there.
_MOST = 255
_BYTES_A_SLOT = 9
# The objects of a ring and of its entry in a dict, and its states: six arrays, a list, texts (``bench/history.py``).
_BYTES_BESIDE = 2_600
_NOTHING = -1.0


class Ring:
    """The last ``slots`` slots of one check; slots are numbered by the owner, rising with time. Its owner locks.

    A slot has the number of results and failures, the slowest result's seconds, retransmits, the latest failure's
    state, and whether the agent was starved. Memory is fixed but for the states, at most MOST_STATES texts of
    LONGEST_STATE characters.
    """

    __slots__ = ("_failed", "_made", "_retransmits", "_seconds", "_slots", "_starved", "_state", "_states", "newest")

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._made = bytearray(slots)
        self._failed = bytearray(slots)
        self._retransmits = bytearray(slots)
        self._state = bytearray(slots)
        self._starved = bytearray(slots)
        self._seconds = array("f", [_NOTHING] * slots)
        self._states = [OK]
        self.newest = -1

    @staticmethod
    def bytes_of(slots: int) -> int:
        """Return what a ring of so many slots takes at the most."""
        return _BYTES_A_SLOT * slots + _BYTES_BESIDE

    def add(self, slot: int, result: CheckResult, *, starved: bool) -> None:
        """Count a result in a slot; a slot that has left the ring is left alone."""
        self._advance(slot)
        if slot <= self.newest - self._slots:
            return
        at = slot % self._slots
        self._made[at] = min(_MOST, self._made[at] + 1)
        self._seconds[at] = max(self._seconds[at], result.duration)
        self._starved[at] |= starved
        if result.tcp is not None:
            self._retransmits[at] = min(_MOST, self._retransmits[at] + result.tcp.retransmits)
        if not result.ok:
            self._failed[at] = min(_MOST, self._failed[at] + 1)
            self._state[at] = self._index(result.state)

    def document(self, current: int) -> dict[str, Any]:
        """Return the slots up to the one numbered ``current``, oldest first, as History.document describes them."""
        numbers = range(current - self._slots + 1, current + 1)
        places = [slot % self._slots if self.newest - self._slots < slot <= self.newest else None for slot in numbers]
        return {
            "made": _picked(self._made, places),
            "failed": _picked(self._failed, places),
            "seconds": [
                round(self._seconds[at], 6) if at is not None and self._seconds[at] >= 0 else None for at in places
            ],
            "retransmits": _picked(self._retransmits, places),
            "state": _picked(self._state, places),
            "starved": _picked(self._starved, places),
            "states": list(self._states),
        }

    def _advance(self, slot: int) -> None:
        """Make ``slot`` the newest when it is newer, and clear what lies between."""
        if self.newest < 0:
            self.newest = slot
        for new in range(max(self.newest + 1, slot - self._slots + 1), slot + 1):
            at = new % self._slots
            self._made[at] = self._failed[at] = self._retransmits[at] = self._state[at] = self._starved[at] = 0
            self._seconds[at] = _NOTHING
        self.newest = max(self.newest, slot)

    def _index(self, state: str) -> int:
        """Return the state's index, giving it one while there is room."""
        state = state[:LONGEST_STATE]
        if state in self._states:
            return self._states.index(state)
        if len(self._states) > MOST_STATES:
            self._reclaim()
        if len(self._states) > MOST_STATES:
            state = OTHER
            if state in self._states:
                return self._states.index(state)
        self._states.append(state)
        return len(self._states) - 1

    def _reclaim(self) -> None:
        """Drop the states that no slot has any longer."""
        used = sorted(set(self._state) | {0})
        new = {old: index for index, old in enumerate(used)}
        self._states = [self._states[old] for old in used]
        self._state = bytearray(new[old] for old in self._state)


def _picked(values: bytearray, places: list[int | None]) -> list[int]:
    return [values[at] if at is not None else 0 for at in places]
