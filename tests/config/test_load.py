"""The environment becomes a Config, or a list of everything that is wrong with it."""

from __future__ import annotations

import dataclasses
import ssl
import types
import typing
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from checks.config import convert
from checks.config.load import load
from checks.config.proxies import Proxies
from checks.config.settings import Config, ConfigError
from checks.config.variables import VARIABLES, help_text, markdown_table
from checks.model import TRACE_EVENTS
from checks.probe import urls

CONTRACT = [
    "KUBENURSE_INGRESS_URL",
    "KUBENURSE_SERVICE_URL",
    "KUBENURSE_INSECURE",
    "KUBENURSE_EXTRA_CA",
    "KUBENURSE_NAMESPACE",
    "KUBENURSE_NEIGHBOUR_FILTER",
    "KUBENURSE_NEIGHBOUR_LIMIT",
    "KUBENURSE_ALLOW_UNSCHEDULABLE",
    "KUBENURSE_USE_TLS",
    "KUBENURSE_CERT_FILE",
    "KUBENURSE_CERT_KEY",
    "KUBENURSE_EXTRA_CHECKS",
    "KUBENURSE_CHECK_API_SERVER_DIRECT",
    "KUBENURSE_CHECK_API_SERVER_DNS",
    "KUBENURSE_CHECK_ME_INGRESS",
    "KUBENURSE_CHECK_ME_SERVICE",
    "KUBENURSE_CHECK_NEIGHBOURHOOD",
    "KUBENURSE_CHECK_INTERVAL",
    "KUBENURSE_CHECK_TIMEOUT",
    "KUBENURSE_CACHE_TTL",
    "KUBENURSE_REUSE_CONNECTIONS",
    "KUBENURSE_HISTOGRAM_BUCKETS",
    "KUBENURSE_VICTORIAMETRICS_HISTOGRAM",
    "KUBENURSE_EXPOSE_METADATA",
    "KUBENURSE_TRACE_EVENTS",
    "KUBENURSE_SHUTDOWN_DURATION",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "KUBERNETES_SERVICE_DNS",
    "KUBENURSE_LISTEN_ADDRESS",
    "KUBENURSE_PORT",
    "KUBENURSE_TLS_PORT",
    "KUBENURSE_POD_NAME",
    "KUBENURSE_NODE_NAME",
    "KUBENURSE_SERVICEACCOUNT_DIR",
    "KUBENURSE_LOG_LEVEL",
    "KUBENURSE_LOG_FORMAT",
    "KUBENURSE_NEIGHBOUR_TLS_NAME",
    "KUBENURSE_READY_WHEN_CORDONED",
    "KUBENURSE_HISTORY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "KUBECONFIG",
]

NO_SERVICE_ACCOUNT = "/nonexistent"


def config_of(**variables: str) -> Config:
    """Load a configuration on a machine that has no service account and is called pod-1."""
    return load({"KUBENURSE_SERVICEACCOUNT_DIR": NO_SERVICE_ACCOUNT} | variables, hostname=lambda: "pod-1")


def problems_of(**variables: str) -> tuple[str, ...]:
    """Return what is wrong with the variables."""
    with pytest.raises(ConfigError) as caught:
        config_of(**variables)
    return caught.value.problems


def complaint_about(name: str, text: str) -> str:
    """Return the problems with one variable as one text, empty when there are none."""
    try:
        config_of(**{name: text})
    except ConfigError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """PEM files, good and bad ones."""
    directory = tmp_path_factory.mktemp("pems")
    authority = trustme.CA()
    issued, other = authority.issue_cert("kubenurse.test"), authority.issue_cert("other.test")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    contents = {
        "ca": authority.cert_pem.bytes(),
        "certificate": b"".join(blob.bytes() for blob in issued.cert_chain_pems),
        "key": issued.private_key_pem.bytes(),
        "other_key": other.private_key_pem.bytes(),
        "encrypted_key": key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        ),
        "empty": b"",
        "garbage": b"-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n",
    }
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    return {name: directory / name for name in (*contents, "missing")} | {"directory": directory}


def test_the_table_has_the_contract_and_nothing_else() -> None:
    """Every promised variable is in the table, once, and no other one."""
    assert [variable.name for variable in VARIABLES] == CONTRACT


def test_every_field_has_a_variable() -> None:
    """The table's fields are Config's, but for those that are put together from several variables."""
    fields = {field.name for field in dataclasses.fields(Config)}
    proxies = {"http_proxy", "https_proxy", "no_proxy"}
    composed = {
        "proxies",
        "api_dns_is_set",
        "kubeconfig_is_set",
        "warnings",
    }
    assert {variable.field for variable in VARIABLES} - proxies == fields - composed


