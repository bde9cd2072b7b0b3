"""An application decides: in the process, and over HTTP, where a backend may be slow or dead."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec import UNSET, Raw

from examples.chat_app import Chat
from gateway.app import (
    App,
    ConnectEvent,
    ConnectReply,
    ConnectSubscription,
    Disconnect,
    Disconnected,
    DisconnectEvent,
    Error,
    MessageEvent,
    PublishEvent,
    PublishReply,
    RefreshEvent,
    RefreshReply,
    Refused,
    SubRefreshEvent,
    SubRefreshReply,
    SubscribeEvent,
    SubscribeReply,
    farewells,
)
from gateway.app.base import Headers
from gateway.app.endpoints import Endpoint, WebhookFailed
from gateway.channels.grants import Grant, Source
from gateway.config import Config, ConfigError, Proxy, load
from gateway.metrics import NodeCollector
from gateway.node import Node
from gateway.server import Gateway
from tests.gateway.fakes import Client as FakeClient
from tests.gateway.fakes import FakeConnection, World
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


FAILURES, REST = Proxy().breaker_failures, Proxy().breaker_pause


# -- in the process


class Rules(App):
    """Lets in who says a name; what it is to answer later is set by tests."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.connect_reply: Any = ConnectReply(user="ann")
        self.subscribe_reply: Any = SubscribeReply()
        self.refresh_reply: Any = RefreshReply(expired=True)
        self.publish_reply: Any = PublishReply()

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

    async def publish(self, event: PublishEvent, headers: Headers) -> PublishReply:
        return await self._give(event, self.publish_reply)

    async def sub_refresh(self, event: SubRefreshEvent, headers: Headers) -> SubRefreshReply:
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


async def test_channels_of_a_reply_are_joined_by_its_subs_which_go_first() -> None:
    rules = Rules()
    keys = {"history_size": 5, "history_ttl": 60.0, "force_recovery": True}
    async with World(config(force_recovery_mode="cache", **keys), app=rules) as world:
        await world.node.publish("a", Raw(b"1"))
        rules.connect_reply = ConnectReply(
            channels=["a", "b"],
            subs={
                "a": ConnectSubscription(cache_recover=True),
                "c": ConnectSubscription(b64data="Ng==", expire_at=int(world.now) + 60),
            },
        )
        client = world.open()
        subs = (await ask(client, {"connect": {}}))["connect"]["subs"]
        assert list(subs) == ["a", "b", "c"]
        assert [pub["data"] for pub in subs["a"]["publications"]] == [1]
        assert subs["c"]["data"] == 6 and "expires" not in subs["c"]
        world.turn(60 + world.node.config.client.expired_sub_close_delay)
        await settle()
        assert client.closed == (3006, "subscription expired")


async def test_an_application_renews_what_it_has_put_a_client_into() -> None:
    rules = Rules()
    async with World(config(sub_refresh_proxy_enabled=True), app=rules) as world:
        sub = ConnectSubscription(expire_at=int(world.now) + 60)
        rules.connect_reply = ConnectReply(subs={"a": sub})
        client = world.open()
        assert (await ask(client, {"connect": {}}))["connect"]["subs"] == {"a": {}}
        rules.refresh_reply = SubRefreshReply(expire_at=int(world.now) + 300)
        world.turn(61)
        await settle()
        assert client.closed is None
        rules.refresh_reply = SubRefreshReply(expired=True)
        world.turn(300)
        await settle()
        assert client.closed == (3006, "subscription expired")


async def test_an_application_says_how_something_is_published() -> None:
    rules = Rules()
    keys = {"publish_proxy_enabled": True, "history_size": 5, "history_ttl": 60.0}
    async with World(config(**keys, allow_history_for_client=True), app=rules) as world:
        client = world.client(token=token("bob"))

        async def publish(sent: int, **reply: Any) -> None:
            rules.publish_reply = PublishReply(**reply)
            command = {"publish": {"channel": "a", "data": sent}}
            assert "publish" in await ask(client, command)

        await publish(1, tags={"k": "v"}, idempotency_key="x", version=7, version_epoch="e")
        await publish(2, idempotency_key="x")
        await publish(3, version=7, version_epoch="e")
        await publish(4, skip_history=True)
        await publish(5, data=Raw(b"6"))
        history = (await ask(client, {"history": {"channel": "a", "limit": 9}}))["history"]
        assert [(pub["data"], pub.get("tags")) for pub in history["publications"]] == [
            (1, {"k": "v"}),
            (6, None),
        ]


