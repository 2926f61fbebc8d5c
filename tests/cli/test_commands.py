"""The commands a person types, as processes of their own."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sandbox.certificates import CertificateAuthority
from tests.support.process import ADDRESS, PROGRAM, agent, command, environment, free_port, heeding_ctrl_c
from tests.support.waiting import until


def test_version_and_help(tmp_path: Path) -> None:
    """--version prints it; --help lists every variable of the table."""
    version = command(tmp_path, "--version")
    assert version.returncode == 0
    assert re.fullmatch(r"kubenurse \d+\.\d+\.\d+\S*\n", version.stdout)
    usage = command(tmp_path, "--help")
    assert usage.returncode == 0
    for name in ("KUBENURSE_INGRESS_URL", "KUBENURSE_CHECK_ME_SERVICE", "KUBERNETES_SERVICE_DNS", "HTTPS_PROXY"):
        assert name in usage.stdout


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    """Exit 2 with the usage on stderr."""
    done = command(tmp_path, "cheque")
    assert done.returncode == 2
    assert "usage: kubenurse" in done.stderr


def test_check_prints_a_table_and_fails_when_something_does(tmp_path: Path) -> None:
    """One round in the foreground: each check's state, skips with their reason, exit 1 because one fails."""
    done = command(tmp_path, "check", KUBENURSE_SERVICE_URL=f"http://{ADDRESS}:{free_port()}")
    assert done.returncode == 1
    assert re.search(r"me_service +connect: connection refused", done.stdout)
    assert "skipped: KUBENURSE_INGRESS_URL is not set" in done.stdout