def test_every_field_has_its_type() -> None:
    """What the converters return is of the type that Config declares."""
    config = config_of(
        KUBENURSE_CERT_FILE="/c", KUBENURSE_CERT_KEY="/k", KUBENURSE_EXTRA_CHECKS="a:http://h", HTTP_PROXY="p:1"
    )
    for name, declared in typing.get_type_hints(Config).items():
        kinds = typing.get_args(declared) if isinstance(declared, types.UnionType) else (declared,)
        value = getattr(config, name)
        assert isinstance(value, tuple(typing.get_origin(kind) or kind for kind in kinds))
        assert isinstance(value, bool) == (declared is bool)


def test_defaults() -> None:
    """Without any variable the defaults are those of the contract."""
    config = load({}, hostname=lambda: "pod-1")
    assert (config.ingress_url, config.service_url, config.neighbour_filter, config.extra_checks) == ("", "", "", ())
    assert (config.insecure, config.use_tls, config.allow_unschedulable, config.reuse_connections) == (False,) * 4
    assert (config.check_interval, config.check_timeout, config.cache_ttl, config.shutdown_duration) == (5, 5, 3, 5)
    assert config.histogram_buckets == (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
    assert config.trace_events == frozenset(TRACE_EVENTS)
    assert (config.port, config.tls_port, config.listen_address, config.neighbour_limit) == (8080, 8443, "", 10)
    assert (config.api_host, config.api_port, config.api_dns) == ("", 443, "kubernetes.default.svc")
    assert (config.pod_name, config.node_name, config.api_dns_is_set) == ("pod-1", "", False)
    assert (config.log_level, config.log_format, config.expose_metadata) == ("info", "logfmt", True)
    unset = (config.extra_ca, config.cert_file, config.cert_key, config.kubeconfig, config.proxies, config.warnings)
    assert unset == (None, None, None, (), Proxies(), ())


def test_empty_is_unset() -> None:
    """An empty or blank variable is the same as none."""
    assert load(dict.fromkeys(CONTRACT, " \t"), hostname=lambda: "x") == load({}, hostname=lambda: "x")


VALUES = st.one_of(
    st.text(st.characters(exclude_characters="\0"), max_size=40),  # no environment can hold NUL
    st.sampled_from(
        ["true", "5s", "0", "8080", "http://[::1]:80/x", "a:http://h|b:https://h", "1,2", "all", "a in (b)", "\udcff"]
    ),
)


@given(st.dictionaries(st.sampled_from(CONTRACT), VALUES))
def test_any_environment_is_a_config_or_problems(environ: dict[str, str]) -> None:
    """Whatever the variables hold, the answer is a Config or one printable line for each variable that is wrong."""
    try:
        load(environ, hostname=lambda: "pod-1")
        problems: tuple[str, ...] = ()
    except ConfigError as error:
        problems = error.problems
    for problem in problems:
        assert problem.isprintable()
        assert problem.partition("='")[0] in CONTRACT
        assert ", expected " in problem
    assert len(problems) == len({problem.partition("=")[0] for problem in problems})


def test_all_problems_at_once_in_the_documented_form() -> None:
    """Every variable that is wrong has its line, in the table's order."""
    assert problems_of(KUBENURSE_PORT="http", KUBENURSE_CHECK_INTERVAL="5", KUBENURSE_INSECURE="ja") == (
        "KUBENURSE_INSECURE='ja': not a boolean, expected true/false, 1/0, yes/no or on/off",
        "KUBENURSE_CHECK_INTERVAL='5': unit missing, expected a duration like 5s, 1m30s or 500ms",
        "KUBENURSE_PORT='http': not a number in range, expected a port from 1 to 65535",
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("KUBENURSE_INGRESS_URL", "https://kubenurse.example.com", "https://kubenurse.example.com"),
        ("KUBENURSE_SERVICE_URL", " http://kubenurse.default.svc:8080/ ", "http://kubenurse.default.svc:8080/"),
        ("KUBENURSE_SERVICE_URL", "http://[fd00::1]:8080", "http://[fd00::1]:8080"),
        ("KUBENURSE_INSECURE", "TRUE", True),
        ("KUBENURSE_INSECURE", "1", True),
        ("KUBENURSE_INSECURE", "Yes", True),
        ("KUBENURSE_INSECURE", "on", True),
        ("KUBENURSE_CHECK_ME_INGRESS", "False", False),
        ("KUBENURSE_CHECK_ME_INGRESS", "0", False),
        ("KUBENURSE_CHECK_ME_INGRESS", "NO", False),
        ("KUBENURSE_CHECK_ME_INGRESS", "off", False),
        ("KUBENURSE_NEIGHBOUR_LIMIT", "0", 0),
        ("KUBENURSE_NEIGHBOUR_FILTER", "app in (a, b),!c", "app in (a, b),!c"),
        ("KUBENURSE_EXTRA_CHECKS", "a:http://h:80/x?y=z", (("a", "http://h:80/x?y=z"),)),
        ("KUBENURSE_EXTRA_CHECKS", "a:http://h | B.2 : https://[::1]", (("a", "http://h"), ("B.2", "https://[::1]"))),
        ("KUBENURSE_CHECK_INTERVAL", "10ms", 0.01),
        ("KUBENURSE_CHECK_TIMEOUT", "1m30s", 90.0),
        ("KUBENURSE_CACHE_TTL", "0", 0.0),
        ("KUBENURSE_SHUTDOWN_DURATION", "24h", 86_400.0),
        ("KUBENURSE_HISTOGRAM_BUCKETS", ".5, 1,2.50,1e1,+Inf", (0.5, 1.0, 2.5, 10.0)),
        ("KUBENURSE_TRACE_EVENTS", "none", frozenset()),
        ("KUBENURSE_TRACE_EVENTS", "got_conn, dns_done", frozenset({"got_conn", "dns_done"})),
        ("KUBERNETES_SERVICE_HOST", "[fd00::1]", "fd00::1"),
        ("KUBERNETES_SERVICE_HOST", "fd00::1", "fd00::1"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1", "10.96.0.1"),
        ("KUBERNETES_SERVICE_HOST", "api.example.com", "api.example.com"),
        ("KUBERNETES_SERVICE_PORT", "6443", 6443),
        ("KUBERNETES_SERVICE_DNS", "kubernetes.default.svc.cluster.local.", "kubernetes.default.svc.cluster.local."),
        ("KUBENURSE_LISTEN_ADDRESS", "127.0.1.1", "127.0.1.1"),
        ("KUBENURSE_LISTEN_ADDRESS", "[::1]", "::1"),
        ("KUBENURSE_PORT", "65535", 65535),
        ("KUBENURSE_POD_NAME", "kubenurse-x2bwx", "kubenurse-x2bwx"),
        ("KUBENURSE_NODE_NAME", "ip-10-0-0-1.ec2.internal", "ip-10-0-0-1.ec2.internal"),
        ("KUBENURSE_NAMESPACE", "kube-system", "kube-system"),
        ("KUBENURSE_LOG_LEVEL", "Debug", "debug"),
        ("KUBENURSE_LOG_FORMAT", "JSON", "json"),
    ],
)
def test_values(name: str, text: str, value: object) -> None:
    """A variable's text becomes its field's value."""
    (variable,) = [variable for variable in VARIABLES if variable.name == name]
    assert getattr(config_of(**{name: text}), variable.field) == value


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("KUBENURSE_INGRESS_URL", "kubenurse.example.com", "neither http:// nor https://"),
        ("KUBENURSE_INGRESS_URL", "ftp://h", "neither http:// nor https://"),
        ("KUBENURSE_INGRESS_URL", "https://", "no valid host"),
        ("KUBENURSE_INGRESS_URL", "https://:443/x", "no valid host"),
        ("KUBENURSE_INGRESS_URL", "https://a..b", "no valid host"),
        ("KUBENURSE_INGRESS_URL", "https://10.0.0.256", "no valid host"),
        ("KUBENURSE_INGRESS_URL", "https://[v1.x]", "no valid host"),
        ("KUBENURSE_INGRESS_URL", "https://[::1]x", ""),
        ("KUBENURSE_INGRESS_URL", "https://x[::1]", ""),
        ("KUBENURSE_INGRESS_URL", "https://h/#top", "has a fragment"),
        ("KUBENURSE_INGRESS_URL", "https://h\\x", "no valid host"),
        ("KUBENURSE_INGRESS_URL", "https://h/\\x", "backslash"),
        ("KUBENURSE_INGRESS_URL", "https://h/a b", "has blanks"),
        ("KUBENURSE_INGRESS_URL", "https://h/\r\nX: y", "has blanks, control characters"),
        ("KUBENURSE_INGRESS_URL", "https://bücher.example", "characters beyond ASCII"),
        ("KUBENURSE_INGRESS_URL", "https://h:0", "port 0"),
        ("KUBENURSE_INGRESS_URL", "https://h:65536", "the host or the port is malformed"),
        ("KUBENURSE_INGRESS_URL", "https://h:http", "the host or the port is malformed"),
        ("KUBENURSE_INGRESS_URL", "https://[::1", "the host or the port is malformed"),
        ("KUBENURSE_INGRESS_URL", "https://[::x]", "the host or the port is malformed"),
        ("KUBENURSE_SERVICE_URL", "http://h/?a=b", "has a query"),
        ("KUBENURSE_NEIGHBOUR_LIMIT", "-1", "not a number in range"),
        ("KUBENURSE_NEIGHBOUR_LIMIT", "1_0", "not a number in range"),
        ("KUBENURSE_NEIGHBOUR_FILTER", "app in (a", "not a label selector: the end at character 10"),
        ("KUBENURSE_EXTRA_CHECKS", "http://h", "entry 1: neither http:// nor https://"),
        ("KUBENURSE_EXTRA_CHECKS", "a", "entry 1: neither http:// nor https://"),
        ("KUBENURSE_EXTRA_CHECKS", "a:http://h|", "entry 2: no name"),
        ("KUBENURSE_EXTRA_CHECKS", ":http://h", "entry 1: no name"),
        ("KUBENURSE_EXTRA_CHECKS", "a b:http://h", "entry 1: the name is not a label value"),
        ("KUBENURSE_EXTRA_CHECKS", "a:http://h|a:http://i", "entry 2: the name is taken"),
        ("KUBENURSE_EXTRA_CHECKS", "me_ingress:http://h", "entry 1: the name is a built-in check's"),
        ("KUBENURSE_EXTRA_CHECKS", "path_x:http://h", "entry 1: the name is a built-in check's"),
        ("KUBENURSE_EXTRA_CHECKS", "a:x|b:http://h|c d:http://h", "entry 3: the name is not a label value"),
        ("KUBENURSE_CHECK_INTERVAL", "9ms", "too short, expected a duration from 10ms to 24h0m0s"),
        ("KUBENURSE_CHECK_INTERVAL", "25h", "too long, expected a duration from 10ms to 24h0m0s"),
        ("KUBENURSE_CHECK_TIMEOUT", "0", "too short"),
        ("KUBENURSE_CACHE_TTL", "-1s", "too short, expected a duration from 0s"),
        ("KUBENURSE_SHUTDOWN_DURATION", "5", "unit missing"),
        ("KUBENURSE_HISTOGRAM_BUCKETS", "1,1", "not strictly increasing"),
        ("KUBENURSE_HISTOGRAM_BUCKETS", "2,1", "not strictly increasing"),
        ("KUBENURSE_HISTOGRAM_BUCKETS", "0,1", "a bound is zero"),
        ("KUBENURSE_HISTOGRAM_BUCKETS", "1,1e999", "too large"),
        ("KUBENURSE_HISTOGRAM_BUCKETS", "1,,2", "not a list of numbers"),
        ("KUBENURSE_HISTOGRAM_BUCKETS", "1,nan", "not a list of numbers"),
        ("KUBENURSE_HISTOGRAM_BUCKETS", "-1,2", "not a list of numbers"),
        ("KUBENURSE_HISTOGRAM_BUCKETS", "+Inf", "not a list of numbers"),
        ("KUBENURSE_HISTOGRAM_BUCKETS", "Inf,1", "not a list of numbers"),
        ("KUBENURSE_HISTOGRAM_BUCKETS", ",".join(map(str, range(1, 102))), "too many"),
        ("KUBENURSE_TRACE_EVENTS", "got_con", "not a list of events"),
        ("KUBENURSE_TRACE_EVENTS", "all,got_conn", "not a list of events"),
        ("KUBERNETES_SERVICE_HOST", "10.0.0.256", "neither an IP address nor a host name"),
        ("KUBERNETES_SERVICE_HOST", "[10.0.0.1]", "neither an IP address nor a host name"),
        ("KUBERNETES_SERVICE_PORT", "0", "not a number in range"),
        ("KUBERNETES_SERVICE_DNS", "https://kubernetes", "not a host name"),
        ("KUBERNETES_SERVICE_DNS", "x" * 64, "not a host name"),
        ("KUBENURSE_LISTEN_ADDRESS", "localhost", "not an IP address"),
        ("KUBENURSE_PORT", "65536", "not a number in range"),
        ("KUBENURSE_POD_NAME", "Pod", "not a Pod's or node's name"),
        ("KUBENURSE_NODE_NAME", "node\r\nX: y", "not a Pod's or node's name"),
        ("KUBENURSE_NAMESPACE", "a.b", "not a namespace's name"),
        ("KUBENURSE_LOG_LEVEL", "loud", "unknown, expected one of debug, info, warning, error"),
        ("KUBENURSE_LOG_FORMAT", "xml", "unknown, expected one of logfmt, json"),
        ("HTTP_PROXY", "socks5://proxy:1080", "neither http:// nor https://"),
        ("HTTPS_PROXY", "proxy:99999", "the host or the port is malformed"),
    ],
)
def test_what_is_wrong_with_a_value(name: str, text: str, wrong: str) -> None:
    """A value that cannot be meant is a problem that says what is wrong and what is expected."""
    (problem,) = problems_of(**{name: text})
    assert problem.startswith(f"{name}='")
    assert wrong in problem
    assert ", expected " in problem


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20))
def test_an_accepted_url_can_be_requested(rest: str) -> None:
    """What the configuration takes for a URL, the checks can take apart."""
    try:
        accepted = convert.url("http://" + rest)
    except ValueError:
        return
    assert urls.parse(accepted).endpoint.host


