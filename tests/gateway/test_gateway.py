"""The whole gateway on real sockets, spoken to by clients of others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from typing import Any

import aiohttp
import pytest
from msgspec import Raw
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from gateway import __version__
from gateway.app import App, DisconnectEvent
from gateway.config import load
from gateway.server import Gateway
from tests.gateway.tokens import SECRET, token


def make(**flags: Any) -> Gateway:
    """A gateway for anyone; ``client__ping_interval=1`` sets ``client.ping_interval``."""
    keys = {key.replace("__", "."): value for key, value in flags.items()}
    return Gateway(load(flags={"dev": True, "http_server.port": 0, **keys}))


class Client:
    """A Centrifuge client of few words, on a connection of `websockets`."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    async def __aenter__(self) -> Client:
        await self.ws.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.ws.__aexit__(*exc)

    async def ask(self, command: dict[str, Any]) -> Any:
        await self.ws.send(json.dumps({"id": 7, **command}))
        return await self.read()

    async def read(self) -> Any:
        message = await self.ws.recv()
        assert isinstance(message, str), "JSON goes in text frames"
        return json.loads(message)

    async def closed(self) -> tuple[int | None, str | None]:
        """Wait for the end, whatever comes before it."""
        with contextlib.suppress(ConnectionClosed):
            async for _ in self.ws:
                pass
        return self.ws.close_code, self.ws.close_reason


def url(gateway: Gateway, path: str = "/connection/websocket", scheme: str = "ws") -> str:
    return f"{scheme}://127.0.0.1:{gateway.port}{path}"


async def client(gateway: Gateway, *channels: str, **options: Any) -> Client:
    """A client that has connected and subscribed."""
    made = Client(await connect(url(gateway), compression=None, **options))
    assert "connect" in await made.ask({"connect": {}})
    for channel in channels:
        assert "subscribe" in await made.ask({"subscribe": {"channel": channel}})
    return made


