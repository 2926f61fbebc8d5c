"""Inputs that a fuzzer found or started with: each reader takes them without an undocumented error."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.targets import TARGETS

CORPUS = Path(__file__).resolve().parents[1] / "fuzz" / "corpus"
# They are replayed in every run of the tests, so they stay few and small.
MOST_FILES, MOST_BYTES = 40, 8192


def test_each_target_has_examples() -> None:
    """Every target has a corpus directory with a few small files, and every directory belongs to a target."""
    assert {directory.name for directory in CORPUS.iterdir()} == set(TARGETS)
    for directory in CORPUS.iterdir():
        sizes = [file.stat().st_size for file in directory.iterdir()]
        assert 0 < len(sizes) <= MOST_FILES
        assert max(sizes) <= MOST_BYTES


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_of(name: str) -> None:
    """No example makes its reader raise an undocumented error or break a property."""
    for file in sorted((CORPUS / name).iterdir()):
        try:
            TARGETS[name](file.read_bytes())
        except Exception as error:
            error.add_note(f"with {file}")
            raise