class TestSecrets:
    """No password in a URL is ever shown."""

    @given(
        st.sampled_from(["KUBENURSE_INGRESS_URL", "KUBENURSE_SERVICE_URL", "KUBENURSE_EXTRA_CHECKS", "HTTP_PROXY"]),
        st.sampled_from(["{}", "a:{}", "a:{}|a:{}", "{}#f", "x:http://h|b:{}"]),
        st.sampled_from(["https://user:{}@host/path", "ftp://user:{}@host", "user:{}@host:x", "http://:{}@host:0"]),
        st.text(st.sampled_from("/?#@:|é \n'\\"), max_size=4),
    )
    def test_in_problems(self, name: str, outer: str, url: str, odd: str) -> None:
        """Whatever is wrong with a URL, and however odd the password, the problem does not show it."""
        shown = complaint_about(name, outer.replace("{}", url.replace("{}", f"pass{odd}word")))
        assert "pass" not in shown
        assert "word" not in shown

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("https://host/path", "https://host/path"),
            ("https://user:password@host", "https://user:***@host"),
            ("https://token@host", "https://***@host"),
            ("proxy:3128", "proxy:3128"),
            ("user:password@proxy:3128", "user:***@proxy:3128"),
            ("a:https://user:p@ss/w|rd@host|b:http://h", "a:https://user:***@host|b:http://h"),
            ("a:https://user:one@h|b:https://user:two@h", "a:https://user:***@h"),
            ("a:http://h:80|b:https://user:password@h", "a:http://h:***@h"),
            ("a:https://h/x?api_key=secret|b:ftp://x/?y", "a:https://h/x?***|b:ftp://x/?***"),
            ("why?", "why?"),
        ],
    )
    def test_redacted(self, text: str, shown: str) -> None:
        """User and host stay where they can be told apart from the password."""
        assert convert.redact(text) == shown

    def test_in_the_form_of_the_problem(self) -> None:
        """The user's name and the host are shown, the password is three asterisks."""
        (problem,) = problems_of(KUBENURSE_INGRESS_URL="https://user:secret@host:0/")
        assert problem.startswith("KUBENURSE_INGRESS_URL='https://user:***@host:0/': port 0, ")

    def test_in_the_repr(self) -> None:
        """A Config's repr leaves out what may hold one."""
        url = "https://user:secret@host"
        config = config_of(
            KUBENURSE_INGRESS_URL=url, KUBENURSE_SERVICE_URL=url, KUBENURSE_EXTRA_CHECKS=f"a:{url}", HTTP_PROXY=url
        )
        assert "secret" not in repr(config)
        assert config.proxies.http == config.ingress_url == url


