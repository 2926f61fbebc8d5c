"""A check of the API server that recovers wakes discovery, once."""

from __future__ import annotations

from checks.kube.recovery import Recovery
from checks.model import API_SERVER_DIRECT, API_SERVER_DNS, ME_SERVICE, OK, CheckResult


def test_only_a_recovery_of_the_api_server_is_told() -> None:
    """Success alone, failures and other checks tell nothing; the first success after a failure does."""
    told: list[str] = []
    recovery = Recovery(lambda: told.append("answered"))
    recovery.take(CheckResult(API_SERVER_DIRECT, OK))
    recovery.take(CheckResult(ME_SERVICE, "connect: connection refused"))
    recovery.take(CheckResult(ME_SERVICE, OK))
    recovery.take(CheckResult(API_SERVER_DIRECT, "connect: connection refused"))
    assert told == []
    recovery.take(CheckResult(API_SERVER_DIRECT, OK))
    recovery.take(CheckResult(API_SERVER_DIRECT, OK))
    assert told == ["answered"]


def test_a_check_that_is_no_longer_made_is_forgotten() -> None:
    """A failure of a departed check is no failure to recover from."""
    told: list[str] = []
    recovery = Recovery(lambda: told.append("answered"))
    recovery.take(CheckResult(API_SERVER_DNS, "dns: name not known"))
    recovery.retain({API_SERVER_DIRECT})
    recovery.take(CheckResult(API_SERVER_DNS, OK))
    assert told == []
