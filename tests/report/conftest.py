"""What the tests of metrics begin with."""

from __future__ import annotations

import pytest

from checks.report.metrics import Metrics
from tests.report.scraping import Agent


@pytest.fixture
def agent() -> Agent:
    """An agent with some neighbours."""
    return Agent()


@pytest.fixture
def metrics(agent: Agent) -> Metrics:
    """Metrics with the default options."""
    return agent.metrics()