def test_long_values_are_cut() -> None:
    """A problem is never much longer than a line, however long the value."""
    problems = problems_of(
        KUBENURSE_INSECURE="x" * 100_000,
        KUBENURSE_NEIGHBOUR_FILTER="y" * 100_000,
        KUBENURSE_EXTRA_CHECKS="|" * 10_000,
    )
    assert [len(problem) < 1_500 for problem in problems] == [True] * 3


class TestTls:
    """With KUBENURSE_USE_TLS the certificate and key are needed, and have to fit."""

    def test_a_fitting_pair(self, pems: Mapping[str, Path]) -> None:
        """A certificate with its key is taken."""
        config = config_of(
            KUBENURSE_USE_TLS="true", KUBENURSE_CERT_FILE=str(pems["certificate"]), KUBENURSE_CERT_KEY=str(pems["key"])
        )
        assert (config.use_tls, config.cert_file, config.cert_key) == (True, pems["certificate"], pems["key"])

    def test_both_are_needed(self, pems: Mapping[str, Path]) -> None:
        """Each file that is not named is a problem of its own."""
        problems = problems_of(KUBENURSE_USE_TLS="true")
        assert problems == tuple(
            f"KUBENURSE_CERT_{part}='': not set, expected a PEM file, because KUBENURSE_USE_TLS is true"
            for part in ("FILE", "KEY")
        )
        (problem,) = problems_of(KUBENURSE_USE_TLS="true", KUBENURSE_CERT_FILE=str(pems["certificate"]))
        assert problem.startswith("KUBENURSE_CERT_KEY=''")

    @pytest.mark.parametrize(
        ("certificate", "key", "name", "wrong"),
        [
            ("missing", "key", "KUBENURSE_CERT_FILE", "cannot be read (No such file or directory)"),
            ("directory", "key", "KUBENURSE_CERT_FILE", "not a file"),
            ("empty", "key", "KUBENURSE_CERT_FILE", "no usable certificate in it"),
            ("garbage", "key", "KUBENURSE_CERT_FILE", "no usable certificate in it"),
            ("key", "key", "KUBENURSE_CERT_FILE", "no usable certificate in it"),
            ("certificate", "missing", "KUBENURSE_CERT_KEY", "cannot be read (No such file or directory)"),
            ("certificate", "other_key", "KUBENURSE_CERT_KEY", "key values mismatch"),
            ("certificate", "certificate", "KUBENURSE_CERT_KEY", "cannot be used with KUBENURSE_CERT_FILE"),
            ("certificate", "empty", "KUBENURSE_CERT_KEY", "cannot be used with KUBENURSE_CERT_FILE"),
            ("certificate", "encrypted_key", "KUBENURSE_CERT_KEY", "encrypted"),
        ],
    )
    def test_a_pair_that_does_not_fit(
        self, pems: Mapping[str, Path], certificate: str, key: str, name: str, wrong: str
    ) -> None:
        """The file that is to blame is named, and nobody is asked for a password."""
        (problem,) = problems_of(
            KUBENURSE_USE_TLS="true", KUBENURSE_CERT_FILE=str(pems[certificate]), KUBENURSE_CERT_KEY=str(pems[key])
        )
        assert problem.startswith(f"{name}='")
        assert wrong in problem

    def test_without_tls_the_files_do_not_matter(self) -> None:
        """Files that are not used need not be there."""
        assert config_of(KUBENURSE_CERT_FILE="/missing").cert_file == Path("/missing")

    def test_two_ports_are_needed(self, pems: Mapping[str, Path]) -> None:
        """HTTP and HTTPS cannot share a port, which matters with TLS only and when both ports are valid."""
        files = {"KUBENURSE_CERT_FILE": str(pems["certificate"]), "KUBENURSE_CERT_KEY": str(pems["key"])}
        assert config_of(KUBENURSE_TLS_PORT="8080").tls_port == 8080
        (problem,) = problems_of(KUBENURSE_USE_TLS="true", KUBENURSE_TLS_PORT="8080", **files)
        assert problem == "KUBENURSE_TLS_PORT='8080': the same as KUBENURSE_PORT, expected another port"
        (problem,) = problems_of(KUBENURSE_USE_TLS="true", KUBENURSE_TLS_PORT="8080", KUBENURSE_PORT="x", **files)
        assert problem.startswith("KUBENURSE_PORT='x'")

    @pytest.mark.parametrize("name", ["missing", "directory", "empty", "garbage", "key"])
    def test_extra_ca(self, pems: Mapping[str, Path], name: str) -> None:
        """KUBENURSE_EXTRA_CA has to be a file with a certificate in it."""
        assert config_of(KUBENURSE_EXTRA_CA=str(pems["ca"])).extra_ca == pems["ca"]
        (problem,) = problems_of(KUBENURSE_EXTRA_CA=str(pems[name]))
        assert ", expected a PEM file" in problem

    def test_a_revocation_list_is_no_certificate(self, tmp_path: Path) -> None:
        """A PEM file that OpenSSL reads but that holds no certificate is refused."""
        now = datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA")])
        builder = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(now).next_update(now)
        revoked = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        (tmp_path / "crl.pem").write_bytes(revoked.public_bytes(serialization.Encoding.PEM))
        ssl.create_default_context().load_verify_locations(tmp_path / "crl.pem")
        (problem,) = problems_of(KUBENURSE_EXTRA_CA=str(tmp_path / "crl.pem"))
        assert "no certificate in it" in problem


