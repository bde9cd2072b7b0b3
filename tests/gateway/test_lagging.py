"""Slow readers of channels that drop for them: what they get, and what others do."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from gateway.config import Config, load
from tests.gateway.fakes import Client, World


def config(policy: str, **options: Any) -> Config:
    keeps = {
        "slow_reader": policy,
        "slow_reader_queue": 3,
        "slow_reader_key": "symbol",
        "history_size": 10,
        "history_ttl": "1m",
        "allow_tags_filter": True,
        "allow_positioning": True,
        "allow_publish_for_client": True,
        **options,
    }
    keys = {f"channel.without_namespace.{name}": value for name, value in keeps.items()}
    return load(flags={"dev": True, **keys})


async def publish(world: World, value: int, symbol: str = "") -> None:
    tags = {"symbol": symbol} if symbol else None
    await world.node.publish("a", Raw(str(value).encode()), tags=tags)


def heard(client: Client) -> list[int]:
    return [push["push"]["pub"]["data"] for push in client.take() if "push" in push]


def drain(world: World, client: Client) -> None:
    client.connection.full = False
    world.node.hub.drained(client.session)


async def slow_client(world: World, **request: Any) -> Client:
    client = world.client()
    client.ask({"subscribe": {"channel": "a", **request}})
    client.connection.full = True
    return client


async def test_the_oldest_make_room() -> None:
    async with World(config("drop_oldest")) as world:
        slow, fast = await slow_client(world), world.client()
        fast.ask({"subscribe": {"channel": "a"}})
        for value in range(5):
            await publish(world, value)
        assert heard(fast) == [0, 1, 2, 3, 4]
        assert heard(slow) == []
        drain(world, slow)
        assert heard(slow) == [2, 3, 4]
        await publish(world, 5)
        assert heard(slow) == heard(fast) == [5]
        assert world.node.hub.dropped == 2
        assert world.node.hub.lagging == 0


async def test_the_newest_of_each_key_is_kept() -> None:
    async with World(config("latest")) as world:
        slow = await slow_client(world)
        for value, symbol in enumerate(("x", "y", "x", "", "y", "")):
            await publish(world, value, symbol)
        drain(world, slow)
        assert heard(slow) == [2, 4, 5]
        assert world.node.hub.dropped == 3


async def test_more_keys_than_may_wait_drop_the_one_that_is_oldest() -> None:
    async with World(config("latest")) as world:
        slow = await slow_client(world)
        for value, symbol in enumerate("abcd"):
            await publish(world, value, symbol)
        drain(world, slow)
        assert heard(slow) == [1, 2, 3]


async def test_filters_hold_for_what_waits() -> None:
    async with World(config("drop_oldest")) as world:
        slow = await slow_client(world, tf={"key": "symbol", "cmp": "eq", "val": "x"})
        for value, symbol in enumerate("xyxyx"):
            await publish(world, value, symbol)
        drain(world, slow)
        assert heard(slow) == [0, 2, 4]


async def test_a_publisher_who_is_left_out_is_so_while_it_is_slow() -> None:
    async with World(config("drop_oldest", exclude_publisher=True)) as world:
        slow = await slow_client(world)
        await publish(world, 0)
        slow.send({"id": 1, "publish": {"channel": "a", "data": 1}})
        await publish(world, 2)
        drain(world, slow)
        assert heard(slow) == [0, 2]


async def test_who_may_lose_nothing_unknowingly_is_not_spared() -> None:
    """Its queue grows as in any channel, and its transport closes it."""
    async with World(config("latest")) as world:
        slow = await slow_client(world, positioned=True)
        for value in range(3):
            await publish(world, value)
        assert heard(slow) == [0, 1, 2]
        assert world.node.hub.lagging == 0


@settings(max_examples=40)
@given(
    st.sampled_from(["drop_oldest", "latest"]),
    st.lists(st.sampled_from(["publish", "publish", "slow", "fast", "out", "in"]), max_size=40),
)
async def test_what_is_sent_is_in_order_and_all_of_it_while_it_reads(
    policy: str, steps: list[str]
) -> None:
    async with World(config(policy, slow_reader_queue=1000)) as world:
        client = await slow_client(world)
        client.connection.full = False
        inside, wanted, got, waits = True, [], [], []
        for value, step in enumerate(steps):
            if step == "slow":
                client.connection.full = True
            elif step == "fast":
                drain(world, client)
                wanted += waits
                waits = []
            elif step == "out":
                got += heard(client)
                client.send({"id": 1, "unsubscribe": {"channel": "a"}})
                inside, waits = False, []
                client.take()
            elif step == "in" and not inside:
                client.send({"id": 1, "subscribe": {"channel": "a"}})
                client.take()
                inside = True
            elif step == "publish":
                await publish(world, value, str(value))
                if inside:
                    (waits if client.connection.full else wanted).append(value)
        got += heard(client)
        assert got == wanted
        assert world.node.hub.lagging == (1 if waits else 0)
        client.leave()
        assert world.node.hub.lagging == 0
        assert world.node.hub.channels == {}
