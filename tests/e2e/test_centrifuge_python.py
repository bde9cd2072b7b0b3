"""`centrifuge-python` as a client and `cent` as the backend, each as its users write it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import cent
import centrifuge
import msgspec
import pytest

from gateway.app import App, Error, Refused, RpcEvent, RpcReply
from gateway.app.base import Headers
from gateway.config import load
from gateway.server import Gateway
from tests.gateway.tokens import EC_KEYS, pem, token

KEY = "the key"
EC = EC_KEYS["ES256"]

OPTIONS = {
    "allow_subscribe_for_client": True,
    "allow_publish_for_subscriber": True,
    "allow_presence_for_subscriber": True,
    "allow_history_for_subscriber": True,
    "allow_tags_filter": True,
    "presence": True,
    "join_leave": True,
    "history_size": 100,
    "history_ttl": "1m",
    "force_recovery": True,
}
SETTINGS = {
    "http_server.port": 0,
    "http_api.key": KEY,
    "client.token.ecdsa_public_key": pem(EC),
    "channel.namespaces": [{"name": "chat", **OPTIONS}],
}


def signed(user: str, **claims: Any) -> str:
    return token(user, key=EC, algorithm="ES256", **claims)


class Ears(centrifuge.SubscriptionEventHandler):
    """Keeps what a subscription is told, for a test to wait for."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[Any] = asyncio.Queue()

    async def on_publication(self, ctx: centrifuge.PublicationContext) -> None:
        await self.told.put(ctx.pub)

    async def on_join(self, ctx: centrifuge.JoinContext) -> None:
        await self.told.put(("join", ctx.info.user))

    async def on_leave(self, ctx: centrifuge.LeaveContext) -> None:
        await self.told.put(("leave", ctx.info.user))

    async def on_unsubscribed(self, ctx: centrifuge.UnsubscribedContext) -> None:
        await self.told.put(("unsubscribed", ctx.code))


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[tuple[Gateway, cent.AsyncClient]]:
    async with Gateway(load(flags=SETTINGS)) as gateway:
        address = f"http://127.0.0.1:{gateway.port}/api"
        async with cent.AsyncClient(address, KEY) as backend:
            yield gateway, backend


@contextlib.asynccontextmanager
async def client(gateway: Gateway, user: str, **options: Any) -> AsyncIterator[centrifuge.Client]:
    address = f"ws://127.0.0.1:{gateway.port}/connection/websocket"
    made = centrifuge.Client(address, proxy=None, **{"token": signed(user), **options})
    await made.connect()
    await made.ready()
    try:
        yield made
    finally:
        await made.disconnect()


async def listen(
    to: centrifuge.Client, channel: str, **options: Any
) -> tuple[centrifuge.Subscription, Ears]:
    ears = Ears()
    subscription = to.new_subscription(channel, ears, **options)
    await subscription.subscribe()
    await subscription.ready()
    return subscription, ears


async def test_publications_presence_and_history() -> None:
    async with (
        running() as (gateway, backend),
        client(gateway, "ann") as ann,
        client(gateway, "bob") as bob,
    ):
        room, ears = await listen(ann, "chat:room", join_leave=True)
        assert await ears.told.get() == ("join", "ann")
        other, _ = await listen(bob, "chat:room")
        assert await ears.told.get() == ("join", "bob")
        await other.publish({"text": "hi"})
        publication = await ears.told.get()
        assert (publication.data, publication.offset) == ({"text": "hi"}, 1)
        assert publication.info.user == "bob"
        await backend.publish(cent.PublishRequest(channel="chat:room", data=2))
        assert (await ears.told.get()).data == 2
        present = (await room.presence()).clients.values()
        assert {each.user for each in present} == {"ann", "bob"}
        stats = await room.presence_stats()
        assert (stats.num_clients, stats.num_users) == (2, 2)
        history = await room.history(limit=10, reverse=True)
        assert [each.data for each in history.publications] == [2, {"text": "hi"}]
        await other.unsubscribe()
        assert await ears.told.get() == ("leave", "bob")


async def test_errors_have_their_codes() -> None:
    async with running() as (gateway, _), client(gateway, "ann") as ann:
        for call, code in (
            (ann.publish("chat:room", 1), 103),
            (ann.publish("nowhere:room", 1), 102),
            (ann.rpc("nothing", {}), 104),
        ):
            with pytest.raises(centrifuge.ReplyError) as error:
                await call
            assert error.value.code == code


class Calculator(App):
    """Answers questions."""

    async def rpc(self, event: RpcEvent, headers: Headers) -> RpcReply:
        if event.method != "double":
            raise Refused(Error(1000, "no such question"))
        number = msgspec.json.decode(event.data or b"0", type=int)
        return RpcReply(data=msgspec.Raw(msgspec.json.encode(number * 2)))


async def test_an_application_in_the_process_is_asked() -> None:
    async with (
        Gateway(load(flags=SETTINGS), Calculator()) as gateway,
        client(gateway, "ann") as ann,
    ):
        assert (await ann.rpc("double", 21)).data == 42
        with pytest.raises(centrifuge.ReplyError) as error:
            await ann.rpc("half", 1)
        assert error.value.code == 1000


async def test_a_filter_by_tags() -> None:
    async with running() as (gateway, backend), client(gateway, "ann") as ann:
        wanted = centrifuge.Filter.any(
            centrifuge.Filter.eq("kind", "goal"), centrifuge.Filter.gte("minute", "90")
        )
        _, ears = await listen(ann, "chat:match", tags_filter=wanted)
        for number, tags in enumerate(
            [{"kind": "goal"}, {"kind": "foul", "minute": "12"}, {"minute": "91"}, {}]
        ):
            await backend.publish(cent.PublishRequest(channel="chat:match", data=number, tags=tags))
        assert [(await ears.told.get()).data for _ in range(2)] == [0, 2]


async def test_an_expiring_token_is_refreshed() -> None:
    asked = asyncio.Event()

    async def new_token() -> str:
        asked.set()
        return signed("ann")

    async with running() as (gateway, _):
        expiring = signed("ann", exp=int(time.time()) + 2)
        async with client(gateway, "ann", token=expiring, get_token=new_token):
            await asked.wait()
            [session] = gateway.node.clients.of_user("ann")
            while session.expire_at:
                await asyncio.sleep(0.01)


async def test_a_backend_throws_a_user_out() -> None:
    async with running() as (gateway, backend), client(gateway, "ann") as ann:
        _, ears = await listen(ann, "chat:room")
        await backend.unsubscribe(cent.UnsubscribeRequest(user="ann", channel="chat:room"))
        assert await ears.told.get() == ("unsubscribed", 2000)
        await backend.block_user(cent.BlockUserRequest(user="ann"))
        while ann.state is not centrifuge.ClientState.DISCONNECTED:
            await asyncio.sleep(0.01)