async def test_an_application_asks_for_deltas() -> None:
    rules = Rules()
    keys = {"publish_proxy_enabled": True, "history_size": 5, "history_ttl": 60.0}
    options = {"allowed_delta_types": ["fossil"], "allow_subscribe_for_client": True}
    settings = config(**keys, **options, force_recovery=True)
    async with World(settings, app=rules) as world:
        client = world.client(token=token("bob"))
        subscribed = await ask(client, {"subscribe": {"channel": "a", "delta": "fossil"}})
        assert subscribed["subscribe"]["delta"] is True
        rules.publish_reply = PublishReply(delta=True)
        for number in range(2):
            data = {"text": "the same as before" * 9, "n": number}
            client.send({"id": 1, "publish": {"channel": "a", "data": data}})
            await settle()
        pushed = [each["push"]["pub"] for each in client.take() if "push" in each]
        assert [pub.get("delta") for pub in pushed] == [None, True]


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


BAD_GOODBYES = [(12, ""), (1005, ""), (70000, ""), (4500, "ž" * 62)]


@pytest.mark.parametrize(("code", "reason"), [*BAD_GOODBYES, (4500, "\ud800")])
async def test_a_goodbye_that_no_close_frame_can_say_is_no_answer(code: int, reason: str) -> None:
    rules = Rules()
    async with World(config(), app=rules) as world:
        client = world.open()
        rules.connect_reply = Disconnected(Disconnect(code, reason))
        assert (await ask(client, {"connect": {}}))["error"]["code"] == 100
        assert client.closed is None


class Stuck(FakeConnection):
    def close(self, code: int, reason: str, /) -> None:
        raise RuntimeError("a fault of the transport")


@pytest.mark.parametrize("all_at_once", [False, True])
async def test_a_client_is_gone_whatever_is_wrong_with_the_goodbye(all_at_once: bool) -> None:
    async with World() as world:
        clients = [world.client() for _ in range(2)]
        for client in clients:
            await ask(client, {"subscribe": {"channel": "a"}})
        clients[0].session.transport = Stuck()
        sessions = [client.session for client in clients]
        if all_at_once:
            await world.node.disconnect_all(sessions, Disconnect(12, "x" * 200))
        else:
            for session in sessions:
                world.node.disconnect(session, Disconnect(12, "x" * 200))
        assert clients[1].closed == (3004, "internal server error")
        assert len(world.node.clients) == 0 and not world.node.hub.channels
        assert await world.node.engine.presence("a") == {}
        assert dict(world.node.counters.disconnects) == {"3004": 2}


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


NO = Refused(Error(1000, "no"))


@pytest.mark.parametrize(
    ("reply", "stays"),
    [
        (RefreshReply(), False),  # the end that it had is over
        (RefreshReply(expire_at=1), False),
        (NO, False),
        (RuntimeError("a fault of the application"), True),
        (TimeoutError("slow"), True),
        (RefreshReply(b64info="%"), True),
    ],
)
async def test_only_an_application_that_fails_keeps_a_client(reply: Any, stays: bool) -> None:
    rules = Rules()
    async with World(config(), app=rules) as world:
        rules.connect_reply = ConnectReply(user="ann", expire_at=int(world.now) + 60)
        client = world.open()
        await ask(client, {"connect": {}})
        rules.refresh_reply = reply
        world.turn(61)
        await settle()
        assert client.closed == (None if stays else (3005, "connection expired"))
        rules.refresh_reply = NO
        world.turn(61)
        await settle()
        assert client.closed == (3005, "connection expired")


@pytest.mark.parametrize(
    ("reply", "stays"),
    [
        (SubRefreshReply(), True),  # for ever
        (SubRefreshReply(expire_at=1), False),
        (NO, False),
        (RuntimeError("a fault of the application"), True),
        (TimeoutError("slow"), True),
        (SubRefreshReply(b64info="%"), True),
    ],
)
async def test_only_an_application_that_fails_keeps_a_subscription(reply: Any, stays: bool) -> None:
    rules = Rules()
    keys = {"subscribe_proxy_enabled": True, "sub_refresh_proxy_enabled": True}
    async with World(config(**keys), app=rules) as world:
        client = world.client(token=token("bob"))
        rules.subscribe_reply = SubscribeReply(expire_at=int(world.now) + 60)
        await ask(client, {"subscribe": {"channel": "a"}})
        rules.refresh_reply = reply
        world.turn(61)
        await settle()
        told = [each["push"]["unsubscribe"]["code"] for each in client.take()]
        assert told == ([] if stays else [2501])


