"""What a client gets after it was away, and what is said of it; and losses on live connections."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.config import Config, load
from gateway.engines import HistorySettings, MemoryEngine
from gateway.model import Publication, StreamPosition
from tests.gateway.fakes import Client, SlowEngine, World
from tests.gateway.tokens import SECRET, token

SIZE = 5


def config(**options: Any) -> Config:
    keeps = {
        "history_size": SIZE,
        "history_ttl": "1m",
        "allow_subscribe_for_client": True,
        "allow_subscribe_for_anonymous": True,
        "allow_tags_filter": True,
        **options,
    }
    keys = {f"channel.without_namespace.{name}": value for name, value in keeps.items()}
    return load(
        flags={
            "client.allow_anonymous_connect_without_token": True,
            "client.token.hmac_secret_key": SECRET,
            **keys,
        }
    )


RECOVERS = config(force_recovery=True)
CACHE = config(force_recovery=True, force_recovery_mode="cache")


async def publish(world: World, *values: int, **more: Any) -> StreamPosition:
    top = StreamPosition()
    for value in values:
        top = await world.node.publish("a", Raw(str(value).encode()), **more)
    return top


def subscribe(client: Client, **request: Any) -> Any:
    return client.ask({"subscribe": {"channel": "a", **request}})["subscribe"]


def since(position: StreamPosition, **more: Any) -> dict[str, Any]:
    return {"recover": True, "offset": position.offset, "epoch": position.epoch, **more}


def data(reply: Any) -> list[int]:
    return [each["data"] for each in reply.get("publications", [])]


def heard(client: Client) -> list[int]:
    return [each["push"]["pub"]["data"] for each in client.take()]


# -- recovery


async def test_a_new_subscriber_is_told_its_position() -> None:
    async with World(RECOVERS) as world:
        top = await publish(world, 1, 2)
        assert subscribe(world.client()) == {
            "recoverable": True,
            "positioned": True,
            "epoch": top.epoch,
            "offset": 2,
        }


async def test_what_was_missed_is_given_and_live_publications_follow() -> None:
    async with World(RECOVERS) as world:
        left_off = await publish(world, 1, 2)
        await publish(world, 3, 4)
        client = world.client()
        reply = subscribe(client, **since(left_off))
        assert (reply["recovered"], reply["was_recovering"]) == (True, True)
        assert data(reply) == [3, 4]
        assert reply["offset"] == 2
        await publish(world, 5)
        assert heard(client) == [5]


async def test_nothing_missed_is_recovered_too() -> None:
    async with World(RECOVERS) as world:
        top = await publish(world, 1)
        reply = subscribe(world.client(), **since(top))
        assert reply["recovered"] is True
        assert data(reply) == []


async def test_where_nothing_can_be_recovered_it_is_told_that_it_was_wanted() -> None:
    async with World(config()) as world:
        left_off = await publish(world, 1)
        reply = subscribe(world.client(), **since(left_off))
        assert reply == {"was_recovering": True}


async def test_more_than_history_keeps_is_not_recovered() -> None:
    async with World(RECOVERS) as world:
        left_off = await publish(world, 0)
        top = await publish(world, *range(SIZE + 1))
        reply = subscribe(world.client(), **since(left_off))
        assert reply["was_recovering"] is True
        assert "recovered" not in reply and "publications" not in reply
        assert reply["offset"] == top.offset


async def test_expired_history_is_not_recovered() -> None:
    async with World(RECOVERS) as world:
        left_off = await publish(world, 1)
        await publish(world, 2)
        world.turn(61)
        assert "recovered" not in subscribe(world.client(), **since(left_off))


async def test_another_epoch_is_not_recovered() -> None:
    async with World(RECOVERS) as world:
        top = await publish(world, 1)
        other = StreamPosition(top.offset, "other")
        reply = subscribe(world.client(), **since(other))
        assert "recovered" not in reply
        assert reply["epoch"] == top.epoch


async def test_more_than_the_limit_is_not_recovered() -> None:
    async with World(
        load(
            flags={
                "dev": True,
                "client.recovery_max_publication_limit": 2,
                "channel.without_namespace.history_size": 9,
                "channel.without_namespace.history_ttl": 60,
            }
        )
    ) as world:
        start = await publish(world, 0)
        await publish(world, 1, 2)
        wanted = since(start, recoverable=True)
        assert data(subscribe(world.client(), **wanted)) == [1, 2]
        await publish(world, 3)
        assert "recovered" not in subscribe(world.client(), **wanted)


async def test_a_client_recovers_only_where_it_may() -> None:
    for options, allowed in (
        ({}, False),
        ({"allow_recovery": True}, True),
        ({"allow_history_for_client": True}, True),
    ):
        async with World(config(**options)) as world:
            top = await publish(world, 1)
            client = world.client(token=token("ann"))
            reply = subscribe(client, **since(top, recoverable=True, positioned=True))
            assert reply.get("recovered", False) is allowed
            assert reply.get("recoverable", False) is allowed


async def test_a_client_can_refuse_to_go_on_with_a_gap() -> None:
    async with World(RECOVERS) as world:
        left_off = await publish(world, 1)
        client = world.client()
        wanted = {"channel": "a", **since(StreamPosition(left_off.offset, "other"), flag=2)}
        error = {"code": 112, "message": "unrecoverable position"}
        assert client.ask({"subscribe": wanted}) == {"error": error}
        assert world.node.hub.channels == {}
        assert subscribe(client, **since(left_off, flag=2))["recovered"] is True


async def test_a_filter_holds_for_what_is_recovered() -> None:
    async with World(RECOVERS) as world:
        left_off = await publish(world, 0)
        await publish(world, 1, tags={"k": "x"})
        await publish(world, 2)
        wanted = {"key": "k", "cmp": "ex"}
        reply = subscribe(world.client(), **since(left_off, tf=wanted))
        assert reply["recovered"] is True
        assert data(reply) == [1]


async def test_server_side_subscriptions_are_recovered_on_connect() -> None:
    async with World(RECOVERS) as world:
        left_off = await publish(world, 1)
        await publish(world, 2)
        client = world.open()
        request = {"token": token(channels=["a"]), "subs": {"a": since(left_off)}}
        told = client.ask({"connect": request})["connect"]["subs"]["a"]
        assert told["recovered"] is True
        assert data(told) == [2]


# -- cache mode


async def test_cache_mode_gives_the_newest() -> None:
    async with World(CACHE) as world:
        assert "recovered" not in subscribe(world.client(), recover=True)
        await publish(world, 1, 2, 3)
        reply = subscribe(world.client(), recover=True)
        assert (reply["recovered"], data(reply)) == (True, [3])
        assert reply["offset"] == 3
        top = StreamPosition(3, reply["epoch"])
        reply = subscribe(world.client(), **since(top))
        assert (reply["recovered"], data(reply)) == (True, []), "it has it"
        assert data(subscribe(world.client())) == []


async def test_cache_mode_can_give_it_unasked() -> None:
    settings = config(force_recovery=True, force_recovery_mode="cache", auto_cache_recover=True)
    async with World(settings) as world:
        await publish(world, 1, 2)
        assert data(subscribe(world.client())) == [2]


# -- an engine that takes time


async def reading(engine: SlowEngine, world: World, **request: Any) -> Client:
    """A client that is about to read its history."""
    client = world.open()
    client.connect()
    client.send({"id": 2, "subscribe": {"channel": "a", **request}})
    await engine.let_go()  # subscribed
    assert engine.calls[-1] == "history"
    return client


def bring(world: World, offset: int, epoch: str) -> None:
    """The engine delivers a publication."""
    publication = Publication(Raw(str(offset).encode()), offset=offset)
    world.node.hub.on_publication("a", publication, epoch)


async def keep(engine: SlowEngine, count: int) -> StreamPosition:
    settings = HistorySettings(SIZE, 60)
    top = StreamPosition()
    events, engine._events = engine._events, None
    for value in range(1, count + 1):
        publication = Publication(Raw(str(value).encode()))
        top = await MemoryEngine.publish(engine, "a", publication, settings)
    engine._events = events
    return top


async def test_what_is_published_while_history_is_read_is_not_lost() -> None:
    engine = SlowEngine()
    async with World(RECOVERS, engine) as world:
        top = await keep(engine, 3)
        client = await reading(engine, world, recover=True, offset=1, epoch=top.epoch)
        for offset in 2, 3, 4, 5:  # some of it is in the history too
            bring(world, offset, top.epoch)
        await engine.let_go()
        reply = client.take()[0]["subscribe"]
        assert reply["recovered"] is True
        assert data(reply) == [2, 3, 4, 5]
        bring(world, 6, top.epoch)
        assert heard(client) == [6]


async def test_a_gap_while_history_is_read_closes_with_3010() -> None:
    engine = SlowEngine()
    async with World(RECOVERS, engine) as world:
        top = await keep(engine, 3)
        client = await reading(engine, world)
        bring(world, 5, top.epoch)
        for _ in range(4):
            await engine.let_go()
        assert client.closed == (3010, "insufficient state")
        assert world.node.hub.channels == {}


async def test_what_history_had_already_is_not_delivered_again() -> None:
    """The history was read before publications that are in it had come by here."""
    engine = SlowEngine()
    async with World(RECOVERS, engine) as world:
        top = await keep(engine, 3)
        first = await reading(engine, world, recover=True, offset=1, epoch=top.epoch)
        bring(world, 2, top.epoch)
        await engine.let_go()
        assert data(first.take()[0]["subscribe"]) == [2, 3]
        second = world.open()
        second.connect()
        second.send({"id": 2, "subscribe": {"channel": "a"}})
        await engine.let_go()
        second.take()
        [channel] = world.node.hub.channels.values()
        assert channel.num_subscribers == 2
        bring(world, 3, top.epoch)
        assert heard(first) == heard(second) == []
        bring(world, 4, top.epoch)
        assert heard(first) == heard(second) == [4]
        for client in first, second:
            client.leave()
        for _ in range(3):
            await engine.let_go()
        assert world.node.hub.channels == {}


# -- losses on live connections

LOST = {"push": {"channel": "a", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}}


@pytest.mark.parametrize(("offset", "epoch"), [(4, None), (1, "other"), (3, "other")])
async def test_a_lost_publication_ends_the_subscription_with_2500(
    offset: int, epoch: str | None
) -> None:
    async with World(RECOVERS) as world:
        top = await publish(world, 1, 2)
        client = world.client()
        subscribe(client)
        bring(world, offset, epoch or top.epoch)
        assert client.take() == [LOST]
        assert world.node.hub.gaps == 1
        assert world.node.hub.channels == {}


async def test_a_lost_publication_of_a_server_side_subscription_closes_with_3010() -> None:
    async with World(RECOVERS) as world:
        top = await publish(world, 1)
        client = world.client(token=token(channels=["a"]))
        bring(world, 3, top.epoch)
        assert client.closed == (3010, "insufficient state")


async def test_who_does_not_rely_on_positions_hears_all_that_comes() -> None:
    async with World(config(allow_positioning=True)) as world:
        top = await publish(world, 1)
        plain, positioned = world.client(), world.client()
        subscribe(plain)
        subscribe(positioned, positioned=True)
        bring(world, 1, top.epoch)
        assert (heard(plain), positioned.take()) == ([1], [])
        bring(world, 4, top.epoch)
        assert (heard(plain), positioned.take()) == ([4], [LOST])


async def test_a_position_that_the_engine_went_on_from_is_noticed() -> None:
    async with World(RECOVERS) as world:
        await publish(world, 1)
        client = world.client()
        subscribe(client)
        await world.node.members.check_positions()
        assert client.take() == []
        events, world.node.engine._events = world.node.engine._events, None  # type: ignore[attr-defined]
        await publish(world, 2)  # which the engine does not deliver
        world.node.engine._events = events  # type: ignore[attr-defined]
        await world.node.members.check_positions()
        assert client.take() == [], "it may be on its way"
        await world.node.members.check_positions()
        assert client.take() == [LOST]


# -- a model of it all

steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 4)),
        st.tuples(st.just("cut"), st.just(0)),
        st.tuples(st.just("back"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 40)),
        st.tuples(st.just("forget"), st.just(0)),
    ),
    max_size=40,
)


@given(steps)
async def test_recovered_is_true_exactly_when_nothing_is_missing(
    steps: list[tuple[str, int]],
) -> None:
    async with World(RECOVERS) as world:
        published = 0
        client: Client | None = world.client()
        position = subscribe(client)
        seen, offset, epoch = 0, position.get("offset", 0), position["epoch"]
        for step, number in steps:
            if step == "publish":
                for _ in range(number):
                    published += 1
                    await publish(world, published)
            elif step == "wait":
                world.turn(number)
            elif step == "forget":
                await world.node.engine.history_remove("a")
            elif step == "cut" and client is not None:
                for value in heard(client):
                    assert value == seen + 1
                    seen, offset = value, offset + 1
                client.leave()
                client = None
            elif step == "back" and client is None:
                client = world.client()
                reply = subscribe(client, recover=True, offset=offset, epoch=epoch)
                found = data(reply)
                if reply.get("recovered"):
                    assert found == list(range(seen + 1, published + 1))
                else:
                    assert found == []
                    assert published > seen, "nothing was missing"
                seen, offset = published, published
        if client is not None:
            assert heard(client) == list(range(seen + 1, published + 1))
