"""Calls of the API on connections as they come: whole, in parts, several at once, and cut off."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api import Door, make_door
from gateway.config import load
from gateway.http import make_app
from gateway.http_server import HttpSide
from gateway.server import Gateway
from tests.gateway.fakes import SlowEngine, World

KEY = "the key"
CONFIG = load(flags={"http_api.key": KEY, "http_api.body_size_limit": 200_000, "dev": True})


class FakeTransport:
    """Keeps what is written, each write by itself."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_extra_info(self, name: str) -> Any:
        return None

    def answers(self) -> list[tuple[int, Any]]:
        """The status and the JSON of each response so far."""
        found, data = [], b"".join(self.writes)
        self.writes.clear()
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body, data = data[:length], data[length:]
            found.append((int(head.split()[1]), json.loads(body)))
        return found


class Caller:
    """A connection of a backend to a node, without a socket."""

    def __init__(self, side: HttpSide) -> None:
        self.transport = FakeTransport()
        self.side = side
        self._protocol = side.protocol_factory()
        self._protocol.connection_made(cast(asyncio.Transport, self.transport))

    def send(self, data: bytes) -> None:
        self._protocol.data_received(data)

    def pause(self) -> None:
        self._protocol.pause_writing()

    def resume(self) -> None:
        self._protocol.resume_writing()

    def lose(self) -> None:
        self._protocol.connection_lost(None)

    async def settle(self) -> None:
        """Let tasks go on."""
        for _ in range(10):
            await asyncio.sleep(0)


@asynccontextmanager
async def caller(engine: SlowEngine | None = None) -> AsyncIterator[Caller]:
    async with World(CONFIG, engine) as world:
        one = Caller(HttpSide(make_app(world.node), make_door(world.node)))
        yield one
        one.lose()


def call(method: str = "publish", body: Any = None, head: str = "", version: str = "1.1") -> bytes:
    content = json.dumps(body or {"channel": "a", "data": 1}).encode()
    lines = f"POST /api/{method} HTTP/{version}\r\nX-API-Key: {KEY}\r\n{head}"
    return f"{lines}Content-Length: {len(content)}\r\n\r\n".encode() + content


PUBLISHED = (200, {"result": {}})

at_once = pytest.mark.skipif(
    not hasattr(HttpToolsProtocol, "_start_asgi_task"), reason="this uvicorn starts tasks itself"
)


@at_once
async def test_a_call_that_comes_whole_is_answered_at_once_by_one_write() -> None:
    async with caller() as backend:
        backend.send(call())
        assert len(backend.transport.writes) == 1
        assert b"\r\ndate: " in backend.transport.writes[0]
        assert backend.transport.answers() == [PUBLISHED]
        assert not backend.side.state.tasks


@at_once
async def test_a_caller_is_told_that_its_connection_ends() -> None:
    async with caller() as backend:
        backend.send(call(version="1.0"))
        assert b"\r\nconnection: close\r\n" in backend.transport.writes[0]
        assert backend.transport.closed


@at_once
async def test_a_pipeline_of_calls_is_answered_in_order() -> None:
    async with caller() as backend:
        backend.send(call() + call("nothing") + call("channels") + call())
        await backend.settle()
        answers = backend.transport.answers()
        assert [status for status, _ in answers] == [200, 404, 200, 200]
        assert answers[2] == (200, {"result": {"channels": {}}})


async def test_a_call_may_come_in_parts() -> None:
    async with caller() as backend:
        text = call(body={"channel": "a", "data": "x" * 150_000})
        for begin in range(0, len(text), 60_000):
            backend.send(text[begin : begin + 60_000])
            await backend.settle()
        assert backend.transport.answers() == [PUBLISHED]
        backend.send(call())
        await backend.settle()
        assert backend.transport.answers() == [PUBLISHED]


async def test_a_call_that_is_too_large_is_refused_whole_or_in_parts() -> None:
    async with caller() as backend:
        text = call(body={"channel": "a", "data": "x" * 200_000})
        backend.send(text)
        await backend.settle()
        assert [status for status, _ in backend.transport.answers()] == [413]
        backend.send(text[:150_000])
        await backend.settle()
        backend.send(text[150_000:])
        await backend.settle()
        backend.send(call())
        await backend.settle()
        assert [status for status, _ in backend.transport.answers()] == [413, 200]