async def test_a_renewal_changes_what_others_see_and_what_the_backend_is_told() -> None:
    rules = Rules()
    keys = {"subscribe_proxy_enabled": True, "sub_refresh_proxy_enabled": True, "presence": True}
    async with World(config(**keys), app=rules) as world:
        end = int(world.now) + 60
        rules.connect_reply = ConnectReply(user="ann", expire_at=end, meta=Raw(b'"old"'))
        rules.subscribe_reply = SubscribeReply(expire_at=end, info=Raw(b'"old"'))
        client = world.open()
        await ask(client, {"connect": {}})
        await ask(client, {"subscribe": {"channel": "a"}})
        later = end + 300
        rules.refresh_reply = RefreshReply(expire_at=later, b64info="NQ==", meta=Raw(b'"new"'))
        world.turn(61)
        await settle()
        world.turn(1)
        await settle()
        [seen] = (await world.node.engine.presence("a")).values()
        assert (bytes(seen.conn_info), bytes(seen.chan_info)) == (b"5", b"5")
        world.turn(300)
        await settle()
        assert bytes(rules.asked[-1].meta) == b'"new"'


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


async def test_an_application_renews_those_with_a_token_too() -> None:
    rules = Rules()
    async with World(config(sub_refresh_proxy_enabled=True), app=rules) as world:
        client, other = world.open(), world.client(token=token("bob", exp=world.now + 60))
        reply = await ask(client, {"connect": {"token": token("ann", exp=world.now + 90)}})
        assert "expires" not in reply["connect"]
        text = token("ann", channel="a", exp=world.now + 60)
        reply = await ask(client, {"subscribe": {"channel": "a", "token": text}})
        assert reply["subscribe"] == {}
        other.send({"id": 2, "refresh": {"token": token("bob", exp=world.now + 600)}})
        assert other.closed == (3501, "bad request")
        rules.refresh_reply = RefreshReply(expire_at=int(world.now) + 200)
        world.turn(100)
        await settle()
        assert [type(event) for event in rules.asked] == [RefreshEvent]
        world.turn(10)
        await settle()
        assert [type(event) for event in rules.asked] == [RefreshEvent, SubRefreshEvent]
        assert (client.take(), client.closed) == ([], None)
        client.send({"id": 3, "sub_refresh": {"channel": "a", "token": text}})
        assert client.closed == (3501, "bad request")


async def test_an_end_that_is_past_is_error_110_whoever_gives_it() -> None:
    rules = Rules()
    async with World(config(subscribe_proxy_enabled=True), app=rules) as world:
        client = world.open()
        rules.connect_reply = ConnectReply(user="ann", expire_at=1)
        assert (await ask(client, {"connect": {}}))["error"]["code"] == 110
        rules.connect_reply = ConnectReply(user="ann")
        assert "connect" in await ask(client, {"connect": {}})
        rules.subscribe_reply = SubscribeReply(expire_at=1)
        assert (await ask(client, {"subscribe": {"channel": "a"}}))["error"]["code"] == 110


async def test_an_application_may_end_what_a_backend_began() -> None:
    async with World(config(sub_refresh_proxy_enabled=True), app=Rules()) as world:
        client = world.client(token=token("bob"))
        terms = Grant(Source.SERVER_API, expire_at=world.now + 60)
        await world.node.administration.subscribe([client.session], "a", terms)
        assert client.take() == [{"push": {"channel": "a", "subscribe": {}}}]
        world.turn(61)
        await settle()
        assert client.closed == (3006, "subscription expired")
class Listener(App):
    """Keeps what clients send."""

    def __init__(self) -> None:
        self.heard: list[MessageEvent] = []

    async def message(self, event: MessageEvent, headers: Headers) -> None:
        await asyncio.sleep(0)
        self.heard.append(event)
        if event.data == Raw(b'"stop"'):
            raise Disconnected(Disconnect(4500, "enough"))
        if event.data == Raw(b'"fail"'):
            raise RuntimeError("a fault of the application")


