"""The manifests as kustomize reads them, for all tests here."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from tests.support.rendering import MANIFESTS


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the manifests, with a single file to vendor: a clean checkout has not built one."""
    copy = tmp_path_factory.mktemp("checkout") / "kubenurse" / "manifests"
    shutil.copytree(MANIFESTS, copy)
    with zipfile.ZipFile(copy / "components/vendored/kubenurse.pyz", "w") as archive:
        archive.writestr("__main__.py", "print('kubenurse')\n")
    return copy
