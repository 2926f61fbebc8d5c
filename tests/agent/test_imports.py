"""Import rules that import-linter (``make lint``) cannot express."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "kubenurse.py", *sorted((ROOT / "checks").rglob("*.py"))]
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb"}


def test_an_agent_in_a_cluster_loads_neither_the_official_client_nor_the_commands() -> None:
    """An agent in a cluster does not load the modules of the commands and of kubeconfigs."""
    program = "import sys, kubenurse; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"checks.kube.discovery", "urllib3", "prometheus_client"} <= loaded
    assert loaded.isdisjoint({"kubernetes", "yaml", "requests", "argparse", "asyncio"})
    assert not {name for name in loaded if name.startswith(("checks.cli.commands", "checks.kube.kubeconfig"))}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_configuration_reads_the_environment(path: Path) -> None:
    """Neither os.environ nor os.getenv appears outside checks/config/."""
    if path.parent.name == "config":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT)
        assert not (isinstance(node, ast.ImportFrom) and ENVIRONMENT & {name.name for name in node.names})
