"""Logs: who it was about, and no more lines than one can read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from gateway import log
from gateway.app import App, ConnectEvent, ConnectReply, RpcEvent, RpcReply
from gateway.app.base import Headers
from gateway.config import load
from gateway.log import Seldom
from tests.gateway.fakes import World
from tests.gateway.test_app import Client, ask, config, running, settle
from tests.gateway.test_gateway import make, url
from tests.gateway.tokens import SECRET, token


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **about: Any) -> None:
        self.lines.append((event, about))

    debug = warning = info


def test_a_line_comes_once_a_second_for_each_key_and_tells_how_many_did_not() -> None:
    log, now = Lines(), 5.0
    seldom = Seldom(log, lambda: now)
    for number in range(10):
        seldom.warning("failed", "a", number=number)
        seldom.info("failed", "b")
    assert log.lines == [("failed", {"number": 0}), ("failed", {})]
    now += 1
    seldom.warning("failed", "a", number=10)
    assert log.lines[-1] == ("failed", {"number": 10, "skipped": 9})
    now += 1
    seldom.warning("failed", "a", number=11)
    assert log.lines[-1] == ("failed", {"number": 11})


async def test_a_client_has_its_id_in_logs_before_it_has_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Lines()
    for module in "protocols.centrifuge.protocol", "admission", "node":
        monkeypatch.setattr(f"gateway.{module}.log", log)
    flags = {"client.token.hmac_secret_key": SECRET, "log.level": "debug"}
    async with World(load(flags=flags)) as world:
        garbled = world.open()
        garbled.send("garbage")
        client = world.open()
        name = client.session.id
        assert client.connect(token=token("ann")) == name
        client.leave()
        lines = [(event, about["client"]) for event, about in log.lines]
        assert lines == [
            ("client refused", garbled.session.id),
            ("client ended", garbled.session.id),
            ("client connected", name),
            ("client ended", name),
        ]
        assert len({name, garbled.session.id, ""}) == 3


class Dead(App):
    """Lets everyone in, and then has nobody to ask."""

    async def connect(self, event: ConnectEvent, headers: Headers) -> ConnectReply:
        return ConnectReply()

    async def rpc(self, event: RpcEvent, headers: Headers) -> RpcReply:
        raise OSError("nobody is there")


async def test_a_dead_application_is_told_of_once_and_not_for_each_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Lines()
    monkeypatch.setattr("gateway.protocols.centrifuge.protocol.seldom", Seldom(log))
    async with World(config(), app=Dead()) as world:
        client = world.open()
        await ask(client, {"connect": {}})
        for _ in range(20):
            assert (await ask(client, {"rpc": {}}))["error"]["code"] == 100
        await settle()
        name = client.session.id
        assert log.lines == [("out of reach", {"client": name, "error": "nobody is there"})]


async def test_a_failing_webhook_is_told_of_once_with_the_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Lines()
    monkeypatch.setattr("gateway.app.webhooks.seldom", Seldom(log))
    async with (
        running(lambda *_: web.Response(status=500)) as (gateway, _),
        Client(await connect(url(gateway))) as client,
    ):
        for _ in range(10):
            assert (await client.ask({"connect": {}}))["error"]["code"] == 100
    [(event, about)] = log.lines
    assert (event, about["event_name"]) == ("webhook failed", "connect")
    assert len(about["client"]) == 36


async def test_refused_pages_and_limits_are_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Lines()
    for module in "server", "limits":
        monkeypatch.setattr(f"gateway.{module}.seldom", Seldom(log))
    async with make(client__ip_connection_limit=1) as gateway, connect(url(gateway)):
        for options in ({"origin": Origin("https://evil.example")}, {}):
            for _ in range(3):
                with pytest.raises(InvalidStatus):
                    await connect(url(gateway), **options)
    limit = {"limit": "ip_connection_limit", "address": "127.0.0.1"}
    assert log.lines == [
        ("origin refused", {"origin": "'https://evil.example'", "address": "127.0.0.1"}),
        ("limit reached", limit),
    ]


@pytest.fixture
def loggers() -> Iterator[None]:
    """Leaves them as they were."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("loggers")
@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("trace", ["debug", "info", "warning", "error", "critical"]),
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("warn", ["warning", "error", "critical"]),
        ("warning", ["warning", "error", "critical"]),
        ("error", ["error", "critical"]),
        ("fatal", ["critical"]),
        ("none", []),
    ],
)
def test_levels_have_centrifugos_names(
    level: str, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(load(flags={"log.level": level, "log.format": "json"}).log)
    names = ["debug", "info", "warning", "error", "critical"]
    logger = structlog.get_logger()
    for name in names:
        getattr(logger, name)(f"by {name}")
    lines = capsys.readouterr().err.splitlines()
    assert [name for name in names if any(f"by {name}" in line for line in lines)] == said
