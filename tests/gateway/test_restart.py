"""A new process takes over while a publisher publishes: nothing is lost that was not said to be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.gateway.test_cli import ENVIRON, read_until
from tests.gateway.test_listening import activated

KEY = "key"
CHANNEL = "news"
CLIENTS = 8
SETTINGS = {
    "FASTWS_DEV": "true",
    "FASTWS_HTTP_API_KEY": KEY,
    "FASTWS_SHUTDOWN_CLOSE_RATE": "40",  # so that the stop takes a while
    "FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_SIZE": "100000",
    "FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_TTL": "1m",
    "FASTWS_CHANNEL_WITHOUT_NAMESPACE_FORCE_RECOVERY": "true",
}

Position = tuple[str, int]  # epoch and offset


class Publisher:
    """Publishes numbers, one after the other, and each until it is acknowledged."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api/"
        self.acknowledged: dict[Position, int] = {}
        self.last: Position = ("", 0)

    async def call(self, http: aiohttp.ClientSession, method: str, request: Any) -> Any:
        headers = {"X-API-Key": KEY}
        async with http.post(self.url + method, json=request, headers=headers) as response:
            return (await response.json())["result"]

    async def run(self) -> None:
        async with aiohttp.ClientSession() as http:
            number = 0
            while True:
                request = {"channel": CHANNEL, "data": number}
                try:
                    result = await self.call(http, "publish", request)
                except aiohttp.ClientError:  # not acknowledged
                    continue
                self.last = result["epoch"], result["offset"]
                self.acknowledged[self.last] = number
                number += 1
                await asyncio.sleep(0.002)

    async def history(self) -> dict[Position, int]:
        async with aiohttp.ClientSession() as http:
            found = await self.call(http, "history", {"channel": CHANNEL, "limit": -1})
        return {(found["epoch"], pub["offset"]): pub["data"] for pub in found["publications"]}


class Reader:
    """A client that comes back, says where it left off, and notes what it is told."""

    def __init__(self, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}/connection/websocket"
        self.received: dict[Position, int] = {}
        self.position: Position | None = None
        self.recoveries: list[bool] = []
        self.closes: list[int | None] = []

    async def run(self) -> None:
        while True:
            with contextlib.suppress(OSError, WebSocketException):
                async with connect(self.url, compression=None) as ws:
                    try:
                        await self._session(ws)
                    finally:
                        self.closes.append(ws.close_code)
            await asyncio.sleep(0.005)

    async def _session(self, ws: Any) -> None:
        await ws.send('{"id":1,"connect":{}}')
        await ws.recv()
        request: dict[str, Any] = {"channel": CHANNEL}
        if self.position is not None:
            epoch, offset = self.position
            request |= {"recover": True, "epoch": epoch, "offset": offset}
        await ws.send(json.dumps({"id": 2, "subscribe": request}))
        async for message in ws:
            for line in message.splitlines():
                self._read(json.loads(line))

    def _read(self, told: dict[str, Any]) -> None:
        if "subscribe" in told:
            reply = told["subscribe"]
            recovered = reply.get("recovered", False)
            if self.position is not None:
                self.recoveries.append(recovered)
                # What it is told is the truth: another epoch is another history.
                assert recovered == (self.position[0] == reply["epoch"])
            if not recovered:
                self.position = reply["epoch"], reply.get("offset", 0)
                assert not reply.get("publications")
            for publication in reply.get("publications", []):
                self._take(publication)
        elif "push" in told and "pub" in told["push"]:
            self._take(told["push"]["pub"])

    def _take(self, publication: dict[str, Any]) -> None:
        assert self.position is not None
        epoch, offset = self.position
        assert publication["offset"] == offset + 1, "lost, twice or out of order"
        self.position = epoch, offset + 1
        self.received[self.position] = publication["data"]


def start(way: str, port: int, listening: socket.socket) -> subprocess.Popen[str]:
    if way == "socket activation":
        return activated({"clients": listening}, **SETTINGS)
    reuse = {"FASTWS_HTTP_SERVER_PORT": str(port), "FASTWS_HTTP_SERVER_REUSE_PORT": "true"}
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve"],
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRON, **SETTINGS, **reuse},
    )


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["socket activation", "reuse port"])
async def test_a_restart_under_load_loses_nothing_that_was_acknowledged_and_kept(way: str) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        if way == "socket activation":
            sock.listen(1000)
        with start(way, port, sock) as old:
            try:
                await asyncio.to_thread(read_until, old, "listening")
                await take_over(way, port, sock, old)
            finally:
                old.kill()


async def take_over(
    way: str, port: int, sock: socket.socket, old: subprocess.Popen[str]
) -> None:
    publisher, readers = Publisher(port), [Reader(port) for _ in range(CLIENTS)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.run()) for each in readers]
        await until(lambda: all(each.position for each in readers))
        tasks.append(group.create_task(publisher.run()))
        await until(lambda: len(publisher.acknowledged) > 50)
        with start(way, port, sock) as new:
            try:
                if way == "reuse port":  # else the old process must not be beside it
                    await asyncio.to_thread(read_until, new, "listening")
                first = dict(publisher.acknowledged)
                [epoch] = {epoch for epoch, _ in first}
                old.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(old.wait) == 0
                await until(lambda: all(each.recoveries for each in readers))
                enough = len(publisher.acknowledged) + 50
                await until(lambda: len(publisher.acknowledged) > enough)
                tasks[-1].cancel()
                await asyncio.sleep(0)
                last = publisher.last
                await until(lambda: all(each.position == last for each in readers))
                kept = await publisher.history()
            finally:
                for task in tasks:
                    task.cancel()
                new.kill()
    check(publisher, readers, first, epoch, kept)


def check(
    publisher: Publisher,
    readers: list[Reader],
    first: dict[Position, int],
    epoch: str,
    kept: dict[Position, int],
) -> None:
    later = {at: number for at, number in publisher.acknowledged.items() if at[0] != epoch}
    assert later and later.items() <= kept.items()  # the new process has all that it acknowledged
    for reader in readers:
        assert first.items() <= reader.received.items()  # of the old one, while it was asked to
        assert reader.recoveries == [False]  # the memory of the old one is gone, and it is said
        assert reader.closes[0] == 3001
        for at, number in reader.received.items():
            # A publication may have gone out and its acknowledgement been lost.
            assert publisher.acknowledged.get(at, number) == number
