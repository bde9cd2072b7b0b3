"""What the tests of the server share: a client that sends exact bytes, and ways to run a server.

The client frames as ``reference`` does, not by the library that it tests. All of it lives in the
test's own loop; ``send_now`` does not yield to it, so that several clients can be ready at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import struct
from collections.abc import Iterable
from typing import Any, Self

import pytest

import fastws
from fastws._impl import TransportCarrier
from tests.fastws import reference
from tests.fastws.reference import BINARY, CLOSE, PING, PONG, TEXT

MASK = reference.KEY

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of the example in RFC 6455 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

HEADERS = (
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)


def head(
    headers: Iterable[tuple[str, str]] = (),
    *,
    path: str = "/",
    without: str | None = None,
    request_line: str | None = None,
    base: Iterable[tuple[str, str]] = HEADERS,
) -> bytes:
    """An opening handshake with further ``headers``, and ``without`` one of the usual ones."""
    lines = [request_line or f"GET {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in base if name != without]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def frame(opcode: int, payload: bytes = b"", *, key: bytes | None = MASK, **options: Any) -> bytes:
    """``reference.frame``, but that it takes no second to mask a megabyte."""
    if key is None or len(payload) < 1000:
        return reference.frame(opcode, payload, key=key, **options)
    plain = reference.frame(opcode, payload, key=None, **options)
    header = plain[: -len(payload)]
    keys = (key * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")
    return b"".join(
        (
            header[:1],
            bytes([header[1] | 0x80]),
            header[2:],
            key,
            masked.to_bytes(len(payload), "big"),
        )
    )


def shown(value: object) -> str:
    """``repr`` for ``ids``, without addresses: processes that share a run agree on the names."""
    return re.sub(r" at 0x\w+", "", repr(value))


def close_payload(code: int, reason: str = "") -> bytes:
    return struct.pack("!H", code) + reason.encode()


def serve(handler: Any, carrier: str, *, buffers: int = 0, **options: Any) -> Any:
    """A server on a free port of the loopback address, without keepalive unless asked for.

    A busy machine would have pings come between the frames that a test waits for. ``buffers``:
    bytes that the system may buffer for a connection in each direction; else it takes megabytes
    before anyone notices that the other end is slow.
    """
    options.setdefault("ping_interval", None)
    if not buffers:
        return fastws.serve(handler, "127.0.0.1", 0, carrier=carrier, **options)
    sock = socket.socket()  # what it accepts inherits these
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
    sock.bind(("127.0.0.1", 0))
    return fastws.serve(handler, sock=sock, carrier=carrier, **options)


def address(server: fastws.Server) -> Any:
    return server.sockets[0].getsockname()


def url(server: fastws.Server, path: str = "/") -> str:
    return f"ws://127.0.0.1:{address(server)[1]}{path}"


class Peer:
    """A client's end of a TCP connection; closing it only ends the TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.unread = b""

    @classmethod
    async def connect(cls, where: fastws.Server | Any, *, buffers: int = 0) -> Self:
        """``where``: a server or an address. ``buffers``: bytes that the system may buffer."""
        if isinstance(where, fastws.Server):
            where = address(where)
        family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        peer = cls(sock)
        try:
            if buffers:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            if family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            await peer.loop.sock_connect(sock, where)
        except BaseException:
            sock.close()
            raise
        return peer

    @classmethod
    async def open(
        cls,
        where: fastws.Server | Any,
        *,
        behind: bytes = b"",
        buffers: int = 0,
        **request: Any,
    ) -> Self:
        """An open WebSocket; ``behind`` leaves in one segment with the handshake."""
        peer = await cls.connect(where, buffers=buffers)
        try:
            await peer.send(head(**request) + behind)
            status, _, _ = await peer.response()
            assert status == 101
        except BaseException:
            peer.close()
            raise
        return peer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    # --- out

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    def send_now(self, data: bytes) -> None:
        """Hand ``data`` to the system without letting the loop run."""
        assert self.sock.send(data) == len(data)

    async def text(self, text: str) -> None:
        await self.send(frame(TEXT, text.encode()))

    async def say_close(self, code: int = 1000, reason: str = "") -> None:
        await self.send(frame(CLOSE, close_payload(code, reason)))

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the TCP connection with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    # --- in

    async def exactly(self, count: int) -> bytes:
        """``EOFError`` if the connection ends before."""
        while len(self.unread) < count:
            await self._more(max(65536, count - len(self.unread)))
        data, self.unread = self.unread[:count], self.unread[count:]
        return data

    async def _more(self, count: int = 65536) -> None:
        data = await self.loop.sock_recv(self.sock, count)
        if not data:
            raise EOFError(f"ended after {self.unread!r:.200}")
        self.unread += data

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case) and body of an HTTP response."""
        while b"\r\n\r\n" not in self.unread:
            await self._more()
        text, _, self.unread = self.unread.partition(b"\r\n\r\n")
        status, *lines = text.decode("latin-1").split("\r\n")
        assert status.startswith("HTTP/1.1 "), status
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = await self.exactly(int(headers.get("content-length", "0")))
        return int(status.split()[1]), headers, body

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame; a server's frames are whole and not masked."""
        first, second = await self.exactly(2)
        assert first & 0xF0 == 0x80, "FIN, and no reserved bits"
        assert not second & 0x80, "not masked (RFC 6455 5.1)"
        length = second
        if length == 126:
            (length,) = struct.unpack("!H", await self.exactly(2))
            assert length >= 126
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.exactly(8))
            assert length >= 65536
        return first & 0xF, await self.exactly(length)

    async def message(self) -> str | bytes:
        """The payload of the next frame, which is text or binary."""
        opcode, payload = await self.frame()
        assert opcode in (TEXT, BINARY), (opcode, payload)
        return payload.decode() if opcode == TEXT else payload

    async def close_frame(self) -> tuple[int, str]:
        """Code and reason of the close frame, whatever comes before it; 1005 without a code."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                if not payload:
                    return 1005, ""
                return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    async def rest(self) -> bytes:
        """Everything until the server's FIN."""
        with contextlib.suppress(EOFError):
            while True:
                await self._more()
        data, self.unread = self.unread, b""
        return data

    async def drain(self) -> int:
        """How many bytes come until the connection ends, in whatever way."""
        count = len(self.unread)
        self.unread = b""
        with contextlib.suppress(ConnectionResetError):
            while data := await self.loop.sock_recv(self.sock, 1 << 20):
                count += len(data)
        return count

    async def ended(self) -> str:
        """``"fin"`` or ``"reset"``: how the server ends the TCP connection; nothing comes first."""
        try:
            data = await self.rest()
        except ConnectionResetError:
            return "reset"
        assert data == b""
        return "fin"


