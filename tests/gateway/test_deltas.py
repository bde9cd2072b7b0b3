"""Who takes deltas gets what everybody gets, by whichever way it comes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from gateway.config import load
from gateway.engines import HistoryQuery
from tests.fastws.fossil_reader import apply_delta
from tests.gateway.fakes import Client, World

DEFAULTS: dict[str, Any] = {
    "history_size": 10,
    "history_ttl": "1m",
    "allow_recovery": True,
    "allow_positioning": True,
    "allow_tags_filter": True,
    "allowed_delta_types": ["fossil"],
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_publish_for_client": True,
    "allow_publish_for_anonymous": True,
}


def config(**options: Any) -> Any:
    keys = {f"channel.without_namespace.{k}": v for k, v in {**DEFAULTS, **options}.items()}
    return load(flags={"client.allow_anonymous_connect_without_token": True, **keys})


def document(value: int) -> dict[str, Any]:
    rest = [{"name": f"row {n}", "note": "ä€😀"} for n in range(20)]
    return {"rows": rest[:10], "value": value, "tail": rest[10:]}


async def publish(world: World, value: int, delta: bool = True) -> None:
    data = Raw(json.dumps(document(value), ensure_ascii=False).encode())
    await world.node.publish("a", data, delta=delta)


class Reader:
    """What a client makes of publications that come to it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.base = b""
        self.takes_deltas = False
        self.values: list[int] = []
        self.deltas = 0

    def subscribe(self, **request: Any) -> Any:
        reply = self.client.ask({"subscribe": {"channel": "a", **request}})["subscribe"]
        self.takes_deltas = reply.get("delta", False)
        for publication in reply.get("publications", ()):
            self.take(publication)
        return reply

    def read(self) -> list[int]:
        """All values so far."""
        for push in self.client.take():
            if "push" in push:
                self.take(push["push"]["pub"])
        return self.values

    def take(self, publication: Any) -> None:
        data = publication["data"]
        if self.takes_deltas:
            assert isinstance(data, str)
            if publication.get("delta"):
                self.deltas += 1
                self.base = apply_delta(self.base, data.encode())
            else:
                self.base = data.encode()
            data = json.loads(self.base)
        else:
            assert "delta" not in publication
        assert data == document(data["value"])
        self.values.append(data["value"])


async def test_deltas_come_after_a_first_whole_publication() -> None:
    async with World(config()) as world:
        await publish(world, 0)
        taker, plain = Reader(world.client()), Reader(world.client())
        assert taker.subscribe(delta="fossil", positioned=True)["delta"] is True
        assert "delta" not in plain.subscribe(positioned=True)
        for value in range(1, 6):
            await publish(world, value)
        assert taker.read() == plain.read() == [1, 2, 3, 4, 5]
        assert taker.deltas == world.node.hub.deltas == 4


async def test_one_delta_serves_all_who_have_its_base() -> None:
    async with World(config()) as world:
        readers = [Reader(world.client()) for _ in range(5)]
        for reader in readers:
            reader.subscribe(delta="fossil", positioned=True)
        await publish(world, 1)
        late = Reader(world.client())
        late.subscribe(delta="fossil", positioned=True)
        world.endpoint.payloads.clear()
        await publish(world, 2)
        assert len(world.endpoint.payloads) == 2  # the delta, and whole for the one who is late
        await publish(world, 3)
        assert len(world.endpoint.payloads) == 3
        assert [reader.read() for reader in readers] == [[1, 2, 3]] * 5
        assert late.read() == [2, 3]


@pytest.mark.parametrize(
    "request_",
    [
        {"delta": "fossil"},  # it may miss publications without being told
        {"delta": "fossil", "positioned": True, "tf": {"key": "k", "cmp": "ex"}},
    ],
)
async def test_where_it_cannot_be_it_is_not_agreed_to(request_: dict[str, Any]) -> None:
    async with World(config()) as world:
        reader = Reader(world.client())
        assert "delta" not in reader.subscribe(**request_)
        await world.node.publish("a", Raw(json.dumps(document(1)).encode()), tags={"k": "v"})
        assert reader.read() == [1]


async def test_a_type_that_there_is_not_closes_with_3501() -> None:
    async with World(config()) as world:
        client = world.client()
        client.send({"id": 2, "subscribe": {"channel": "a", "delta": "other"}})
        assert client.closed == (3501, "bad request")


