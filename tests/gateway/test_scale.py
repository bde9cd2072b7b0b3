"""A great many channels, and a great many clients in one: what is left behind, and what is told."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from gateway.collector import Collector
from gateway.config import load
from gateway.engines import HistoryQuery, HistorySettings, MemoryEngine
from gateway.engines.memory import EMPTY_TTL
from gateway.model import ClientInfo
from gateway.room import Room
from tests.gateway.fakes import World

pytest.importorskip("bench", reason="an sdist has no benchmark")
from bench import scale


@pytest.fixture
def unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("unfrozen")
def test_memory_of_channels_comes_back() -> None:
    """`python -m bench.scale` does it with a million."""
    gateway = scale.Gateway(load(flags={"dev": True}))
    result = scale.many_channels(gateway, 400, 125)
    assert result["channels"] == 50_000
    assert result["bytes_per_channel"] < 2000
    assert result["left_bytes_per_channel"] < 0.3 * result["bytes_per_channel"]
    assert gateway.node.engine.immediate is gateway.node.engine
    assert sys.getsizeof(gateway.node.hub.channels) < 1000


def test_presence_of_a_crowd_is_refused_and_its_size_is_told() -> None:
    config = load(flags={"dev": True, "channel.presence_max_clients": 2000})
    result = scale.one_crowd(scale.Gateway(config), 5000)
    assert result["presence_largest_bytes"] < 2000 * 120


def test_a_reply_over_the_queue_limit_is_an_error_and_the_client_stays() -> None:
    flags = {
        "dev": True,
        "client.queue_max_size": 1000,
        "channel.without_namespace.history_size": 100,
        "channel.without_namespace.history_ttl": "1m",
    }
    world = World(load(flags=flags))
    clients = [world.client(data={"name": "x" * 300}) for _ in range(4)]
    for client in clients:
        client.ask({"subscribe": {"channel": "a"}})
        client.send({"id": 1, "publish": {"channel": "b", "data": "x" * 300}})
        client.take()
    presence, history = {"channel": "a"}, {"channel": "b", "limit": 100}
    for command in ({"presence": presence}, {"history": history}):
        assert clients[0].ask(command)["error"]["code"] == 106
    clients[3].leave()
    clients[2].leave()
    assert len(clients[0].ask({"presence": presence})["presence"]["presence"]) == 2
    assert clients[0].closed is None


async def test_users_of_a_large_channel_are_counted_as_they_come_and_go() -> None:
    engine = MemoryEngine()

    def info(number: int) -> ClientInfo:
        return ClientInfo(str(number), f"user {number // 2}")

    for number in range(1200):
        await engine.presence_add("a", info(number))
    assert (await engine.presence_stats("a")).num_users == 600
    await engine.presence_add("a", info(0))  # again
    await engine.presence_add("a", info(1200))
    assert (await engine.presence_stats("a")).num_users == 601
    for number in (0, 1, 2):
        await engine.presence_remove("a", info(number))
        await engine.presence_remove("a", info(number))
    stats = await engine.presence_stats("a")
    assert (stats.num_clients, stats.num_users) == (1198, 600)
    for number in range(3, 1100):
        await engine.presence_remove("a", info(number))
    stats = await engine.presence_stats("a")
    assert (stats.num_clients, stats.num_users) == (101, 51)
    for number in range(1100, 1201):
        await engine.presence_remove("a", info(number))
    assert not engine._presence
    assert not engine._users


async def test_a_history_that_was_only_read_is_forgotten_soon() -> None:
    """Else clients could fill the memory with names."""
    now = 0.0
    engine = MemoryEngine(lambda: now)
    settings = HistorySettings(10, 60)
    _, first = await engine.history("a", HistoryQuery(), settings)
    now += EMPTY_TTL - 1
    engine.tick()
    assert (await engine.history("a", HistoryQuery(), settings))[1] == first
    now += EMPTY_TTL - 1  # since it was read
    engine.tick()
    assert "a" in engine._streams
    now += 2
    engine.tick()
    assert not engine._streams
    assert not engine._expiries


def test_a_dict_is_refitted_once_it_is_much_too_large() -> None:
    room = Room()
    table = dict.fromkeys(range(40_000))
    assert room.refit(table) is table
    for key in range(35_000):
        del table[key]
    fitted = room.refit(table)
    assert fitted == table
    assert sys.getsizeof(fitted) < sys.getsizeof(table) / 4
    assert room.refit(fitted) is fitted


@pytest.mark.usefixtures("unfrozen")
def test_what_many_clients_hold_is_apart_from_the_collector() -> None:
    collector, frozen = Collector(), gc.get_freeze_count()
    collector.tick(1000)
    assert gc.get_freeze_count() == frozen
    collector.tick(100_000)
    assert (apart := gc.get_freeze_count()) > frozen
    more = [[] for _ in range(1000)]  # type: ignore[var-annotated]
    collector.tick(110_000)
    assert gc.get_freeze_count() <= apart
    collector.tick(130_000)
    assert gc.get_freeze_count() >= apart + len(more) - 100
    collector.tick(20_000)
    assert gc.get_freeze_count() == 0
