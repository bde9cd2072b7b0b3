"""Python's `websockets` and `aiohttp` as clients of the servers in examples/."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

import fastws
from examples import broadcast, echo
from tests.fastws.certificates import client_context, server_context

MIB = 2**20
MESSAGES: list[str | bytes] = [
    "",
    "text",
    "grüß ☃ 😀",
    b"",
    bytes(range(256)),
    *(b"x" * size for size in (125, 126, 65535, 65536)),
    os.urandom(MIB),
    "☃" * (MIB // 3),
]

pytestmark = pytest.mark.usefixtures("loop_kind")


@pytest.fixture(params=["listener", "coroutine"])
def handler(request: pytest.FixtureRequest) -> object:
    return echo.Echo if request.param == "listener" else echo.echo


def url(server: fastws.Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"ws://{host}:{port}/"


async def test_websockets_reads_what_it_wrote(handler: object, carrier: str) -> None:
    async with (
        fastws.serve(handler, "127.0.0.1", 0, carrier=carrier) as server,
        connect(url(server), max_size=MIB) as ws,
    ):
        for message in MESSAGES:
            await ws.send(message)
            assert await ws.recv() == message


async def test_websockets_and_aiohttp_over_tls(handler: object, carrier: str) -> None:
    async with fastws.serve(
        handler, "127.0.0.1", 0, carrier=carrier, ssl=server_context()
    ) as server:
        secure = url(server).replace("ws:", "wss:")
        async with connect(secure, max_size=MIB, ssl=client_context()) as ws:
            for message in MESSAGES:
                await ws.send(message)
                assert await ws.recv() == message
            await ws.send(["gr", "üß"])
            assert await ws.recv() == "grüß"
            assert await (await ws.ping()) >= 0
            await ws.close(4321, "enough")
            assert (ws.close_code, ws.close_reason) == (4321, "enough")
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(secure, max_msg_size=MIB + 1, ssl=client_context()) as peer,
        ):
            for message in MESSAGES:
                if isinstance(message, str):
                    await peer.send_str(message)
                    assert await peer.receive_str() == message
                else:
                    await peer.send_bytes(message)
                    assert await peer.receive_bytes() == message
            await peer.close(code=4321)
            assert peer.close_code == 4321


async def test_websockets_fragments_pings_and_closes(handler: object, carrier: str) -> None:
    async with fastws.serve(handler, "127.0.0.1", 0, carrier=carrier) as server:
        async with connect(url(server)) as ws:
            await ws.send(["gr", "üß", "", " ☃"])
            assert await ws.recv() == "grüß ☃"
            latency = await (await ws.ping(b"beat"))
            assert latency >= 0
            await ws.close(4321, "enough")
            assert (ws.close_code, ws.close_reason) == (4321, "enough")
        async with connect(url(server)) as ws:
            await ws.send(b"x" * (MIB + 1))
            with pytest.raises(ConnectionClosedError) as error:
                await ws.recv()
            assert error.value.rcvd is not None
            assert error.value.rcvd.code == 1009


async def test_websockets_with_many_messages_under_way(handler: object, carrier: str) -> None:
    count = 5000

    async def write(send: Callable[[str], Awaitable[None]]) -> None:
        for number in range(count):
            await send(str(number))

    async with (
        fastws.serve(handler, "127.0.0.1", 0, carrier=carrier) as server,
        connect(url(server)) as ws,
    ):
        writing = asyncio.create_task(write(ws.send))
        assert [await ws.recv() for _ in range(count)] == [str(n) for n in range(count)]
        await writing


async def test_aiohttp_reads_what_it_wrote(handler: object, carrier: str) -> None:
    async with (
        fastws.serve(handler, "127.0.0.1", 0, carrier=carrier) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(url(server), max_msg_size=MIB + 1) as ws,
    ):
        for message in MESSAGES:
            if isinstance(message, str):
                await ws.send_str(message)
                assert await ws.receive_str() == message
            else:
                await ws.send_bytes(message)
                assert await ws.receive_bytes() == message
        assert await ws.close(code=4000, message=b"enough")
        assert ws.close_code == 4000


async def test_aiohttp_pings_and_is_told_that_the_server_goes(
    handler: object, carrier: str
) -> None:
    async with (
        fastws.serve(handler, "127.0.0.1", 0, carrier=carrier) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(url(server), autoping=False) as ws,
    ):
        await ws.ping(b"beat")
        pong = await ws.receive()
        assert (pong.type, pong.data) == (aiohttp.WSMsgType.PONG, b"beat")
        server.close()
        closing = await ws.receive()
        assert (closing.type, closing.data) == (aiohttp.WSMsgType.CLOSE, 1001)


async def test_a_broadcast_reaches_everybody(carrier: str) -> None:
    async with fastws.serve(broadcast.Watcher(), "127.0.0.1", 0, carrier=carrier) as server:
        ticking = asyncio.create_task(broadcast.tick(server, period=0.01))
        clients = [await connect(url(server)) for _ in range(20)]
        for ws in clients:
            assert await ws.recv() == "welcome"
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", str(await ws.recv()))
        ticking.cancel()
        server.close()
        for ws in clients:
            async for _ in ws:  # ends without an error when the close was in order
                pass
            assert ws.close_code == 1001