async def test_what_clients_send_is_for_the_application() -> None:
    app = Listener()
    async with World(config(), app=app) as world:
        client = world.client(token=token("bob"))
        client.send({"send": {"data": {"a": 1}}}, {"send": {}}, {"send": {"data": "fail"}})
        client.send({"id": 1, "ping": {}}, {"send": {"data": "stop"}})
        await settle()
        await settle()
        assert client.take() == [{"id": 1, "ping": {}}]
        assert client.closed == (4500, "enough")
        heard = [None if each.data is UNSET else bytes(each.data) for each in app.heard]
        assert heard == [b'{"a": 1}', None, b'"fail"', b'"stop"']
        assert {each.user for each in app.heard} == {"bob"}
        early = world.open()
        early.send({"send": {}})
        assert early.closed == (3501, "bad request")


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
        "channel.proxy.subscribe.include_connection_meta": True,
        "client.proxy.disconnect.include_connection_meta": True,
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
        assert asked[1][1]["meta"] == {"m": 1} and "meta" not in asked[2][1]
        assert "Cookie" not in asked[1][2]


@pytest.mark.parametrize(
    "given",
    [
        {"error": {"code": 1000, "message": "no"}},
        {"disconnect": {"code": 4500, "reason": "never"}},
        {"error": {"code": 0}},
        {"result": 5},
        {"result": {"caps": [{"channels": ["a"], "allow": ["pub"]}]}},
        {"result": {"subs": {"a": {"server_tags_filter": {"key": "a", "cmp": "ex"}}}}},
        {"result": {"subs": {"a": {"b64data": "%"}}}},
        web.Response(body=b'{"result": {"data": "\xff"}}'),
        web.Response(body=b"[" * 100_000),
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
        if given == {"error": {"code": 1000, "message": "no"}}:
            assert error["code"] == 1000
            return
        assert error == {"code": 100, "message": "internal server error", "temporary": True}
        hook = gateway.app.hooks["connect"]  # type: ignore[attr-defined]
        assert (hook.calls, hook.failures) == (1, 1)


@pytest.mark.parametrize("given", [{}, {"result": None}, {"result": None, "error": None}])
async def test_without_a_result_a_backend_has_nothing_to_add(given: Any) -> None:
    keys = {"client.allow_anonymous_connect_without_token": True}
    async with (
        running(lambda event, content: given, **keys) as (gateway, _),
        Client(await connect(url(gateway))) as client,
    ):
        assert "client" in (await client.ask({"connect": {}}))["connect"]
        assert "subscribe" in await client.ask({"subscribe": {"channel": "a"}})
        assert (await client.ask({"publish": {"channel": "a", "data": 5}}))["push"]["pub"]
        assert "publish" in await client.read()
        assert (await client.ask({"rpc": {"method": "x"}}))["rpc"] == {}
        assert not any(each.failures for each in gateway.app.all_hooks)  # type: ignore[attr-defined]


async def test_without_a_result_a_client_is_not_let_in() -> None:
    async with (
        running(lambda event, content: {}) as (gateway, _),
        Client(await connect(url(gateway))) as client,
    ):
        await client.ws.send('{"id":1,"connect":{}}')
        assert await client.closed() == (3501, "bad request")


@pytest.mark.parametrize("given", [{}, {"error": {"code": 1000}}])
async def test_a_backend_that_does_not_renew_ends(given: Any) -> None:
    hooks = ("client.proxy.refresh", "channel.proxy.sub_refresh")
    events = {"connect", "subscribe", "refresh", "sub_refresh"}

    def answer(event: str, content: dict[str, Any]) -> Any:
        later = {"user": "ann"} if event == "connect" else {}
        end = int(time.time()) + 2
        return given if "refresh" in event else {"result": {**later, "expire_at": end}}

    keys = {"channel.without_namespace.sub_refresh_proxy_enabled": True}
    async with (
        running(answer, *hooks, **keys) as (gateway, asked),
        Client(await connect(url(gateway))) as client,
    ):
        await client.ask({"connect": {}})
        await client.ask({"subscribe": {"channel": "a"}})
        assert await client.closed() == (3005, "connection expired")
        assert {event for event, _, _ in asked} <= events


async def test_nulls_in_a_result_are_as_if_they_were_not_there() -> None:
    sub = {"override": None, "b64info": None, "expire_at": None}
    result = {"user": "ann", "expire_at": None, "b64info": None, "caps": [], "subs": {"a": sub}}
    async with (
        running(lambda event, content: {"result": result}) as (gateway, _),
        Client(await connect(url(gateway))) as client,
    ):
        assert list((await client.ask({"connect": {}}))["connect"]["subs"]) == ["a"]


async def test_a_backend_is_told_in_which_channels_a_client_was() -> None:
    async with (
        running(friendly) as (gateway, asked),
        Client(await connect(url(gateway))) as client,
    ):
        await client.ask({"connect": {"subs": {"a": {}, "b": {"recover": True, "epoch": "x"}}}})
        assert asked[0][1]["channels"] == ["a", "b"]


@pytest.mark.parametrize(("code", "reason"), BAD_GOODBYES)
async def test_a_goodbye_of_a_backend_that_cannot_be_said_is_a_failure(
    code: int, reason: str
) -> None:
    given = {"disconnect": {"code": code, "reason": reason}}
    async with (
        running(lambda event, content: given) as (gateway, _),
        Client(await connect(url(gateway))) as client,
    ):
        assert (await client.ask({"connect": {}}))["error"]["code"] == 100
        assert gateway.app.hooks["connect"].failures == 1  # type: ignore[attr-defined]


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


async def test_when_a_backend_fails_clients_may_be_closed() -> None:
    keys = {
        "channel.proxy.publish.on_failure.disconnect_code": 4501,
        "channel.proxy.publish.on_failure.disconnect_reason": "come back later",
    }

    def answer(event: str, content: dict[str, Any]) -> Any:
        return web.Response(status=500) if event == "publish" else friendly(event, content)

    async with (
        running(answer, **keys) as (gateway, _),
        Client(await connect(url(gateway))) as client,
    ):
        await client.ask({"connect": {}})
        await client.ws.send('{"id":1,"publish":{"channel":"a","data":1}}')
        assert await client.closed() == (4501, "come back later")


@pytest.mark.parametrize(("keep", "stays"), [("0s", False), ("1h", True)])
async def test_how_long_what_was_not_renewed_is_kept_is_configured(keep: str, stays: bool) -> None:
    def answer(event: str, content: dict[str, Any]) -> Any:
        if "refresh" in event:
            return web.Response(status=500)
        return {"result": {"user": "ann", "expire_at": int(time.time()) + 2}}

    async with (
        running(
            answer,
            "client.proxy.refresh",
            **{"client.proxy.refresh.on_failure.keep": keep},
        ) as (gateway, asked),
        Client(await connect(url(gateway))) as client,
    ):
        await client.ask({"connect": {}})
        if not stays:
            assert await client.closed() == (3005, "connection expired")
            return
        while asked[-1][0] != "refresh":
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        [session] = gateway.node.clients
        assert session.expire_at > time.time() + 3500


async def test_a_status_of_a_backend_may_be_an_answer() -> None:
    transforms = [
        {"status_code": 403, "to_error": {"code": 1000, "message": "no", "temporary": True}},
        {"status_code": 410, "to_disconnect": {"code": 4510, "reason": "closed"}},
    ]
    status = 403

    def answer(event: str, content: dict[str, Any]) -> Any:
        return web.Response(status=status) if event == "proxy" else friendly(event, content)

    async with (
        running(answer, **{"rpc.proxy.http.status_to_code_transforms": transforms}) as (gateway, _),
        Client(await connect(url(gateway))) as client,
    ):
        await client.ask({"connect": {}})
        error = (await client.ask({"rpc": {"method": "x"}}))["error"]
        assert error == {"code": 1000, "message": "no", "temporary": True}
        hook = gateway.app.hooks["rpc"]  # type: ignore[attr-defined]
        assert (hook.calls, hook.failures) == (1, 0)
        status = 404
        assert (await client.ask({"rpc": {"method": "x"}}))["error"]["code"] == 100
        assert (hook.calls, hook.failures) == (2, 1)
        status = 410
        await client.ws.send('{"id":1,"rpc":{"method":"x"}}')
        assert await client.closed() == (4510, "closed")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("on_failure.disconnect_code", 12, "3000-4999"),
        ("on_failure.disconnect_reason", "x", "3000-4999"),
        ("emulated_headers", ["Content-Type"], "for the gateway to set"),
        ("http.status_to_code_transforms", [{"status_code": 403}], "either"),
        (
            "http.status_to_code_transforms",
            [{"status_code": 200, "to_error": {"code": 1}}],
            "the answer is read",
        ),
        (
            "http.status_to_code_transforms",
            [{"status_code": 403, "to_disconnect": {"code": 4500, "reason": "x" * 124}}],
            "123 bytes",
        ),
    ],
)
def test_what_follows_from_a_failure_has_to_be_possible(key: str, value: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load(flags={f"rpc.proxy.{key}": value})


async def test_a_backend_is_not_asked_more_than_it_bears() -> None:
    asked_at_once = 0

    def answer(event: str, content: dict[str, Any]) -> Any:
        nonlocal asked_at_once
        asked_at_once += 1
        return 0.2

    keys = {"client.proxy.connect.in_flight_limit": 2}
    async with running(answer, **keys) as (gateway, _), contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(Client(await connect(url(gateway)))) for _ in range(5)
        ]
        waiting = [asyncio.create_task(client.ask({"connect": {}})) for client in opened]
        hook = gateway.app.hooks["connect"]  # type: ignore[attr-defined]
        while hook.in_flight < 5:
            await asyncio.sleep(0.01)
        assert asked_at_once <= 2
        families = {each.name: each for each in NodeCollector(gateway.node).collect()}
        counts = {
            sample.labels["event"]: sample.value
            for sample in families["fastws_webhooks_in_flight"].samples
        }
        assert counts["connect"] == 5
        assert all("connect" in reply for reply in await asyncio.gather(*waiting))
        assert hook.in_flight == 0


