"""The memory engine: history, presence and events within one process."""

from __future__ import annotations

from msgspec import Raw

from gateway.engines import HistoryQuery, HistorySettings, MemoryEngine, Once
from gateway.engines.base import IDEMPOTENCY_TTL
from gateway.engines.memory import META_TTL
from gateway.model import ClientInfo, PresenceStats, Publication, StreamPosition

ALL = HistoryQuery(limit=-1)


class Events:
    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    def on_publication(self, channel: str, publication: Publication, epoch: str) -> None:
        self.seen.append((channel, publication))

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self.seen.append((channel, info))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self.seen.append((channel, info))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def make() -> tuple[MemoryEngine, Events, Clock]:
    events, clock = Events(), Clock()
    engine = MemoryEngine(clock)
    await engine.start(events)
    return engine, events, clock


def pub(text: bytes) -> Publication:
    return Publication(Raw(text))


async def test_events_are_delivered_at_once_and_no_more_after_close() -> None:
    engine, events, _ = await make()
    publication, info = pub(b"1"), ClientInfo("c", "u")
    assert await engine.publish("a", publication, None) == StreamPosition(0, "")
    await engine.publish_join("a", info)
    await engine.publish_leave("a", info)
    assert events.seen == [("a", publication), ("a", info), ("a", info)]
    await engine.close()
    await engine.publish("a", publication, None)
    assert len(events.seen) == 3


async def test_a_channel_may_be_known_for_a_time_of_its_own() -> None:
    engine, _, clock = await make()
    settings = HistorySettings(10, 5.0, 60.0)
    first = await engine.publish("a", pub(b"1"), settings)
    for now, same in ((59.0, True), (61.0, False)):
        clock.now = now
        engine.tick()
        _, place = await engine.history("a", ALL, settings)
        assert (place == first) == same


async def test_history_keeps_the_newest_by_size() -> None:
    engine, _, _ = await make()
    settings = HistorySettings(size=2, ttl=10)
    positions = [await engine.publish("a", pub(text), settings) for text in (b"1", b"2", b"3")]
    assert [position.offset for position in positions] == [1, 2, 3]
    found, top = await engine.history("a", ALL, settings)
    assert [(p.offset, bytes(p.data)) for p in found] == [(2, b"2"), (3, b"3")]
    assert top == positions[-1]


async def test_history_ends_with_its_time_and_its_position_stays() -> None:
    engine, _, clock = await make()
    settings = HistorySettings(size=10, ttl=10)
    first = await engine.publish("a", pub(b"1"), settings)
    clock.now = 6
    await engine.publish("a", pub(b"2"), settings)
    clock.now = 10
    found, _ = await engine.history("a", ALL, settings)
    assert [bytes(p.data) for p in found] == [b"2"]
    clock.now = 1000
    engine.tick()
    found, top = await engine.history("a", ALL, settings)
    assert (found, top) == ([], StreamPosition(2, first.epoch))
    clock.now = 6 + META_TTL
    engine.tick()
    _, top = await engine.history("a", ALL, settings)
    assert top.offset == 0
    assert top.epoch != first.epoch


async def test_memory_of_channels_that_ended_comes_back() -> None:
    engine, _, clock = await make()
    settings = HistorySettings(size=1, ttl=1)
    for number in range(100):
        await engine.publish(f"c{number}", pub(b"1"), settings)
        await engine.history(f"d{number}", ALL, settings)
    clock.now = 2 * META_TTL
    engine.tick()
    assert (engine._streams, engine._expiries) == ({}, [])


async def test_a_channel_is_looked_at_once_whatever_is_published_in_it() -> None:
    engine, _, clock = await make()
    settings = HistorySettings(size=1, ttl=1)
    for step in range(100):
        clock.now = step / 10
        await engine.publish("a", pub(b"1"), settings)
    assert len(engine._expiries) == 1


async def test_removed_history_does_not_give_offsets_away_twice() -> None:
    engine, _, _ = await make()
    settings = HistorySettings(size=10, ttl=10)
    await engine.publish("a", pub(b"1"), settings)
    await engine.history_remove("a")
    await engine.history_remove("never heard of")
    found, top = await engine.history("a", ALL, settings)
    assert (found, top.offset) == ([], 1)
    assert (await engine.publish("a", pub(b"2"), settings)).offset == 2


async def test_a_key_is_published_once_within_its_time() -> None:
    engine, events, clock = await make()
    settings = HistorySettings(size=10, ttl=10)
    once = Once("order 7")
    first = await engine.publish("a", pub(b"1"), settings, once)
    assert await engine.publish("a", pub(b"2"), settings, once) == first
    assert (await engine.publish("b", pub(b"3"), settings, once)).epoch != first.epoch
    assert len(events.seen) == 2
    clock.now = IDEMPOTENCY_TTL
    assert (await engine.publish("a", pub(b"4"), settings, once)).offset == 2
    clock.now = 2 * IDEMPOTENCY_TTL
    engine.tick()
    assert engine._made == {}


async def test_an_older_version_is_not_published() -> None:
    engine, events, _ = await make()
    settings = HistorySettings(size=10, ttl=10)
    assert (await engine.publish("a", pub(b"2"), settings, Once(version=2))).offset == 1
    assert (await engine.publish("a", pub(b"1"), settings, Once(version=1))).offset == 1
    assert (await engine.publish("a", pub(b"2"), settings, Once(version=2))).offset == 1
    anew = Once(version=1, version_epoch="x")
    assert (await engine.publish("a", pub(b"1"), settings, anew)).offset == 2
    assert len(events.seen) == 2


async def test_presence_counts_clients_and_users() -> None:
    engine, _, _ = await make()
    infos = [ClientInfo("1", "ann"), ClientInfo("2", "ann"), ClientInfo("3", "bob")]
    for info in infos:
        await engine.presence_add("a", info)
    await engine.presence_add("a", infos[0])
    assert await engine.presence("a") == {info.client: info for info in infos}
    assert await engine.presence_stats("a") == PresenceStats(3, 2)
    for info in infos:
        await engine.presence_remove("a", info)
    await engine.presence_remove("a", infos[0])
    assert await engine.presence("a") == {}
    assert engine._presence == {}
