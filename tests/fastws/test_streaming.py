"""Messages in fragments, sent and received as they come (RFC 6455 5.4), and ``recv(decode=…)``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import fastws
from tests.fastws.client import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Held,
    Peer,
    Recorder,
    frame,
    serve,
    shown,
    turns,
    until,
    url,
)
from tests.fastws.raw_server import ServerPeer, no_proxy, raw_server
from tests.fastws.reference import CONT

pytestmark = pytest.mark.usefixtures("loop_kind", "no_proxy")

__all__ = ["no_proxy"]

SNOWMAN = "\N{SNOWMAN}".encode()


async def raw_frame(peer: Peer) -> tuple[int, bytes]:
    """First byte and payload of a server's next frame; of fewer than 126 bytes."""
    first, length = await peer.exactly(2)
    assert length < 126
    return first, await peer.exactly(length)


async def slowly(items: Any) -> AsyncIterator[Any]:
    for item in items:
        await asyncio.sleep(0.001)
        yield item


def aiter_of(items: Any) -> AsyncIterator[Any]:
    return slowly(items)


# --- send


@pytest.mark.parametrize("make", [list, iter, tuple, aiter_of], ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    ("items", "text", "opcode"),
    [
        (["a", "b\xfc", ""], None, TEXT),
        (["a", "b\xfc", ""], False, BINARY),
        ([b"a", bytearray(b"b\xc3\xbc"), memoryview(b"")], None, BINARY),
        ([b"a", b"b\xc3\xbc", b""], True, TEXT),
        (["only"], None, TEXT),
    ],
    ids=shown,
)
async def test_each_item_is_a_fragment_of_one_message(
    carrier: str, make: Any, items: list[Any], text: bool | None, opcode: int
) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        assert await ws.send(make(items), text) is None
        for index, item in enumerate(items):
            payload = item.encode() if isinstance(item, str) else bytes(item)
            assert await raw_frame(peer) == (opcode if index == 0 else CONT, payload)
        assert await raw_frame(peer) == (0x80 | CONT, b"")


async def test_a_client_masks_each_fragment(carrier: str) -> None:
    got: asyncio.Queue[Any] = asyncio.Queue()

    async def handler(peer: ServerPeer) -> None:
        await peer.accept()
        for _ in range(4):
            got.put_nowait(await peer.raw_frame())
        await peer.close_handshake()

    async with raw_server(handler) as uri, fastws.connect(uri, carrier=carrier) as ws:
        await ws.send(["a", "b", "c"])
        frames = [await got.get() for _ in range(4)]
    assert [(first, payload) for first, _, payload in frames] == [
        (TEXT, b"a"),
        (CONT, b"b"),
        (CONT, b"c"),
        (0x80, b""),
    ]
    assert len({key for _, key, _ in frames}) == 4


async def test_no_item_is_no_message(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        await ws.send([])
        await ws.send(slowly([]))
        await ws.send("next")
        assert await peer.message() == "next"


@pytest.mark.parametrize("wrong", [{"a": 1}, 1, None, memoryview(b"abcd")[::2]], ids=shown)
async def test_what_is_no_iterable_of_fragments_is_refused_at_once(
    carrier: str, wrong: Any
) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        with pytest.raises(TypeError, match="message"):
            ws.send(wrong)
        await ws.send({"a": 1, "b": 2}.keys())
        assert [(await raw_frame(peer))[1] for _ in range(3)] == [b"a", b"b", b""]


@pytest.mark.parametrize("first", [1, ["nested"], fastws.PreparedMessage("x")])
async def test_a_wrong_first_item_sends_nothing(carrier: str, first: Any) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        with pytest.raises(TypeError, match="fragment"):
            await ws.send([first])
        await ws.send("still open")
        assert await peer.message() == "still open"


class Oops(Exception):
    pass


def breaking() -> Iterator[str]:
    yield "a"
    raise Oops


async def breaking_later() -> AsyncIterator[str]:
    yield "a"
    raise Oops


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: ["a", b"b"], TypeError),
        (lambda: [b"a", "b"], TypeError),
        (lambda: ["a", 1], TypeError),
        (lambda: ["a", "\ud800"], UnicodeEncodeError),
        (breaking, Oops),
        (breaking_later, Oops),
    ],
)
async def test_an_error_in_the_middle_closes_with_1011(
    carrier: str, make: Any, error: type[Exception]
) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        with pytest.raises(error):
            await ws.send(make())
        assert (await raw_frame(peer))[0] & 0x0F in (TEXT, BINARY)
        assert await peer.close_frame() == (1011, "error in a fragmented message")
        with pytest.raises(fastws.ConnectionClosedError) as caught:
            ws.send("more")
        assert isinstance(caught.value.__cause__, error)


