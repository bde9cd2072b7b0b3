"""Whatever clients do, publications reach exactly those who are in the channel, in order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.fakes import Client, World

CLIENTS, CHANNELS = 4, ("a", "b", "c")

steps = st.lists(
    st.tuples(
        st.sampled_from(["subscribe", "unsubscribe", "publish", "leave", "garbage"]),
        st.integers(0, CLIENTS - 1),
        st.sampled_from(CHANNELS),
    ),
    max_size=60,
)


def pushes(client: Client) -> list[Any]:
    told = [reply["push"] for reply in client.take() if "push" in reply]
    return [(push["channel"], push["pub"]["data"]) for push in told]


@given(steps)
async def test_publications_reach_exactly_the_subscribers(
    steps: list[tuple[str, int, str]],
) -> None:
    async with World() as world:
        clients = [world.client() for _ in range(CLIENTS)]
        subscribed: list[set[str]] = [set() for _ in clients]
        wanted: list[list[Any]] = [[] for _ in clients]
        for number, (what, who, channel) in enumerate(steps):
            client = clients[who]
            if what in ("leave", "garbage"):
                if what == "garbage":
                    client.receive("garbage")
                assert pushes(client) == wanted[who]
                client.leave()
                clients[who] = world.client()
                subscribed[who], wanted[who] = set(), []
                continue
            client.send({"id": number + 1, what: {"channel": channel, "data": number}})
            if what == "subscribe":
                subscribed[who].add(channel)
            elif what == "unsubscribe":
                subscribed[who].discard(channel)
            else:
                for other, channels in enumerate(subscribed):
                    if channel in channels:
                        wanted[other].append((channel, number))
        for client, expected in zip(clients, wanted, strict=True):
            assert pushes(client) == expected
        assert world.node.hub.subscriptions == sum(map(len, subscribed))
        for channel in CHANNELS:
            present = (await world.node.presence_stats(channel)).num_clients
            assert present == sum(channel in channels for channels in subscribed)
        for client in clients:
            client.leave()
        assert world.node.hub.channels == {}
        assert world.node.hub.subscriptions == 0
        assert world.node.counters.connections == world.node.counters.sessions == 0


async def test_a_session_that_left_is_freed_at_once() -> None:
    """Without waiting for the garbage collector, which pauses a process with many clients."""
    async with World() as world:
        client = world.client()
        client.ask({"subscribe": {"channel": "a"}})
        client.leave()
        assert client.session.transport is not client.connection
        assert client.session.subscriptions == ()
