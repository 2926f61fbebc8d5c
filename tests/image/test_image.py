"""The image, built and run: its content, and an agent in it as a healthy member of a cluster."""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks import __version__
from sandbox.agent import Agent
from sandbox.cluster import Cluster
from sandbox.objects import make_pod
from tests.image.podman import BASE, IMAGE, Podman
from tests.support.waiting import PROCESS_START, until
from tools.pyz import build, write

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
CA = "/etc/kubenurse/ca.crt"
CHECKS = {"api_server_direct", "api_server_dns", "me_ingress", "me_service", "path_node-1"}
NAME = "kubenurse-in-image"
MEGABYTE = 1_000_000

# The first test makes the base from packages that come over the network.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two agents; the second one is stopped, and the container takes its place."""
    with Cluster(2, environ={"KUBENURSE_CHECK_INTERVAL": "500ms"}) as cluster:
        agent = cluster.agents[1]
        agent.stop()
        cluster.api.put("pods", make_pod(agent.pod, agent.node, agent.address[0]))
        yield cluster


def environ(agent: Agent) -> dict[str, str]:
    """Return the agent's environment inside the container: mounted files, and nothing of the machine."""
    left_out = ("PATH", "HOME", "KUBENURSE_SERVICEACCOUNT_DIR")
    inside = {name: value for name, value in agent.environ.items() if name not in left_out}
    return {name: value for name, value in inside.items() if not name.startswith("COVERAGE_")} | {
        "KUBENURSE_EXTRA_CA": CA
    }


def mounts(cluster: Cluster, agent: Agent) -> list[str]:
    """Return the options that mount the service account where the kubelet does, and the ingress's CA."""
    return [f"--volume={agent.account.path}:{ACCOUNT}:ro", f"--volume={cluster.authority.file}:{CA}:ro"]


def healthy(podman: Podman, name: str) -> bool:
    """Run the image's health check in a running container."""
    command = podman.inspect(IMAGE)["Healthcheck"]["Test"]
    assert command[0] == "CMD"
    return podman.run("exec", name, *command[1:], check=False).returncode == 0


def states(document: str) -> dict[str, str]:
    """Return every check's state from what ``check --json`` prints."""
    return {name: check["state"] for name, check in json.loads(document)["checks"].items()}


@contextlib.contextmanager
def container(podman: Podman, cluster: Cluster) -> Iterator[Agent]:
    """Run the image as the cluster's second agent."""
    agent = cluster.agents[1]
    options = ["--detach", f"--name={NAME}", *mounts(cluster, agent)]
    started = podman.run_image(options=options, environ=environ(agent))
    assert started.returncode == 0, started.stderr
    try:
        yield agent
    finally:
        podman.run("rm", "--force", "--time=2", NAME)


def answers(agent: Agent) -> bool:
    """Tell whether the agent serves."""
    try:
        return agent.get("/alwayshappy").status == 200
    except OSError:
        return False


def test_says_who_it_is(podman: Podman) -> None:
    """The image has labels, a numeric user, the stop signal, the ports and the health check."""
    config = podman.inspect(IMAGE)["Config"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.base.name"] == BASE
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert len(labels["org.opencontainers.image.revision"]) == 40
    assert config["User"] == "65532:65532"
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert set(config["ExposedPorts"]) == {"8080/tcp", "8443/tcp"}
    assert podman.inspect(IMAGE)["Healthcheck"]["Test"][0] == "CMD"


def test_has_nothing_but_kubenurse_and_two_packages_over_its_base(podman: Podman, report: list[str]) -> None:
    """The image adds /app and the command to its base, a few megabytes; the size is printed."""
    changed = json.loads(podman.run("image", "diff", "--format=json", IMAGE, BASE).stdout)
    assert set(changed.get("changed", [])) <= {"/usr", "/usr/local", "/usr/local/bin"}
    assert not changed.get("deleted")
    top = {"/".join(path.split("/")[:3]) for path in changed["added"] if path.startswith("/app/")}
    assert {path for path in top if not path.endswith(".dist-info")} == {
        f"/app/{name}" for name in ("LICENSE", "__pycache__", "checks", "kubenurse.py", "prometheus_client", "urllib3")
    }
    others = {path for path in changed["added"] if path != "/app" and not path.startswith("/app/")}
    assert others == {"/usr/local/bin/kubenurse"}
    over = podman.inspect(IMAGE)["Size"] - podman.inspect(BASE)["Size"]
    report.append(f"image: {over / MEGABYTE:.1f} MB over its base of {podman.inspect(BASE)['Size'] / MEGABYTE:.0f} MB")
    assert 0 < over < 6 * MEGABYTE


def test_one_round_of_all_checks_is_ok_inside(podman: Podman, cluster: Cluster) -> None:
    """``check`` as the constrained clusters run it: API server, Service, ingress and the neighbour are all ok."""
    agent = cluster.agents[1]
    options = ["--rm", *mounts(cluster, agent)]
    done = podman.run_image("check", "--json", options=options, environ=environ(agent))
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done.stdout) == dict.fromkeys(CHECKS, "ok")