class TestNamespace:
    """The neighbours' namespace is the service account's unless it is set."""

    IN_CLUSTER: typing.ClassVar = {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBENURSE_NEIGHBOUR_FILTER": "app=kubenurse",
    }

    def test_from_the_service_account(self, tmp_path: Path) -> None:
        """The service account's file is read, and a variable goes before it."""
        (tmp_path / "namespace").write_text("monitoring\n")
        directory = {"KUBENURSE_SERVICEACCOUNT_DIR": str(tmp_path)}
        assert config_of(**directory).namespace == "monitoring"
        assert config_of(**directory, KUBENURSE_NAMESPACE="other").namespace == "other"

    def test_it_is_needed_where_neighbours_are_looked_for(self) -> None:
        """In a cluster with a filter it is a problem to have none, and the problem tells the remedy."""
        (problem,) = problems_of(**self.IN_CLUSTER)
        assert problem == (
            "KUBENURSE_NAMESPACE='': not set and not to be found in /nonexistent/namespace, "
            "expected the namespace of the neighbours' Pods, or KUBENURSE_CHECK_NEIGHBOURHOOD=false"
        )

    @pytest.mark.parametrize("content", [b"", b"Not A Name", b"\xff\xfe"])
    def test_an_unusable_file_is_as_good_as_none(self, tmp_path: Path, content: bytes) -> None:
        """What is no namespace's name is not used as one."""
        (tmp_path / "namespace").write_bytes(content)
        (problem,) = problems_of(KUBENURSE_SERVICEACCOUNT_DIR=str(tmp_path), **self.IN_CLUSTER)
        assert problem.startswith("KUBENURSE_NAMESPACE='': not set and not to be found in")

    @pytest.mark.parametrize("name", ["KUBERNETES_SERVICE_HOST", "KUBENURSE_NEIGHBOUR_FILTER"])
    def test_it_is_not_needed_elsewhere(self, name: str) -> None:
        """Outside a cluster, or without a filter, nothing is missing."""
        assert config_of(**self.IN_CLUSTER | {name: ""}).namespace == ""
        assert config_of(**self.IN_CLUSTER, KUBENURSE_CHECK_NEIGHBOURHOOD="no").namespace == ""

    def test_a_malformed_one_is_one_problem(self) -> None:
        """A namespace that is set wrongly is not called missing as well."""
        (problem,) = problems_of(**self.IN_CLUSTER, KUBENURSE_NAMESPACE="A B")
        assert problem.startswith("KUBENURSE_NAMESPACE='A B': not a namespace's name")