async def test_a_body_that_is_waited_for_is_asked_for() -> None:
    async with caller() as backend:
        head, _, body = call(head="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
        backend.send(head + b"\r\n\r\n")
        await backend.settle()
        assert backend.transport.writes.pop(0).startswith(b"HTTP/1.1 100 ")
        backend.send(body)
        await backend.settle()
        assert backend.transport.answers() == [PUBLISHED]


@pytest.mark.parametrize(
    ("text", "closes"),
    [
        (call(), False),
        (call(head="Connection: close\r\n"), True),
        (call(version="1.0"), True),
    ],
)
async def test_the_connection_stays_open_where_the_caller_wants_it(
    text: bytes, closes: bool
) -> None:
    async with caller() as backend:
        backend.send(text)
        await backend.settle()
        assert backend.transport.answers() == [PUBLISHED]
        assert backend.transport.closed is closes


async def test_a_call_that_has_to_wait_goes_on_in_a_task() -> None:
    engine = SlowEngine()
    async with caller(engine) as backend:
        backend.send(call() + call("nothing"))
        await backend.settle()
        assert backend.transport.answers() == []
        assert len(backend.side.state.tasks) == 1
        await engine.let_go()
        await backend.settle()
        assert [status for status, _ in backend.transport.answers()] == [200, 404]
        assert not backend.side.state.tasks


async def test_nobody_is_answered_who_has_left() -> None:
    engine = SlowEngine()
    async with caller(engine) as backend:
        backend.send(call())
        await backend.settle()
        backend.lose()
        await engine.let_go()
        await backend.settle()
        assert backend.transport.writes == []
        assert not backend.side.state.tasks


async def test_a_caller_that_does_not_read_is_waited_for() -> None:
    async with caller() as backend:
        backend.pause()
        backend.send(call() + call())
        await backend.settle()
        assert backend.transport.writes == []
        backend.resume()
        await backend.settle()
        assert backend.transport.answers() == [PUBLISHED, PUBLISHED]


class Broken(Door):
    async def answer(
        self, scope: Scope, receive: Receive, body: bytes | None = None
    ) -> tuple[int, bytes]:
        raise RuntimeError("a bug")


@at_once
async def test_a_bug_is_a_500_and_the_end_of_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with World(CONFIG) as world:
        backend = Caller(HttpSide(make_app(world.node), Broken(world.node)))
        with caplog.at_level(logging.ERROR, "uvicorn.error"):
            backend.send(call())
        assert backend.transport.writes[0].startswith(b"HTTP/1.1 500 ")
        assert backend.transport.closed
        assert "a bug" in caplog.text
        backend.lose()


async def test_the_router_has_the_api_as_well() -> None:
    """For what is no call: other paths and methods, and a uvicorn that starts tasks itself."""
    async with caller() as backend:
        backend.side.door = None
        backend.send(call() + call("nothing"))
        await backend.settle()
        assert [status for status, _ in backend.transport.answers()] == [200, 404]
        backend.send(b"GET /api/publish HTTP/1.1\r\n\r\n")
        await backend.settle()
        assert backend.transport.writes[0].startswith(b"HTTP/1.1 405 ")


@at_once
async def test_an_app_gets_what_the_door_does_not_take() -> None:
    paths = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        paths.append(scope["path"])

    async with World(CONFIG) as world:
        backend = Caller(HttpSide(app, make_door(world.node)))
        backend.send(call() + call("nothing") + b"GET /api/publish HTTP/1.1\r\n\r\n")
        await backend.settle()
        assert paths[0] == "/api/nothing"
        backend.lose()


async def test_an_internal_port_keeps_the_api_to_itself() -> None:
    flags = {"http_server.port": 0}
    config = load(flags={"dev": True, "http_api.key": KEY, **flags})
    gateway = Gateway(config)
    assert gateway._http.door is not None
    flags["http_server.internal_port"] = 0
    gateway = Gateway(load(flags={"dev": True, "http_api.key": KEY, **flags}))
    assert gateway._http.door is None
    assert gateway._internal_http.door is not None
