"""Limits: who is at one is told so, and others do not notice."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from gateway.limits import Bucket
from tests.gateway.fakes import World
from tests.gateway.test_gateway import client, connect, eventually, make, url
from tests.gateway.test_identity import ann, config
from tests.gateway.tokens import token

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