class TestUnknownVariables:
    """Misspelt variables are pointed out, those that Kubernetes injects are not."""

    def test_the_nearest_name_is_suggested(self) -> None:
        """A variable that is none is a warning with the name that may have been meant."""
        environ = {"KUBENURSE_INGRES_URL": "https://h", "KUBENURSE_QQQQ": "1", "OTHER": "1", "KUBENURSE_TSL_PORT": "1"}
        assert config_of(**environ).warnings == (
            "KUBENURSE_INGRES_URL: unknown variable, did you mean KUBENURSE_INGRESS_URL?",
            "KUBENURSE_QQQQ: unknown variable",
            "KUBENURSE_TSL_PORT: unknown variable, did you mean KUBENURSE_TLS_PORT?",
        )

    def test_service_links_are_no_configuration(self) -> None:
        """The variables of Services named kubenurse, kubenurse-headless and kubenurse-tls change and say nothing."""
        links: dict[str, str] = {}
        for prefix in ("KUBENURSE", "KUBENURSE_HEADLESS", "KUBENURSE_TLS", "KUBENURSE_8080_8080"):
            links |= {
                f"{prefix}_SERVICE_HOST": "10.0.0.1",
                f"{prefix}_SERVICE_PORT": "8080",
                f"{prefix}_SERVICE_PORT_HTTP": "8080",
                f"{prefix}_PORT": "tcp://10.0.0.1:8080",
                f"{prefix}_PORT_8080_TCP": "tcp://10.0.0.1:8080",
                f"{prefix}_PORT_8080_TCP_PROTO": "tcp",
                f"{prefix}_PORT_8080_TCP_PORT": "8080",
                f"{prefix}_PORT_8080_TCP_ADDR": "10.0.0.1",
                f"{prefix}_PORT_53_UDP": "udp://10.0.0.1:53",
            }
        assert config_of(**links) == config_of()

    def test_a_port_that_is_set_is_kept(self) -> None:
        """Only a value that a service link has counts as unset."""
        assert config_of(KUBENURSE_PORT="9090", KUBENURSE_TLS_PORT="tcp://[fd00::1]:8443").port == 9090
        (problem,) = problems_of(KUBENURSE_PORT="http://10.0.0.1:8080")
        assert problem.startswith("KUBENURSE_PORT=")

    def test_warnings_are_bounded_and_printable(self) -> None:
        """However many and odd the names, the warnings stay few, short and on their lines."""
        warnings = config_of(**{f"KUBENURSE_\n{number}" + "x" * 1_000: "" for number in range(1_000)}).warnings
        assert len(warnings) == 20
        assert all(warning.isprintable() and len(warning) < 400 for warning in warnings)


