"""URLs taken apart, and shown without what is secret in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.probe.urls import Endpoint, Url, parse


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
    """A URL has an endpoint, what the Host header says and what the request line asks for."""
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
    ],
)
def test_what_is_no_url(text: str) -> None:
    """Anything but an absolute http or https URL with a host, and with a port that can be, is none."""
    with pytest.raises(ValueError, match=r"\Anot a"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("http://nurse:word@a.test/", "Basic bnVyc2U6d29yZA=="),
        ("http://nurse@a.test/", "Basic bnVyc2U="),
        ("http://nurse:p%40s%3As@a.test/", "Basic bnVyc2U6cEBzOnM="),
        ("http://nurse:%C3%A9@a.test/", "Basic bnVyc2U6w6k="),
        ("http://nurse:é@a.test/", "Basic bnVyc2U6w6k="),
    ],
)
def test_authorization(text: str, value: str) -> None:
    """User and password become the header of basic authentication, unescaped, in UTF-8 as they were escaped."""
    assert dict(parse(text).authorization()) == {"authorization": value}
    assert dict(parse(text).proxy_authorization()) == {"proxy-authorization": value}


def test_no_authorization() -> None:
    """Without a user there is no such header."""
    assert not parse("http://a.test/").authorization()
    assert not parse("http://a.test/").proxy_authorization()


def test_nothing_secret_is_shown() -> None:
    """User, password and query are in no form that is shown; the query is in what is asked for only."""
    url = parse("http://secret:secret@a.test:81/x?secret#secret")
    assert str(url) == "http://a.test:81/x"
    assert "secret:" not in repr(url)
    assert "secret" not in repr(parse("http://secret:secret@a.test:81/x"))
    assert url.absolute() == "http://a.test:81/x?secret"


def acceptable(url: Url) -> bool:
    """Tell whether it can be asked for."""
    line = url.target + url.authority
    return line.isascii() and line.isprintable() and " " not in line and 0 < url.endpoint.port < 65536


@given(st.text(max_size=30).map("http://".__add__) | st.text(max_size=30).map("http://a.test/".__add__) | st.text())
def test_any_text(text: str) -> None:
    """Whatever a server redirects to is a URL that can be asked for, or a ValueError that quotes nothing of it."""
    try:
        url = parse(text)
    except ValueError as error:
        words = str(error)
    else:
        words = "not a URL" if acceptable(url) else "not acceptable"
    assert words in {"not a URL", "not an http or https URL"}
