"""One sweep pings who is due, and gives up who is silent."""

from __future__ import annotations

import time

import numpy as np
import pytest

from gateway.codes import Disconnect
from gateway.config import load
from gateway.heartbeat import Heartbeat
from gateway.session import Session
from tests.gateway.fakes import FakeConnection, World


async def test_the_first_ping_comes_in_the_second_half_of_the_interval() -> None:
    async with World() as world:
        clients = [world.client() for _ in range(300)]
        begin = world.now
        world.heartbeat.sweep(begin + 12.4)
        assert world.pinged == []
        counts = []
        for second in range(13, 26):
            world.heartbeat.sweep(begin + second)
            counts.append(len(world.pinged))
        assert sorted(s.slot for s in world.pinged) == [c.session.slot for c in clients]
        assert 90 < counts[5] < 210  # about half of them after half of that time


async def test_who_answers_is_pinged_again_an_interval_later() -> None:
    async with World() as world:
        client = world.client()
        now = world.now + 25
        for _ in range(3):
            world.heartbeat.sweep(now)
            assert world.pinged == [client.session]
            world.pinged.clear()
            world.last_seen[client.session.slot] = now + 0.1
            world.heartbeat.sweep(now + 8)
            world.heartbeat.sweep(now + 24.9)
            assert world.pinged == []
            now += 25
        assert client.closed is None


async def test_who_is_silent_after_a_ping_is_closed_with_3012() -> None:
    async with World() as world:
        client = world.client()
        now = world.now + 25
        world.last_seen[client.session.slot] = now - 0.1
        world.heartbeat.sweep(now)
        world.heartbeat.sweep(now + 7.9)
        assert client.closed is None
        world.heartbeat.sweep(now + 8)
        assert client.closed == (3012, "no pong")
        world.heartbeat.sweep(now + 100)
        assert world.node.counters.disconnects == {"3012": 1}


async def test_who_does_not_connect_in_time_is_closed_with_3502() -> None:
    async with World() as world:
        silent, client = world.open(), world.client()
        world.heartbeat.sweep(world.now + 9.9)
        assert silent.closed is None
        world.heartbeat.sweep(world.now + 10)
        assert silent.closed == (3502, "stale")
        assert client.closed is None


async def test_a_slot_used_again_starts_anew() -> None:
    async with World() as world:
        first = world.client()
        world.heartbeat.sweep(world.now + 25)
        first.leave()
        world._slots = first.session.slot
        second = world.open()
        assert second.session.slot == first.session.slot
        world.heartbeat.sweep(world.now + 5)
        assert second.closed is None


async def test_pings_and_the_stale_delay_can_be_off() -> None:
    config = load(flags={"dev": True, "client.ping_interval": 0, "client.stale_close_delay": 0})
    async with World(config) as world:
        silent, client = world.open(), world.client()
        world.heartbeat.sweep(world.now + 1e6)
        assert world.pinged == []
        assert (silent.closed, client.closed) == (None, None)


def table(rows: int) -> tuple[Heartbeat, list[Session]]:
    pinged: list[Session] = []

    def dead(session: Session, disconnect: Disconnect) -> None:
        raise AssertionError

    heartbeat = Heartbeat(
        np.full(rows, np.inf),  # everyone answers
        interval=25,
        timeout=8,
        stale_delay=10,
        on_ping=pinged.extend,
        on_dead=dead,
    )
    connection, endpoint = FakeConnection(), World().endpoint
    for slot in range(rows):
        session = Session(endpoint)
        session.transport, session.slot = connection, slot
        heartbeat.open(session, 0.0)
        heartbeat.begin(session, 0.0)
    return heartbeat, pinged


@pytest.mark.slow
def test_a_sweep_over_100_000_connections_takes_less_than_a_millisecond() -> None:
    heartbeat, pinged = table(100_000)
    # Steady state: pings spread over 25 s, so a sweep each 0.25 s finds about 1% of them due.
    took = []
    for step in range(40):
        begin = time.perf_counter()
        heartbeat.sweep(12.5 + step * 0.25)
        took.append(time.perf_counter() - begin)
    assert len(pinged) > 1000
    assert min(took) < 0.001