async def test_cancelling_in_the_middle_closes_with_1011(carrier: str) -> None:
    async def forever() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(60)

    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await ws.send(forever())
        assert await raw_frame(peer) == (TEXT, b"a")
        assert await peer.close_frame() == (1011, "error in a fragmented message")


async def test_other_messages_wait_behind_and_control_frames_do_not(carrier: str) -> None:
    go = asyncio.Event()

    async def fragments() -> AsyncIterator[str]:
        yield "a"
        await go.wait()
        yield "b"

    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        first = asyncio.ensure_future(ws.send(fragments()))  # type: ignore[arg-type]
        assert await raw_frame(peer) == (TEXT, b"a")
        behind = bytearray(b"2")
        waiting = [ws.send("1"), ws.send(behind), ws.send(fastws.PreparedMessage("3"))]
        behind[:] = b"x"
        fastws.broadcast([ws], "4")
        second = asyncio.create_task(ws.send(["5", "6"]))  # type: ignore[arg-type]
        await ws.ping(b"beat")
        assert await raw_frame(peer) == (0x80 | PING, b"beat")
        await turns()
        assert not first.done() and not second.done()
        go.set()
        assert [await raw_frame(peer) for _ in range(9)] == [
            (CONT, b"b"),
            (0x80, b""),
            (0x80 | TEXT, b"1"),
            (0x80 | BINARY, b"2"),
            (0x80 | TEXT, b"3"),
            (0x80 | TEXT, b"4"),
            (TEXT, b"5"),
            (CONT, b"6"),
            (0x80, b""),
        ]
        for awaitable in (*waiting, first, second):
            await awaitable
        await ws.send("free again")
        assert await peer.message() == "free again"


async def test_what_waits_behind_hears_that_the_connection_is_closed(carrier: str) -> None:
    async def fragments() -> AsyncIterator[str]:
        while True:
            yield "a"
            await asyncio.sleep(0)

    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        sending = asyncio.ensure_future(ws.send(fragments()))  # type: ignore[arg-type]
        await raw_frame(peer)
        behind = ws.send("behind")
        await peer.say_close(1000)
        with pytest.raises(fastws.ConnectionClosedOK):
            await behind
        with pytest.raises(fastws.ConnectionClosedOK):
            await sending


async def test_what_waits_behind_is_bounded_by_max_backlog(carrier: str) -> None:
    go = asyncio.Event()

    async def fragments() -> AsyncIterator[str]:
        yield "a"
        await go.wait()

    held = Held()
    async with serve(held, carrier, max_backlog=10_000) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        sending = asyncio.ensure_future(ws.send(fragments()))  # type: ignore[arg-type]
        await raw_frame(peer)
        for _ in range(100):
            ws.send(bytes(1000))
        assert await peer.close_frame() == (1008, "too slow")
        go.set()
        with pytest.raises(fastws.ConnectionClosedError):
            await sending


async def test_fragments_go_at_the_speed_of_the_peer(carrier: str) -> None:
    made = 0

    def fragments() -> Iterator[bytes]:
        nonlocal made
        for _ in range(1000):
            made += 1
            yield bytes(100_000)

    held = Held()
    async with (
        serve(held, carrier, buffers=50_000) as server,
        await Peer.open(server, buffers=50_000) as peer,
    ):
        ws = await held.connection()
        sending = asyncio.ensure_future(ws.send(fragments()))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        assert 0 < made < 20
        assert ws.buffered_amount < 400_000
        draining = asyncio.create_task(peer.drain())
        await sending
        assert made == 1000
        ws.abort()
        await draining


# --- recv_streaming