# -- headers of the connect command

EMULATED = {"authorization": "token", "X-Real-User": "admin", "X-Other": "1", "X-Key": "guess"}


async def test_headers_of_the_connect_command_go_along_where_they_are_listed() -> None:
    keys = {
        "client.proxy.connect.http_headers": ["X-Real-User", "X-Both"],
        "client.proxy.connect.emulated_headers": ["Authorization", "X-Both", "X-Key"],
        "client.proxy.connect.http.static_headers": {"X-Key": "static"},
        "channel.proxy.subscribe.http_headers": ["Authorization"],
    }
    async with running(friendly, **keys) as (gateway, asked):
        headers = {"X-Both": "request"}
        async with Client(await connect(url(gateway), additional_headers=headers)) as client:
            await client.ask({"connect": {"headers": {**EMULATED, "x-both": "emulated"}}})
            await client.ask({"subscribe": {"channel": "a"}})
    first, second = asked[0][2], asked[1][2]
    assert first.getall("Authorization") == ["token"]
    assert first.getall("X-Both") == ["request"]
    assert first.getall("X-Key") == ["guess"], "as with Centrifugo, it was listed"
    assert not {"X-Real-User", "X-Other"} & set(first)
    assert not {"Authorization", "X-Both", "X-Key"} & set(second)


