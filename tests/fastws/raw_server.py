"""A server's end of TCP connections that sends exact bytes: what a client is tested against."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest

from fastws.handshake import accept_key
from tests.fastws import reference
from tests.fastws.client import Peer
from tests.fastws.reference import CLOSE, TEXT

Headers = list[tuple[str, str]]

#: Variables by which the machine that runs the tests could send them to a proxy.
PROXY_VARIABLES = [
    name
    for scheme in ("ws", "wss", "socks", "http", "https", "all", "no")
    for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
]


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


class ServerPeer(Peer):
    """One accepted connection."""

    async def request(self) -> tuple[str, Headers]:
        """The request line and the header lines, in order."""
        while b"\r\n\r\n" not in self.unread:
            await self._more()
        text, _, self.unread = self.unread.partition(b"\r\n\r\n")
        first, *lines = text.decode("latin-1").split("\r\n")
        return first, [(name, value) for name, value in (line.split(": ", 1) for line in lines)]

    async def accept(
        self, headers: Iterable[tuple[str, str]] = (), *, behind: bytes = b""
    ) -> Headers:
        """Answer a request with 101; ``behind`` leaves in one segment with it."""
        _, lines = await self.request()
        await self.send(switching(lines, headers) + behind)
        return lines

    async def say(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        await self.send(reference.frame(opcode, payload, key=None, fin=fin))

    async def raw_frame(self) -> tuple[int, bytes, bytes]:
        """First byte, mask key and payload of the next frame, which must be masked."""
        first, second = await self.exactly(2)
        assert second & 0x80, "not masked (RFC 6455 5.1)"
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(await self.exactly(2), "big")
            assert length >= 126
        elif length == 127:
            length = int.from_bytes(await self.exactly(8), "big")
            assert length >= 65536
        key = await self.exactly(4)
        masked = await self.exactly(length)
        keys = (key * (length // 4 + 1))[:length]
        payload = int.from_bytes(masked, "big") ^ int.from_bytes(keys, "big")
        return first, key, payload.to_bytes(length, "big")

    async def frame(self) -> tuple[int, bytes]:
        first, _, payload = await self.raw_frame()
        assert first & 0xF0 == 0x80, "FIN, and no reserved bits"
        return first & 0xF, payload

    async def close_handshake(self) -> tuple[int, str]:
        """Read up to the client's close frame and answer it; its code and reason."""
        code, reason = await self.close_frame()
        await self.say(CLOSE, code.to_bytes(2, "big") if code != 1005 else b"")
        return code, reason

    async def echo(self) -> None:
        """Send messages back until the close frame, which is answered."""
        while True:
            opcode, payload = await self.frame()
            await self.say(opcode, payload)
            if opcode == CLOSE:
                return


def switching(request: Headers, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """The 101 response to a request."""
    key = dict(request)["Sec-WebSocket-Key"].encode()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(key).decode()}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@contextlib.asynccontextmanager
async def raw_server(
    handler: Callable[[ServerPeer], Awaitable[Any]], *, path: str | None = None
) -> AsyncIterator[str]:
    """Run ``handler`` for each connection, one after the other; gives the URI.

    The TCP connection ends when the handler returns; what it raises fails the test.
    """
    listening = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    listening.bind(path or ("127.0.0.1", 0))
    listening.listen()
    listening.setblocking(False)

    async def accept() -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(listening)
            async with ServerPeer(sock) as peer:
                await handler(peer)

    task = asyncio.ensure_future(accept())
    try:
        yield "ws://localhost/" if path else f"ws://127.0.0.1:{listening.getsockname()[1]}/"
        await asyncio.sleep(0)
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        listening.close()


__all__ = ["PROXY_VARIABLES", "TEXT", "ServerPeer", "no_proxy", "raw_server", "switching"]
