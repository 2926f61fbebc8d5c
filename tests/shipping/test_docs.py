"""The documentation agrees with the code: names, files, commands and the words of failures.

test_readme.py checks relative links.
"""

from __future__ import annotations

import ast
import errno
import importlib.util
import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from checks.config.load import load
from checks.config.variables import VARIABLES
from checks.kube import errors as kubeapi_errors
from checks.model import PHASES, REDIRECT, STATUS, TRACE_EVENTS, CheckResult, Neighbourhood, TcpFacts
from checks.report.metrics import Metrics
from checks.report.state import ERROR_EVENTS
from tools.picture import draw
from tools.readme import metrics_table

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GUIDES = (
    "install",
    "configuration",
    "migrating",
    "sizing",
    "troubleshooting",
    "architecture",
    "security",
    "reliability",
)
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "manifests" / "README.md", *DOCS.glob("**/*.md")])
TROUBLESHOOTING = DOCS / "troubleshooting.md"

# OpenSSL's words about certificates; tests in tests/probe/ make these failures happen.
OPENSSL_WORDS = (
    "certificate has expired",
    "certificate is not yet valid",
    "self-signed certificate",
    "unable to get local issuer certificate",
    "hostname mismatch, certificate is not valid for",
    "IP address mismatch, certificate is not valid for",
)
# These words appear only while the agent ends, when no client can ask.
NEVER_SEEN = ("this client is closed",)