@pytest.mark.parametrize("value", ["a\r\nX-Real-User: admin", "\0", "x" * 8192])
async def test_what_no_header_may_have_is_refused(value: str) -> None:
    keys = {"client.proxy.connect.emulated_headers": ["Authorization"]}
    async with (
        running(friendly, **keys) as (gateway, asked),
        Client(await connect(url(gateway))) as client,
    ):
        command = {"id": 1, "connect": {"headers": {"Authorization": value}}}
        await client.ws.send(json.dumps(command))
        assert await client.closed() == (3501, "bad request")
        assert not asked


class Bearer(App):
    """Goes by a header, of the opening request or of the connect command."""

    http_headers = emulated_headers = ("authorization",)

    async def connect(self, event: ConnectEvent, headers: Headers) -> ConnectReply:
        return ConnectReply(user=(headers or {}).get("authorization", ""))


async def test_an_application_gets_headers_of_the_connect_command_that_it_wants() -> None:
    async with World(config(), app=Bearer()) as world:
        one, two, three = world.open(), world.open(), world.open()
        two.session.headers = {"authorization": "ann"}
        for client in one, two:
            await ask(client, {"connect": {"headers": {"authorization": "bob", "x": "1"}}})
        await ask(three, {"connect": {}})
        users = [client.session.user for client in (one, two, three)]
        assert users == ["bob", "ann", ""]


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
