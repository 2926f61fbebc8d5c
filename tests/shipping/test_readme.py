"""The README says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from checks.web.endpoints import ENDPOINTS
from tools.readme import README, with_tables

ROOT = README.parent


def test_generated_tables_are_in_step() -> None:
    """The README's tables are the generated ones: run ``make docs`` when this fails."""
    text = README.read_text(encoding="utf-8")
    assert with_tables(text) == text


def test_every_endpoint_has_a_row() -> None:
    """The table of endpoints, which is not generated, has each endpoint."""
    text = README.read_text(encoding="utf-8")
    for name in ENDPOINTS:
        assert re.search(rf"^\| `{re.escape(name)}` \|", text, re.MULTILINE), name


def test_links_lead_to_files() -> None:
    """Every relative link in the documentation leads to an existing file."""
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("manifests/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert Path(page.parent, target).exists(), f"{page.relative_to(ROOT)}: {target}"
