"""``async for ws in connect(…)``: when it connects again, and when not."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterator

import pytest

import fastws
from fastws import reconnect
from fastws.http import Response
from tests.fastws.certificates import server_context
from tests.fastws.client import Held, echo, serve, url
from tests.fastws.raw_server import ServerPeer, no_proxy, raw_server

pytestmark = pytest.mark.usefixtures("loop_kind", "no_proxy")

__all__ = ["no_proxy"]


def at_once() -> Iterator[float]:
    return itertools.repeat(0.0)


class Delays:
    """Delays of no time, and which of its iterator each one was."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def __call__(self) -> Iterator[float]:
        for number in itertools.count():
            self.drawn.append(number)
            yield 0.0


async def leave(ws: fastws.ClientConnection) -> None:
    """The loop closes it."""


async def close(ws: fastws.ClientConnection) -> None:
    await ws.close(4000)


async def abort(ws: fastws.ClientConnection) -> None:
    ws.abort()


@pytest.mark.parametrize("end", [leave, close, abort])
async def test_after_a_connection_that_we_ended_the_next_is_opened_at_once(
    carrier: str, end: Callable[[fastws.ClientConnection], Awaitable[None]]
) -> None:
    seen: list[fastws.ClientConnection] = []
    delays = Delays()
    async with serve(echo, carrier) as server:
        async for ws in fastws.connect(url(server), carrier=carrier, reconnect_delays=delays):
            assert ws not in seen
            seen.append(ws)
            await ws.send("x")
            assert await ws.recv() == "x"
            await end(ws)
            if len(seen) == 4:
                break
        await asyncio.gather(*(ws.close() for ws in seen))
    assert delays.drawn == []


async def server_closes(ws: fastws.ServerConnection) -> None:
    await ws.close(1001)


async def server_aborts(ws: fastws.ServerConnection) -> None:
    ws.abort()


async def server_sends_too_much(ws: fastws.ServerConnection) -> None:
    await ws.send(bytes(1001))
    await ws.wait_closed()


@pytest.mark.parametrize("handler", [server_closes, server_aborts, server_sends_too_much])
@pytest.mark.parametrize(("steady", "drawn"), [(60.0, [0, 1, 2]), (0.0, [0, 0, 0])])
async def test_after_any_other_end_there_is_a_delay_that_grows_if_the_end_came_early(
    carrier: str,
    handler: Callable[[fastws.ServerConnection], Awaitable[None]],
    steady: float,
    drawn: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastws.client.STEADY", steady)
    ends = 0
    delays = Delays()
    async with serve(handler, carrier) as server:
        async for ws in fastws.connect(
            url(server), carrier=carrier, reconnect_delays=delays, max_size=1000
        ):
            with contextlib.suppress(fastws.ConnectionClosed):
                async for _ in ws:
                    pass
            ends += 1
            if ends == 4:
                break
    assert delays.drawn == drawn


async def test_a_queue_that_overflowed_is_such_an_end(carrier: str) -> None:
    ends = 0
    delays = Delays()
    async with serve(Held(), carrier) as server:
        async for ws in fastws.connect(
            url(server),
            carrier=carrier,
            compression=None,
            reconnect_delays=delays,
            max_backlog=10_000,
            close_timeout=0.1,
        ):
            if ends == 1:
                break
            while ws.state is fastws.State.OPEN:
                ws.send(bytes(100_000))
                await asyncio.sleep(0)
            ends += 1
        await ws.close()
    assert delays.drawn == [0]


async def test_delays_begin_anew_behind_a_connection_that_we_closed(carrier: str) -> None:
    async def handler(ws: fastws.ServerConnection) -> None:
        if next(numbers) != 2:
            await ws.close(1001)
        await ws.wait_closed()

    numbers = itertools.count()
    ends = 0
    delays = Delays()
    async with serve(handler, carrier) as server:
        async for ws in fastws.connect(url(server), carrier=carrier, reconnect_delays=delays):
            if ends == 2:
                await ws.close()
            await ws.wait_closed()
            ends += 1
            if ends == 5:
                break
    assert delays.drawn == [0, 1, 0]


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


@pytest.mark.parametrize("status", [400, 401, 404, 501])
async def test_other_failures_are_final(carrier: str, status: int) -> None:
    def refuse(ws: fastws.ServerConnection, request: fastws.Request) -> Response:
        return ws.respond(status, "no")

    async with serve(echo, carrier, process_request=refuse) as server:
        with pytest.raises(fastws.InvalidStatus):
            async for _ in fastws.connect(url(server), carrier=carrier):
                pass


async def test_a_certificate_that_is_not_trusted_is_final(carrier: str) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # a handshake broken off
    async with serve(echo, carrier, ssl=server_context()) as server:
        uri = url(server).replace("ws://", "wss://")
        with pytest.raises(ssl.SSLCertVerificationError):
            async for _ in fastws.connect(uri, carrier=carrier, reconnect_delays=at_once):
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
    passing = [OSError(), TimeoutError(), ConnectionRefusedError(), ssl.SSLError(), lost]
    final = [
        fastws.InvalidMessage("garbage"),
        fastws.InvalidURI("x", "y"),
        fastws.NegotiationError("z"),
        fastws.SecurityError("z"),
        ValueError(),
        ssl.SSLCertVerificationError(),
    ]
    assert [reconnect.process_exception(error) for error in passing] == [None] * len(passing)
    assert [reconnect.process_exception(error) for error in final] == final


def test_delays_are_drawn_from_a_range_that_doubles_up_to_a_minute() -> None:
    draws = [list(itertools.islice(reconnect.backoff(), 8)) for _ in range(500)]
    for step, bound in enumerate([5, 10, 20, 40, 60, 60, 60, 60]):
        column = [draw[step] for draw in draws]
        assert 0 <= min(column) < bound * 0.1
        assert bound * 0.9 < max(column) <= bound
