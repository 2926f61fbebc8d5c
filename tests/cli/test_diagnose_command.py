"""``kubenurse diagnose --from FILE`` judges a bundle without a cluster and without any configuration."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.process import command

HEALTHY = {
    "kubenurse_bundle": 1,
    "collected_at": 1_795_000_000.0,
    "by": "kubenurse-a",
    "states": [],
    "silent": [],
    "nodes": [],
    "leaving": [],
}


def test_a_bundle_is_judged_whatever_the_environment(tmp_path: Path) -> None:
    """A wrong variable of the agent does not matter; the answer is the /diagnosis document."""
    bundle = tmp_path / "bundle.json"
    bundle.write_text(json.dumps(HEALTHY))
    done = command(tmp_path, "diagnose", "--from", str(bundle), "--json", KUBENURSE_PORT="http")
    document = json.loads(done.stdout)
    assert document["verdicts"] == []
    assert document["collected_at"] == HEALTHY["collected_at"]
    assert done.returncode == (0 if document["healthy"] else 1)


def test_a_file_that_is_no_bundle_is_exit_2(tmp_path: Path) -> None:
    """The reason goes to stderr, on one line with the file's name; stdout stays empty."""
    for name, content in (("list", "[]"), ("text", "no json"), ("other", "{}")):
        path = tmp_path / name
        path.write_text(content)
        done = command(tmp_path, "diagnose", "--from", str(path))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("kubenurse: ")
        assert str(path) in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_missing_file_is_exit_2(tmp_path: Path) -> None:
    """A file that is not there is named with the reason."""
    done = command(tmp_path, "diagnose", "--from", str(tmp_path / "missing"))
    assert done.returncode == 2
    assert "missing" in done.stderr
    assert "no such file" in done.stderr.lower()
