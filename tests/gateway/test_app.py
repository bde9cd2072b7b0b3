"""An application decides: in the process, and over HTTP, where a backend may be slow or dead."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from examples.chat_app import Chat
from gateway.app import (
    App,
    ConnectEvent,
    ConnectReply,
    Disconnect,
    Disconnected,
    DisconnectEvent,
    Error,
    RefreshEvent,
    RefreshReply,
    Refused,
    SubRefreshEvent,
    SubscribeEvent,
    SubscribeReply,
    farewells,
)
from gateway.app.base import Headers
from gateway.app.endpoints import FAILURES, REST, Endpoint, WebhookFailed
from gateway.config import Config, Proxy, load
from gateway.node import Node
from gateway.server import Gateway
from tests.gateway.fakes import Client as FakeClient
from tests.gateway.fakes import World
from tests.gateway.test_gateway import Client, connect, url
from tests.gateway.tokens import SECRET, token


async def settle() -> None:
    """Let tasks that do not wait for anything else go on."""
    for _ in range(8):
        await asyncio.sleep(0)


async def ask(client: FakeClient, command: dict[str, Any]) -> Any:
    client.send({"id": 9, **command})
    await settle()
    replies = client.take()
    return replies[-1] if replies else None


def config(**options: Any) -> Config:
    keys = {f"channel.without_namespace.{name}": value for name, value in options.items()}
    return load(flags={"client.token.hmac_secret_key": SECRET, **keys})


# -- in the process


class Rules(App):
    """Lets in who says a name; what it is to answer later is set by tests."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.connect_reply: Any = ConnectReply(user="ann")
        self.subscribe_reply: Any = SubscribeReply()
        self.refresh_reply: Any = RefreshReply(expired=True)

    async def _give(self, event: Any, reply: Any) -> Any:
        self.asked.append(event)
        async with asyncio.timeout(1):  # handlers have a task of their own
            await asyncio.sleep(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def connect(self, event: ConnectEvent, headers: Headers) -> ConnectReply:
        return await self._give(event, self.connect_reply)

    async def subscribe(self, event: SubscribeEvent, headers: Headers) -> SubscribeReply:
        return await self._give(event, self.subscribe_reply)

    async def refresh(self, event: RefreshEvent, headers: Headers) -> RefreshReply:
        return await self._give(event, self.refresh_reply)

    async def sub_refresh(self, event: SubRefreshEvent, headers: Headers) -> RefreshReply:
        return await self._give(event, self.refresh_reply)


async def test_an_application_lets_clients_in() -> None:
    rules = Rules()
    rules.connect_reply = ConnectReply(
        user="ann", b64info="NQ==", b64data="Ng==", channels=["news"]
    )
    async with World(config(), app=rules) as world:
        client = world.open()
        reply = await ask(client, {"connect": {"data": {"a": 1}, "name": "js"}})
        assert reply["connect"]["data"] == 6
        assert list(reply["connect"]["subs"]) == ["news"]
        assert client.session.info is not None
        assert (client.session.user, bytes(client.session.info.conn_info)) == ("ann", b"5")
        [event] = rules.asked
        assert (bytes(event.data), event.name) == (b'{"a": 1}', "js")
        assert event.client == client.session.id


async def test_a_token_goes_before_the_application() -> None:
    rules = Rules()
    async with World(config(), app=rules) as world:
        client = world.open()
        await ask(client, {"connect": {"token": token("bob")}})
        assert client.session.user == "bob"
        assert rules.asked == []


async def test_what_an_application_raises_reaches_the_client() -> None:
    rules = Rules()
    async with World(config(), app=rules) as world:
        client = world.open()
        rules.connect_reply = Refused(Error(1000, "not today"))
        reply = await ask(client, {"connect": {}})
        assert reply["error"] == {"code": 1000, "message": "not today"}
        rules.connect_reply = ConnectionRefusedError("down")
        assert (await ask(client, {"connect": {}}))["error"]["code"] == 100
        rules.connect_reply = ConnectReply(b64info="%")
        assert (await ask(client, {"connect": {}}))["error"]["code"] == 100
        rules.connect_reply = Disconnected(Disconnect(4500, "never"))
        await ask(client, {"connect": {}})
        assert client.closed == (4500, "never")


async def test_a_client_that_leaves_while_the_application_thinks_leaves_nothing() -> None:
    async with World(config(), app=Rules()) as world:
        client = world.open()
        client.send({"id": 1, "connect": {}})
        client.leave()
        await settle()
        assert len(world.node.clients) == 0
        assert world.node.counters.sessions == 0


async def test_an_application_renews_clients_or_ends_them() -> None:
    rules = Rules()
    async with World(config(), app=rules) as world:
        rules.connect_reply = ConnectReply(user="ann", expire_at=int(world.now) + 60)
        client = world.open()
        reply = await ask(client, {"connect": {}})
        assert "expires" not in reply["connect"], "it is not for the client to refresh"
        rules.refresh_reply = RefreshReply(expire_at=int(world.now) + 200)
        world.turn(61)
        await settle()
        rules.refresh_reply = ConnectionRefusedError("down")
        world.turn(140)
        await settle()
        assert client.closed is None
        rules.refresh_reply = RefreshReply(expired=True)
        world.turn(61)
        await settle()
        assert client.closed == (3005, "connection expired")
        assert len(rules.asked) == 4


async def test_an_application_says_who_may_subscribe_and_for_how_long() -> None:
    rules = Rules()
    keys = {"subscribe_proxy_enabled": True, "sub_refresh_proxy_enabled": True}
    async with World(config(**keys), app=rules) as world:
        client = world.client(token=token("bob"))
        rules.subscribe_reply = Refused(Error(1000, "no"))
        assert (await ask(client, {"subscribe": {"channel": "a"}}))["error"]["code"] == 1000
        assert (await ask(client, {"subscribe": {"channel": "$a"}}))["error"]["code"] == 103
        rules.subscribe_reply = SubscribeReply(expire_at=int(world.now) + 60, b64data="Ng==")
        assert (await ask(client, {"subscribe": {"channel": "a"}}))["subscribe"] == {"data": 6}
        rules.refresh_reply = RefreshReply(expire_at=int(world.now) + 300)
        world.turn(61)
        await settle()
        assert client.take() == []
        rules.refresh_reply = RefreshReply(expired=True)
        world.turn(300)
        await settle()
        assert client.take()[0]["push"]["unsubscribe"]["code"] == 2501


async def test_without_an_application_what_is_its_to_say_is_not_available() -> None:
    keys = {"subscribe_proxy_enabled": True, "publish_proxy_enabled": True}
    async with World(config(**keys)) as world:
        client = world.client(token=token("bob"))
        for command in {"subscribe": {"channel": "a"}}, {"publish": {"channel": "a", "data": 1}}:
            assert (await ask(client, command))["error"]["code"] == 108
        assert (await ask(client, {"rpc": {"method": "x"}}))["error"]["code"] == 104


async def test_the_example_keeps_its_rules() -> None:
    settings = load(Path(__file__).parents[2] / "examples" / "chat_app.toml")
    chat = Chat()
    async with World(settings, app=chat) as world:
        chat.node = world.node
        nobody, ann, bob = world.open(), world.open(), world.open()
        await ask(nobody, {"connect": {"data": {}}})
        assert nobody.closed == (4500, "say your name")
        await ask(ann, {"connect": {"data": {"name": "ann"}}})
        await ask(bob, {"connect": {"data": {"name": "bob"}}})
        await ask(ann, {"publish": {"channel": "room:lobby", "data": {"text": "hi"}}})
        said = bob.take()[0]["push"]["pub"]["data"]
        assert said["text"] == "hi" and said["at"] > 0
        reply = await ask(bob, {"rpc": {"method": "who"}})
        assert reply["rpc"] == {"data": ["ann", "bob"]}
        for command, code in (
            ({"publish": {"channel": "room:lobby", "data": {"text": "x" * 501}}}, 1001),
            ({"publish": {"channel": "room:lobby", "data": 5}}, 107),
            ({"subscribe": {"channel": "room:cellar"}}, 1002),
            ({"rpc": {"method": "x"}}, 104),
        ):
            assert (await ask(bob, command))["error"]["code"] == code


# -- over HTTP

Answer = Callable[[str, dict[str, Any]], Any]


Asked = list[tuple[str, dict[str, Any], Any]]


@contextlib.asynccontextmanager
async def backend(answer: Answer) -> AsyncIterator[tuple[str, Asked]]:
    """A backend's address, and what it was asked: the path, the content and the headers."""
    asked: Asked = []

    async def handle(request: web.Request) -> web.StreamResponse:
        event = request.match_info["event"]
        content = await request.json()
        asked.append((event, content, request.headers))
        given = answer(event, content)
        if isinstance(given, web.StreamResponse):
            return given
        if isinstance(given, float):
            await asyncio.sleep(given)
            given = {"result": {}}
        return web.json_response(given)

    app = web.Application()
    app.router.add_post("/{event}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def running(
    answer: Answer, *hooks: str, **flags: Any
) -> AsyncIterator[tuple[Gateway, Asked]]:
    """A gateway and a backend, and what the backend was asked."""
    keys: dict[str, Any] = {
        "http_server.port": 0,
        "client.token.hmac_secret_key": SECRET,
        "client.proxy.connect.http_headers": ["Cookie"],
        "channel.without_namespace.subscribe_proxy_enabled": True,
        "channel.without_namespace.publish_proxy_enabled": True,
    }
    events = "client.proxy.connect", "channel.proxy.subscribe", "channel.proxy.publish", "rpc.proxy"
    async with backend(answer) as (address, asked):
        for where in (*events, *hooks):
            keys[f"{where}.enabled"] = True
            keys[f"{where}.endpoint"] = f"{address}/{where.rpartition('.')[2]}"
        async with Gateway(load(flags={**keys, **flags})) as gateway:
            yield gateway, asked


def friendly(event: str, content: dict[str, Any]) -> Any:
    if event == "connect":
        return {"result": {"user": "ann", "info": {"n": 1}, "meta": {"m": 1}, "data": "welcome"}}
    if event == "publish":
        return {"result": {"data": {"said": content["data"]}}}
    if event == "proxy":
        return {"result": {"data": content["data"] * 2}}
    return {"result": {"info": {"c": 1}}}


async def test_a_backend_is_asked_with_cookies_and_decides() -> None:
    async with running(friendly) as (gateway, asked):
        header = {"Cookie": "session=1", "X-Other": "2"}
        async with Client(await connect(url(gateway), additional_headers=header)) as client:
            reply = await client.ask({"connect": {"data": {"a": 1}}})
            assert reply["connect"]["data"] == "welcome"
            assert "subscribe" in await client.ask({"subscribe": {"channel": "a"}})
            push = await client.ask({"publish": {"channel": "a", "data": 5}})
            pub = push["push"]["pub"]
            assert pub["data"] == {"said": 5}
            assert pub["info"]["chan_info"] == {"c": 1}
            assert "publish" in await client.read()
            assert await client.ask({"rpc": {"method": "double", "data": 4}}) == {
                "id": 7,
                "rpc": {"data": 8},
            }
        events = [event for event, _, _ in asked]
        assert events == ["connect", "subscribe", "publish", "proxy"]
        _, first, headers = asked[0]
        assert headers["Cookie"] == "session=1" and "X-Other" not in headers
        assert (first["data"], first["transport"]) == ({"a": 1}, "websocket")
        assert asked[1][1]["meta"] == {"m": 1}
        assert "Cookie" not in asked[1][2]


@pytest.mark.parametrize(
    "given",
    [
        {"error": {"code": 1000, "message": "no"}},
        {"disconnect": {"code": 4500, "reason": "never"}},
        {},
        {"result": 5},
        {"result": {"user": 5}},
        {"result": {"b64info": "%"}},
        [],
        web.Response(status=500),
        web.Response(text="<html>"),
        web.Response(status=302, headers={"Location": "/connect"}),
        web.Response(body=b" " * (1 << 20) + b"{}"),
        0.5,  # seconds
    ],
)
async def test_whatever_a_backend_answers_the_client_gets_a_code(given: Any) -> None:
    keys = {"client.proxy.connect.timeout": 0.2}
    async with (
        running(lambda event, content: given, **keys) as (gateway, _),
        Client(await connect(url(gateway))) as client,
    ):
        await client.ws.send('{"id":1,"connect":{}}')
        if isinstance(given, dict) and "disconnect" in given:
            assert await client.closed() == (4500, "never")
            return
        error = (await client.read())["error"]
        assert error["code"] == (1000 if isinstance(given, dict) and "error" in given else 100)


# -- clients that are gone


async def test_a_backend_hears_of_clients_that_are_gone_also_at_a_stop() -> None:
    async with running(friendly, "client.proxy.disconnect") as (gateway, asked):
        async with Client(await connect(url(gateway))) as client:
            name = (await client.ask({"connect": {}}))["connect"]["client"]
        async with Client(await connect(url(gateway))):
            pass  # it has never connected
        async with Client(await connect(url(gateway))) as staying:
            await staying.ask({"connect": {}})
            await gateway.stop()
    gone = [content for event, content, _ in asked if event == "disconnect"]
    assert [(each["code"], each.get("reason")) for each in gone] == [(1000, ""), (3001, "shutdown")]
    assert (gone[0]["client"], gone[0]["user"], gone[0]["meta"]) == (name, "ann", {"m": 1})
    assert gone[0]["address"] == "127.0.0.1" and abs(gone[0]["time"] - time.time()) < 60


@pytest.mark.parametrize("given", [{}, web.Response(text="ok"), web.Response(status=500)])
async def test_any_answer_to_a_farewell_will_do_and_a_failure_is_counted(given: Any) -> None:
    def answer(event: str, content: dict[str, Any]) -> Any:
        return given if event == "disconnect" else friendly(event, content)

    async with running(answer, "client.proxy.disconnect") as (gateway, asked):
        async with Client(await connect(url(gateway))) as client:
            await client.ask({"connect": {}})
        while asked[-1][0] != "disconnect":
            await asyncio.sleep(0.01)
        await gateway.node.farewells.finish()
        hook = gateway.app.hooks["disconnect"]  # type: ignore[attr-defined]
        assert (hook.calls, hook.failures) == (1, getattr(given, "status", 200) == 500)
        assert hook.times.buckets()[-1] == ("+Inf", 1.0) and hook.times.total > 0


class Mourner(App):
    """Is told of clients that are gone."""

    def __init__(self, rate: int = 0) -> None:
        self.disconnect_rate = rate
        self.gone: list[int] = []
        self.held: asyncio.Event | None = None

    async def disconnect(self, event: DisconnectEvent, headers: Headers) -> None:
        self.gone.append(event.code)
        if self.held is not None:
            await self.held.wait()
        if event.code == 1002:
            raise RuntimeError("a fault of the application")


async def leave_all(world: World, *codes: int) -> None:
    for code in codes:
        world.client(token=token("ann")).leave(code)
    await settle()


async def test_farewells_go_at_a_limited_rate() -> None:
    app = Mourner(rate=2)
    async with World(config(), app=app) as world:
        await leave_all(world, 1000, 1001, 1006, 1007)
        assert app.gone == [1000, 1001]
        world.now += 1
        await world.node.farewells.finish()
        assert app.gone == [1000, 1001, 1006, 1007]


async def test_farewells_that_find_no_room_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(farewells, "_QUEUE", 3)
    app = Mourner(rate=1)
    async with World(config(), app=app) as world:
        await leave_all(world, *[1000] * 6)
        assert world.node.farewells.dropped == 3
    assert world.node.farewells.dropped == 5  # and what was left at the end


async def test_a_slow_application_holds_up_nobody_but_its_farewells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(farewells, "_AT_ONCE", 2)
    app = Mourner()
    app.held = asyncio.Event()
    async with World(config(), app=app) as world:
        await leave_all(world, *[1000] * 5)
        assert len(app.gone) == 2
        world.client(token=token("ann"))
        app.held.set()
        await world.node.farewells.finish()
        assert len(app.gone) == 5


async def test_a_farewell_that_fails_is_the_applications_own_trouble() -> None:
    app = Mourner()
    async with World(config(), app=app) as world:
        await leave_all(world, 1002, 1000)
        await world.node.farewells.finish()
        assert app.gone == [1002, 1000]


async def test_a_gateway_that_can_not_listen_lets_go_of_its_backend() -> None:
    async with running(friendly) as (gateway, _):
        taken = load(
            flags={
                "http_server.port": gateway.port,
                "rpc.proxy.enabled": True,
                "rpc.proxy.endpoint": "http://127.0.0.1:9/",
            }
        )
        with pytest.raises(OSError, match="in use"):
            await Gateway(taken).start()


async def test_a_dead_backend_is_left_alone_for_a_while() -> None:
    keys = {"client.proxy.connect.endpoint": "http://127.0.0.1:9/connect"}
    async with running(friendly, **keys) as (gateway, _):
        for _ in range(FAILURES + 3):
            async with Client(await connect(url(gateway))) as client:
                assert (await client.ask({"connect": {}}))["error"]["temporary"] is True
        hook = gateway.app.hooks["connect"]  # type: ignore[attr-defined]
        assert (hook.calls, hook.failures) == (FAILURES, FAILURES)


def test_after_a_while_it_is_tried_again() -> None:
    now = [0.0]
    endpoint = Endpoint("connect", Proxy(), lambda: now[0])
    for _ in range(FAILURES):
        endpoint.check()
        endpoint.note(failed=True)
    with pytest.raises(WebhookFailed):
        endpoint.check()
    now[0] = REST
    endpoint.check()
    endpoint.note(failed=True)
    with pytest.raises(WebhookFailed):
        endpoint.check()
    now[0] = 2 * REST
    endpoint.note(failed=False)
    for _ in range(FAILURES - 1):
        endpoint.note(failed=True)
        endpoint.check()


def test_nodes_without_an_application_need_none() -> None:
    node: Node = World().node
    assert not any(map(node.app.handles, ("connect", "subscribe", "publish", "rpc")))

