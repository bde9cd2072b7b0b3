"""Which address counts as a client's, and who may say so."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fastws import Headers
from gateway.addresses import ClientAddresses, parse_forwarded, parse_node
from gateway.app import App, ConnectEvent, ConnectReply
from gateway.config import ConfigError, load
from gateway.server import Gateway
from tests.gateway.test_gateway import Client, make, url

PROXY = ("10.0.0.1", 5000)
LOCAL = ["127.0.0.1"]


def addresses(header: str = "x-forwarded-for", trusted: str = "10.0.0.0/8,unix") -> ClientAddresses:
    config = load(
        flags={
            "http_server.trusted_proxies": trusted,
            "http_server.forwarded_header": header,
        }
    )
    return ClientAddresses(config.http_server)


def find(header: str, peer: Any, *values: str) -> str:
    name = {"x-forwarded-for": "X-Forwarded-For", "forwarded": "Forwarded"}[header]
    headers = Headers([(name, value) for value in values])
    return addresses(header).address(peer, headers.get_all)


@pytest.mark.parametrize(
    ("peer", "values", "found"),
    [
        (PROXY, ["192.0.2.7"], "192.0.2.7"),
        (PROXY, [], "10.0.0.1"),
        (("::ffff:10.0.0.1", 1, 0, 0), ["192.0.2.7"], "192.0.2.7"),
        ("", ["2001:db8::7"], "2001:db8::7"),  # a Unix socket
        ("", [], "unix"),
        (("192.0.2.1", 1), ["192.0.2.7"], "192.0.2.1"),  # not trusted
        # The client's own claim is on the left of what the proxy has appended.
        (PROXY, ["1.1.1.1, 192.0.2.7"], "192.0.2.7"),
        (PROXY, ["1.1.1.1", "192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        (PROXY, ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (PROXY, ["192.0.2.7, unknown"], "10.0.0.1"),
        (PROXY, ["192.0.2.7, nonsense, 10.0.0.2"], "10.0.0.2"),
        (PROXY, ["192.0.2.7:4711"], "192.0.2.7"),
        (PROXY, ["[2001:db8::7]:4711"], "2001:db8::7"),
        (PROXY, [","], "10.0.0.1"),
        (PROXY, ["10.0.0.9," * 5000], "10.0.0.1"),
    ],
)
def test_x_forwarded_for_is_read_from_its_end_and_as_far_as_it_is_trusted(
    peer: Any, values: list[str], found: str
) -> None:
    assert find("x-forwarded-for", peer, *values) == found


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["for=192.0.2.7;proto=https;by=10.0.0.1"], "192.0.2.7"),
        (['For="[2001:db8::7]:4711"'], "2001:db8::7"),
        (["for=1.1.1.1, for=192.0.2.7", "for=10.0.0.2"], "192.0.2.7"),
        (['for="a, for=1.1.1.1", for=192.0.2.7'], "192.0.2.7"),
        (["for=_hidden"], "10.0.0.1"),
        (["proto=https"], "10.0.0.1"),
        (["for=192.0.2.7;"], "192.0.2.7"),
        (["for=192.0.2.7;for=1.1.1.1"], "10.0.0.1"),
        (['for="192.0.2.7'], "10.0.0.1"),
        (["192.0.2.7"], "10.0.0.1"),
    ],
)
def test_forwarded_is_read_by_its_grammar(values: list[str], found: str) -> None:
    assert find("forwarded", PROXY, *values) == found


def test_a_long_forwarded_header_takes_no_long_time() -> None:
    for text in ('"' * 16000, "for=" * 4000, ",;" * 8000, 'for="' + "\\" * 16000, " " * 16000):
        parse_forwarded([text])


def test_only_the_header_that_is_configured_is_looked_at() -> None:
    headers = Headers([("X-Forwarded-For", "1.1.1.1"), ("Forwarded", "for=2.2.2.2")])
    assert addresses("none").address(PROXY, headers.get_all) == "10.0.0.1"
    assert addresses("forwarded").address(PROXY, headers.get_all) == "2.2.2.2"
    assert addresses().address(PROXY, headers.get_all) == "1.1.1.1"


def test_an_address_is_written_in_one_way() -> None:
    assert parse_node("2001:DB8:0:0::7") == "2001:db8::7"
    assert parse_node("::ffff:192.0.2.7") == "192.0.2.7"
    assert parse_node("192.0.2.07") is None


@pytest.mark.parametrize(
    ("header", "values", "secure"),
    [
        ("x-forwarded-for", [("X-Forwarded-Proto", "https")], True),
        ("x-forwarded-for", [("X-Forwarded-Proto", "https, http")], False),
        ("x-forwarded-for", [("Forwarded", "proto=https")], False),
        ("forwarded", [("Forwarded", "for=_a;proto=HTTPS")], True),
        ("none", [("X-Forwarded-Proto", "https")], False),
    ],
)
def test_a_proxy_says_whether_there_is_tls_in_front_of_it(
    header: str, values: list[tuple[str, str]], secure: bool
) -> None:
    get_all = Headers(values).get_all
    assert addresses(header).is_secure(PROXY, get_all) is secure
    assert addresses(header).is_secure(("192.0.2.1", 1), get_all) is False


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"http_server.trusted_proxies": ["10.0.0.1/8"]}, "'10.0.0.1/8' is no address, network"),
        ({"http_server.proxy_protocol": True}, "needs http_server.trusted_proxies"),
    ],
)
def test_networks_that_are_none_are_refused(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(flags=flags)


# --- in the gateway


class Asked(App):
    """Lets everyone in, and remembers where they come from."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def connect(self, event: ConnectEvent, headers: Any) -> ConnectReply:
        self.addresses.append(event.address)
        return ConnectReply(user="u")


