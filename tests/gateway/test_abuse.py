"""Clients who mean harm: they cost little, and what they took is given back."""

from __future__ import annotations

import gc
import json
import time
import tracemalloc

import pytest

from gateway.channels import rules
from gateway.config import load
from tests.gateway.fakes import World
from tests.gateway.test_gateway import client as connected
from tests.gateway.test_gateway import make
from tests.gateway.test_identity import ann, config
from tests.gateway.tokens import SECRET, token

MANY = 5000
CROWD = 500


async def test_memory_of_distinct_channels_comes_back() -> None:
    keeps = {
        "channel__without_namespace__history_size": 1,
        "channel__without_namespace__history_ttl": 1,
        "channel__without_namespace__presence": True,
        "channel__without_namespace__allow_subscribe_for_client": True,
        "channel__without_namespace__allow_publish_for_client": True,
    }
    async with World(config(**keeps)) as world:
        client = ann(world)
        for number in range(MANY):
            channel = f"c{number}"
            client.ask({"subscribe": {"channel": channel}})
            client.send({"id": 1, "publish": {"channel": channel, "data": 1}})
            client.send({"id": 2, "unsubscribe": {"channel": channel}})
            client.take()
        engine = world.node.engine
        assert world.node.hub.channels == {}
        assert engine._presence == {}  # type: ignore[attr-defined]
        assert len(world.node.rules._known) <= rules._REMEMBERED
        world.turn(1e9)
        world.turn(1e9)
        assert engine._streams == {}  # type: ignore[attr-defined]


async def test_subscribing_and_leaving_over_and_over_leaves_nothing() -> None:
    keys = {"channel__without_namespace__allow_subscribe_for_client": True}
    async with World(config(**keys)) as world:
        for _ in range(300):
            client = ann(world)
            for number in range(20):
                client.ask({"subscribe": {"channel": f"c{number}"}})
            client.leave()
        assert world.node.hub.channels == {}
        assert world.node.hub.subscriptions == 0
        assert len(world.node.clients) == world.node.clients.num_users == 0
        assert world.node.counters.connections == 0


async def test_tokens_without_end_are_no_reason_to_fail() -> None:
    async with World(config()) as world:
        client = world.open()
        reply = client.ask({"connect": {"token": token("ann", exp=2**53)}})
        assert reply["connect"]["ttl"] == 365 * 86400
        client.ask({"refresh": {"token": token("ann", expire_at=2**53)}})
        world.turn(1e6)
        assert client.closed is None


@pytest.mark.parametrize("size", [1000, 30_000])
async def test_large_tokens_are_refused_or_taken_and_do_no_harm(size: int) -> None:
    async with World(load(flags={"client.token.hmac_secret_key": SECRET})) as world:
        client = world.open()
        client.send({"id": 1, "connect": {"token": token("ann", meta="x" * size)}})
        assert (client.closed is None) is (size == 1000)


async def test_a_filter_bomb_costs_a_refusal() -> None:
    keys = {
        "channel__without_namespace__allow_subscribe_for_client": True,
        "channel__without_namespace__allow_tags_filter": True,
    }
    async with World(config(**keys)) as world:
        client = ann(world)
        wide = {"op": "or", "nodes": [{"key": "k", "cmp": "ex"}] * 1000}
        deep = {"key": "k", "cmp": "ex"}
        for _ in range(200):
            deep = {"op": "not", "nodes": [deep]}  # type: ignore[dict-item]
        for bomb in wide, deep:
            reply = client.ask({"subscribe": {"channel": "a", "tf": bomb}})
            assert reply["error"]["code"] == 107
        assert client.closed is None


async def test_a_publish_flood_is_limited_and_others_are_served() -> None:
    async with (
        make(client__command_rate_limit=50) as gateway,
        await connected(gateway, "a", close_timeout=0.1) as reader,  # not all is read
        await connected(gateway, close_timeout=0.1) as flooder,
        await connected(gateway) as other,
    ):
        begun, answered = time.monotonic(), 0.0
        for number in range(100):
            command = {"publish": {"channel": "a", "data": "x" * 1000}}
            lines = [json.dumps({"id": 1 + number * 10 + each, **command}) for each in range(10)]
            await flooder.ws.send("\n".join(lines))
            if number % 20 == 0:
                asked = time.monotonic()
                assert await other.ask({"ping": {}}) == {"id": 7, "ping": {}}
                answered = max(answered, time.monotonic() - asked)
        refused = 0
        while refused < 500:
            reply = await flooder.ws.recv()
            refused += str(reply).count('"code":111')
        published = gateway.node.counters.publications
        assert 49 <= published <= 50 * (time.monotonic() - begun + 1)
        for _ in range(49):
            assert (await reader.read())["push"]["channel"] == "a"
        assert gateway.node.limits.reached["command_rate_limit"] >= refused
        assert answered < 1


async def test_a_subscribe_flood_takes_its_limit_of_channels_and_no_more() -> None:
    keys = {"channel__without_namespace__allow_subscribe_for_client": True}
    async with World(config(client__channel_limit=10, **keys)) as world:
        flooder, other = ann(world), ann(world)
        for number in range(1000):
            refused = "error" in flooder.ask({"subscribe": {"channel": f"c{number}"}})
            assert refused is (number >= 10)
        hub = world.node.hub
        assert (len(hub.channels), hub.subscriptions) == (10, 10)
        assert world.node.limits.reached == {"channel_limit": 990}
        assert other.ask({"subscribe": {"channel": "mine"}}) == {"subscribe": {}}
        flooder.leave()
        assert list(hub.channels) == ["mine"]


async def test_memory_of_a_huge_channel_comes_back() -> None:
    keys = {
        "channel__without_namespace__presence": True,
        "channel__without_namespace__allow_subscribe_for_client": True,
    }
    tracemalloc.start()
    try:
        async with World(config(**keys)) as world:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            clients = [ann(world) for _ in range(CROWD)]
            for each in clients:
                each.ask({"subscribe": {"channel": "crowd"}})
            assert world.node.hub.channels["crowd"].num_subscribers == CROWD
            held = tracemalloc.get_traced_memory()[0] - before
            for each in clients:
                each.leave()
            clients.clear()
            world.turn(1)
            world.turn(1)
            gc.collect()
            left = tracemalloc.get_traced_memory()[0] - before
            assert world.node.hub.channels == {}
            assert left < 0.15 * held
    finally:
        tracemalloc.stop()