class Recorder(fastws.Listener):
    """One listener for all connections: everything it is called with, to be awaited."""

    def __init__(self) -> None:
        self.opened: asyncio.Queue[fastws.Connection] = asyncio.Queue()
        self.messages: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.pongs: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed: asyncio.Queue[tuple[fastws.Connection, int, str]] = asyncio.Queue()

    def on_open(self, ws: fastws.Connection) -> None:
        self.opened.put_nowait(ws)

    def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
        self.messages.put_nowait(message)

    def on_pong(self, ws: fastws.Connection, payload: bytes) -> None:
        self.pongs.put_nowait(payload)

    def on_close(self, ws: fastws.Connection, code: int, reason: str) -> None:
        self.closed.put_nowait((ws, code, reason))


class Echo(fastws.Listener):
    """Sends back what comes."""

    def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
        ws.send(message)


class Held:
    """A coroutine handler that gives its connections to the test and stays until they close."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[fastws.Connection] = asyncio.Queue()

    async def __call__(self, ws: fastws.Connection) -> None:
        self.connections.put_nowait(ws)
        await ws.wait_closed()

    async def connection(self) -> fastws.Connection:
        return await self.connections.get()


async def echo(ws: fastws.Connection) -> None:
    """The same as ``Echo``, as a coroutine."""
    async for message in ws:
        await ws.send(message)


def has_nodelay(ws: fastws.Connection) -> bool:
    """Whether a message leaves before the one ahead of it is acknowledged."""
    if isinstance(ws.carrier, TransportCarrier):
        number = ws.carrier.transport.get_extra_info("socket").fileno()
    else:
        number = ws._fileno
    with socket.socket(fileno=os.dup(number)) as sock:
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged, but for asyncio's remarks on slow callbacks in its debug mode."""
    return [record for record in caplog.records if record.name != "asyncio"]


async def turns(count: int = 3) -> None:
    """Let the loop go round, so that what is ready on a socket is seen."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Any, *, seconds: float = 10.0) -> None:
    """Wait for a fact that nothing announces."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


__all__ = [
    "ACCEPT",
    "BINARY",
    "CLOSE",
    "KEY",
    "PING",
    "PONG",
    "TEXT",
    "Echo",
    "Held",
    "Peer",
    "Recorder",
    "address",
    "close_payload",
    "echo",
    "frame",
    "has_nodelay",
    "head",
    "logged",
    "serve",
    "turns",
    "until",
    "url",
]
