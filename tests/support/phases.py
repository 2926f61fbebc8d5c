"""Which events a good check reaches, in which order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from checks.model import TRACE_EVENTS, CheckResult

BY_NAME = TRACE_EVENTS
PLAIN_BY_NAME = tuple(event for event in TRACE_EVENTS if not event.startswith("tls"))
PLAIN_BY_ADDRESS = tuple(event for event in PLAIN_BY_NAME if not event.startswith("dns"))


def assert_in_order(result: CheckResult, events: Sequence[str], *, redirected: bool = False) -> None:
    """Assert that exactly these events were reached, in this order, and that the last is the duration.

    The duration of a redirected check is longer: it covers the whole chain.
    """
    assert result.state == "ok"
    assert set(result.trace) == set(events)
    moments = [result.trace[event] for event in events]
    assert all(0 <= earlier <= later for earlier, later in itertools.pairwise(moments))
    assert result.duration == moments[-1] > 0 or (redirected and result.duration > moments[-1] > 0)
