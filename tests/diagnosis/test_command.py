"""``kubenurse diagnose --from FILE``: reading, printing and exit codes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from checks.cli import diagnose as command
from checks.cli.diagnose import diagnose_file, print_diagnosis
from tests.diagnosis.bundles import LOST, NAMED, Bundle


def _write(path: Path, bundle: Bundle) -> str:
    path.write_text(json.dumps(bundle.document))
    return str(path)


def test_a_bundle_is_judged_and_printed(tmp_path: Path) -> None:
    """The situation first, then each verdict with its reason, evidence and what to look at."""
    bundle = Bundle()
    bundle.fail(["a2"], NAMED, LOST.replace("connect", "dns"))
    text, code = diagnose_file(_write(tmp_path / "bundle.json", bundle), as_json=False, colour=False)
    assert code == 1
    lines = text.splitlines()
    assert lines[0] == "DNS is down on node a2; other nodes resolve names."
    assert "CRITICAL  DNS is down on node a2; other nodes resolve names." in lines
    assert "  reason: dns: timed out after 5s" in lines
    assert any(line.startswith("  next: kubectl ") for line in lines)
    assert "\x1b" not in text


def test_json_is_the_document(tmp_path: Path) -> None:
    """As /diagnosis serves it."""
    text, code = diagnose_file(_write(tmp_path / "bundle.json", Bundle()), as_json=True, colour=True)
    assert code == 0
    assert json.loads(text)["healthy"] is True


def test_maintenance_alone_is_health(tmp_path: Path) -> None:
    """Exit code 0."""
    bundle = Bundle()
    bundle.document["nodes"][0]["cordoned"] = True
    assert diagnose_file(_write(tmp_path / "bundle.json", bundle), as_json=False, colour=False)[1] == 0


def test_stdin_is_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in other commands."""
    content = io.BytesIO(json.dumps(Bundle().document).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    text, code = diagnose_file("-", as_json=False, colour=False)
    assert code == 0
    assert text.startswith("All is well")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "kubenurse collect"),
        (b'{"kubenurse_bundle": true, "states": []}', "kubenurse collect"),
        (b'{"kubenurse_bundle": 1}', "no list of states"),
        (b'{"kubenurse_bundle": 2, "states": []}', "version 2"),
    ],
)
def test_what_is_no_bundle_is_said_to_be_none(tmp_path: Path, content: bytes, why: str) -> None:
    """Exit code 2, with the name of the file."""
    path = tmp_path / "bundle.json"
    path.write_bytes(content)
    text, code = diagnose_file(str(path), as_json=False, colour=False)
    assert code == 2
    assert why in text
    assert str(path) in text


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Exit code 2."""
    text, code = diagnose_file(str(tmp_path / "none.json"), as_json=False, colour=False)
    assert (code, "No such file" in text) == (2, True)
    assert diagnose_file("\0", as_json=False, colour=False)[1] == 2


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2."""
    monkeypatch.setattr(command, "MOST_BYTES", 2**20)
    path = tmp_path / "bundle.json"
    path.write_bytes(b" " * (2**20 + 1))
    text, code = diagnose_file(str(path), as_json=False, colour=False)
    assert (code, "larger than 1 MB" in text) == (2, True)


def test_colours_only_where_they_are_asked_for() -> None:
    """And never those of the text itself."""
    document = {"healthy": False, "sentence": "\x1b[31mred\u202e", "verdicts": [{"severity": "critical", "or": 3}]}
    assert "\x1b" not in print_diagnosis(document, colour=False)
    coloured = print_diagnosis(document, colour=True)
    assert "\x1b[1m" in coloured
    assert "\x1b[31mred" not in coloured