def test_ctrl_c_ends_a_check_without_a_fuss(tmp_path: Path) -> None:
    """Whoever has waited long enough gets the prompt back, and no traceback: 130, as shells say it."""
    with closing(socket.create_server((ADDRESS, 0))) as silent:
        silent.settimeout(30)
        with heeding_ctrl_c():
            process = subprocess.Popen(
                [sys.executable, str(PROGRAM), "check"],
                env=environment(tmp_path, KUBENURSE_SERVICE_URL=f"http://{ADDRESS}:{silent.getsockname()[1]}"),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            output, error = process.communicate(timeout=30)
    assert (process.returncode, output, error) == (130, "", "")


def test_check_json_is_machine_readable_and_ok_when_nothing_fails(tmp_path: Path) -> None:
    """All skipped is ok: exit 0, and stdout is one JSON document."""
    done = command(tmp_path, "check", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["checks"] == {}


def test_status_asks_the_running_agent(tmp_path: Path) -> None:
    """It prints what /state says, and finds the local agent by the same variables."""
    with agent(tmp_path) as running:
        by_url = command(tmp_path, "status", "--url", f"http://{ADDRESS}:{running.port}")
        local = command(tmp_path, "status", KUBENURSE_PORT=str(running.port))
        assert by_url.returncode == local.returncode == 0
        assert "kubenurse-test" in by_url.stdout
        assert "kubenurse-test" in local.stdout


def test_status_says_when_nobody_answers(tmp_path: Path) -> None:
    """Exit 2, and the URL with the reason on stderr."""
    url = f"http://{ADDRESS}:{free_port()}"
    done = command(tmp_path, "status", "--url", url)
    assert done.returncode == 2
    assert url in done.stderr
    assert "refused" in done.stderr.lower()


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", "http://[", "http://localhost:99999"])
def test_status_refuses_what_is_no_url(tmp_path: Path, url: str) -> None:
    """Exit 2, with the URL, what is wrong with it and what one looks like."""
    done = command(tmp_path, "status", "--url", url)
    assert done.returncode == 2
    assert f"argument --url: '{url}': " in done.stderr
    assert "expected a URL like https://" in done.stderr


def test_status_fails_when_a_check_does(tmp_path: Path) -> None:
    """The table comes all the same, and the exit code says that not all is ok."""
    url = f"http://{ADDRESS}:{free_port()}"
    with agent(tmp_path, KUBENURSE_SERVICE_URL=url, KUBENURSE_CHECK_INTERVAL="100ms") as running:
        until(lambda: "check failing" in running.log())
        done = command(tmp_path, "status", KUBENURSE_PORT=str(running.port))
    assert done.returncode == 1
    assert re.search(r"^me_service +connect: connection refused ", done.stdout, re.MULTILINE)
    assert done.stderr == ""


def test_status_over_tls(tmp_path: Path) -> None:
    """An https URL is asked with the CA of KUBENURSE_EXTRA_CA, and without it not believed."""
    authority = CertificateAuthority(tmp_path / "pki")
    certificate = authority.issue("served", ADDRESS)
    tls_port = free_port()
    served = {
        "KUBENURSE_USE_TLS": "true",
        "KUBENURSE_TLS_PORT": str(tls_port),
        "KUBENURSE_CERT_FILE": str(certificate.chain),
        "KUBENURSE_CERT_KEY": str(certificate.key),
    }
    url = f"HTTPS://{ADDRESS}:{tls_port}/"
    with agent(tmp_path, **served):
        trusted = command(tmp_path, "status", "--url", url, KUBENURSE_EXTRA_CA=str(authority.file))
        unknown = command(tmp_path, "status", "--url", url)
    assert (trusted.returncode, trusted.stderr) == (0, "")
    assert "kubenurse-test" in trusted.stdout
    assert unknown.returncode == 2
    assert "CERTIFICATE_VERIFY_FAILED" in unknown.stderr


@pytest.mark.parametrize("arguments", [["check"], ["status"]])
def test_commands_report_every_configuration_problem(tmp_path: Path, arguments: list[str]) -> None:
    """A command reads the same configuration as the agent: exit 2 and a line a problem."""
    done = command(tmp_path, *arguments, KUBENURSE_PORT="http", KUBENURSE_INSECURE="perhaps")
    assert done.returncode == 2
    assert done.stdout == ""
    named = [line.split("=")[0] for line in done.stderr.splitlines()]
    assert sorted(named) == ["kubenurse: KUBENURSE_INSECURE", "kubenurse: KUBENURSE_PORT"]


@pytest.mark.parametrize("argument", ["--", "--url"])
def test_options_without_a_command_are_a_usage_error(tmp_path: Path, argument: str) -> None:
    """What looks like an option but is followed by no command gets the usage."""
    done = command(tmp_path, argument)
    assert done.returncode == 2
    assert "usage: kubenurse" in done.stderr


def test_status_refuses_another_status(tmp_path: Path) -> None:
    """Where something answers, but not with 200, the answer's status is told."""
    with agent(tmp_path) as running:
        url = f"http://{ADDRESS}:{running.port}/somewhere"
        done = command(tmp_path, "status", "--url", url)
    assert done.returncode == 2
    assert f"{url}: 404 Not Found, expected kubenurse's answer" in done.stderr


NOT_STATE = [
    b"[]",
    b"{}",
    b"not json",
    100_000 * b"[",
    b'{"checks": {}}',
    b'{"checks": [], "neighbourhood": {"state": "ok"}}',
    b'{"checks": {"a": "b"}, "neighbourhood": {"state": "ok"}}',
    b'{"checks": {"a": {"state": "ok", "duration": "x", "remote": ""}}, "neighbourhood": {"state": "ok"}}',
]


@pytest.mark.parametrize("body", NOT_STATE, ids=range(len(NOT_STATE)))
def test_status_says_when_something_else_answers(tmp_path: Path, body: bytes) -> None:
    """An answer that is not kubenurse's is named as such, whatever it resembles."""
    with closing(socket.create_server((ADDRESS, 0))) as server:
        url = f"http://{ADDRESS}:{server.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "status", "--url", url],
            env=environment(tmp_path),
            stderr=subprocess.PIPE,
            text=True,
        )
        server.settimeout(30)
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            _, error = process.communicate(timeout=30)
    assert process.returncode == 2
    assert error.startswith(f"kubenurse: no agent answers at {url}: ")
    assert len(error.splitlines()) == 1
