"""Work for `bench.instructions` to count: always the same, on real sockets, within one thread.

`python -m bench.scenarios LIBRARY` runs all; LIBRARY is `native/callgrind.c`, compiled. Client
and server share a loop, and a message is sent when all of the one before has come back, so that
reads, writes and wake-ups are the same in every run.
"""

import asyncio
import ctypes
import json
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import fastws

_KEY = b"\x12\x34\x56\x78"
_UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SUBSCRIBERS = 16

Measure = Callable[[str, Callable[[], Coroutine[Any, Any, None]], int], Coroutine[Any, Any, None]]


def _frame(first: int, payload: bytes) -> bytes:
    mask = (_KEY * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([first]) + length + _KEY + number.to_bytes(size, "big")


class _Client:
    """A socket that has upgraded; it speaks in ready-made bytes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    async def read(self, size: int) -> bytes:
        """So many bytes, or more if they came with them."""
        got = b""
        while len(got) < size:
            try:
                got += self._socket.recv(65536)
            except BlockingIOError:
                await asyncio.sleep(0)
        return got

    async def until(self, end: bytes) -> None:
        """What comes until these bytes are in it."""
        got = b""
        while end not in got:
            got += await self.read(1)

    async def upgrade(self, path: bytes = b"/") -> None:
        self.send(_UPGRADE % path)
        await self.until(b"\r\n\r\n")

    def close(self) -> None:
        self._socket.close()


class _Echo(fastws.Listener):
    def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
        ws.send(message)


async def _coroutine(ws: fastws.Connection) -> None:
    async for message in ws:
        await ws.send(message)


@dataclass(frozen=True)
class _Work:
    """What an echo is asked for: `depth` frames in one write."""

    name: str
    handler: Any
    first: int
    payload: bytes
    depth: int


_BINARY, _TEXT = 0x82, 0x81
ECHOES = (
    _Work("echo, binary, 16 in flight", _Echo(), _BINARY, bytes(range(128)), 16),
    _Work("echo, binary, one in flight", _Echo(), _BINARY, bytes(range(128)), 1),
    _Work("echo, ASCII text, 16 in flight", _Echo(), _TEXT, b"a text of a few words, " * 5, 16),
    _Work("echo, CJK text, 16 in flight", _Echo(), _TEXT, "文字化け".encode() * 10, 16),
    _Work("echo, coroutine, 16 in flight", _coroutine, _BINARY, bytes(range(128)), 16),
)


async def _echo(work: _Work, measure: Measure) -> None:
    options: dict[str, Any] = {"compression": None, "ping_interval": None}
    async with fastws.serve(work.handler, "127.0.0.1", 0, **options) as server:
        client = _Client(server.sockets[0].getsockname()[1])
        await client.upgrade()
        data = _frame(work.first, work.payload) * work.depth
        size = (len(work.payload) + (2 if len(work.payload) < 126 else 4)) * work.depth

        async def once() -> None:
            client.send(data)
            await client.read(size)

        await measure(work.name, once, work.depth)
        client.close()


async def _handshakes(measure: Measure) -> None:
    async with fastws.serve(_Echo(), "127.0.0.1", 0, ping_interval=None) as server:
        port = server.sockets[0].getsockname()[1]

        async def once() -> None:
            client = _Client(port)
            await client.upgrade()
            client.close()
            for _ in range(4):
                await asyncio.sleep(0)

        await measure("handshake", once, 1)


async def _publish(measure: Measure) -> None:
    from gateway.config import load
    from gateway.server import Gateway

    flags = {"dev": True, "http_server.port": 0, "client.ping_interval": 0}
    async with Gateway(load(flags=flags)) as gateway:
        clients = []
        for _ in range(SUBSCRIBERS):
            client = _Client(gateway.port)
            await client.upgrade(b"/connection/websocket")
            for id_, command in ((1, {"connect": {}}), (2, {"subscribe": {"channel": "news"}})):
                client.send(_frame(_TEXT, json.dumps({"id": id_, **command}).encode()))
                await client.until(b'"id":%d' % id_)
            clients.append(client)
        text = {"id": 3, "publish": {"channel": "news", "data": {"text": "x" * 60}}}
        data = _frame(_TEXT, json.dumps(text).encode())

        async def once() -> None:
            clients[0].send(data)
            for client in clients:
                await client.until(b"xxx")
            await client.read(0)
            await asyncio.sleep(0)

        await measure("gateway, publication to 16", once, SUBSCRIBERS)
        for client in clients:
            client.close()


async def _all(library: ctypes.CDLL, scale: float) -> None:
    async def measure(
        name: str, once: Callable[[], Coroutine[Any, Any, None]], messages: int
    ) -> None:
        turns = max(1, round((20 if "gateway" in name or "handshake" in name else 50) * scale))
        for _ in range(max(1, turns // 2)):
            await once()
        library.count_begin()
        for _ in range(turns):
            await once()
        library.count_end(f"{name}|{turns * messages}".encode())

    for work in ECHOES:
        await _echo(work, measure)
    await _handshakes(measure)
    await _publish(measure)


def main() -> None:
    """Runs everything."""
    library = ctypes.CDLL(sys.argv[1])
    library.count_end.argtypes = [ctypes.c_char_p]
    asyncio.run(_all(library, float(os.environ.get("SCENARIOS_SCALE", "1"))))


if __name__ == "__main__":
    main()
