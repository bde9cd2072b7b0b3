"""The programs in ``examples/`` do what they say, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import websockets

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the wheel has no examples")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


async def listens(port: int, process: asyncio.subprocess.Process) -> None:
    """Until something does on ``port``; ``process`` is to be it."""
    async with asyncio.timeout(20):
        while True:
            assert process.returncode is None, "the program has ended"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                await writer.wait_closed()
                return


@contextlib.asynccontextmanager
async def program(*arguments: str, port: int | None = None) -> AsyncIterator[Any]:
    """``python`` with ``arguments``; if ``port`` is given, once it listens there."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-u",
        *arguments,
        env={**os.environ, "PYTHONPATH": path},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if port is not None:
            await listens(port, process)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def uvicorn(app: str, port: int) -> Any:
    """The command that an example's docstring gives, on ``port``."""
    return program(
        *("-m", "uvicorn", "--app-dir", str(EXAMPLES), app),
        *("--ws", "fastws.uvicorn:WebSocketProtocol", "--port", str(port)),
        port=port,
    )


def connect(port: int, path: str = "/", **options: Any) -> Any:
    return websockets.connect(f"ws://127.0.0.1:{port}{path}", proxy=None, **options)


async def test_the_fastapi_example_is_a_chat_with_rooms() -> None:
    port = free_port()
    async with uvicorn("fastapi_app:app", port):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connect(port, "/rooms/lobby"):
                pass
        assert refused.value.response.status_code == 403
        async with connect(port, "/rooms/lobby?name=ann") as ann:
            assert await ann.recv() == "* ann joined"
            async with connect(port, "/rooms/lobby?name=bob") as bob:
                assert await ann.recv() == await bob.recv() == "* bob joined"
                await bob.send("hello")
                assert await ann.recv() == await bob.recv() == "bob: hello"
                url = f"http://127.0.0.1:{port}/rooms"
                counts = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())
                assert json.loads(counts) == {"lobby": 2}
            assert await ann.recv() == "* bob left"


async def test_the_starlette_example_adds_and_refuses() -> None:
    port = free_port()
    async with uvicorn("starlette_app:app", port):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connect(port, "/sum"):
                pass
        response = refused.value.response
        assert (response.status_code, json.loads(response.body or b"")) == (
            400,
            {"error": "speak sums"},
        )
        async with connect(port, "/sum", subprotocols=["sums"]) as client:
            await client.send("[1, 2, 3]")
            assert json.loads(await client.recv()) == {"sum": 6}
            await client.send("1")
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1003