async def test_fragments_are_received_as_they_come(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        fragments = ws.recv_streaming()
        await peer.send(frame(TEXT, b"a", fin=False))
        assert await anext(fragments) == "a"
        await peer.send(frame(PING, b"between") + frame(CONT, b"", fin=False))
        assert await anext(fragments) == ""
        await peer.send(frame(CONT, b"b"))
        assert await anext(fragments) == "b"
        with pytest.raises(StopAsyncIteration):
            await anext(fragments)
        assert await peer.frame() == (PONG, b"between")
        await peer.send(frame(BINARY, b"c", fin=False) + frame(CONT, b"d"))
        assert await ws.recv() == b"cd"


async def test_the_whole_stream_of_a_client(carrier: str) -> None:
    async def handler(ws: fastws.ServerConnection) -> None:
        for _ in range(2):
            await ws.send(fragment async for fragment in ws.recv_streaming())
        assert [message async for message in ws] == ["end"]

    async with (
        serve(handler, carrier) as server,
        fastws.connect(url(server), carrier=carrier) as ws,
    ):
        for pieces in (["a" * 70_000, "\N{SNOWMAN}" * 20_000, ""], [b"x" * 200_000] * 3):
            await ws.send(pieces)
            got = [fragment async for fragment in ws.recv_streaming()]
            assert got[: len(pieces)] == pieces
            assert len(pieces[0][:0].join(got)) == sum(map(len, pieces))  # type: ignore[arg-type]
        await ws.send("end")


@pytest.mark.parametrize("kind", [TEXT, BINARY])
async def test_a_message_sent_whole_is_one_fragment(carrier: str, kind: int) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        await peer.send(frame(kind, b"1") + frame(kind, b"2"))
        for expected in (b"1", b"2"):
            message = expected.decode() if kind == TEXT else expected
            assert [fragment async for fragment in ws.recv_streaming()] == [message]


async def test_what_came_before_is_the_first_fragment(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        data = frame(TEXT, b"a", fin=False) + frame(CONT, b"b", fin=False) + frame(PING)
        await peer.send(data)
        assert await peer.frame() == (PONG, b"")
        fragments = ws.recv_streaming()
        assert await anext(fragments) == "ab"
        await peer.send(frame(CONT, b"c"))
        assert [fragment async for fragment in fragments] == ["c"]


async def test_code_points_may_be_cut(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        cut = frame(TEXT, b"x" + SNOWMAN[:1], fin=False) + frame(CONT, SNOWMAN[1:2], fin=False)
        cut += frame(CONT, SNOWMAN[2:] + b"y")
        await peer.send(cut * 2)
        assert [fragment async for fragment in ws.recv_streaming()] == ["x", "", "\N{SNOWMAN}y"]
        # The second one came while fragments were received.
        assert await ws.recv() == "x\N{SNOWMAN}y"
        await peer.send(cut)
        expected = [b"x", b"", SNOWMAN + b"y"]  # a code point comes with the fragment that ends it
        assert [fragment async for fragment in ws.recv_streaming(decode=False)] == expected


async def test_messages_that_came_meanwhile_are_received_whole(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        fragmented = frame(TEXT, b"a", fin=False) + frame(CONT, b"b")
        await peer.send(frame(TEXT, b"whole") + fragmented * 3 + frame(BINARY, b"last"))
        await peer.send(frame(CLOSE, b""))
        assert [fragment async for fragment in ws.recv_streaming()] == ["whole"]
        assert await ws.recv() == "ab"
        assert await ws.recv(decode=False) == b"ab"
        assert [message async for message in ws] == ["ab", b"last"]


async def test_fragments_may_be_taken_for_text_or_bytes(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        await peer.send(frame(BINARY, SNOWMAN[:2], fin=False) + frame(CONT, SNOWMAN[2:]))
        text = [fragment async for fragment in ws.recv_streaming(decode=True)]
        assert "".join(map(str, text)) == "\N{SNOWMAN}"
        await peer.send(frame(BINARY, b"a", fin=False) + frame(CONT, b"\xff", fin=False))
        fragments = ws.recv_streaming(decode=True)
        assert await anext(fragments) == "a"
        with pytest.raises(fastws.ConnectionClosedError) as caught:
            await anext(fragments)
        assert isinstance(caught.value.__cause__, UnicodeDecodeError)
        assert await peer.close_frame() == (1007, "binary message is not valid UTF-8")


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (frame(CONT, b"\xff"), 1007),
        (frame(CONT, SNOWMAN[:2]), 1007),
        (frame(TEXT, b"x"), 1002),
        (frame(CONT, bytes(1000)), 1009),
        (frame(CONT, bytes(400), fin=False) + frame(CONT, bytes(700)), 1009),
        (frame(CONT, b"x", fin=False) * 4, 1009),
    ],
    ids=["bad", "cut", "interrupted", "too big", "too big in all", "too many"],
)
async def test_the_rules_hold_for_the_whole_message(carrier: str, frames: bytes, code: int) -> None:
    held = Held()
    async with (
        serve(held, carrier, max_size=1000, max_fragments=4) as server,
        await Peer.open(server) as peer,
    ):
        ws = await held.connection()
        await peer.send(frame(TEXT, b"good", fin=False))
        fragments = ws.recv_streaming()
        assert await anext(fragments) == "good"
        await peer.send(frames)
        with pytest.raises(fastws.ConnectionClosedError):
            async for _ in fragments:
                pass
        assert (await peer.close_frame())[0] == code
        with pytest.raises(fastws.ConnectionClosedError):
            await ws.recv()


async def test_sizes_are_counted_anew_for_each_message(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier, max_size=1000) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        for _ in range(3):
            await peer.send(frame(BINARY, bytes(500), fin=False) + frame(CONT, bytes(500)))
            sizes = [len(fragment) async for fragment in ws.recv_streaming()]
            assert sizes == [500, 500]
            await peer.send(frame(BINARY, bytes(500), fin=False) + frame(CONT, bytes(500)))
            assert await ws.recv() == bytes(1000)


async def test_only_one_receives_at_a_time(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        waiting = asyncio.ensure_future(ws.recv())
        await turns()
        with pytest.raises(fastws.ConcurrencyError):
            await anext(ws.recv_streaming())
        await peer.text("for the one who waited")
        assert await waiting == "for the one who waited"

        await peer.send(frame(TEXT, b"a", fin=False))
        fragments = ws.recv_streaming()
        assert await anext(fragments) == "a"
        with pytest.raises(fastws.ConcurrencyError, match="in the middle"):
            await ws.recv()
        with pytest.raises(fastws.ConcurrencyError, match="in the middle"):
            await anext(ws)
        with pytest.raises(fastws.ConcurrencyError, match="in the middle"):
            await anext(ws.recv_streaming())
        await peer.send(frame(CONT, b"b"))
        assert [fragment async for fragment in fragments] == ["b"]


async def test_cancelling_before_the_first_fragment_loses_nothing(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(ws.recv_streaming())
        await peer.send(frame(TEXT, b"a", fin=False) + frame(CONT, b"b"))
        assert await ws.recv() == "ab"


async def test_the_end_of_the_connection_ends_the_fragments(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        await peer.send(frame(TEXT, b"a", fin=False) + frame(CLOSE, b""))
        fragments = ws.recv_streaming()
        assert await anext(fragments) == "a"
        with pytest.raises(fastws.ConnectionClosedOK):
            await anext(fragments)
        with pytest.raises(fastws.ConnectionClosedOK):
            await ws.recv()


async def test_fragments_count_for_max_queue(carrier: str) -> None:
    held = Held()
    async with (
        serve(held, carrier, max_queue=4, buffers=50_000, max_size=None) as server,
        await Peer.open(server, buffers=50_000) as peer,
    ):
        ws = await held.connection()
        data = frame(BINARY, bytes(10_000), fin=False)
        data += frame(CONT, bytes(10_000), fin=False) * 200 + frame(CONT, b"")
        fragments = ws.recv_streaming()
        sending = asyncio.create_task(peer.send(data))
        assert await anext(fragments) == bytes(10_000)
        await asyncio.sleep(0.05)
        assert not sending.done()
        assert [len(fragment) async for fragment in fragments] == [10_000] * 200 + [0]
        await sending


async def test_a_listener_leaves_nothing_to_receive(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server, await Peer.open(server):
        ws = await recorder.opened.get()
        with pytest.raises(RuntimeError, match="listener"):
            await anext(ws.recv_streaming())


# --- recv(decode=…)


async def test_recv_decodes_as_it_is_told_to(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        await peer.send((frame(TEXT, SNOWMAN) + frame(BINARY, SNOWMAN)) * 3)
        assert [await ws.recv(), await ws.recv()] == ["\N{SNOWMAN}", SNOWMAN]
        assert [await ws.recv(decode=True), await ws.recv(True)] == ["\N{SNOWMAN}"] * 2
        assert [await ws.recv(decode=False), await ws.recv(False)] == [SNOWMAN] * 2
        await peer.send(frame(BINARY, b"\xff"))
        with pytest.raises(fastws.ConnectionClosedError) as caught:
            await ws.recv(decode=True)
        assert isinstance(caught.value.__cause__, UnicodeDecodeError)
        assert await peer.close_frame() == (1007, "binary message is not valid UTF-8")


async def test_recv_with_decode_may_be_cancelled(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(decode=False), 0.02)
        await peer.text("kept")
        await until(lambda: ws.state is fastws.State.OPEN)
        assert await ws.recv(decode=False) == b"kept"
