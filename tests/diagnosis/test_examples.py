"""The bundles that were given with what is expected of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from checks.diagnosis import diagnose
from tests.diagnosis.faults import verdict
from tests.diagnosis.score import verdicts_of

EXAMPLES = Path(__file__).parent / "examples"


@pytest.mark.parametrize("name", ["healthy", "node-down", "dns-on-one-node-and-drain"])
def test_an_example_gets_the_verdicts_that_are_expected(name: str) -> None:
    """Cause and place of all verdicts are as given."""
    bundle = json.loads((EXAMPLES / f"{name}.bundle.json").read_text())
    expected = json.loads((EXAMPLES / f"{name}.expected.json").read_text())
    document = diagnose(bundle)
    assert verdicts_of(document) == {verdict(each["cause"], each["where"]) for each in expected}
    assert document["healthy"] is (name == "healthy")
    assert not document["unexplained"]
