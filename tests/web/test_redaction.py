"""What of a request /alive repeats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.web.redaction import REDACTED, canonical_name, shown_headers, shown_target

# Where credentials were seen to travel, whatever their names say.
CREDENTIAL_HEADERS = """Authorization proxy-authorization Cookie Set-Cookie X-Forwarded-Access-Token X-API-Key x_api_key
    X-Vault-Secret X-Session-Id X-JWT-Assertion X-Auth-Request-Email X-Password Sec-WebSocket-Protocol X-Pin X-Csrf
    X-Userinfo X-Amzn-Oidc-Data X-Original-Url X-Forwarded-Uri Referer Origin If-None-Match X-Anything Sec-WebSocket-Key
    X-Forwarded-User X-Remote-User X-Client-Cert X-Forwarded-Client-Cert Ssl-Client-Cert Traceparent Baggage From"""
HARMLESS = """User-Agent Accept Accept-Encoding Accept-Language Host Connection Via X-Forwarded-For X-Forwarded-Proto
    X-Forwarded-Host Forwarded X-Real-Ip X-Request-Id Kubenurse-Neighbour-Origin"""


@pytest.mark.parametrize("name", CREDENTIAL_HEADERS.split())
def test_values_of_other_headers_are_not_shown(name: str) -> None:
    """A header that is not known to be harmless is shown by name only, however often it was sent."""
    assert shown_headers([(name, "hunter2"), (name.upper(), "hunter3")]) == {canonical_name(name): [REDACTED]}


@pytest.mark.parametrize("name", HARMLESS.split())
def test_values_of_harmless_headers_are_shown(name: str) -> None:
    """What tells which way a request took is shown, in the order it came."""
    assert shown_headers([(name.lower(), "b"), (name.upper(), "a")]) == {name: ["a", "b"]}


def test_names_are_written_as_go_writes_them() -> None:
    """Names are canonical and sorted; a name that Go would not change stays."""
    shown = shown_headers([("x-b-c", ""), ("X_A", ""), ("accept-ENCODING", "gzip"), ("a b-c", "")])
    assert list(shown) == ["Accept-Encoding", "X-B-C", "X_a", "a b-c"]


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/alive", "/alive"),
        ("/alive?", "/alive?"),
        ("/alive?node=a&node=b", "/alive?node=[redacted]&node=[redacted]"),
        ("/alive?token=a=b", "/alive?token=[redacted]"),
        ("/alive?node=", "/alive?node="),
        ("/alive?hunter2", "/alive?[redacted]"),
        ("/alive?hunter2==", "/alive?hunter2=[redacted]"),
        ("/alive?aHVu/dGVy=", "/alive?[redacted]"),
        ("/alive?" + "a" * 33 + "=", "/alive?[redacted]"),
        ("/alive?a=1;b=hunter2", "/alive?a=[redacted]"),
        ("/alive#id_token=hunter2", "/alive#[redacted]"),
        ("http://user:hunter2@host:80/alive", "http://[redacted]@host:80/alive"),
        ("http://host/alive", "http://host/alive"),
        ("*", "*"),
    ],
)
def test_the_address_is_shown_without_values(target: str, shown: str) -> None:
    """The path and the names of parameters are shown; values, a user's password and a fragment are not."""
    assert shown_target(target) == shown


@given(value=st.text(alphabet="XYZ/?#=;@:% ", min_size=1, max_size=30))
def test_no_value_of_a_query_is_shown(value: str) -> None:
    """Whatever stands behind the name of a parameter is not shown."""
    assert not set("XYZ;@%") & set(shown_target(f"/alive?token={value}"))