def test_the_single_file_does_the_same_in_an_image_without_kubenurse(
    podman: Podman, cluster: Cluster, tmp_path: Path
) -> None:
    """The single file works in the plain base, mounted as from a ConfigMap, under an unknown user number."""
    file = tmp_path / "kubenurse.pyz"
    write(file, build()[0])
    agent = cluster.agents[1]
    mounted_file = f"--volume={file}:/opt/kubenurse/kubenurse.pyz:ro"
    options = ["--rm", "--user=65532:65532", mounted_file, *mounts(cluster, agent)]
    command = ["python3", "-I", "-S", "/opt/kubenurse/kubenurse.pyz", "check", "--json"]
    done = podman.run_image(*command, options=options, environ=environ(agent), image=BASE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done.stdout) == dict.fromkeys(CHECKS, "ok")


def test_an_agent_in_the_container_is_a_healthy_member(podman: Podman, cluster: Cluster, report: list[str]) -> None:
    """The agent finds its neighbour and is found, has no privilege, is healthy, and ends with 0."""
    with container(podman, cluster) as agent:
        until(lambda: answers(agent), PROCESS_START)
        # Discovery lists the Pods first.
        until(lambda: set(agent.state()["checks"]) == CHECKS, PROCESS_START)
        status, alive = agent.alive()
        assert (status, alive["neighbourhood_state"]) == (200, "ok")
        neighbour = cluster.agents[0]
        until(lambda: neighbour.state()["checks"].get("path_node-2", {}).get("state") == "ok", PROCESS_START)
        assert healthy(podman, NAME)
        pid = podman.inspect(NAME)["State"]["Pid"]
        facts = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert facts["Uid"].split() == ["65532"] * 4
        assert {int(facts[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")} == {0}
        assert facts["NoNewPrivs"] == "1"
        report.append(f"agent in the image: {int(facts['VmRSS'].split()[0]) / 1024:.1f} MB resident")
        podman.run("stop", "--time=10", NAME)
        assert podman.inspect(NAME)["State"]["ExitCode"] == 0


def test_without_an_agent_it_is_not_healthy(podman: Podman) -> None:
    """The health check fails where nobody listens on the agent's port."""
    command = podman.inspect(IMAGE)["Healthcheck"]["Test"][1:]
    options = ["--rm", f"--entrypoint={json.dumps(command)}"]
    done = podman.run_image(options=options, environ={"KUBENURSE_PORT": "1"})
    assert done.returncode != 0
    assert "refused" in done.stderr


def test_nothing_can_be_written_and_nothing_is_compiled(podman: Podman) -> None:
    """No directory is writable, /tmp included, and imports use the byte-code in the image."""
    script = """
import sys
sys.path.insert(0, "/app")
from checks.config import variables
print(variables.__cached__)
open("/tmp/file", "w")
"""
    options = ["--rm", f"--entrypoint={json.dumps(['python3', '-ISv', '-c', script])}"]
    done = podman.run_image(options=options)
    assert done.returncode != 0
    assert "Read-only file system: '/tmp/file'" in done.stderr
    assert f"code object from '{done.stdout.strip()}'" in done.stderr


def mounted(podman: Podman, image: str) -> Path:
    """Return where an image's files can be read."""
    return Path(podman.run("image", "mount", image).stdout.strip())


def files(podman: Podman, image: str) -> dict[str, bytes]:
    """Return what an image has over its base, by path."""
    root = mounted(podman, image)
    found = [root / "usr/local/bin/kubenurse", *(file for file in (root / "app").rglob("*") if file.is_file())]
    return {str(file.relative_to(root)): file.read_bytes() for file in found}


def test_is_built_for_another_platform_without_emulation(podman: Podman, tmp_path: Path) -> None:
    """An image for another platform, whose programs cannot run here, gets the same files."""
    archive = tmp_path / "base.tar"
    with tarfile.open(archive, "w") as base:
        base.add(Path(__file__), "etc/file")
    podman.run("import", "--quiet", "--arch=s390x", str(archive), "localhost/other-base")
    both = "localhost/both-bases:bookworm"
    podman.run("manifest", "create", both, f"containers-storage:{BASE}", "containers-storage:localhost/other-base")
    podman.build("localhost/other", both, "--platform=linux/s390x")
    assert podman.inspect("localhost/other")["Architecture"] == "s390x"
    assert (mounted(podman, "localhost/other") / "etc/file").is_file()
    assert files(podman, "localhost/other") == files(podman, IMAGE)
