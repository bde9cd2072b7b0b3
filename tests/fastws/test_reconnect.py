"""``async for ws in connect(…)``: when it connects again, and when not."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest

import fastws
from fastws import reconnect
from fastws.http import Response
from tests.fastws.client import echo, serve, url
from tests.fastws.raw_server import ServerPeer, no_proxy, raw_server

pytestmark = pytest.mark.usefixtures("loop_kind", "no_proxy")

__all__ = ["no_proxy"]


def at_once() -> Iterator[float]:
    return itertools.repeat(0.0)


async def test_a_new_connection_follows_each_that_ended_well(carrier: str) -> None:
    def never() -> Iterator[float]:
        raise AssertionError("nothing to wait for")

    async def handler(ws: fastws.ServerConnection) -> None:
        await ws.send(str(len(seen)))
        await ws.close(1001)

    seen: list[Any] = []
    async with serve(handler, carrier) as server:
        connecting = fastws.connect(url(server), carrier=carrier, reconnect_delays=never)
        async for ws in connecting:
            seen.append(ws)
            assert [message async for message in ws] == [str(len(seen) - 1)]
            if len(seen) == 4:
                break
        assert len(set(seen)) == 4
        await asyncio.gather(*(ws.wait_closed() for ws in seen))


async def test_the_connection_is_closed_behind_the_body(carrier: str) -> None:
    async with serve(echo, carrier) as server:
        last: fastws.ClientConnection | None = None
        async for ws in fastws.connect(url(server), carrier=carrier):
            if last is not None:
                assert last.close_code == 1000
                break
            last = ws
        await ws.wait_closed()


async def test_failures_that_may_pass_are_tried_again(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter(
        [
            b"",
            b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
            None,
        ]
    )
    delays: list[float] = []

    def counting() -> Iterator[float]:
        for number in itertools.count():
            delays.append(number)
            yield 0.001 * number

    async def handler(peer: ServerPeer) -> None:
        answer = next(answers)
        if answer is None:
            await peer.accept()
            await peer.close_handshake()
        else:
            await peer.request()
            await peer.send(answer)

    caplog.set_level(logging.INFO, "fastws.client")
    async with raw_server(handler) as uri:
        async for ws in fastws.connect(uri, carrier=carrier, reconnect_delays=counting):
            await ws.close()
            break
    assert delays == [0, 1, 2]
    texts = [record.getMessage() for record in caplog.records if record.name == "fastws.client"]
    assert len(texts) == 3
    assert "0.0 seconds: fastws.exceptions.InvalidMessage: the server closed" in texts[0]
    assert "HTTP 503" in texts[1]


async def test_a_connection_that_breaks_at_once_counts_as_a_failure(carrier: str) -> None:
    begun: list[float] = []

    def counting() -> Iterator[float]:
        for number in itertools.count():
            begun.append(number)
            yield 0.0

    async def handler(peer: ServerPeer) -> None:
        await peer.accept()

    async with raw_server(handler) as uri:
        count = 0
        async for ws in fastws.connect(uri, carrier=carrier, reconnect_delays=counting):
            with pytest.raises(fastws.ConnectionClosedError):
                await ws.recv()
            count += 1
            if count == 3:
                break
    assert begun == [0, 1]


@pytest.mark.parametrize("status", [400, 401, 404, 501])
async def test_other_failures_are_final(carrier: str, status: int) -> None:
    def refuse(ws: fastws.ServerConnection, request: fastws.Request) -> Response:
        return ws.respond(status, "no")

    async with serve(echo, carrier, process_request=refuse) as server:
        with pytest.raises(fastws.InvalidStatus):
            async for _ in fastws.connect(url(server), carrier=carrier):
                pass


async def test_process_exception_decides(carrier: str) -> None:
    attempts: list[Exception] = []

    def thrice(error: Exception) -> Exception | None:
        attempts.append(error)
        return None if len(attempts) < 3 else KeyError("enough")

    def refuse(ws: fastws.ServerConnection, request: fastws.Request) -> Response:
        return ws.respond(404, "no")

    async with serve(echo, carrier, process_request=refuse) as server:
        connecting = fastws.connect(
            url(server), carrier=carrier, process_exception=thrice, reconnect_delays=at_once
        )
        with pytest.raises(KeyError, match="enough") as caught:
            async for _ in connecting:
                pass
    assert len(attempts) == 3
    assert isinstance(caught.value.__cause__, fastws.InvalidStatus)


def test_which_failures_may_pass() -> None:
    lost = fastws.InvalidMessage("lost")
    lost.__cause__ = EOFError()
    passing = [OSError(), TimeoutError(), ConnectionRefusedError(), lost]
    final = [
        fastws.InvalidMessage("garbage"),
        fastws.InvalidURI("x", "y"),
        fastws.NegotiationError("z"),
        fastws.SecurityError("z"),
        ValueError(),
    ]
    assert [reconnect.process_exception(error) for error in passing] == [None] * len(passing)
    assert [reconnect.process_exception(error) for error in final] == final


def test_delays_are_drawn_from_a_range_that_doubles_up_to_a_minute() -> None:
    draws = [list(itertools.islice(reconnect.backoff(), 8)) for _ in range(500)]
    for step, bound in enumerate([5, 10, 20, 40, 60, 60, 60, 60]):
        column = [draw[step] for draw in draws]
        assert 0 <= min(column) < bound * 0.1
        assert bound * 0.9 < max(column) <= bound