class TestPodName:
    """The Pod's name is the hostname unless it is set."""

    @pytest.mark.parametrize(
        ("hostname", "pod_name"),
        [
            ("kubenurse-x2bwx", "kubenurse-x2bwx"),
            ("ip-10-0-0-1.ec2.internal", "ip-10-0-0-1.ec2.internal"),
            ("My_Laptop.local", "my-laptop-local"),
            ("-x\r\n", "x"),
            ("", "kubenurse"),
        ],
    )
    def test_from_the_hostname(self, hostname: str, pod_name: str) -> None:
        """A hostname that no Pod could have is made one, since it becomes a header and a label."""
        assert load({}, hostname=lambda: hostname).pod_name == pod_name


class TestProxies:
    """The proxy variables are read as Go reads them."""

    def test_upper_case_goes_before_lower_case(self) -> None:
        """Both spellings are read; a proxy without a scheme is an http one."""
        config = config_of(HTTP_PROXY="http://a:1", http_proxy="http://b:1", https_proxy="c:3128", no_proxy=" x, .y ")
        assert config.proxies == Proxies("http://a:1", "http://c:3128", "x, .y")


class TestKubeconfig:
    """Kubeconfig files are those of KUBECONFIG, else the one at home."""

    def test_files_that_exist(self, tmp_path: Path) -> None:
        """Missing files and empty entries of KUBECONFIG are left out, their order is kept."""
        one, two = tmp_path / "one", tmp_path / "two"
        one.touch()
        two.touch()
        config = config_of(KUBECONFIG=f"{two}::{tmp_path}/missing:{tmp_path}:{one}", HOME=str(tmp_path))
        assert config.kubeconfig == (two, one)

    def test_at_home(self, tmp_path: Path) -> None:
        """Without KUBECONFIG it is ~/.kube/config, if it is there; KUBECONFIG goes before it."""
        assert config_of(HOME=str(tmp_path)).kubeconfig == ()
        file = tmp_path / ".kube" / "config"
        file.parent.mkdir()
        file.touch()
        assert config_of(HOME=str(tmp_path)).kubeconfig == (file,)
        assert config_of(HOME=str(tmp_path), KUBECONFIG="/missing").kubeconfig == ()
        assert config_of().kubeconfig == ()

    def test_what_cannot_be_looked_at_is_not_there(self) -> None:
        """A path that the system refuses to look at, as it does in another user's home, is no error."""
        refused = "/" + "x" * 1_000
        assert config_of(HOME=refused).kubeconfig == ()
        assert config_of(KUBECONFIG=refused).kubeconfig == ()
        (problem,) = problems_of(KUBENURSE_EXTRA_CA=refused)
        assert "cannot be read (File name too long)" in problem


