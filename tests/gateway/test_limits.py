"""Limits: who is at one is told so, and others do not notice."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from websockets.exceptions import InvalidStatus

from gateway.codes import Refused
from gateway.engines import HistoryQuery
from gateway.limits import Bucket
from tests.gateway.fakes import SlowEngine, World
from tests.gateway.test_gateway import client, connect, eventually, make, url
from tests.gateway.test_identity import ann, config
from tests.gateway.tokens import token

NAMELESS = "channel__without_namespace__"
OPEN = {
    NAMELESS + "allow_subscribe_for_client": True,
    NAMELESS + "allow_publish_for_client": True,
    NAMELESS + "allow_presence_for_client": True,
}
TOO_MANY = {"error": {"code": 111, "message": "too many requests", "temporary": True}}


def test_a_bucket_holds_one_second_and_is_refilled() -> None:
    bucket = Bucket(3, 0.0)
    assert [bucket.take(3, 0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(3, 0.4) for _ in range(2)] == [True, False]
    assert [bucket.take(3, 100.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.is_full(100.9) and bucket.is_full(101)


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ({"client__connection_limit": 2}, 503),
        ({"client__ip_connection_limit": 2}, 429),
        ({"client__connection_rate_limit": 2}, 503),
    ],
)
async def test_connections_beyond_a_limit_are_refused_at_the_door(
    flags: dict[str, Any], status: int
) -> None:
    async with make(**flags) as gateway, await client(gateway) as one:
        async with await client(gateway):
            with pytest.raises(InvalidStatus) as error:
                await connect(url(gateway))
            assert error.value.response.status_code == status
            assert "ping" in await one.ask({"ping": {}})
        [name] = flags
        assert gateway.node.limits.reached == {name.partition("__")[2]: 1}
        await eventually(lambda: gateway.node.counters.connections == 1)
        if "rate" not in name:
            async with await client(gateway):
                pass


async def test_addresses_are_forgotten_with_their_connections() -> None:
    async with make(client__ip_connection_limit=5) as gateway:
        async with await client(gateway), await client(gateway):
            assert dict(gateway.node.limits._by_address) == {"127.0.0.1": 2}
        await eventually(lambda: not gateway.node.limits._by_address)


async def test_a_user_has_so_many_connections_and_others_have_theirs() -> None:
    async with World(config(client__user_connection_limit=2)) as world:
        first, _ = ann(world), ann(world)
        third = world.open()
        third.send({"id": 1, "connect": {"token": token("ann")}})
        assert third.closed == (3504, "connection limit")
        world.client(token=token("bob"))
        for _ in range(3):
            world.client(token=token(""))
        first.leave()
        ann(world)
        assert world.node.limits.reached == {"user_connection_limit": 1}


async def test_commands_beyond_the_rate_are_111_and_pongs_are_free() -> None:
    async with World(config(client__command_rate_limit=3)) as world:
        client, other = ann(world), ann(world)  # one command
        answers = [client.ask({"ping": {}}) for _ in range(4)]
        assert answers == [{"ping": {}}] * 2 + [TOO_MANY] * 2
        client.receive("{}")
        assert client.closed is None
        assert other.ask({"ping": {}}) == {"ping": {}}
        world.turn(0.4)
        assert client.ask({"ping": {}}) == {"ping": {}}
        assert world.node.limits.reached == {"command_rate_limit": 2}


async def test_connections_of_a_user_share_its_rate() -> None:
    async with World(config(client__user_command_rate_limit=2)) as world:
        one, two, bob = ann(world), ann(world), world.client(token=token("bob"))
        assert one.ask({"ping": {}}) == two.ask({"ping": {}}) == {"ping": {}}
        assert one.ask({"ping": {}}) == two.ask({"ping": {}}) == TOO_MANY
        assert bob.ask({"ping": {}}) == {"ping": {}}
        world.turn(1)
        assert world.node.limits._by_user == {}
        assert two.ask({"ping": {}}) == {"ping": {}}


# -- what a client or a backend may ask for at once


async def test_channels_of_a_client_are_counted_by_both_ways_in() -> None:
    async with World(config(client__channel_limit=1, **OPEN)) as world:
        client = ann(world)
        assert client.ask({"subscribe": {"channel": "a"}}) == {"subscribe": {}}
        assert client.ask({"subscribe": {"channel": "b"}})["error"]["code"] == 106
        assert world.node.limits.reached == {"channel_limit": 1}
        other = world.open()
        other.send({"id": 1, "connect": {"token": token(channels=["a", "b"])}})
        assert other.closed == (3505, "channel limit")
        assert world.node.limits.reached == {"channel_limit": 2}


async def test_long_names_are_counted_of_clients_and_backends() -> None:
    async with World(config(channel__max_length=5, **OPEN)) as world:
        client = ann(world)
        for command in (
            {"subscribe": {"channel": "x" * 6}},
            {"publish": {"channel": "x" * 6, "data": 1}},
            {"presence": {"channel": "x" * 6}},
        ):
            assert client.ask(command)["error"]["code"] == 107
        with pytest.raises(Refused):
            await world.node.presence("x" * 6)
        assert world.node.limits.reached == {"max_length": 4}
        world.node.reload(config(channel__max_length=4, **OPEN))
        assert client.ask({"subscribe": {"channel": "x" * 5}})["error"]["code"] == 107
        assert world.node.limits.reached == {"max_length": 5}


async def test_presence_of_more_clients_than_its_limit_is_106() -> None:
    keys = {**OPEN, NAMELESS + "presence": True, NAMELESS + "allow_presence_for_client": True}
    async with World(config(channel__presence_max_clients=1, **keys)) as world:
        for _ in range(2):
            client = ann(world)
            client.ask({"subscribe": {"channel": "a"}})
        assert client.ask({"presence": {"channel": "a"}})["error"]["code"] == 106
        stats = client.ask({"presence_stats": {"channel": "a"}})["presence_stats"]
        assert stats["num_clients"] == 2
        assert world.node.limits.reached == {"presence_max_clients": 1}


async def test_a_client_gets_so_much_of_a_history_and_a_backend_all() -> None:
    history = {"history_size": 10, "history_ttl": "1m", "allow_history_for_client": True}
    keys = {**OPEN, **{NAMELESS + name: value for name, value in history.items()}}
    async with World(config(client__history_max_publication_limit=3, **keys)) as world:
        client = ann(world)
        for number in range(5):
            client.ask({"publish": {"channel": "a", "data": number}})

        def read(**request: Any) -> list[int]:
            reply = client.ask({"history": {"channel": "a", **request}})["history"]
            assert reply["offset"] == 5
            return [each["data"] for each in reply.get("publications", [])]

        assert read(limit=2) == [0, 1] and read(limit=3) == [0, 1, 2] and read() == []
        assert world.node.limits.reached == {}
        assert read(limit=-1) == read(limit=4) == [0, 1, 2]
        assert read(limit=-1, reverse=True) == [4, 3, 2]
        assert world.node.limits.reached == {"history_max_publication_limit": 3}
        everything, _ = await world.node.history("a", HistoryQuery(-1))
        assert len(everything) == 5


async def test_a_message_over_its_limit_is_1009_and_counted() -> None:
    async with make(websocket__message_size_limit=100) as gateway, await client(gateway) as one:
        await one.ws.send("x" * 100)
        assert await one.closed() == (3501, "bad request")
        async with await client(gateway) as two:
            await two.ws.send("x" * 101)
            assert (await two.closed())[0] == 1009
        await eventually(lambda: gateway.node.limits.reached == {"message_size_limit": 1})


async def test_a_request_over_its_limit_is_413_and_counted() -> None:
    flags = {"http_api__key": "k", "http_api__body_size_limit": 100}
    async with make(**flags) as gateway, aiohttp.ClientSession() as http:
        where, headers = url(gateway, "/api/info", "http"), {"X-API-Key": "k"}
        for size, status in ((100, 200), (101, 413), (300_000, 413)):
            async with http.post(where, data=b"{}".ljust(size), headers=headers) as response:
                assert response.status == status
        assert gateway.node.limits.reached == {"body_size_limit": 2}


async def test_replies_and_commands_over_the_queue_limit_are_counted() -> None:
    async with World(config(client__queue_max_size=1000, **OPEN), SlowEngine()) as world:
        client = ann(world)
        client.send({"id": 1, "subscribe": {"channel": "a"}})
        for _ in range(2):
            client.receive("x" * 600)
        assert client.closed == (3013, "too many requests")
        assert world.node.limits.reached == {"queue_max_size": 1}
