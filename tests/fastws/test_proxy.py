"""Connecting through proxies, to and with TLS and without, and what they may answer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

import fastws
from fastws.proxy import Proxy, get_proxy, parse_proxy
from fastws.uri import parse_uri
from tests.fastws.certificates import client_context, server_context
from tests.fastws.client import echo, has_nodelay, serve, url
from tests.fastws.proxies import proxy
from tests.fastws.raw_server import ServerPeer, no_proxy, raw_server

pytestmark = pytest.mark.usefixtures("loop_kind", "no_proxy")

__all__ = ["no_proxy"]

SCHEMES = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"]


def options_for(scheme: str, carrier: str, *, secure: bool = False) -> dict[str, Any]:
    """Arguments for ``connect``; the reactor carries no TLS."""
    if scheme == "https" or secure:
        carrier = "auto" if carrier == "reactor" else carrier
    options: dict[str, Any] = {"carrier": carrier}
    if scheme == "https":
        options["proxy_ssl"] = client_context()
    if secure:
        options["ssl"] = client_context()
    return options


def started(scheme: str) -> Any:
    if scheme.startswith("socks"):
        pytest.importorskip("python_socks")
    return proxy(scheme, server_context() if scheme == "https" else None)


async def talk(ws: fastws.ClientConnection) -> None:
    for message in ("hello", b"x" * 200_000, "\N{SNOWMAN}"):
        await ws.send(message)
        assert await ws.recv() == message


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_websocket_through_a_proxy(carrier: str, scheme: str) -> None:
    async with serve(echo, carrier) as server, started(scheme) as found:
        options = options_for(scheme, carrier)
        async with fastws.connect(url(server), proxy=found.url(), **options) as ws:
            assert has_nodelay(ws)
            await talk(ws)
        assert found.asked == [url(server)[len("ws://") : -1]]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_tls_through_a_proxy(carrier: str, scheme: str) -> None:
    async with (
        fastws.serve(echo, "127.0.0.1", 0, ssl=server_context()) as server,
        started(scheme) as found,
    ):
        uri = url(server).replace("ws://", "wss://")
        options = options_for(scheme, carrier, secure=True)
        async with fastws.connect(uri, proxy=found.url(), **options) as ws:
            await talk(ws)
        assert len(found.asked) == 1


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
async def test_credentials_of_the_url_are_for_the_proxy(carrier: str, scheme: str) -> None:
    seen = []

    async def handler(ws: fastws.ServerConnection) -> None:
        seen.append(dict(ws.request.headers.raw_items()))
        await echo(ws)

    async with serve(handler, carrier) as server, started(scheme) as found:
        found.credentials = ("user", "p@ss")
        options = options_for(scheme, carrier)
        async with fastws.connect(url(server), proxy=found.url("user:p%40ss@"), **options) as ws:
            await talk(ws)
        assert not [name for name in seen[0] if "uthorization" in name]
        for wrong in ("", "user:wrong@"):
            with pytest.raises(fastws.ProxyError) as caught:
                await fastws.connect(url(server), proxy=found.url(wrong), **options)
            if scheme.startswith("http"):
                assert isinstance(caught.value, fastws.InvalidProxyStatus)
                assert caught.value.response.status_code == 407
                assert caught.value.response.body == b"who now?"


@pytest.mark.parametrize(("scheme", "looked_up_by"), [("socks5h", "proxy"), ("socks4a", "proxy")])
async def test_names_are_looked_up_by_the_proxy(
    carrier: str, scheme: str, looked_up_by: str
) -> None:
    async with serve(echo, carrier) as server, started(scheme) as found:
        found.hosts["only.the.proxy.knows.test"] = "127.0.0.1"
        uri = url(server).replace("127.0.0.1", "only.the.proxy.knows.test")
        async with fastws.connect(uri, proxy=found.url(), carrier=carrier) as ws:
            await talk(ws)


async def test_host_and_port_say_where_the_proxy_connects_to(carrier: str) -> None:
    async with serve(echo, carrier) as server, proxy("http") as found:
        host, port = server.sockets[0].getsockname()
        async with fastws.connect(
            "ws://example.test/", host=host, port=port, proxy=found.url(), carrier=carrier
        ) as ws:
            assert ws.request.headers["Host"] == "example.test"
        assert found.asked == [f"{host}:{port}"]


async def test_connect_names_the_server_and_ourselves(carrier: str) -> None:
    async with serve(echo, carrier) as server, proxy("http") as found:
        async with fastws.connect(
            url(server), proxy=found.url(), carrier=carrier, user_agent_header="me/1"
        ):
            pass
        target = url(server)[len("ws://") : -1]
        assert found.headers == [{"host": target, "user-agent": "me/1"}]


# --- by the environment


@pytest.mark.parametrize(
    ("uri", "variables", "expected"),
    [
        ("ws://h/", {}, None),
        ("ws://h/", {"http_proxy": "http://p:1"}, "http://p:1"),
        ("wss://h/", {"http_proxy": "http://p:1"}, None),
        ("ws://h/", {"http_proxy": "http://p:1", "https_proxy": "http://p:2"}, "http://p:2"),
        ("wss://h/", {"https_proxy": "http://p:2", "socks_proxy": "socks5://p:3"}, "socks5://p:3"),
        ("wss://h/", {"socks_proxy": "http://p:3"}, "socks5h://p:3"),
        ("wss://h/", {"wss_proxy": "http://p:4", "socks_proxy": "socks5://p:3"}, "http://p:4"),
        ("ws://h/", {"ws_proxy": "http://p:5", "wss_proxy": "http://p:4"}, "http://p:5"),
        ("ws://h/", {"all_proxy": "socks5://p:6"}, "socks5://p:6"),
        ("wss://h/", {"all_proxy": "http://p:6", "http_proxy": "http://p:1"}, "http://p:6"),
        ("ws://h/", {"all_proxy": "socks5://p:6", "http_proxy": "http://p:1"}, "http://p:1"),
        ("ws://h/", {"all_proxy": "socks5://p:6", "no_proxy": "h"}, None),
        ("ws://h/", {"http_proxy": "http://p:1", "no_proxy": "h"}, None),
        ("ws://h:81/", {"http_proxy": "http://p:1", "no_proxy": "other,h:81"}, None),
        ("ws://h/", {"http_proxy": "http://p:1", "no_proxy": "*"}, None),
    ],
)
def test_which_proxy_the_environment_names(
    uri: str, variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert get_proxy(parse_uri(uri)) == expected


async def test_the_environment_is_followed_unless_told_not_to(
    carrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(echo, carrier) as server, proxy("http") as found:
        monkeypatch.setenv("ws_proxy", found.url())
        async with fastws.connect(url(server), carrier=carrier) as ws:
            await talk(ws)
        assert len(found.asked) == 1
        async with fastws.connect(url(server), carrier=carrier, proxy=None) as ws:
            await talk(ws)
        assert len(found.asked) == 1


# --- URLs


def test_the_parts_of_a_proxys_url() -> None:
    assert parse_proxy("http://h") == Proxy("http", "h", 80)
    assert parse_proxy("https://h/") == Proxy("https", "h", 443)
    assert parse_proxy("socks5h://u%3A:p%40@[::1]:9") == Proxy("socks5h", "::1", 9, "u:", "p@")
    assert parse_proxy("socks4://h") == Proxy("socks4", "h", 1080)


@pytest.mark.parametrize(
    "text",
    [
        *("h:80", "ftp://h", "http://", "http://h/path", "http://h?q", "http://h#f"),
        *("http://u@h", "http://h:x", "http://h:70000"),
    ],
)
async def test_what_is_no_proxy_is_refused(text: str) -> None:
    with pytest.raises(fastws.InvalidProxy) as caught:
        await fastws.connect("ws://127.0.0.1:9/", proxy=text)
    assert caught.value.proxy == text


# --- proxies that do not connect


async def test_nobody_listens_at_the_proxys_address(carrier: str) -> None:
    for scheme in ("http", "https", "socks5"):
        if scheme == "socks5":
            pytest.importorskip("python_socks")
        with pytest.raises(OSError):
            await fastws.connect(
                "ws://127.0.0.1:9/", proxy=f"{scheme}://127.0.0.1:1", carrier="auto"
            )


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", fastws.InvalidProxyStatus, "HTTP 502"),
        (b"HTTP/1.0 404 Not Found\r\n\r\nnope", fastws.InvalidProxyStatus, "HTTP 404"),
        (b"\x05\x00", fastws.InvalidProxyMessage, "from the proxy: not an HTTP"),
        (b"", fastws.InvalidProxyMessage, "without an answer"),
        (b"HTTP/1.1 200 OK\r\nA", fastws.InvalidProxyMessage, "without an answer"),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", fastws.InvalidProxyMessage, "more than an answer"),
        (b"HTTP/1.1 200 " + b"O" * 20000, fastws.InvalidProxyMessage, "more than 16384"),
    ],
)
async def test_answers_that_connect_to_nothing(
    carrier: str, scheme: str, answer: bytes, kind: type[Exception], text: str
) -> None:
    async with started(scheme) as found:
        found.reject = answer
        options = options_for(scheme, carrier)
        with pytest.raises(kind, match=text):
            await fastws.connect("ws://example.test/", proxy=found.url(), **options)
        assert found.asked == ["example.test:80"]


async def test_a_socks_proxy_that_refuses(carrier: str) -> None:
    async with started("socks5") as found:
        found.reject = b"\x05\x05\x00\x01" + bytes(6)
        with pytest.raises(fastws.ProxyError, match="SOCKS"):
            await fastws.connect("ws://127.0.0.1:9/", proxy=found.url(), carrier=carrier)


async def test_a_proxy_that_stalls_is_left_after_open_timeout(carrier: str) -> None:
    gone = asyncio.Event()

    async def handler(peer: ServerPeer) -> None:
        with contextlib.suppress(ConnectionError):
            await peer.drain()
        gone.set()

    async with raw_server(handler) as uri:
        with pytest.raises(TimeoutError):
            await fastws.connect(
                "ws://example.test/",
                proxy=uri.replace("ws", "http"),
                carrier=carrier,
                open_timeout=0.1,
            )
        await gone.wait()


async def test_a_socks_proxy_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ImportError, match=r"fastws-gateway\[socks\]"):
        await fastws.connect("ws://127.0.0.1:9/", proxy="socks5://127.0.0.1:9")