def proxied(app: App | None = None, **flags: Any) -> Gateway:
    keys = {"http_server.port": 0, "http_server.trusted_proxies": LOCAL, **flags}
    return Gateway(load(flags=keys), app)


async def test_limits_and_the_application_get_the_clients_address() -> None:
    app = Asked()
    async with (
        proxied(app, **{"client.ip_connection_limit": 1}) as gateway,
        await connected(gateway, "192.0.2.7"),
        await connected(gateway, "9.9.9.9, 192.0.2.8"),
    ):
        with pytest.raises(InvalidStatus) as refused:
            await connected(gateway, "8.8.8.8, 192.0.2.7")
        assert refused.value.response.status_code == 429
    assert app.addresses == ["192.0.2.7", "192.0.2.8"]


async def connected(gateway: Gateway, forwarded: str) -> Client:
    headers = {"X-Forwarded-For": forwarded}
    ws = Client(await connect(url(gateway), compression=None, additional_headers=headers))
    assert "connect" in await ws.ask({"connect": {}})
    return ws


async def test_a_client_that_is_no_proxy_cannot_choose_its_address() -> None:
    app = Asked()
    async with (
        Gateway(load(flags={"http_server.port": 0}), app) as gateway,
        await connected(gateway, "192.0.2.7"),
    ):
        assert app.addresses == ["127.0.0.1"]


@pytest.mark.usefixtures("loop_kind")
async def test_a_proxy_header_goes_first_and_http_understands_it_too(loop_kind: str) -> None:
    app = Asked()
    async with proxied(app, **{"http_server.proxy_protocol": True}) as gateway:
        line = b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(line + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(line)
        sock = writer.get_extra_info("socket").dup()
        writer.transport.abort()
        ws = Client(await connect(url(gateway), sock=sock, compression=None))
        async with ws:
            await ws.ask({"connect": {}})
        assert app.addresses == ["192.0.2.7"]
        with pytest.raises(aiohttp.ClientError):
            async with aiohttp.ClientSession() as http:
                await http.get(url(gateway, "/health", "http"))


async def test_a_page_without_tls_is_another_origin_when_the_proxy_says_that_there_is_tls() -> None:
    async with make(http_server__trusted_proxies=LOCAL) as gateway:
        headers = {"Origin": f"http://127.0.0.1:{gateway.port}", "X-Forwarded-Proto": "http"}
        async with connect(url(gateway), additional_headers=headers, compression=None):
            pass
        headers["X-Forwarded-Proto"] = "https"
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(gateway), additional_headers=headers, compression=None)
        assert refused.value.response.status_code == 403


def test_the_address_is_part_of_what_a_webhook_is_posted() -> None:
    import msgspec

    event = json.loads(msgspec.json.encode(ConnectEvent(client="c", address="192.0.2.7")))
    assert event["address"] == "192.0.2.7"
