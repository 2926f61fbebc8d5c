"""Label selectors choose what Kubernetes' own choose."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.config.names import is_dns_label, is_dns_subdomain, is_label_value
from checks.config.selector import Requirement, parse_selector
from sandbox.labels import match

Labels = Mapping[str, str]
Meaning = Callable[[Labels], bool]

KEYS = st.sampled_from(["app", "tier", "in", "notin", "app.kubernetes.io/name", "x"])
VALUES = st.sampled_from(["a", "b", "in", "notin", "1", "20", "A_b.c-d", ""])
LABELS = st.dictionaries(KEYS, VALUES)
BLANK = st.text(alphabet=" \t\r\n", max_size=2)


@st.composite
def requirements(draw: st.DrawFn) -> tuple[str, Meaning]:
    """One requirement: how it is written, and what the Kubernetes documentation says that it means."""
    key, value, values = draw(KEYS), draw(VALUES), draw(st.lists(VALUES, min_size=1, max_size=4))
    number = draw(st.integers(0, 30))
    blank, space = draw(BLANK), draw(BLANK) + " "
    listed = "(" + ",".join(blank + each + blank for each in values) + ")"
    forms: list[tuple[str, Meaning]] = [
        (f"{key}{blank}={blank}{value}", lambda labels: labels.get(key) == value),
        (f"{key}{blank}=={blank}{value}", lambda labels: labels.get(key) == value),
        (f"{key}{blank}!={blank}{value}", lambda labels: labels.get(key) != value),
        (f"{key}{space}in{blank}{listed}", lambda labels: key in labels and labels[key] in values),
        (f"{key}{space}notin{blank}{listed}", lambda labels: labels.get(key) not in values),
        (f"{key}{blank}", lambda labels: key in labels),
        (f"!{blank}{key}", lambda labels: key not in labels),
        (f"{key}{blank}>{number}", lambda labels: labels.get(key, "").isdigit() and int(labels[key]) > number),
        (f"{key}{blank}<{number}", lambda labels: labels.get(key, "").isdigit() and int(labels[key]) < number),
    ]
    return draw(st.sampled_from(forms))


@given(st.lists(requirements(), max_size=4), LABELS, BLANK)
def test_matches_as_documented(wanted: list[tuple[str, Meaning]], labels: Labels, blank: str) -> None:
    """A selector matches the labels that meet all of its requirements, written with whatever blanks between them."""
    selector = parse_selector(blank + f"{blank},{blank}".join(text for text, _ in wanted) + blank)
    assert match(selector, labels) == all(meaning(labels) for _, meaning in wanted)


def parsed(text: str) -> tuple[Requirement, ...] | str:
    """Return the selector, or the words of the error."""
    try:
        return parse_selector(text)
    except ValueError as error:
        return str(error)


@given(st.lists(st.sampled_from([*"ab=!(),<>/. ", "in", "notin", "ä", "\n", "\x00"]), max_size=30), LABELS)
def test_any_text_is_a_selector_or_a_value_error(parts: list[str], labels: Labels) -> None:
    """Whatever the text, the answer is a selector that works or a ValueError that says where and what is expected."""
    found = parsed("".join(parts))
    if not isinstance(found, str):
        assert match(found, labels) in (True, False)
    else:
        assert re.search(r" at character \d+, expected ", found)


@pytest.mark.parametrize("text", ["", " ", "\t\r\n"])
def test_an_empty_selector_matches_everything(text: str) -> None:
    """Nothing asked for is nothing ruled out."""
    assert match(parse_selector(text), {})
    assert match(parse_selector(text), {"app": "kubenurse"})


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("app.kubernetes.io/name=kubenurse", {"app.kubernetes.io/name": "kubenurse"}, True),
        ("app=", {"app": ""}, True),
        ("app=", {}, False),
        ("app in ()", {"app": ""}, True),
        ("app in (,a)", {"app": ""}, True),
        ("app!=a,app!=b", {"app": "c"}, True),
        ("app", {"app": ""}, True),
        ("in in (in)", {"in": "in"}, True),
        ("size>9", {"size": "10"}, True),
        ("size>9", {"size": "ten"}, False),
        ("size>9", {"size": "1_0"}, False),
        ("size>9", {"size": "9223372036854775808"}, False),
        ("size<0", {"size": "-1"}, True),
        ("size<9", {}, False),
        ("App=x", {"app": "x"}, False),
    ],
)
def test_particular_selectors(text: str, labels: Labels, matches: bool) -> None:
    """The corners of the grammar mean what they mean to the API server."""
    assert match(parse_selector(text), labels) is matches


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("app=a,", "the end at character 7, expected the name of a label"),
        (",app", "',' at character 1, expected the name of a label"),
        ("app=a b", "'b' at character 7, expected ',' or the end"),
        ("app a", "'a' at character 5, expected =, ==, !=, in, notin"),
        ("app=!a", "'!' at character 5, expected a label's value"),
        ("app===a", "'=' at character 6, expected a label's value"),
        ("!app=a", "'=' at character 5, expected ',' or the end"),
        ("!!app", "'!' at character 2, expected the name of a label"),
        ("=a", "'=' at character 1, expected the name of a label"),
        ("app in a", "'a' at character 8, expected '('"),
        ("app in (a", "the end at character 10, expected ')'"),
        ("app in (a b)", "'b' at character 11, expected ')'"),
        ("app in (a))", "')' at character 11, expected ',' or the end"),
        ("app in ((a)", "'(' at character 9, expected a label's value"),
        ("app>", "the end at character 5, expected an integer"),
        ("app>ten", "'ten' at character 5, expected an integer"),
        ("app>-1", "'-1' at character 5, expected an integer"),
        ("app<9223372036854775808", "at character 5, expected an integer"),
        ("a/b/c=d", "'a/b/c' at character 1, expected the name of a label"),
        ("/app=a", "'/app' at character 1, expected the name of a label"),
        ("example.com/=a", "'example.com/' at character 1, expected the name of a label"),
        ("Example.com/app=a", "'Example.com/app' at character 1, expected the name of a label"),
        ("-app=a", "'-app' at character 1, expected the name of a label"),
        ("app=a-", "'a-' at character 5, expected a label's value"),
        ("app=ä", "'ä' at character 5, expected a label's value"),
        ("app=a,\n ok;", "'ok;' at character 9, expected the name of a label"),
        ("k" * 64, "at character 1, expected the name of a label"),
        ("app=" + "v" * 64, "at character 5, expected a label's value"),
        ("d" * 254 + "/app", "at character 1, expected the name of a label"),
    ],
)
def test_malformed_selectors_say_where(text: str, where: str) -> None:
    """A malformed selector is a ValueError with what was found, where, and what was expected."""
    found = parsed(text)
    assert isinstance(found, str)
    assert where in found


@given(st.text(alphabet=string.ascii_letters + string.digits + "-_.", max_size=70))
def test_label_values(text: str) -> None:
    """A label's value is empty, or up to 63 characters that begin and end with a letter or digit."""
    ends = [text[:1], text[-1:]]
    assert is_label_value(text) == (text == "" or (len(text) <= 63 and all(end.isalnum() for end in ends)))


@given(st.lists(st.text(alphabet="az09-A_\n", max_size=70), min_size=1, max_size=3))
def test_dns_names(parts: list[str]) -> None:
    """A DNS-1123 label is up to 63 of a-z, 0-9 and inner hyphens; a subdomain is such parts with dots between."""
    well_formed = [bool(part) and not set(part) - set("az09-") and part[0] != "-" != part[-1] for part in parts]
    assert is_dns_label(parts[0]) == (well_formed[0] and len(parts[0]) <= 63)
    assert is_dns_subdomain(".".join(parts)) == all(well_formed)


def test_a_subdomain_is_at_most_253_long() -> None:
    """A DNS-1123 subdomain of 253 characters is one, of 254 it is not."""
    assert is_dns_subdomain("a" * 253)
    assert not is_dns_subdomain("a" * 254)
