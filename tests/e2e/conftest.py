"""One cluster for the whole run, or the reason to skip; at the end, on request, the page about the faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e import report
from tests.e2e.cluster import Cluster, running_cluster
from tests.e2e.requirements import reason_to_skip
from tests.e2e.trial import Record


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster. It is healthy when a test begins, and each test leaves it healthy."""
    reason = reason_to_skip()
    if reason:
        pytest.skip(reason)
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def records() -> Iterator[dict[str, Record]]:
    """The records of the trials, by fault name. A run of all faults can write docs/faults.md."""
    from tests.e2e.test_faults import FAULTS  # which imports this package's fixtures by their names

    found: dict[str, Record] = {}
    yield found
    names = [fault.name for fault in FAULTS]
    if report.is_wanted() and set(found) == set(names):
        report.write([found[name] for name in names])