def pages() -> pytest.MarkDecorator:
    """Run a test on each page."""
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages()
def test_variables_exist(page: Path) -> None:
    """Every environment variable on a page exists."""
    known = {variable.name for variable in VARIABLES}
    # A name that goes on in capitals would be another one; KUBENURSE-... are headers.
    named = set(re.findall(r"\bKUBENURSE_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))
    assert named <= known | {"KUBENURSE_NEIGHBOR_LIMIT"}, "the last one is an example of a misspelt name"


@pages()
def test_metrics_exist(page: Path) -> None:
    """Every metric on a page is served; a name that ends in a star or an underscore begins a served one."""
    served = set(re.findall(r"^\| `(kubenurse_\w+)` \|", metrics_table(), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    # Names of recorded series stand between colons; kubenurse_ alone is the prefix.
    for name, star in re.findall(r"(?<![\w:])(kubenurse_[a-z_]*[a-z])(?![\w:])(_?\*)?", text):
        if star:
            assert any(metric.startswith(name) for metric in served), name
        else:
            assert name in served or re.sub(r"_(bucket|sum|count)$", "", name) in served, name


@pages()
def test_commands_exist(page: Path) -> None:
    """Every make target, module and file on a page exists."""
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`| )make (?:[A-Z_]+=\S+ )*([a-z][a-z0-9-]+)(?=`| |$)", code(text), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    for module in re.findall(r"python3? -m ((?:bench|tools|sandbox|tests)[\w.]*)", text):
        assert importlib.util.find_spec(module), module
    for path in re.findall(
        r"(?<![\w/.-])((?:manifests|helm|rules|dashboards|bench|checks|tests|tools)/[\w/.-]*\w)", text
    ):
        assert (ROOT / path).exists(), path


def test_every_apply_is_server_side() -> None:
    """No guide applies a kustomization from the client's side: mixing both ways leaves old fields behind."""
    guides = [page for page in PAGES if page.parent.name != "decisions"]
    text = code("\n".join(page.read_text(encoding="utf-8") for page in guides))
    commands = re.findall(r"kubectl (?:-n \S+ )?(?:apply|diff) .*-k\b.*", text)
    assert len(commands) >= 4
    assert all("--server-side" in command for command in commands)


@pages()
def test_anchors_lead_to_headings(page: Path) -> None:
    """Every link to a part of a page leads to an existing heading."""
    for name, anchor in re.findall(r"\]\(((?!https?:)[^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        target = page.parent / name if name else page
        assert anchor in anchors(target.read_text(encoding="utf-8")), f"{name}#{anchor}"


def code(text: str) -> str:
    """Return all code of a text: blocks, indented or fenced, and text between backticks."""
    fenced = re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    .*$", text, re.MULTILINE)
    return "\n".join([*fenced, *indented, *re.findall(r"`[^`\n]+`", text)])


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_guide_is_there_and_linked() -> None:
    """The README links each guide."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for guide in GUIDES:
        assert (DOCS / f"{guide}.md").is_file(), guide
        assert f"(docs/{guide}.md" in readme, guide


def test_migrating_names_every_variable_and_endpoint() -> None:
    """docs/migrating.md has each variable by its name; KUBENURSE_CHECK_... can be shortened."""
    text = (DOCS / "migrating.md").read_text(encoding="utf-8")
    for variable in VARIABLES:
        if variable.name.startswith("KUBENURSE_"):
            assert variable.name in text or f"`{variable.name.removeprefix('KUBENURSE_CHECK')}`" in text, variable.name


def words_for_people() -> Iterator[str]:
    """Yield every piece of text that can be in a state: the constants in the code that builds states."""
    for name in ("probe/failures", "kube/errors"):
        yield from constants(ast.parse((ROOT / "checks" / f"{name}.py").read_text(encoding="utf-8")))
    makers = {"ApiError", "CredentialsError", "unprepared", "redirected"}
    api = ("client", "wire", "answer", "decode", "listing", "watching", "credentials")
    for name in ("probe/http", "probe/prober", "probe/request", *(f"kube/{module}" for module in api)):
        for node in ast.walk(ast.parse((ROOT / "checks" / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in makers:
                yield from constants(node)


def constants(tree: ast.AST) -> Iterator[str]:
    """Yield the texts for people in a piece of code."""
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    results = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    choices = [result for result in results if isinstance(result, ast.IfExp)]
    returned = {id(node) for node in (*results, *(either for one in choices for either in (one.body, one.orelse)))}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docstrings:
            continue
        # Text for people contains blanks or is returned by a function; names of phases and kinds do neither.
        if re.search(r"\w \w", node.value) or id(node) in returned:
            yield node.value.strip(" :,")


def test_every_word_of_a_failure_is_explained() -> None:
    """The troubleshooting guide has every text that the code can put into a state."""
    text = TROUBLESHOOTING.read_text(encoding="utf-8")
    words = set(words_for_people()) - set(NEVER_SEEN)
    assert len(words) > 20, "the code is no longer found"
    missing = {piece for piece in words if piece not in text and not re.search(r"\bexpected$|, expected", piece)}
    assert not missing


def test_every_phase_and_event_has_its_place() -> None:
    """The guide has a part for each phase, each event, and a row for each kind of discovery error."""
    text = TROUBLESHOOTING.read_text(encoding="utf-8")
    for phase in set(PHASES) - {STATUS, REDIRECT}:
        assert re.search(rf"^### {phase}: .*", text, re.MULTILINE), phase
    for event in ERROR_EVENTS:
        assert f"`{event}`" in text, event
    for kind in kubeapi_errors.KINDS:
        assert re.search(rf"^\|.*\| `{kind}` \|", text, re.MULTILINE), kind


def explained_states() -> list[str]:
    """Return the states in the first column of the guide's tables that begin with a phase."""
    rows = re.findall(r"^\| (`[^|]+) \|", TROUBLESHOOTING.read_text(encoding="utf-8"), re.MULTILINE)
    return [
        state
        for row in rows
        for state in re.findall(r"`((?:setup|dns|connect|proxy|tls|request|response): [^`]+)`", row)
    ]


@pytest.mark.parametrize("state", explained_states())
def test_every_explained_failure_can_happen(state: str) -> None:
    """The words of each explained state come from our code, the C library or OpenSSL."""
    _, _, words = state.rpartition("proxy: ")[2].partition(": ")
    said = (words or state.removeprefix("proxy: ")).removesuffix("…").strip(" :'")
    ours = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "checks").rglob("*.py"))
    system = {words for number in errno.errorcode for words in (os.strerror(number), os.strerror(number).lower())}
    pieces = [piece.strip(" :,'") for piece in re.split(r"…|\d+s?\b", said)]
    for piece in filter(None, pieces):
        known = piece in ours or piece in system or any(piece in openssl for openssl in OPENSSL_WORDS)
        assert known or piece == "Proxy Authentication Required", piece


def series_by_type(checks: Mapping[str, Sequence[str]]) -> Counter[str]:
    """Count the series of a scrape by check type, after one good check of each; other series count as "".

    ``checks`` gives the trace events that each type's check passes; those with a TLS handshake show a certificate.
    """
    neighbourhood = Neighbourhood(state="ok", synced_at=0.0)
    metrics = Metrics(
        neighbourhood=lambda: neighbourhood,
        checked=lambda: 0,
        buckets=load({}).histogram_buckets,
        victoriametrics=False,
        trace_events=frozenset(TRACE_EVENTS),
        expose_metadata=False,
    )
    for kind, events in checks.items():
        metrics.take(
            CheckResult(
                type=kind,
                state="ok",
                status_code=200,
                trace=dict.fromkeys(events, 0.001),
                tcp=TcpFacts(rtt_seconds=0.0, path_mtu_bytes=0, retransmits=0),
                not_after=0.0 if "tls_handshake_done" in events else None,
            )
        )
    lines = metrics.render("", "")[1].decode().splitlines()
    return Counter(found[1] if (found := re.search(r'type="(.+?)"', line)) else "" for line in lines)


def test_number_of_series_is_what_the_guide_says() -> None:
    """The guide's numbers of series for each kind of check, and for a whole agent, are those of a scrape."""
    plain = ["connect_start", "connect_done", "got_conn", "wrote_request", "got_first_resp_byte"]
    dns, tls = ["dns_start", "dns_done"], ["tls_handshake_start", "tls_handshake_done"]
    events = {
        "path_n": plain,
        "me_service": plain + dns,
        "api_server_direct": plain + tls,
        "me_ingress": plain + dns + tls,
    }
    text = (DOCS / "sizing.md").read_text(encoding="utf-8")
    series = series_by_type(events)
    assert re.search(rf"^\| neighbour .* = {series['path_n']} \|$", text, re.MULTILINE)
    assert re.search(rf"^\| Service by name.* = {series['me_service']} \|$", text, re.MULTILINE)
    assert re.search(rf"^\| `api_server_direct`.* = {series['api_server_direct']} \|$", text, re.MULTILINE)
    assert re.search(rf"^\| `api_server_dns`, ingress.* = {series['me_ingress']} \|$", text, re.MULTILINE)
    assert f"| the agent itself | {series['']}, " in text
    whole = series_by_type({**events, "api_server_dns": plain + dns + tls, **{f"path_{n}": plain for n in range(9)}})
    assert f" = {whole.total():,} series" in text


def test_trace_events_of_the_guides_exist() -> None:
    """The agent accepts every example of KUBENURSE_TRACE_EVENTS."""
    for page in PAGES:
        for value in re.findall(r"KUBENURSE_TRACE_EVENTS=([a-z_,]+)", page.read_text(encoding="utf-8")):
            assert value in ("all", "none") or set(value.split(",")) <= set(TRACE_EVENTS), f"{page}: {value}"


def test_picture_of_the_architecture_is_in_step() -> None:
    """The rendered picture has every label of its source: run ``make pictures`` when this fails."""
    pictures = DOCS / "pictures"
    shown = {text.strip() for text in svg_texts((pictures / "architecture.svg").read_text(encoding="utf-8"))}
    labels = re.findall(r'\[label="([^"]+)"', (pictures / "architecture.dot").read_text(encoding="utf-8"))
    assert labels
    for label in labels:
        for line in label.split("\\n"):
            assert line.strip() in shown, line


def svg_texts(svg: str) -> list[str]:
    """Return the lines of text in a picture, in order."""
    found = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return [text.text or "" for text in found]


def test_drawing_keeps_columns_and_colours() -> None:
    """Each cell is drawn at its column, with its length and colour; markup in a cell is text."""
    svg = draw("agent  a<b\nn1     \x1b[31mbad one  \x1b[0m  ok", command="run & see")
    assert svg_texts(svg) == ["$ run & see", "agent", "a<b", "n1", "bad one", "ok"]
    cells = list(ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"))
    by_text = {cell.text: cell for cell in cells}
    assert by_text["a<b"].get("x") == by_text["bad one"].get("x") == f"{16 + 7 * 8:g}"
    assert by_text["bad one"].get("textLength") == "56"
    assert by_text["bad one"].get("fill") != by_text["ok"].get("fill")