def test_api_dns_is_set() -> None:
    """It is told apart whether the user named the API server or the default did."""
    assert config_of(KUBERNETES_SERVICE_DNS="kubernetes.default.svc").api_dns_is_set


def test_a_config_cannot_be_changed() -> None:
    """Whoever has a Config can rely on it."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        config_of().port = 1  # type: ignore[misc]  # the mistake is the point


def test_help_names_everything() -> None:
    """--help has every variable with its default, and fits a terminal of 100 columns."""
    text = help_text()
    words = " ".join(text.split())
    for variable in VARIABLES:
        assert f"{variable.name} " in words
        assert f"{variable.help} [{variable.default or variable.otherwise}]" in words
        assert variable.help.endswith(".")
    assert max(map(len, text.splitlines())) <= 100


def test_the_markdown_table_has_three_columns() -> None:
    """The documentation's table has a row a variable, and no | of a text breaks it."""
    rows = markdown_table().splitlines()
    assert rows[:2] == ["| variable | default | meaning |", "|---|---|---|"]
    for row, variable in zip(rows[2:], VARIABLES, strict=True):
        name, default, meaning = row.replace("\\|", "\0").strip("| ").split(" | ")
        assert name == f"`{variable.name}`"
        assert default.strip("`") == (variable.default or variable.otherwise)
        assert meaning.replace("\0", "|") == variable.help
