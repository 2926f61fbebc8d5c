"""Every fault: agents report exactly the expected failures and recoveries, in time."""

from __future__ import annotations

import pytest

from tests.e2e import (
    faults_agents,
    faults_api,
    faults_dns,
    faults_ingress,
    faults_network,
    faults_nodes,
    faults_services,
)
from tests.e2e.cluster import Cluster
from tests.e2e.faults import Fault
from tests.e2e.stalls import again_after_a_stall
from tests.e2e.trial import Record, Trial

FAULTS = (
    *faults_network.FAULTS,
    *faults_dns.FAULTS,
    *faults_services.FAULTS,
    *faults_ingress.FAULTS,
    *faults_api.FAULTS,
    *faults_nodes.FAULTS,
    *faults_agents.FAULTS,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.identifier)
@again_after_a_stall
def test_agents_tell_the_truth_about(cluster: Cluster, fault: Fault, records: dict[str, Record]) -> None:
    """Exactly the expected checks fail, on the expected nodes, with the expected words and events."""
    records[fault.name] = Trial(cluster, fault).run()
