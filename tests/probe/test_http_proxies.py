"""Checks through a proxy: which checks use it, what it is sent, and how it fails."""

from __future__ import annotations

import pytest

from checks.config.proxies import Proxies
from checks.probe.resolver import Resolver, system_addresses
from tests.support.servers import (
    GENEROUS,
    SHORT,
    BlackHole,
    Server,
    always,
    answer,
    certificate,
    once,
    probing,
    refusing,
    resolver_of,
    server_context,
    silent,
    target,
    tunnel,
)

PASSWORD = "nurse:se%40cret"
BASIC = "Basic bnVyc2U6c2VAY3JldA=="


def test_a_plain_request_goes_to_the_proxy_whole() -> None:
    """The proxy of HTTP_PROXY gets the whole URL and its own credentials, and resolves the name."""
    with Server(always(answer())) as proxy:
        proxies = Proxies(http=f"http://{PASSWORD}@{proxy.host}:{proxy.port}")
        with probing(proxies=proxies, resolver=resolver_of()) as prober:
            result = prober.check(target("http://user:word@kubenurse.test/alwayshappy?a=b", use_proxy=True))
    assert (result.state, result.remote) == ("ok", proxy.host)
    assert proxy.received[0].startswith(b"GET http://kubenurse.test/alwayshappy?a=b HTTP/1.1\r\n")
    assert proxy.header("Host") == "kubenurse.test"
    assert proxy.header("Proxy-Authorization") == BASIC
    assert proxy.header("Authorization") == "Basic dXNlcjp3b3Jk"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_tls_request_goes_through_a_tunnel(host: str) -> None:
    """The proxy of HTTPS_PROXY opens a tunnel; the target is verified end to end and never gets its password."""
    with Server(always(answer()), context=server_context(), host=host) as server, Server(tunnel) as proxy:
        proxies = Proxies(https=f"http://{PASSWORD}@{proxy.host}:{proxy.port}", http="http://127.0.0.1:1")
        with probing(proxies=proxies, reuse_connections=True) as prober:
            results = [prober.check(target(server.url(), use_proxy=True)) for _ in range(2)]
    place = f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"
    for result in results:
        assert (result.state, result.remote, result.status_code) == ("ok", proxy.host, 200)
        # What is measured is the answer's first byte and not the proxy's.
        assert result.trace["connect_done"] <= result.trace["tls_handshake_start"]
        assert result.trace["tls_handshake_done"] <= result.trace["got_first_resp_byte"] == result.duration
        assert result.not_after
    assert proxy.received[0].startswith(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n".encode())
    assert proxy.header("Proxy-Authorization") == BASIC
    assert (server.header("Host"), server.header("Proxy-Authorization")) == (place, None)
    # Connections through a proxy are not kept.
    assert proxy.connections == server.connections == 2


def test_a_redirect_past_the_proxy() -> None:
    """The proxy's password stays with the proxy when a redirect leads past it."""
    with Server(always(answer())) as server:
        redirect = always(answer("302 Found", f"Location: {server.url()}"))
        with Server(redirect) as proxy:
            proxies = Proxies(f"http://{PASSWORD}@{proxy.host}:{proxy.port}", no_proxy=f"127.0.0.1:{server.port}")
            with probing(proxies=proxies) as prober:
                result = prober.check(target("http://127.0.0.1:1/", use_proxy=True, follow_redirects=True))
    assert result.state == "ok"
    assert (proxy.header("Proxy-Authorization"), server.header("Proxy-Authorization")) == (BASIC, None)
    assert server.received[0].startswith(b"GET / ")


@pytest.mark.parametrize("to_api_server", [False, True])
def test_only_targets_that_may_go_through_a_proxy(to_api_server: bool) -> None:
    """Neighbours, the Service and the API server are never reached through a proxy."""
    with (
        Server(always(answer())) as server,
        Server(silent) as proxy,
        probing(proxies=Proxies(http=proxy.url(), https=proxy.url())) as prober,
    ):
        result = prober.check(target(server.url(), to_api_server=to_api_server))
    assert result.state == ("setup: no credentials for the API server" if to_api_server else "ok")
    assert proxy.connections == 0


@pytest.mark.parametrize(
    ("data", "state"),
    [
        (answer("407 Proxy Authentication Required"), "proxy: 407 Proxy Authentication Required"),
        (answer("502"), "proxy: 502 Bad Gateway"),
        (b"", "proxy: connection closed before the answer"),
        (b"HTTP/1.1 200 Connection esta", "proxy: truncated"),
        (b"SSH-2.0-x\r\n", "proxy: not HTTP: SSH-2.0-x"),
    ],
    ids=["407", "502", "closes", "truncated", "ssh"],
)
def test_a_proxy_that_opens_no_way(data: bytes, state: str) -> None:
    """A proxy that answers CONNECT with anything but 200 fails the check; the result has no status."""
    with Server(once(data)) as proxy, probing(proxies=Proxies(https=proxy.url())) as prober:
        result = prober.check(target("https://kubenurse.test/", use_proxy=True))
    assert (result.state, result.event, result.status_code) == (state, "round_trip_error", None)
    assert set(result.trace) == {"connect_start", "connect_done"}
    assert proxy.received[0].startswith(b"CONNECT kubenurse.test:443 ")


@pytest.mark.parametrize("url", ["http://kubenurse.test/", "https://kubenurse.test/"])
def test_a_dead_proxy(url: str) -> None:
    """The state tells a proxy that cannot be reached from a target that cannot."""
    with refusing() as (_, (host, port)), probing(proxies=Proxies(*[f"http://{host}:{port}"] * 2)) as prober:
        result = prober.check(target(url, use_proxy=True))
    assert (result.state, result.event) == ("proxy: connect: connection refused", "connect_done")


def test_a_proxy_whose_name_is_unknown() -> None:
    """An invalid name of a proxy fails the proxy's dns step."""
    proxies, resolver = Proxies(http="http://proxy..test"), Resolver(system_addresses)
    with probing(proxies=proxies, resolver=resolver) as prober:
        result = prober.check(target("http://127.0.0.1/", use_proxy=True))
    assert (result.state, result.event) == ("proxy: dns: name not known", "dns_done")


def test_a_proxy_that_hangs() -> None:
    """The state names a slow proxy, whether the connect, the CONNECT request or its answer is late."""
    with Server(silent) as proxy, BlackHole() as hole:
        for port, url, phase in (
            (hole.port, "https://kubenurse.test/", "proxy: connect"),
            (proxy.port, "https://kubenurse.test/", "proxy"),
            (proxy.port, "http://kubenurse.test/", "response"),
        ):
            with probing(proxies=Proxies(*[f"http://127.0.0.1:{port}"] * 2), timeout=SHORT) as prober:
                result = prober.check(target(url, use_proxy=True))
            assert (result.state, result.event) == (f"{phase}: timed out after 300ms", "timeout")
            assert SHORT / 2 <= result.duration < GENEROUS


def test_a_bad_certificate_behind_a_proxy() -> None:
    """The target's certificate is verified through the tunnel, for the target's name."""
    context = server_context(certificate("127.0.0.1", ca="stranger"))
    with (
        Server(always(answer()), context=context) as server,
        Server(tunnel) as proxy,
        probing(proxies=Proxies(https=proxy.url())) as prober,
    ):
        result = prober.check(target(server.url(), use_proxy=True))
    assert (result.state, result.event) == ("tls: unable to get local issuer certificate", "tls_handshake_done")
    assert server.received == []


def test_a_proxy_that_is_spoken_to_over_tls() -> None:
    """An https:// proxy fails the check before anything is opened, and its password is not shown."""
    with Server(silent) as proxy:
        proxies = Proxies(http=f"https://{PASSWORD}@{proxy.host}:{proxy.port}")
        with probing(proxies=proxies) as prober:
            result = prober.check(target("http://kubenurse.test/", use_proxy=True))
    place = f"https://{proxy.host}:{proxy.port}/"
    assert (result.state, result.event) == (
        f"setup: proxy {place} is not supported, expected http://",
        "round_trip_error",
    )
    assert proxy.connections == 0


@pytest.mark.parametrize(
    ("scheme", "host", "proxy"),
    [
        ("http", "kubenurse.test", "http://plain:3128"),
        ("https", "kubenurse.test", "http://secure"),
        ("http", "10.1.2.3", "http://plain:3128"),
    ],
)
def test_the_scheme_chooses_the_proxy(scheme: str, host: str, proxy: str) -> None:
    """Each scheme has its own variable; a proxy without a scheme is an http one."""
    assert Proxies("plain:3128", "http://secure").for_url(scheme, host, 80) == proxy
    assert Proxies().for_url(scheme, host, 80) == ""


@pytest.mark.parametrize(
    ("no_proxy", "direct", "proxied"),
    [
        ("", "", "a.test 10.0.0.1 ::1"),
        ("*", "a.test 10.0.0.1 ::1", ""),
        (" , ", "", "a.test"),
        ("b.test, A.test", "a.test a.test. x.a.test X.A.TEST b.test", "aa.test test a.test.x"),
        (".a.test", "x.a.test", "a.test"),
        ("*.a.test", "x.a.test y.x.a.test", "a.test"),
        ("a.test.", "a.test x.a.test a.test.", "b.test"),
        ("10.0.0.1,::1", "10.0.0.1 ::1", "10.0.0.2 ::2"),
        ("[::1]", "::1", "::2"),
        ("10.0.0.0/8,fd00::/8", "10.255.0.1 fd12::1", "11.0.0.1 fe80::1 a.test"),
        ("a.test:443,10.0.0.1:443,[::1]:443", "a.test 10.0.0.1 ::1", "b.test"),
        ("a.test:80,10.0.0.1:80,[::1]:80", "", "a.test 10.0.0.1 ::1"),
        ("a.test:x", "", "a.test"),
    ],
)
def test_no_proxy(no_proxy: str, direct: str, proxied: str) -> None:
    """The domains, addresses, ranges and ports of NO_PROXY are reached directly."""
    proxies = Proxies("http://p", "http://p", no_proxy)
    assert [host for host in direct.split() if proxies.for_url("https", host, 443)] == []
    assert [host for host in proxied.split() if not proxies.for_url("https", host, 443)] == []


def test_passwords_are_not_shown() -> None:
    """The URLs of proxies are left out of their repr."""
    assert "secret" not in repr(Proxies("http://user:secret@p", "http://user:secret@p"))
