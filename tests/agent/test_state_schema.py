"""A running agent's /state is what the published schema says, and its last minute and history are real."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jsonschema

from tests.support.process import ADDRESS, agent, free_port
from tests.support.waiting import until

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "state.schema.json").read_text(encoding="utf-8"))


def test_a_failing_and_a_good_check_meet_the_schema(tmp_path: Path) -> None:
    """The failing check has its phase, its failures by state and a negative streak; the good one names its answerer."""
    own, closed = free_port(), free_port()
    before = time.time()
    variables = {
        "KUBENURSE_PORT": str(own),
        "KUBENURSE_SERVICE_URL": f"http://{ADDRESS}:{own}",
        "KUBENURSE_EXTRA_CHECKS": f"closed:http://{ADDRESS}:{closed}/",
        "KUBENURSE_CHECK_INTERVAL": "100ms",
    }
    with agent(tmp_path, **variables) as running:

        def checked_often() -> dict[str, Any]:
            document: dict[str, Any] = json.loads(running.get("/state")[1])
            jsonschema.validate(document, SCHEMA)
            made = [check["window"]["made"] for check in document["checks"].values()]
            return document if len(made) == 2 and min(made) >= 3 else {}

        document = until(checked_often)
        history = json.loads(running.get("/history")[1])
    assert before <= document["sampled_at"] <= time.time()
    assert document["own"]["lateness_seconds"] >= 0
    good, bad = document["checks"]["me_service"], document["checks"]["closed"]
    assert (good["state"], good["phase"], good["answered_by"]) == ("ok", "", "kubenurse-test")
    assert good["window"]["failed"] == {}
    assert good["window"]["streak"] >= 3
    assert bad["phase"] == "connect"
    assert bad["window"]["failed"] == {"connect: connection refused": bad["window"]["made"]}
    assert bad["window"]["streak"] <= -3
    assert sum(history["checks"]["closed"]["failed"]) >= 3
    assert sum(history["checks"]["me_service"]["failed"]) == 0
    assert {failure["phase"] for failure in history["failures"]} == {"connect"}
