"""A TCP proxy on loopback whose connections can be cut."""

from __future__ import annotations

import asyncio
import random
from typing import Any


class Network:
    """Between clients and a server on ``port``. ``async with`` starts and stops it."""

    def __init__(self, port: int) -> None:
        self._far = port
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._links: set[asyncio.StreamWriter] = set()  # to clients
        self.cuts = 0

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Network:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut(1.0, random.Random(0))
        while self._pipes:
            await asyncio.wait(self._pipes)
        await self._server.wait_closed()

    def cut(self, share: float, chance: random.Random) -> None:
        """Reset this share of the connections, whatever is under way on them."""
        for link in list(self._links):
            if chance.random() < share:
                self.cuts += 1
                link.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        self._links.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far)
            pipes = [_pipe(reader, far_writer), _pipe(far_reader, writer)]
            await asyncio.gather(*pipes, return_exceptions=True)
        except OSError:
            pass
        finally:
            writer.transport.abort()
            self._links.discard(writer)
            self._pipes.discard(task)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
    except OSError:
        pass
    finally:
        writer.transport.abort()
