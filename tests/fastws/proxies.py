"""Small proxies that connect: HTTP CONNECT, SOCKS4(a) and SOCKS5, for tests."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """What a proxy was asked for, and what it is to do.

    ``hosts`` sends names to addresses, so that a test can see who looked a name up; ``reject``: the
    answer instead of a connection.
    """

    def __init__(self, scheme: str, port: int) -> None:
        self.scheme = scheme
        self.port = port
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.credentials: tuple[str, str] | None = None
        self.hosts: dict[str, str] = {}
        self.reject: bytes | None = None
        self.behind = b""  # sent right behind the answer

    def url(self, credentials: str = "") -> str:
        return f"{self.scheme}://{credentials}127.0.0.1:{self.port}"

    async def open(self, host: str, port: int) -> Streams:
        self.asked.append(f"{host}:{port}")
        return await asyncio.open_connection(self.hosts.get(host, host), port)


@contextlib.asynccontextmanager
async def proxy(scheme: str, context: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """A proxy for URLs with ``scheme``; ``context`` for https."""
    speak = {"http": _http, "https": _http, "socks4": _socks4, "socks4a": _socks4}.get(
        scheme, _socks5
    )
    running: dict[asyncio.StreamWriter, asyncio.Event] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running[writer] = done = asyncio.Event()
        with contextlib.suppress(OSError, EOFError):
            await _relay((reader, writer), found, speak)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        done.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    found = Proxy(scheme, server.sockets[0].getsockname()[1])
    try:
        yield found
    finally:
        server.close()
        for writer in running:
            writer.transport.abort()
        for done in running.values():
            await done.wait()


async def _relay(
    client: Streams, found: Proxy, speak: Callable[[Streams, Proxy], Awaitable[Streams | None]]
) -> None:
    upstream = await speak(client, found)
    if upstream is None:
        await client[1].drain()
        return
    try:
        await asyncio.gather(
            _copy(client[0], upstream[1]), _copy(upstream[0], client[1]), return_exceptions=True
        )
    finally:
        upstream[1].close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _http(client: Streams, found: Proxy) -> Streams | None:
    reader, writer = client
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    method, target, version = first.split(" ")
    assert (method, version) == ("CONNECT", "HTTP/1.1")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    found.headers.append(headers)
    if found.credentials is not None:
        wanted = base64.b64encode(":".join(found.credentials).encode()).decode()
        if headers.get("proxy-authorization") != f"Basic {wanted}":
            writer.write(
                b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                b"Proxy-Authenticate: Basic\r\nContent-Length: 8\r\n\r\nwho now?"
            )
            return None
    if found.reject is not None:
        found.asked.append(target)
        writer.write(found.reject)
        return None
    host, _, port = target.rpartition(":")
    upstream = await found.open(host.strip("[]"), int(port))
    writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n" + found.behind)
    return upstream


async def _socks5(client: Streams, found: Proxy) -> Streams | None:  # RFC 1928, RFC 1929
    reader, writer = client
    _, count = await reader.readexactly(2)
    methods = await reader.readexactly(count)
    method = 2 if found.credentials is not None else 0
    if method not in methods:
        writer.write(b"\x05\xff")
        return None
    writer.write(bytes([5, method]))
    if found.credentials is not None:
        await reader.readexactly(1)
        given = (await _short_string(reader), await _short_string(reader))
        writer.write(b"\x01\x00" if given == found.credentials else b"\x01\x01")
        if given != found.credentials:
            return None
    _, _, _, kind = await reader.readexactly(4)
    if kind == 1:
        host = socket.inet_ntoa(await reader.readexactly(4))
    elif kind == 4:
        host = socket.inet_ntop(socket.AF_INET6, await reader.readexactly(16))
    else:
        host = await _short_string(reader)
    (port,) = struct.unpack("!H", await reader.readexactly(2))
    if found.reject is not None:
        writer.write(found.reject)
        return None
    upstream = await found.open(host, port)
    writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
    return upstream


async def _short_string(reader: asyncio.StreamReader) -> str:
    (length,) = await reader.readexactly(1)
    return (await reader.readexactly(length)).decode()


async def _socks4(client: Streams, found: Proxy) -> Streams | None:
    reader, writer = client
    _, _, port = struct.unpack("!BBH", await reader.readexactly(4))
    address = await reader.readexactly(4)
    await reader.readuntil(b"\0")
    host = socket.inet_ntoa(address)
    if address[:3] == b"\0\0\0":  # 4a
        host = (await reader.readuntil(b"\0"))[:-1].decode()
    upstream = await found.open(host, port)
    writer.write(b"\x00\x5a" + bytes(6))
    return upstream
