"""Connections are cut at random while somebody publishes: what do subscribers get?

The client is `centrifuge-python`, which reconnects and recovers by itself. A checker reads what
each of them saw. In the channel a publication's data is its offset, so that every loss, duplicate
and reordering shows, and a loss is excused only by a subscription that was told that it missed
something.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import centrifuge
import pytest
from msgspec import Raw

from gateway.config import load
from gateway.server import Gateway
from tests.e2e.network import Network
from tests.gateway.tokens import SECRET, token

CLIENTS = 6
ROUNDS = 4  # subscriptions of each client, the first included
SECONDS = 12.0  # at most: a busy machine reconnects slowly

pytestmark = pytest.mark.time_limit(60)


class Observer(centrifuge.SubscriptionEventHandler):
    """Writes down what a subscriber sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.subscribed = 0

    @property
    def last(self) -> int:
        return self.seen[-1][1] if self.seen else 0

    async def on_subscribed(self, ctx: centrifuge.SubscribedContext) -> None:
        self.subscribed += 1
        if not ctx.recovered:
            assert ctx.stream_position is not None
            self.seen.append(("anew", ctx.stream_position.offset))

    async def on_publication(self, ctx: centrifuge.PublicationContext) -> None:
        assert ctx.pub.offset == ctx.pub.data
        self.seen.append(("publication", ctx.pub.offset))


def check(seen: list[tuple[str, int]], *, may_lose: bool) -> int:
    """Find any loss, duplicate or reordering. Gives the number of times it began anew."""
    position, restarts = None, 0
    for what, offset in seen:
        if what == "anew":
            assert position is None or (may_lose and offset > position), "lost without need"
            restarts += 1
        else:
            assert position is not None and offset == position + 1, (position, offset)
        position = offset
    return restarts


def test_the_checker_finds_what_it_is_to_find() -> None:
    good = [("anew", 0), ("publication", 1), ("publication", 2)]
    assert check(good, may_lose=False) == 1
    assert check([*good, ("anew", 9), ("publication", 10)], may_lose=True) == 2
    for bad in (
        [*good, ("publication", 4)],  # lost
        [*good, ("publication", 2)],  # twice
        [*good, ("publication", 1)],  # out of order
        [("publication", 1)],  # before the subscription
        [*good, ("anew", 2)],  # nothing was missing
    ):
        with pytest.raises(AssertionError):
            check(bad, may_lose=True)
    with pytest.raises(AssertionError):
        check([*good, ("anew", 9)], may_lose=False)


async def publish(gateway: Gateway, chance: random.Random, done: asyncio.Event) -> int:
    """Publish in bursts until it is enough. Gives the last offset."""
    number = 0
    while not done.is_set():
        for _ in range(chance.randrange(1, 8)):
            number += 1
            place = await gateway.node.publish("news", Raw(str(number).encode()))
            assert place.offset == number
        await asyncio.sleep(chance.uniform(0, 0.01))
    return number


async def cut(network: Network, chance: random.Random, done: asyncio.Event) -> None:
    while not done.is_set():
        await asyncio.sleep(chance.uniform(0.05, 0.4))
        network.cut(chance.choice([0.2, 0.5, 1.0]), chance)


async def run(seed: int, history_size: int, **options: Any) -> list[Observer]:
    """Subscribers behind a bad network. Gives what they saw, once they have the last one."""
    chance = random.Random(seed)
    settings = {
        "http_server.port": 0,
        "client.token.hmac_secret_key": SECRET,
        "client.recovery_max_publication_limit": 0,
        "channel.without_namespace.history_size": history_size,
        "channel.without_namespace.history_ttl": "1m",
        "channel.without_namespace.force_recovery": True,
        "channel.without_namespace.allow_subscribe_for_client": True,
    }
    observers, clients = [Observer() for _ in range(CLIENTS)], []
    done = asyncio.Event()
    async with Gateway(load(flags=settings)) as gateway, Network(gateway.port) as network:
        for observer in observers:
            client = centrifuge.Client(
                f"ws://127.0.0.1:{network.port}/connection/websocket",
                token=token("ann"),
                proxy=None,
                **options,
            )
            subscription = client.new_subscription("news", observer, min_resubscribe_delay=0.01)
            await client.connect()
            await subscription.subscribe()
            await subscription.ready()
            clients.append(client)
        publishing = asyncio.create_task(publish(gateway, chance, done))
        cutting = asyncio.create_task(cut(network, chance, done))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                while any(observer.subscribed < ROUNDS for observer in observers):
                    await asyncio.sleep(0.02)
        done.set()
        last = await publishing
        await cutting
        while any(observer.last < last for observer in observers):
            await asyncio.sleep(0.02)
        for client in clients:
            await client.disconnect()
        assert all(observer.subscribed > 1 for observer in observers), "nobody was cut off"
    return observers


@pytest.mark.parametrize("seed", [1, 2])
async def test_within_the_history_nothing_is_lost_doubled_or_reordered(seed: int) -> None:
    observers = await run(
        seed, 100_000, min_reconnect_delay=0.01, max_reconnect_delay=0.1
    )
    for observer in observers:
        assert check(observer.seen, may_lose=False) == 1


@pytest.mark.parametrize("seed", [3])
async def test_beyond_the_history_a_loss_is_always_told(seed: int) -> None:
    observers = await run(seed, 15, min_reconnect_delay=0.05, max_reconnect_delay=0.3)
    restarts = [check(observer.seen, may_lose=True) for observer in observers]
    assert max(restarts) > 1, "the network was too good for this test"
