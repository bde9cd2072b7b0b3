"""The programs in ``examples/`` do what they say, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="only the tests are here")


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
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-u",
        *arguments,
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


# --- programs that run with websockets too


@pytest.fixture(params=["fastws", "websockets"])
def ported(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Makes a path of a program in ``examples/ported`` that imports one library or the other."""

    def path(name: str) -> str:
        source = (EXAMPLES / "ported" / name).read_text()
        changed, count = re.subn(
            r"^from fastws import", f"from {request.param} import", source, flags=re.MULTILINE
        )
        assert count == 1
        assert "fastws" not in changed.replace("from fastws import", ""), "only the import differs"
        copy = tmp_path / name
        copy.write_text(changed)
        return str(copy)

    return path


async def events(ws: ClientConnection) -> Any:
    """The next event of the game, as a tuple of its values."""
    return tuple(json.loads(await ws.recv()).values())


async def test_the_chat_tells_a_room_what_its_members_say(ported: Any) -> None:
    port = free_port()
    async with program(ported("chat.py"), str(port), port=port):  # noqa: SIM117
        async with connect(port) as ann, connect(port) as bob:
            assert (await ann.recv()).endswith(" joined")
            await ann.send("/nick ann")
            assert (await bob.recv()).endswith(" is now ann")
            await bob.send("/nick bob")
            assert [(await ws.recv()).split(" is ")[-1] for ws in (ann, ann, bob)] == [
                "now ann",
                "now bob",
                "now bob",
            ]
            await bob.send("hello")
            assert await ann.recv() == await bob.recv() == "bob: hello"
            await ann.send("/who")
            assert await ann.recv() == "ann, bob"
            await ann.send("/join corner")
            assert await bob.recv() == "* ann left"
            await ann.send("alone")
            assert await ann.recv() == "ann: alone"
            await ann.send(b"bytes")
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await ann.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1003, "text, please")


async def test_four_in_a_row_is_won_by_four(ported: Any) -> None:
    port = free_port()
    async with program(ported("four_in_a_row.py"), str(port), port=port):
        async with connect(port, "/new") as first:
            _, key = await events(first)
            async with connect(port, f"/{key}") as second:
                for ws in (first, second):
                    assert await events(ws) == ("begin",)
                await second.send('{"column": 0}')
                assert await events(second) == ("error", "it is not your turn")
                for turn in range(7):
                    ws, column = ((first, 3), (second, 4))[turn % 2]
                    await ws.send(json.dumps({"column": column}))
                    for either in (first, second):
                        assert await events(either) == ("move", turn % 2, column, turn // 2)
                for ws in (first, second):
                    assert await events(ws) == ("win", 0)
                    with pytest.raises(websockets.ConnectionClosedOK):
                        await ws.recv()
        async with connect(port, f"/{key}") as late:
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await late.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4404


async def test_the_token_decides_who_may_connect(ported: Any) -> None:
    port = free_port()
    async with program(ported("token_auth.py"), str(port), port=port) as process:
        token = (await process.stdout.readline()).decode().strip()
        bearer = {"Authorization": f"Bearer {token}"}
        for path, headers in ((f"/?token={token}", None), ("/", bearer)):
            async with connect(port, path, additional_headers=headers) as ws:
                assert await ws.recv() == "hello ann"
        for path in ("/", "/?token=eve.9999999999.0", f"/?token={token}0"):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await connect(port, path)
            assert refused.value.response.status_code == 401
            assert refused.value.response.headers["WWW-Authenticate"] == "Bearer"
        with pytest.raises(websockets.InvalidStatus) as health:
            await connect(port, "/health")
        assert (health.value.response.status_code, health.value.response.body) == (200, b"fine\n")


async def test_the_forwarder_passes_on_both_ways(ported: Any) -> None:
    async def backend(ws: Any) -> None:
        await ws.send(ws.request.path)
        async for message in ws:
            if message == "end":
                await ws.close(4001, "as asked")
                return
            await ws.send(message)

    async def admit(ws: Any, request: Any) -> Any:
        return ws.respond(404, "not here") if request.path == "/nowhere" else None

    port = free_port()
    async with websockets.serve(
        backend, "127.0.0.1", 0, subprotocols=["b"], process_request=admit
    ) as server:
        behind = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with program(ported("forwarder.py"), behind, str(port), port=port):
            async with connect(port, "/path?query", subprotocols=["a", "b"]) as ws:
                assert ws.subprotocol == "b"
                assert await ws.recv() == "/path?query"
                for message in ("text", b"bytes", "x" * 100_000):
                    await ws.send(message)
                    assert await ws.recv() == message
                await ws.send("end")
                with pytest.raises(websockets.ConnectionClosedError) as closed:
                    await ws.recv()
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as asked")
            with pytest.raises(websockets.InvalidStatus) as refused:
                await connect(port, "/nowhere")
            response = refused.value.response
            assert (response.status_code, response.body) == (404, b"not here")


async def test_the_consumer_misses_nothing_over_reconnections(ported: Any) -> None:
    port = free_port()
    name = ported("consumer.py")
    async with (
        program(name, "serve", str(port), port=port),
        program(name, f"ws://127.0.0.1:{port}") as consumer,
    ):
        numbers = [int(await consumer.stdout.readline()) for _ in range(35)]
    assert numbers == list(range(1, 36))


async def test_json_rpc_calls_run_side_by_side(ported: Any) -> None:
    port = free_port()
    name = ported("json_rpc.py")
    async with program(name, "serve", str(port), port=port):
        uri = f"ws://127.0.0.1:{port}"
        for arguments, result in (
            (("add", "1", "2.5"), "3.5"),
            (("multiply", "1"), "no method multiply"),
        ):
            async with program(name, uri, *arguments) as call:
                output = (await call.stdout.read()).decode().splitlines()
            assert output == ["slept 0.1 s", result]
        async with connect(port) as ws:
            await ws.send("{")
            assert json.loads(await ws.recv())["error"]["code"] == -32700