async def eventually(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("loop_kind")
async def test_what_one_client_publishes_another_reads(loop_kind: str) -> None:
    async with make() as gateway:
        async with await client(gateway, "news") as reader, await client(gateway) as writer:
            published = {"publish": {"channel": "news", "data": {"text": "grüß ☃ 😀"}}}
            assert "publish" in await writer.ask(published)
            push = (await reader.read())["push"]
            assert push["channel"] == "news"
            assert push["pub"]["data"] == {"text": "grüß ☃ 😀"}
        await eventually(lambda: gateway.node.counters.connections == 0)
        assert gateway.node.hub.channels == {}
        assert gateway.node.hub.subscriptions == 0


async def test_clients_are_pinged_and_stay_when_they_answer() -> None:
    async with (
        make(client__ping_interval=0.6, client__pong_timeout=0.3) as gateway,
        await client(gateway) as alive,
        await client(gateway) as silent,
    ):
        assert await alive.read() == {}
        await alive.ws.send("{}")
        assert await alive.read() == {}
        await alive.ws.send("{}")
        assert await silent.closed() == (3012, "no pong")
        assert "ping" in (await alive.ask({"ping": {}}) or await alive.read())


async def test_a_client_that_says_nothing_is_closed() -> None:
    async with make(client__stale_close_delay=0.2) as gateway, connect(url(gateway)) as ws:
        assert await Client(ws).closed() == (3502, "stale")


async def test_garbage_is_answered_with_3501_and_a_large_message_with_1009() -> None:
    async with make() as gateway:
        async with await client(gateway) as garbled:
            await garbled.ws.send("garbage")
            assert await garbled.closed() == (3501, "bad request")
        async with await client(gateway) as big:
            await big.ws.send(json.dumps({"id": 1, "rpc": {"data": "x" * 65536}}))
            code, _ = await big.closed()
            assert code == 1009


@pytest.mark.parametrize(
    ("send", "code"),
    [
        (lambda ws: ws.send("x" * 65537), 1009),
        (lambda ws: ws.send(b"\xff", text=True), 1007),
    ],
)
async def test_faults_of_frames_are_counted_and_told_by_the_code_that_we_close_with(
    send: Any, code: int
) -> None:
    app = Mourner()
    flags = {"dev": True, "http_server.port": 0}
    async with Gateway(load(flags=flags), app) as gateway, await client(gateway) as one:
        await send(one.ws)
        assert (await one.closed())[0] == code
        await eventually(lambda: app.gone)
        assert gateway.node.counters.disconnects == {str(code): 1}
        [event] = app.gone
        assert (event.code, bool(event.reason)) == (code, True)


class Mourner(App):
    """Is told of clients that are gone."""

    def __init__(self) -> None:
        self.gone: list[DisconnectEvent] = []

    async def disconnect(self, event: DisconnectEvent, headers: Any) -> None:
        self.gone.append(event)


async def test_a_slow_reader_is_dropped_and_delays_nobody() -> None:
    async with (
        make(client__queue_max_size=200_000) as gateway,
        await client(gateway, "news") as reader,
        await client(gateway) as writer,
    ):
        slow = await client(gateway, "news")
        slow.ws.transport.pause_reading()
        data = "x" * 50_000
        for _ in range(200):
            assert "publish" in await writer.ask({"publish": {"channel": "news", "data": data}})
            assert (await reader.read())["push"]["pub"]["data"] == data
            if gateway.node.counters.disconnects:
                break
        assert gateway.node.counters.disconnects == {"3008": 1}
        assert gateway.node.limits.reached == {"queue_max_size": 1}
        [channel] = gateway.node.hub.channels.values()
        assert channel.users == 1
        slow.ws.transport.resume_reading()
        assert await slow.closed() == (3008, "slow")


@pytest.mark.parametrize("policy", ["latest", "drop_oldest"])
async def test_a_slow_reader_of_a_channel_that_drops_stays_and_gets_the_newest(policy: str) -> None:
    options = {"slow_reader": policy, "slow_reader_queue": 3, "slow_reader_key": "symbol"}
    keys = {f"channel__without_namespace__{name}": value for name, value in options.items()}
    async with (
        make(**keys) as gateway,
        await client(gateway, "news") as reader,
        await client(gateway, "news") as slow,
    ):
        slow.ws.transport.pause_reading()
        hub, last = gateway.node.hub, 0
        while hub.dropped < 10:
            last += 1
            data = Raw(json.dumps([last, "x" * 50_000]).encode())
            await gateway.node.publish("news", data, tags={"symbol": "ab"[last % 2]})
            assert (await reader.read())["push"]["pub"]["data"][0] == last
        assert hub.lagging == 1
        assert sum(channel.num_subscribers for channel in hub.channels.values()) == 2
        slow.ws.transport.resume_reading()
        heard = []
        while not heard or heard[-1] < last:
            heard.append((await slow.read())["push"]["pub"]["data"][0])
        assert heard == sorted(heard)
        newest = 2 if policy == "latest" else 3
        assert heard[-newest:] == list(range(last - newest + 1, last + 1))
        assert len(heard) == last - hub.dropped
        await gateway.node.publish("news", Raw(b"[0]"))
        assert (await slow.read())["push"]["pub"]["data"] == [0]
        assert hub.lagging == 0
        assert gateway.node.counters.disconnects == {}


async def test_stopping_closes_everyone_with_3001_and_refuses_new_clients() -> None:
    async with make() as gateway:
        address = url(gateway)
        clients = [await client(gateway, "news") for _ in range(20)]
        stopping = asyncio.create_task(gateway.stop())
        for each in clients:
            assert await each.closed() == (3001, "shutdown")
        await stopping
        with pytest.raises(OSError):
            await connect(address)
        assert gateway.node.counters.disconnects == {"3001": 20}


async def test_stopping_is_bounded_whatever_clients_do() -> None:
    async with make(shutdown__timeout=0.3) as gateway:
        deaf = await client(gateway)
        deaf.ws.transport.pause_reading()  # never answers the close
        async with asyncio.timeout(3):
            await gateway.stop()
        deaf.ws.transport.abort()


async def test_other_paths_have_no_websocket() -> None:
    async with make() as gateway:
        for path in "/", "/connection/sse", "/connection/websocket/":
            with pytest.raises(InvalidStatus) as error:
                await connect(url(gateway, path))
            assert error.value.response.status_code == 404
        async with connect(url(gateway, "/connection/websocket?cf_protocol=json")):
            pass


async def test_plain_http_is_served_on_the_same_port() -> None:
    async with make() as gateway, aiohttp.ClientSession() as http:

        async def get(path: str) -> tuple[int, str]:
            async with http.get(url(gateway, path, "http")) as response:
                assert "Date" in response.headers
                return response.status, await response.text()

        assert await get("/health") == (200, "{}")
        assert (await get("/nothing/here"))[0] == 404
        assert (await get("/static/../config.py"))[0] == 404
        assert (await get("/connection/websocket"))[0] == 426


async def test_metrics_tell_what_happens() -> None:
    async with make() as gateway, aiohttp.ClientSession() as http:
        async with await client(gateway, "a", "b") as one, await client(gateway, "a") as two:
            await two.ask({"publish": {"channel": "a", "data": 1}})
            assert "push" in await one.read()
            await two.ws.send("garbage")
            await two.closed()
            async with http.get(url(gateway, "/metrics", "http")) as response:
                text = await response.text()
        samples = dict(re.findall(r"^fastws_(\S+) (\S+)$", text, re.MULTILINE))
        assert samples["clients"] == "1.0"
        assert samples["channels"] == "2.0"
        assert samples["subscriptions"] == "2.0"
        assert samples["publications_total"] == "1.0"
        assert samples["deliveries_total"] == "2.0"
        assert samples["frames_received_total"] == "7.0"
        assert samples['disconnects_total{code="3501"}'] == "1.0"


async def test_metrics_tell_of_commands_calls_and_the_process() -> None:
    flags = {"http_api__key": "k", "channel__without_namespace__history_size": 1}
    async with make(**flags) as gateway, aiohttp.ClientSession() as http:
        async with await client(gateway, "a") as one:
            await one.ask({"publish": {"channel": "a", "data": 1}})
            await one.read()
            await one.ask({"publish": {"channel": "x" * 256, "data": 1}})
            await one.ask({"rpc": {}})
            session = next(iter(gateway.node.clients))
            headers = {"X-API-Key": "k"}
            for body in {"channel": "b", "data": 1}, {}:
                where = url(gateway, "/api/publish", "http")
                async with http.post(where, json=body, headers=headers) as response:
                    assert response.status == 200
            one.ws.transport.pause_reading()
            while not session.transport.buffered_amount:  # type: ignore[attr-defined]
                await gateway.node.publish("a", Raw(b'"%s"' % (b"x" * 100_000)))
                await asyncio.sleep(0)
            await asyncio.sleep(0.3)
            async with http.get(url(gateway, "/metrics", "http")) as response:
                text = await response.text()
        samples = dict(re.findall(r"^([a-z]\S+) (\S+)$", text, re.MULTILINE))
        commands = {"connect": 1, "subscribe": 1, "publish": 2, "rpc": 1, "history": 0}
        for name, count in commands.items():
            assert float(samples[f'fastws_commands_total{{method="{name}"}}']) == count
        assert samples['fastws_command_errors_total{code="107"}'] == "1.0"
        assert samples['fastws_command_errors_total{code="104"}'] == "1.0"
        assert samples['fastws_api_errors_total{code="107",method="publish"}'] == "1.0"
        assert samples['fastws_api_duration_seconds_count{method="publish"}'] == "2.0"
        assert float(samples["fastws_queued_bytes"]) > 0
        assert float(samples["fastws_loop_lag_seconds_count"]) > 0
        assert samples[f'fastws_build_info{{version="{__version__}"}}'] == "1.0"
        assert float(samples["process_resident_memory_bytes"]) > 1e6
        assert 3 < float(samples["process_open_fds"]) < float(samples["process_max_fds"])
        assert float(samples["process_cpu_seconds_total"]) > 0


async def test_publications_of_one_tick_arrive_in_order() -> None:
    async with (
        make() as gateway,
        await client(gateway, "a") as reader,
        await client(gateway) as writer,
    ):
        commands = [{"id": n, "publish": {"channel": "a", "data": n}} for n in range(1, 501)]
        await writer.ws.send("\n".join(map(json.dumps, commands)))
        got = [(await reader.read())["push"]["pub"]["data"] for _ in commands]
        assert got == list(range(1, 501))


async def test_pages_of_other_hosts_may_not_connect() -> None:
    async with make() as gateway:
        with pytest.raises(InvalidStatus) as error:
            await connect(url(gateway), origin=Origin("https://evil.example"))
        assert error.value.response.status_code == 403
        async with connect(url(gateway), origin=Origin(f"http://127.0.0.1:{gateway.port}")):
            pass
        assert gateway.node.counters.refused_origins == 1


async def test_a_token_may_come_with_the_opening_request() -> None:
    keys = {
        "dev": False,
        "client.token.hmac_secret_key": SECRET,
        "client.token_source.authorization_header": True,
        "client.token_source.subprotocol_prefix": "token.",
    }
    async with make(**keys) as gateway:
        header = {"Authorization": "Bearer " + token("ann")}
        async with await client(gateway, additional_headers=header):
            assert gateway.node.clients.num_users == 1
        offered = [Subprotocol("json"), Subprotocol("token." + token("ann"))]
        async with await client(gateway, subprotocols=offered) as browser:
            assert browser.ws.subprotocol == "json"
        async with connect(url(gateway)) as ws:
            await ws.send('{"id":1,"connect":{}}')
            assert await Client(ws).closed() == (3501, "bad request")


async def test_an_expired_connection_is_closed() -> None:
    keys = {"client.token.hmac_secret_key": SECRET, "client.expired_close_delay": 0}
    async with make(**keys) as gateway, connect(url(gateway)) as ws:
        expiring = token("ann", exp=time.time() + 1)
        await ws.send(json.dumps({"id": 1, "connect": {"token": expiring}}))
        assert await Client(ws).closed() == (3005, "connection expired")
