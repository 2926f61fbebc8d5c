"""Alerts and recording rules: promtool accepts them, and each alert has a runbook and cases in both directions."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.prometheus import PROMTOOL, needs_promtool

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "rules" / "kubenurse.rules.yml"
CASES = sorted((ROOT / "rules" / "tests").glob("*.yml"))
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Likely causes", "Remedy"]


def rules() -> list[dict[str, Any]]:
    """Return all rules of the file."""
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})


def promtool(*arguments: str) -> str:
    """Run promtool, which must succeed, and return its output."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_promtool
def test_rules_are_valid() -> None:
    """Prometheus accepts the syntax, expressions and templates of the rules."""
    assert f"{len(rules())} rules found" in promtool("check", "rules", str(RULES))


@needs_promtool
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(case: Path) -> None:
    """Each alert fires with its words in the cases that expect it, and stays silent in the others."""
    assert "SUCCESS" in promtool("test", "rules", str(case))


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_is_tried_in_both_directions(name: str) -> None:
    """Each alert has a case in which it fires, and a whole case in which it stays silent."""
    tests = yaml.safe_load((ROOT / "rules" / "tests" / f"{name}.yml").read_text(encoding="utf-8"))["tests"]
    wanted = [
        [bool(check["exp_alerts"]) for check in test["alert_rule_test"] if check["alertname"] == name] for test in tests
    ]
    assert any(any(each) for each in wanted)
    assert any(each and not any(each) for each in wanted)


def test_cases_and_runbooks_are_those_of_the_alerts() -> None:
    """Each alert has a file of cases and a runbook, and no file is left of an alert that is gone."""
    assert [case.stem for case in CASES] == NAMES
    assert sorted(path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")) == NAMES


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_alert_has_the_facts_for_an_operator(rule: dict[str, Any]) -> None:
    """An alert has a severity, a waiting time, a summary, a description with its place, and a runbook."""
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert re.fullmatch(r"[1-9][0-9]*[mh]", rule["for"])
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert re.search(r"node", rule["annotations"]["description"], re.IGNORECASE)
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"


@pytest.mark.parametrize("name", NAMES)
def test_runbook_is_complete(name: str) -> None:
    """Each runbook has all sections in order, with commands to copy."""
    text = (ROOT / "docs" / "runbooks" / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert re.search(r"^    .*\b(kubectl|curl|openssl) ", text.partition("## Diagnosis")[2], re.MULTILINE)


def test_page_of_alerts_is_in_step() -> None:
    """docs/alerts.md has each alert with its severity and waiting time, and every recorded series."""
    text = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\(runbooks/\1\.md\) \| (\w+) \| .* \| (\w+) \|$", text, re.MULTILINE)
    assert rows == [(rule["alert"], rule["labels"]["severity"], rule["for"]) for rule in ALERTS]
    table = text.partition("## Recorded series")[2]
    assert re.findall(r"`([\w:]+)`", table) == [rule["record"] for rule in rules() if "record" in rule]


def test_example_for_alertmanager_names_alerts_that_are_there() -> None:
    """The inhibition rules of the example name existing alerts and labels that both sides have."""
    text = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    shown = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    for rule in shown["inhibit_rules"]:
        named = re.findall(r"Kubenurse\w+", " ".join(rule["source_matchers"] + rule["target_matchers"]))
        assert len(named) >= 2
        assert set(named) <= set(NAMES)
        assert rule["equal"] == ["cluster", "node"]
