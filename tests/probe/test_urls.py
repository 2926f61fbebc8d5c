"""URLs taken apart, and shown without the secrets in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.probe.urls import LONGEST_URL, Endpoint, Url, parse


@pytest.mark.parametrize(
    ("text", "endpoint", "authority", "target"),
    [
        ("http://a.test", Endpoint("http", "a.test", 80), "a.test", "/"),
        ("https://a.test/", Endpoint("https", "a.test", 443), "a.test", "/"),
        ("HTTPS://A.Test:8443/x", Endpoint("https", "a.test", 8443), "a.test:8443", "/x"),
        ("http://a.test:80/", Endpoint("http", "a.test", 80), "a.test:80", "/"),
        ("http://a.test./x", Endpoint("http", "a.test.", 80), "a.test.", "/x"),
        ("http://a.test?b=c", Endpoint("http", "a.test", 80), "a.test", "/?b=c"),
        ("http://a.test/x?b=c%20d#e", Endpoint("http", "a.test", 80), "a.test", "/x?b=c%20d"),
        ("http://a.test/b/../c", Endpoint("http", "a.test", 80), "a.test", "/c"),
        ("http://a.test/é ü", Endpoint("http", "a.test", 80), "a.test", "/%C3%A9%20%C3%BC"),
        ("http://10.0.0.1:8080/x", Endpoint("http", "10.0.0.1", 8080), "10.0.0.1:8080", "/x"),
        ("https://[fd00::1]/x", Endpoint("https", "fd00::1", 443), "[fd00::1]", "/x"),
        ("http://[FD00::1]:8080/x", Endpoint("http", "fd00::1", 8080), "[fd00::1]:8080", "/x"),
        ("http://user:word@a.test/x", Endpoint("http", "a.test", 80), "a.test", "/x"),
    ],
)
def test_urls(text: str, endpoint: Endpoint, authority: str, target: str) -> None:
    """A URL has an endpoint, the text of the Host header and the target of the request line."""
    url = parse(text)
    assert (url.endpoint, url.authority, url.target) == (endpoint, authority, target)
    assert url.absolute() == f"{endpoint.scheme}://{authority}{target}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.test",
        "//a.test",
        "/x",
        "ftp://a.test/",
        "http://",
        "http:///x",
        "http://:80/",
        "http://[::1/",
        "http://[]/",
        "http://a.test:99999/",
        "http://a.test:0/",
        "http://a.test:x/",
        "http://a b/",
        "http://a.test\x00/",
        "http://a\r\n/",
        "http://\ud800/",
        "http://a.test/" + "x" * LONGEST_URL,
    ],
)
def test_other_text(text: str) -> None:
    """Only an absolute http or https URL with a host and a valid port, of bounded length, is accepted."""
    with pytest.raises(ValueError, match=r"\Anot a"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("http://nurse:word@a.test/", "Basic bnVyc2U6d29yZA=="),
        ("http://nurse@a.test/", "Basic bnVyc2U6"),
        ("http://nurse:p%40s%3As@a.test/", "Basic bnVyc2U6cEBzOnM="),
        ("http://nurse:%C3%A9@a.test/", "Basic bnVyc2U6w6k="),
        ("http://nurse:é@a.test/", "Basic bnVyc2U6w6k="),
        ("https://t%3Aken@a.test/", "Basic dDprZW46"),
        ("http://:word@a.test/", "Basic OndvcmQ="),
    ],
)
def test_authorization(text: str, value: str) -> None:
    """User and password, unescaped, become the header of Basic authentication; its colon is always there (RFC 7617)."""
    assert dict(parse(text).authorization()) == {"Authorization": value}
    assert dict(parse(text).proxy_authorization()) == {"Proxy-Authorization": value}


def test_no_authorization() -> None:
    """Without a user there is no such header."""
    assert not parse("http://a.test/").authorization()
    assert not parse("http://a.test/").proxy_authorization()


def test_nothing_secret_is_shown() -> None:
    """User, password and query are never shown. Only the request line has the query."""
    url = parse("http://secret:secret@a.test:81/x?secret#secret")
    assert str(url) == "http://a.test:81/x"
    assert "secret:" not in repr(url)
    assert "secret" not in repr(parse("http://secret:secret@a.test:81/x"))
    assert url.absolute() == "http://a.test:81/x?secret"


def acceptable(url: Url) -> bool:
    """Tell whether a request can be made of it."""
    line = url.target + url.authority
    return line.isascii() and line.isprintable() and " " not in line and 0 < url.endpoint.port < 65536


# Lone surrogates too: a server or a configuration may hold any text.
TEXT = st.text(st.characters(exclude_categories=()), max_size=30)


@given(TEXT.map("http://".__add__) | TEXT.map("http://a.test/".__add__) | TEXT.map("http://a@".__add__) | TEXT)
def test_any_text(text: str) -> None:
    """Any text is a URL that can be requested, or a ValueError that quotes nothing of it."""
    try:
        url = parse(text)
    except ValueError as error:
        words = str(error)
    else:
        words = "not a URL" if acceptable(url) else "not acceptable"
    assert words in {"not a URL", "not an http or https URL"}
