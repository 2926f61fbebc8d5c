"""The effect of signals on an agent, from its start to its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import PROGRAM, agent, environment
from tests.support.waiting import until

# Stands in for a package that takes long to import, and says so.
_SLOW_PACKAGE = "import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_imports_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    """The agent heeds signals before it has imported its packages: exit code 0, and no traceback."""
    slow = tmp_path / "packages" / "urllib3"
    slow.mkdir(parents=True)
    (slow / "__init__.py").write_text(_SLOW_PACKAGE)
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        env=environment(tmp_path, PYTHONPATH=str(slow.parent)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (0, "")


def test_sighup_is_ignored(tmp_path: Path) -> None:
    """Files are read again by themselves: SIGHUP changes nothing, and the agent still ends with 0."""
    with agent(tmp_path) as running:
        running.process.send_signal(signal.SIGHUP)
        assert running.get("/alwayshappy")[0] == 200
        assert running.end(signal.SIGTERM) == 0


def test_a_second_sigint_ends_a_drain_with_0(tmp_path: Path) -> None:
    """Ctrl-C during the drain after SIGTERM ends the agent at once, and more of them do no harm."""
    with agent(tmp_path, KUBENURSE_SHUTDOWN_DURATION="1h") as running:
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.get("/ready")[0] == 503)
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(20) == 0


def test_a_kubeconfig_without_its_package_is_a_configuration_error(tmp_path: Path) -> None:
    """KUBECONFIG set and no kubernetes package: the agent and its commands say so and exit with 2."""
    missing = tmp_path / "packages" / "kubernetes"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text("raise ImportError('not installed')\n")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("{}\n")
    for arguments in ([], ["check"]):
        done = subprocess.run(
            [sys.executable, str(PROGRAM), *arguments],
            env=environment(tmp_path, PYTHONPATH=str(missing.parent), KUBECONFIG=str(kubeconfig)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert f"kubenurse: KUBECONFIG='{kubeconfig}': " in done.stderr
        assert "pip install kubernetes" in done.stderr
