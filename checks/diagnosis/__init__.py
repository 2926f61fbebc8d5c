"""Diagnosis: from the agents' states to what broke. Pure: documents in, verdicts out; no clock, socket or lock."""

from __future__ import annotations

from checks.diagnosis.document import diagnose, diagnose_one

__all__ = ["diagnose", "diagnose_one"]
