"""A configuration that changes while clients are connected, and a stop that takes its time."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from gateway.config import ConfigError, load
from tests.gateway.fakes import World
from tests.gateway.test_cli import gateway as process_of
from tests.gateway.test_cli import read_until
from tests.gateway.test_gateway import client, make
from tests.gateway.test_identity import ann, config
from tests.gateway.tokens import SECRET, token

OTHER = "another secret, which is long enough for every algorithm: 64 bytes"


async def test_new_keys_channels_and_limits_apply_and_nobody_is_dropped() -> None:
    async with World(config(channel__without_namespace__allow_subscribe_for_client=True)) as world:
        old = ann(world)
        old.ask({"subscribe": {"channel": "a"}})
        world.node.reload(
            load(
                flags={
                    "client.token.hmac_secret_key": OTHER,
                    "client.user_connection_limit": 2,
                    "channel.namespaces": [{"name": "new", "allow_subscribe_for_client": True}],
                }
            )
        )
        assert old.closed is None
        assert old.ask({"subscribe": {"channel": "b"}})["error"]["code"] == 103
        assert "subscribe" in old.ask({"subscribe": {"channel": "new:b"}})
        assert old.ask({"unsubscribe": {"channel": "a"}}) == {"unsubscribe": {}}
        refused = world.open()
        refused.send({"id": 1, "connect": {"token": token("ann")}})
        assert refused.closed == (3500, "invalid token")
        world.client(token=token("ann", key=OTHER))
        third = world.open()
        third.send({"id": 1, "connect": {"token": token("ann", key=OTHER)}})
        assert third.closed == (3504, "connection limit")


async def test_a_namespace_that_goes_takes_nobody_out() -> None:
    chat = {
        "name": "chat",
        "allow_subscribe_for_client": True,
        "force_recovery": True,
        "history_size": 1,
        "history_ttl": 60,
    }
    async with World(config(channel__namespaces=[chat])) as world:
        client = ann(world)
        assert "subscribe" in client.ask({"subscribe": {"channel": "chat:a"}})
        world.node.reload(config())
        await world.node.members.check_positions()
        world.turn(100)
        assert client.ask({"subscribe": {"channel": "chat:b"}})["error"]["code"] == 102
        assert client.ask({"unsubscribe": {"channel": "chat:a"}}) == {"unsubscribe": {}}


async def test_a_fault_changes_nothing() -> None:
    async with World(config()) as world:
        with pytest.raises(ConfigError):
            world.node.reload(load(flags={"client.token.rsa_public_key": "x"}))
        ann(world)


async def test_what_needs_a_restart_stays_as_it_is() -> None:
    async with make() as gateway:
        gateway.reload(load(flags={"http_server.port": 1, "client.allowed_origins": ["x"]}))
        assert gateway.config.http_server.port == 0
        assert gateway.config.dev
        assert gateway.config.client.allowed_origins == ["x"]
        async with await client(gateway):
            pass


def test_sighup_reads_the_file_again_or_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f'[client.token]\nhmac_secret_key = "{SECRET}"\n')
    with process_of("serve", "--port", "0", "--config", str(file)) as process:
        read_until(process, "listening")
        process.send_signal(signal.SIGHUP)
        read_until(process, "reloaded")
        file.write_text("[client]\nchannel_limit = -1\n")
        process.send_signal(signal.SIGHUP)
        assert "client.channel_limit" in read_until(process, "not reloaded")[-1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


async def test_a_stop_closes_clients_in_batches() -> None:
    async with make(shutdown__close_rate=20) as gateway:  # two at once
        clients = [await client(gateway) for _ in range(6)]
        alive = []
        disconnect_all = gateway.node.disconnect_all

        async def count(*args: object) -> None:
            alive.append(len(gateway.node.clients))
            await disconnect_all(*args)  # type: ignore[arg-type]

        gateway.node.disconnect_all = count  # type: ignore[method-assign]
        await gateway.stop()
        assert alive == [6, 4, 2]
        for each in clients:
            assert await each.closed() == (3001, "shutdown")
