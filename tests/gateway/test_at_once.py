"""The commonest commands take a short way where nothing waits; what comes back is the same."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Config, load
from gateway.engines import MemoryEngine
from tests.gateway.fakes import DEV, Client, World

_ALLOWED = {
    "client.allow_anonymous_connect_without_token": "true",
    "client.channel_limit": "2",
    "channel.without_namespace.allow_subscribe_for_client": "true",
    "channel.without_namespace.allow_subscribe_for_anonymous": "true",
    "channel.without_namespace.allow_publish_for_subscriber": "true",
    "channel.without_namespace.allow_publish_for_anonymous": "true",
}
CONFIGS = {
    "dev": DEV,
    "closed": load(flags={"client.allow_anonymous_connect_without_token": "true"}),
    "open": load(flags=_ALLOWED),
    "pushed": load(
        flags={
            **_ALLOWED,
            "channel.without_namespace.presence": "true",
            "channel.without_namespace.join_leave": "true",
            "channel.without_namespace.force_push_join_leave": "true",
            "channel.without_namespace.exclude_publisher": "true",
        }
    ),
    "recovered": load(
        flags={
            **_ALLOWED,
            "channel.without_namespace.history_size": "3",
            "channel.without_namespace.history_ttl": "60",
            "channel.without_namespace.force_recovery": "true",
        }
    ),
    "limited": load(flags={**_ALLOWED, "client.command_rate_limit": "5"}),
    "users": load(flags={**_ALLOWED, "channel.without_namespace.allow_user_limited_channels": "1"}),
}
CHANNELS = ("a", "b", "c", "$private", "none:such", "a#", "a#ann", "", "x" * 300, "é")

commands = st.fixed_dictionaries(
    {"id": st.integers(0, 3)},
    optional={
        "publish": st.fixed_dictionaries(
            {"channel": st.sampled_from(CHANNELS)},
            optional={"data": st.integers(), "type": st.integers(0, 1)},
        ),
        "subscribe": st.fixed_dictionaries(
            {"channel": st.sampled_from(CHANNELS)},
            optional={
                "join_leave": st.booleans(),
                "recover": st.booleans(),
                "token": st.just("x"),
                "type": st.integers(0, 1),
            },
        ),
        "unsubscribe": st.fixed_dictionaries({"channel": st.sampled_from(CHANNELS)}),
        "presence": st.fixed_dictionaries({"channel": st.sampled_from(CHANNELS)}),
        "connect": st.just({}),
    },
)
frames = st.lists(
    st.tuples(st.integers(0, 1), st.lists(commands, min_size=1, max_size=3), st.booleans()),
    max_size=20,
)


class LongWay(MemoryEngine):
    """The same engine, of which nothing is known."""

    def __init__(self) -> None:
        super().__init__()
        self.immediate = None


async def converse(
    config: Config, engine: MemoryEngine, talk: list[tuple[int, list[Any], bool]]
) -> list[Any]:
    """All that two clients get in this conversation, frame by frame, and how it ends for them."""
    async with World(config, engine) as world:
        clients = [world.open(), world.open()]
        names = []
        for client in clients:
            client.send({"id": 1, "connect": {}})
            [reply] = client.take()
            names.append(reply["connect"]["client"])
        heard: list[Any] = []

        def listen(client: Client) -> None:
            text = b"|".join(client.take_frames()).decode()
            for number, name in enumerate(names):
                text = text.replace(name, f"client {number}")
            heard.append(text)

        for who, said, binary in talk:
            lines = "\n".join(json.dumps(command) for command in said)
            clients[who].receive(lines.encode() if binary else lines)
            for client in clients:
                listen(client)
        counters = world.node.counters
        heard.append((counters.replies, counters.publications, world.node.limits.reached))
        for client in clients:
            heard.append(client.closed)
            client.leave()
        assert world.node.hub.channels == {}
        assert not engine._presence
        return heard


@settings(max_examples=40)
@given(st.sampled_from(sorted(CONFIGS)), frames)
async def test_the_short_way_and_the_long_way_are_one(
    config: str, talk: list[tuple[int, list[Any], bool]]
) -> None:
    heard = await converse(CONFIGS[config], MemoryEngine(), talk)
    expected = await converse(CONFIGS[config], LongWay(), talk)
    if config == "recovered":  # epochs are random
        heard, expected = [len(str(each)) for each in heard], [len(str(e)) for e in expected]
    assert heard == expected


async def test_what_is_simple_takes_no_coroutine() -> None:
    """Else this module proves nothing."""
    async with World() as world:
        client = world.client()

        async def execute(*args: object) -> None:
            raise AssertionError("the long way")

        world.protocol.execute = execute  # type: ignore[method-assign]
        for command in ("subscribe", "unsubscribe"):
            assert client.ask({command: {"channel": "a"}}) == {command: {}}
        assert client.ask({"publish": {"channel": "a", "data": 1}}) == {"publish": {}}


async def test_a_fault_of_ours_is_an_internal_error_on_the_short_way_too() -> None:
    async with World() as world:
        client = world.client()

        def publish(*args: object) -> None:
            raise RuntimeError

        world.node.engine.immediate.publish_now = publish  # type: ignore[method-assign, union-attr, assignment]
        reply = client.ask({"publish": {"channel": "a", "data": 1}})
        assert reply["error"]["code"] == 100
