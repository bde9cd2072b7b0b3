"""Our client against the servers of others: websockets, aiohttp, uvicorn, picows and npm's ws.

Each echoes, closes when it is told to (``close CODE REASON``), and speaks the subprotocol chat if
it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from ssl import SSLContext
from typing import Any

import pytest

import fastws
from tests.e2e.test_npm_clients import node
from tests.fastws.certificates import client_context, server_context, server_file
from tests.fastws.raw_server import no_proxy

__all__ = ["no_proxy"]

pytestmark = pytest.mark.usefixtures("loop_kind", "no_proxy")

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


def close_of(message: Any) -> tuple[int, str] | None:
    """Code and reason, if a server is asked to close."""
    if not isinstance(message, str) or not message.startswith("close "):
        return None
    _, code, reason = message.split(" ", 2)
    return int(code), reason


@contextlib.asynccontextmanager
async def websockets(ssl: SSLContext | None = None) -> AsyncIterator[int]:
    from websockets.asyncio.server import ServerConnection, serve

    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            close = close_of(message)
            if close is None:
                await ws.send(message)
            else:
                await ws.close(*close)

    def choose(ws: ServerConnection, offered: Any) -> Any:
        return "chat" if "chat" in offered else None

    async with serve(echo, "127.0.0.1", 0, select_subprotocol=choose, ssl=ssl) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@contextlib.asynccontextmanager
async def aiohttp(ssl: SSLContext | None = None) -> AsyncIterator[int]:
    from aiohttp import WSMsgType, web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=["chat"], max_msg_size=2 * MIB)
        await ws.prepare(request)
        async for message in ws:
            close = close_of(message.data)
            if close is not None:
                await ws.close(code=close[0], message=close[1].encode())
            elif message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def uvicorn() -> AsyncIterator[int]:
    from uvicorn import Config, Server

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await receive()
        chosen = "chat" if "chat" in scope["subprotocols"] else None
        await send({"type": "websocket.accept", "subprotocol": chosen})
        while (event := await receive())["type"] == "websocket.receive":
            text, data = event.get("text"), event.get("bytes")
            close = close_of(text)
            if close is not None:
                await send({"type": "websocket.close", "code": close[0], "reason": close[1]})
                return
            await send({"type": "websocket.send", "text": text, "bytes": data})

    config = Config(app, host="127.0.0.1", port=0, lifespan="off", log_config=None)
    server = Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    running = asyncio.ensure_future(server.main_loop())
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running
        await server.shutdown()


@contextlib.asynccontextmanager
async def picows(ssl: SSLContext | None = None) -> AsyncIterator[int]:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

    class Echo(WSListener):  # type: ignore[misc, unused-ignore]
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
                return
            close = None
            if frame.msg_type == WSMsgType.TEXT and frame.fin:
                close = close_of(frame.get_payload_as_utf8_text())
            if close is not None:
                transport.send_close(close[0], close[1].encode())
            elif frame.msg_type == WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())
            else:
                transport.send(frame.msg_type, frame.get_payload_as_bytes(), frame.fin)

    server = await ws_create_server(
        lambda request: Echo(),
        "127.0.0.1",
        0,
        max_frame_size=2 * MIB,
        enable_auto_pong=False,
        ssl=ssl,
    )
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def npm_ws(ssl: SSLContext | None = None) -> AsyncIterator[int]:
    with tempfile.TemporaryDirectory() as folder:
        # Node.js takes files, not a context: another certificate of the same authority.
        pem = [] if ssl is None else [str(server_file(Path(folder)))]
        process = await asyncio.create_subprocess_exec(
            *(node(), "ws-echo-server.mjs", *pem),
            cwd=Path(__file__).parent,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(await process.stdout.readline())
        finally:
            process.stdin.close()
            await process.wait()


SERVERS = {
    "websockets": websockets,
    "aiohttp": aiohttp,
    "uvicorn": uvicorn,
    "picows": picows,
    "ws": npm_ws,
}

SECURE: dict[str, Any] = {
    "websockets": websockets,
    "aiohttp": aiohttp,
    "picows": picows,
    "ws": npm_ws,
}


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.node) if name == "ws" else name for name in SERVERS
    ]
)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@contextlib.asynccontextmanager
async def connected(
    name: str, carrier: str, **options: Any
) -> AsyncIterator[fastws.ClientConnection]:
    async with (
        SERVERS[name]() as port,
        fastws.connect(
            f"ws://127.0.0.1:{port}/", carrier=carrier, max_size=2 * MIB, **options
        ) as ws,
    ):
        yield ws


async def test_it_reads_what_it_wrote(server: str, carrier: str) -> None:
    async with connected(server, carrier) as ws:
        for message in MESSAGES:
            await ws.send(message)
            assert await ws.recv() == message
    assert ws.close_code == 1000


@pytest.mark.parametrize(
    "name",
    ["websockets", "aiohttp", "picows", pytest.param("ws", marks=pytest.mark.node)],
)
async def test_over_tls_too(name: str, carrier: str) -> None:
    options: dict[str, Any] = {"carrier": carrier, "ssl": client_context(), "max_size": 2 * MIB}
    async with SECURE[name](server_context()) as port:
        async with fastws.connect(f"wss://127.0.0.1:{port}/", **options) as ws:
            for message in MESSAGES:
                await ws.send(message)
                assert await ws.recv() == message
            await ws.send(["gr", "üß"])
            assert await ws.recv() == "grüß"
            assert ws.ssl_object is not None
            assert ws.ssl_object.version() == "TLSv1.3"
            await asyncio.gather(*(ws.send(str(number)) for number in range(1000)))
            assert [await ws.recv() for _ in range(1000)] == [str(n) for n in range(1000)]
        assert ws.close_code == 1000
        async with fastws.connect(f"wss://127.0.0.1:{port}/", **options) as ws:
            await ws.send("close 4000 enough of you")
            await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (4000, "enough of you")


async def test_many_messages_under_way(server: str, carrier: str) -> None:
    count = 5000

    async def write(ws: fastws.ClientConnection) -> None:
        for number in range(count):
            await ws.send(str(number))

    async with connected(server, carrier) as ws:
        writing = asyncio.create_task(write(ws))
        assert [await ws.recv() for _ in range(count)] == [str(number) for number in range(count)]
        await writing


async def test_fragments_pings_and_closing(server: str, carrier: str) -> None:
    async with connected(server, carrier) as ws:
        await ws.send(["gr", "üß", "", " ☃"])
        assert await ws.recv() == "grüß ☃"
        assert await (await ws.ping(b"beat")) > 0
        await ws.close(4321, "enough")
        # aiohttp answers every code with 1000.
        assert ws.close_code == (1000 if server == "aiohttp" else 4321)


async def test_the_server_closes(server: str, carrier: str) -> None:
    async with connected(server, carrier) as ws:
        await ws.send("close 4000 enough of you")
        with pytest.raises(fastws.ConnectionClosedError) as caught:
            await ws.recv()
        assert (caught.value.code, caught.value.reason) == (4000, "enough of you")


async def test_the_subprotocol_is_agreed_on(server: str, carrier: str) -> None:
    async with connected(server, carrier, subprotocols=["other", "chat"]) as ws:
        # picows leaves subprotocols to its user.
        assert ws.subprotocol == (None if server == "picows" else "chat")


async def test_a_listener(server: str, carrier: str) -> None:
    got: asyncio.Queue[str | bytes] = asyncio.Queue()

    class Client(fastws.Listener):
        def on_open(self, ws: fastws.Connection) -> None:
            ws.send("hello")

        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            got.put_nowait(message)

    async with connected(server, carrier, listener=Client):
        assert await got.get() == "hello"