async def test_where_no_type_is_allowed_none_is_agreed_to() -> None:
    async with World(config(allowed_delta_types=[])) as world:
        assert "delta" not in Reader(world.client()).subscribe(delta="fossil", positioned=True)


async def test_the_publisher_says_whether_deltas_are_worth_it() -> None:
    async with World(config()) as world:
        reader = Reader(world.client())
        reader.subscribe(delta="fossil", positioned=True)
        for value, delta in enumerate((True, False, True, False)):
            await publish(world, value, delta)
        assert reader.read() == [0, 1, 2, 3]
        assert reader.deltas == 1
    async with World(config(delta_publish=True)) as world:
        reader = Reader(world.client())
        reader.subscribe(delta="fossil", positioned=True)
        publisher = world.client()
        for value in range(3):
            command = {"publish": {"channel": "a", "data": document(value)}}
            assert publisher.ask(command) == {"publish": {}}
        assert reader.read() == [0, 1, 2]
        assert reader.deltas == 2


async def test_what_does_not_get_shorter_comes_whole() -> None:
    async with World(config()) as world:
        client = world.client()
        client.ask({"subscribe": {"channel": "a", "positioned": True, "delta": "fossil"}})
        for data in (b"1", b"22", b'"\xc3\xa4"'):
            await world.node.publish("a", Raw(data), delta=True)
        pushed = [push["push"]["pub"] for push in client.take()]
        assert [each["data"] for each in pushed] == ["1", "22", '"ä"']
        assert not any("delta" in each for each in pushed)


async def test_a_publisher_left_out_gets_the_next_one_whole() -> None:
    async with World(config(exclude_publisher=True, delta_publish=True)) as world:
        ann, bob = Reader(world.client()), Reader(world.client())
        for reader in (ann, bob):
            reader.subscribe(delta="fossil", positioned=True)
        for value, by in enumerate((bob, bob, ann, bob, bob)):
            command = {"publish": {"channel": "a", "data": document(value)}}
            by.client.send({"id": 1, **command})
        assert ann.read() == [0, 1, 3, 4]
        assert bob.read() == [2]


async def test_what_was_missed_comes_as_deltas_too() -> None:
    async with World(config()) as world:
        reader = Reader(world.client())
        start = reader.subscribe(delta="fossil", recoverable=True)
        since = {"recover": True, "epoch": start["epoch"], "offset": start.get("offset", 0)}
        reader.client.ask({"unsubscribe": {"channel": "a"}})
        for value in range(6):
            await publish(world, value)
        assert reader.subscribe(delta="fossil", recoverable=True, **since)["recovered"] is True
        assert reader.deltas == 5
        await publish(world, 6)
        await publish(world, 7)
        assert reader.read() == list(range(8))
        assert reader.deltas == 6  # after a recovery the first is whole
        plain = Reader(world.client())
        plain.subscribe(recoverable=True, **since)
        assert plain.read() == list(range(8))
        kept, _ = await world.node.history("a", HistoryQuery(-1))
        assert not any(each.delta for each in kept)


steps = st.lists(
    st.tuples(st.sampled_from(["in", "out", "publish", "publish", "silent"]), st.integers(0, 3)),
    max_size=40,
)


@settings(max_examples=40)
@given(steps)
async def test_whoever_comes_and_goes_everybody_reads_the_same(
    steps: list[tuple[str, int]],
) -> None:
    async with World(config()) as world:
        readers = [Reader(world.client()) for _ in range(4)]
        wanted: list[list[int]] = [[] for _ in readers]
        inside: set[int] = set()
        for value, (what, who) in enumerate(steps):
            reader = readers[who]
            if what == "in" and who not in inside:
                reader.read()
                reader.subscribe(positioned=True, **({"delta": "fossil"} if who else {}))
                inside.add(who)
            elif what == "out":
                reader.read()
                reader.client.ask({"unsubscribe": {"channel": "a"}})
                inside.discard(who)
            elif what in ("publish", "silent"):
                await publish(world, value, what == "publish")
                for each in inside:
                    wanted[each].append(value)
        assert [reader.read() for reader in readers] == wanted
        for reader in readers:
            reader.client.leave()
        assert world.node.hub.channels == {}
