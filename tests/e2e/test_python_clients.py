"""Python's `websockets`, `aiohttp` and `picows` as clients of the servers in examples/."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterable

import aiohttp
import pytest
from picows import WSAutoPingStrategy, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
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


async def echo_all(ws: aiohttp.ClientWebSocketResponse, messages: Iterable[str | bytes]) -> None:
    """Each comes back as it was; then the connection is closed."""
    for message in messages:
        if isinstance(message, str):
            await ws.send_str(message)
            assert await ws.receive_str() == message
        else:
            await ws.send_bytes(message)
            assert await ws.receive_bytes() == message
    assert await ws.close(code=4000, message=b"enough")
    assert ws.close_code == 4000


async def test_aiohttp_reads_what_it_wrote(handler: object, carrier: str) -> None:
    async with (
        fastws.serve(handler, "127.0.0.1", 0, carrier=carrier) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(url(server), max_msg_size=MIB + 1) as ws,
    ):
        await echo_all(ws, MESSAGES)


@pytest.mark.parametrize("takeover", [False, True], ids=["alone", "takeover"])
@pytest.mark.parametrize("window", [9, 12, 15])
async def test_aiohttp_with_compression(
    handler: object, carrier: str, window: int, takeover: bool
) -> None:
    deflate = fastws.Deflate(
        server_no_context_takeover=not takeover,
        client_no_context_takeover=not takeover,
        client_max_window_bits=window,
    )
    async with (
        fastws.serve(handler, "127.0.0.1", 0, carrier=carrier, compression=deflate) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(url(server), compress=window, max_msg_size=MIB + 1) as ws,
    ):
        assert ws.compress == window
        assert ws.client_notakeover is not takeover
        await echo_all(ws, (*MESSAGES, *MESSAGES[:3], "again and again " * 5000))


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


class Peer(WSListener):  # type: ignore[misc, unused-ignore]
    """A client of picows: what comes, in order."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[tuple[WSMsgType, str | bytes]] = asyncio.Queue()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind, data = frame.msg_type, frame.get_payload_as_bytes()
        if kind == WSMsgType.CLOSE:
            self.frames.put_nowait((kind, f"{frame.get_close_code()}"))
            transport.disconnect()
        else:
            self.frames.put_nowait((kind, data.decode() if kind == WSMsgType.TEXT else data))


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_picows_reads_what_it_wrote(handler: object, carrier: str, secure: bool) -> None:
    tls = {"ssl": server_context()} if secure else {}
    async with fastws.serve(handler, "127.0.0.1", 0, carrier=carrier, **tls) as server:
        transport, peer = await ws_connect(
            Peer,
            url(server).replace("ws:", "wss:" if secure else "ws:"),
            ssl_context=client_context() if secure else None,
        )
        for message in MESSAGES:
            kind = WSMsgType.TEXT if isinstance(message, str) else WSMsgType.BINARY
            transport.send(kind, message.encode() if isinstance(message, str) else message)
            assert await peer.frames.get() == (kind, message)
        transport.send(WSMsgType.TEXT, b"gr", fin=False)
        transport.send_ping(b"beat")
        transport.send(WSMsgType.CONTINUATION, "üß".encode())
        assert await peer.frames.get() == (WSMsgType.PONG, b"beat")
        assert await peer.frames.get() == (WSMsgType.TEXT, "grüß")
        transport.send_close(4321, b"enough")
        assert await peer.frames.get() == (WSMsgType.CLOSE, "4321")
        await transport.wait_disconnected()


async def test_picows_and_the_server_ping_each_other_and_it_is_told_that_the_server_goes(
    handler: object, carrier: str
) -> None:
    async with fastws.serve(
        handler, "127.0.0.1", 0, carrier=carrier, ping_interval=0.05, ping_timeout=0.1
    ) as server:
        transport, peer = await ws_connect(
            Peer,
            url(server),
            enable_auto_ping=True,
            auto_ping_idle_timeout=0.1,
            auto_ping_reply_timeout=0.1,
            auto_ping_strategy=WSAutoPingStrategy.PING_PERIODICALLY,
        )
        await asyncio.sleep(0.5)
        transport.send(WSMsgType.TEXT, b"still here")
        assert await asyncio.wait_for(peer.frames.get(), 5) == (WSMsgType.TEXT, "still here")
        server.close()
        assert await asyncio.wait_for(peer.frames.get(), 5) == (WSMsgType.CLOSE, "1001")
        await transport.wait_disconnected()


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
