"""``broadcast`` and ``PreparedMessage``: one message to many."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from websockets.asyncio.client import connect

import fastws
from tests.fastws.client import (
    BINARY,
    TEXT,
    Held,
    Peer,
    Recorder,
    frame,
    logged,
    serve,
    turns,
    url,
)

pytestmark = pytest.mark.usefixtures("loop_kind")


async def test_everyone_gets_what_is_broadcast_in_the_order_of_the_calls(carrier: str) -> None:
    recorder = Recorder()
    messages: list[Any] = [
        "text",
        b"binary",
        bytearray(b"array"),
        "\N{SNOWMAN}" * 1000,
        bytes(100_000),
        "",
        fastws.PreparedMessage("prepared"),
    ]
    expected = [*messages[:2], b"array", *messages[3:6], "prepared"]
    async with serve(recorder, carrier) as server, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(await Peer.open(server)) for _ in range(10)]
        for message in messages:
            fastws.broadcast(server.connections, message)
        for peer in peers:
            assert [await peer.message() for _ in messages] == expected


async def test_broadcast_takes_any_iterable_and_sends_text_flagged_bytes_as_text(
    carrier: str,
) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server, await Peer.open(server) as peer:
        ws = await recorder.opened.get()
        fastws.broadcast((one for one in [ws]), b"generator", text=True)
        fastws.broadcast({ws: None}, "keys", text=False)
        fastws.broadcast([], "nobody")
        assert await peer.frame() == (TEXT, b"generator")
        assert await peer.frame() == (BINARY, b"keys")


async def test_broadcast_skips_connections_that_are_closing_or_closed(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(await Peer.open(server)) for _ in range(4)]
        connections = [await held.connection() for _ in peers]
        connections[0].close(4000)
        connections[1].abort()
        peers[2].reset()
        await connections[2].wait_closed()
        fastws.broadcast(connections, "hello")
        assert await peers[3].message() == "hello"
        assert await peers[0].close_frame() == (4000, "")


async def test_broadcast_never_blocks_nor_raises_for_one_that_does_not_read(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    async with (
        serve(recorder, carrier, buffers=100_000, max_backlog=1_000_000) as server,
        await Peer.open(server, buffers=100_000),
        await Peer.open(server) as other,
    ):
        connections = [await recorder.opened.get(), await recorder.opened.get()]
        for _ in range(60):
            fastws.broadcast(connections, bytes(50_000))
            assert await other.message() == bytes(50_000)
        assert connections[0].state == fastws.State.CLOSING
        assert connections[1].state == fastws.State.OPEN
    assert logged(caplog) == []


async def test_broadcast_in_a_callback_reaches_the_sender_too_in_its_place(carrier: str) -> None:
    class Room(fastws.Listener):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            ws.send("before")
            fastws.broadcast(members, message)
            ws.send("after")

        def on_open(self, ws: fastws.Connection) -> None:
            members.append(ws)

    members: list[fastws.Connection] = []
    async with (
        serve(Room, carrier) as server,
        await Peer.open(server) as first,
        await Peer.open(server) as second,
    ):
        await first.text("to all")
        assert [await first.message() for _ in range(3)] == ["before", "to all", "after"]
        assert await second.message() == "to all"


async def test_broadcast_reaches_connections_of_several_servers_and_carriers(carrier: str) -> None:
    recorder = Recorder()
    async with (
        serve(recorder, carrier) as first,
        serve(recorder, "asyncio") as second,
        await Peer.open(first) as a,
        await Peer.open(second) as b,
    ):
        fastws.broadcast(first.connections | second.connections, "hello")
        assert await a.message() == await b.message() == "hello"


async def test_broadcast_refuses_what_is_no_message(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server, await Peer.open(server) as peer:
        ws = await recorder.opened.get()
        for wrong in (None, 1, ["a"]):
            with pytest.raises(TypeError):
                fastws.broadcast([ws], wrong)
        with pytest.raises(TypeError):
            fastws.broadcast([object()], "x")  # type: ignore[list-item]
        ws.send("still here")
        assert await peer.message() == "still here"


async def test_one_that_closes_in_its_on_close_others_of_the_broadcast_goes_well(
    carrier: str,
) -> None:
    class Chain(Recorder):
        def on_close(self, ws: fastws.Connection, code: int, reason: str) -> None:
            super().on_close(ws, code, reason)
            for other in connections:
                other.abort()

    recorder = Chain()
    async with serve(recorder, carrier) as server, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(await Peer.open(server)) for _ in range(3)]
        connections = [await recorder.opened.get() for _ in peers]
        fastws.broadcast(connections, "x")
        connections[1].abort()
        fastws.broadcast(connections, "y")
        await turns()
        assert recorder.closed.qsize() == 3
        assert server.connections == set()


async def test_clients_of_websockets_receive_a_broadcast(carrier: str) -> None:
    recorder = Recorder()
    async with (
        serve(recorder, carrier) as server,
        connect(url(server)) as first,
        connect(url(server)) as second,
    ):
        prepared = fastws.PreparedMessage("\N{SNOWMAN}" * 50_000)
        fastws.broadcast(server.connections, prepared)
        assert await first.recv() == await second.recv() == "\N{SNOWMAN}" * 50_000


def test_prepared_message_is_the_frame_of_a_server() -> None:
    for size in (0, 125, 126, 65535, 65536):
        prepared = fastws.PreparedMessage(bytes(size))
        assert prepared.frame == frame(BINARY, bytes(size), key=None)
        assert len(prepared) == size
    assert fastws.PreparedMessage("\xe9").frame == frame(TEXT, b"\xc3\xa9", key=None)
    assert len(fastws.PreparedMessage("\xe9")) == 2
    assert fastws.PreparedMessage(memoryview(b"abc")[1:], text=True).frame == frame(
        TEXT, b"bc", key=None
    )
    with pytest.raises(TypeError):
        fastws.PreparedMessage(1)  # type: ignore[arg-type]


async def test_broadcast_takes_raise_exceptions_and_raises_none(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        fastws.broadcast([ws], "hello", raise_exceptions=True)
        assert await peer.message() == "hello"


async def test_those_who_read_too_slowly_are_left_out_and_told_of(carrier: str) -> None:
    drained = asyncio.Event()

    class Drains(Recorder):
        def on_drain(self, ws: fastws.Connection) -> None:
            drained.set()

    recorder = Drains()
    async with (
        serve(recorder, carrier) as server,
        await Peer.open(server) as fast,
        await Peer.open(server) as slow,
    ):
        one, other = [await recorder.opened.get() for _ in range(2)]
        chunk, sent = bytes(50_000), 0
        while not (full := fastws.broadcast_ready([other], chunk)):
            sent += 1
            await asyncio.sleep(0)
            assert sent < 1000
        assert full == [other]
        assert fastws.broadcast_ready([one, other], b"more", text=True) == [other]
        assert await fast.message() == "more"
        for _ in range(sent):
            assert await slow.message() == chunk
        await asyncio.wait_for(drained.wait(), 10)
        assert fastws.broadcast_ready([one, other], "again") == []
        assert await slow.message() == "again"
        with pytest.raises(TypeError):
            fastws.broadcast_ready([object()], "no connection")  # type: ignore[list-item]
