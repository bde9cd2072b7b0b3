"""Slow peers and slow readers: what is queued is bounded, and nobody else is held up."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

import fastws
from tests.fastws.client import (
    BINARY,
    PING,
    TEXT,
    Echo,
    Held,
    Peer,
    Recorder,
    echo,
    frame,
    serve,
    turns,
    until,
)

pytestmark = pytest.mark.usefixtures("loop_kind")

SMALL = 200_000  # bytes in each buffer of the system, where someone shall be slow
FLOOD = 4_000_000  # more than those buffers take


async def fill(ws: fastws.Connection) -> None:
    """Send until the peer's slowness shows here."""
    ws.send(bytes(FLOOD))
    await turns()
    ws.send(b"x")


# --- out


async def sent_when_stuck(peer: Peer, data: bytes) -> int:
    """Bytes of ``data`` that leave before nobody takes any more."""
    sent = 0
    quiet = 0
    while quiet < 20 and sent < len(data):
        try:
            sent += peer.sock.send(data[sent : sent + 100_000])
            quiet = 0
            await turns(1)
        except BlockingIOError:
            quiet += 1
            await asyncio.sleep(0.001)
    return sent


async def test_send_waits_above_the_high_water_mark_until_the_low_one(carrier: str) -> None:
    held = Held()
    async with (
        serve(
            held, carrier, buffers=SMALL, write_limit=(100_000, 10_000), max_backlog=None
        ) as server,
        await Peer.open(server, buffers=SMALL) as peer,
    ):
        ws = await held.connection()
        sent = 0
        amounts = []

        async def sender() -> None:
            nonlocal sent
            while sent < FLOOD:
                await ws.send(bytes(50_000))
                sent += 50_000
                amounts.append(ws.buffered_amount)

        task = asyncio.create_task(sender())
        await until(lambda: ws.buffered_amount > 100_000)
        stopped_at = sent
        await turns(20)
        assert sent == stopped_at and not task.done()
        assert ws.buffered_amount <= 150_020
        # The peer reads on, and so the sender goes on.
        total = FLOOD // 50_000
        for _ in range(total):
            assert await peer.message() == bytes(50_000)
        await task
        # It was let go only below the low mark.
        assert all(amount <= 100_000 for amount in amounts)


async def test_send_below_the_high_water_mark_never_waits(carrier: str) -> None:
    held = Held()
    async with (
        serve(held, carrier, buffers=SMALL, write_limit=1_000_000) as server,
        await Peer.open(server, buffers=SMALL),
    ):
        ws = await held.connection()
        for _ in range(9):
            # One step of a coroutine that never waits ends it.
            with pytest.raises(StopIteration):
                ws.send(bytes(100_000)).send(None)


async def test_write_limit_of_zero_waits_for_every_byte(carrier: str) -> None:
    async with (
        serve(echo, carrier, write_limit=0) as server,
        await Peer.open(server) as peer,
    ):
        for index in range(10):
            await peer.text(str(index))
            assert await peer.message() == str(index)


async def test_send_that_waits_raises_when_the_connection_is_lost(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier, buffers=SMALL, max_backlog=None) as server:
        for end in ("reset", "abort"):
            async with await Peer.open(server, buffers=SMALL) as peer:
                ws = await held.connection()
                await fill(ws)
                waiting = [asyncio.ensure_future(ws.send(bytes(100_000))) for _ in range(3)]
                await turns()
                assert not any(task.done() for task in waiting)
                if end == "reset":
                    peer.reset()
                else:
                    ws.abort()
                for result in await asyncio.gather(*waiting, return_exceptions=True):
                    assert isinstance(result, fastws.ConnectionClosedError)


async def test_send_that_waits_can_be_cancelled_and_has_been_sent(carrier: str) -> None:
    held = Held()
    async with (
        serve(held, carrier, buffers=SMALL, max_backlog=None) as server,
        await Peer.open(server, buffers=SMALL) as peer,
    ):
        ws = await held.connection()
        await fill(ws)
        others = asyncio.ensure_future(ws.send("a" * 100_000))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.send("b"), 0.02)
        assert await peer.message() == bytes(FLOOD)
        assert await peer.message() == b"x"
        assert await peer.message() == "a" * 100_000
        assert await peer.message() == "b"
        await others


async def test_on_drain_is_called_once_for_each_time_above_the_mark(carrier: str) -> None:
    class Listener(Recorder):
        drained = 0

        def on_drain(self, ws: fastws.Connection) -> None:
            self.drained += 1
            assert ws.buffered_amount <= 10_000

    recorder = Listener()
    async with (
        serve(
            recorder, carrier, buffers=SMALL, write_limit=(100_000, 10_000), max_backlog=None
        ) as server,
        await Peer.open(server, buffers=SMALL) as peer,
    ):
        ws = await recorder.opened.get()
        ws.send("below")
        assert await peer.message() == "below"
        assert recorder.drained == 0
        for count in (1, 2, 3):
            await fill(ws)
            for _ in range(5):
                ws.send(bytes(50_000))
            await turns()
            assert recorder.drained == count - 1
            for _ in range(7):
                await peer.message()
            await until(lambda count=count: recorder.drained == count)


async def test_on_drain_may_send_more(carrier: str) -> None:
    rounds = 5

    class Pump(fastws.Listener):
        left = rounds

        def on_open(self, ws: fastws.Connection) -> None:
            self.on_drain(ws)

        def on_drain(self, ws: fastws.Connection) -> None:
            if self.left:
                self.left -= 1
                ws.send(bytes(FLOOD))
                ws.send(bytes(200_000))

    async with (
        serve(Pump, carrier, buffers=SMALL, max_backlog=None) as server,
        await Peer.open(server, buffers=SMALL) as peer,
    ):
        for _ in range(rounds):
            assert await peer.message() == bytes(FLOOD)
            assert await peer.message() == bytes(200_000)


async def test_slow_peer_of_one_connection_delays_no_other(carrier: str) -> None:
    recorder = Recorder()
    async with (
        serve(recorder, carrier, buffers=SMALL, max_backlog=None) as server,
        await Peer.open(server, buffers=SMALL) as slow,
        await Peer.open(server) as fast,
    ):
        ws, other = await recorder.opened.get(), await recorder.opened.get()
        await fill(ws)
        for index in range(20):
            fastws.broadcast([ws, other], f"message {index}")
            assert await fast.message() == f"message {index}"
        assert await slow.message() == bytes(FLOOD)
        assert await slow.message() == b"x"
        for index in range(20):
            assert await slow.message() == f"message {index}"


# --- max_backlog


@pytest.mark.parametrize("way", ["send", "broadcast", "prepared"])
async def test_queue_over_max_backlog_is_dropped_and_closed_with_1008(
    carrier: str, way: str
) -> None:
    recorder = Recorder()
    options = {"write_limit": 10_000, "max_backlog": 1_000_000, "close_timeout": 0.2}
    async with (
        serve(recorder, carrier, buffers=SMALL, **options) as server,
        await Peer.open(server, buffers=SMALL),
        await Peer.open(server) as other,
    ):
        slow, fast = await recorder.opened.get(), await recorder.opened.get()
        prepared = fastws.PreparedMessage(bytes(100_000))
        highest = 0
        for _ in range(1000):
            if slow.state != fastws.State.OPEN:
                break
            if way == "send":
                slow.send(bytes(100_000))
            elif way == "broadcast":
                fastws.broadcast([slow, fast], bytes(100_000))
                assert await other.message() == bytes(100_000)
            else:
                slow.send(prepared)
            highest = max(highest, slow.buffered_amount)
            await asyncio.sleep(0)
        assert slow.state == fastws.State.CLOSING
        assert highest <= 1_000_000
        assert slow.buffered_amount <= 200_000
        # It never reads: the close time-out drops it.
        ws, code, _ = await recorder.closed.get()
        assert ws is slow and code == 1006
        # The other one is as it was.
        fast.send("still here")
        assert await other.message() == "still here"
        with pytest.raises(fastws.ConnectionClosedError) as caught:
            slow.send("x")
        assert caught.value.sent == fastws.Close(1008, "too slow")


async def test_peer_that_was_too_slow_reads_a_whole_frame_and_then_the_close_frame(
    carrier: str,
) -> None:
    recorder = Recorder()
    options = {"write_limit": 10_000, "max_backlog": 3_000_000}
    async with (
        serve(recorder, carrier, buffers=SMALL, **options) as server,
        await Peer.open(server, buffers=SMALL) as peer,
    ):
        ws = await recorder.opened.get()
        while ws.state == fastws.State.OPEN:
            ws.send(bytes(100_000))
            await asyncio.sleep(0)
        assert await peer.close_frame() == (1008, "too slow")
        await peer.say_close(1008)
        assert (await recorder.closed.get())[1] == 1008


async def test_on_overflow_chooses_code_and_reason(carrier: str) -> None:
    class Listener(Recorder):
        overflows = 0

        def on_overflow(self, ws: fastws.Connection) -> None:
            self.overflows += 1
            ws.close(3008, "slow")

    recorder = Listener()
    options = {"write_limit": 10_000, "max_backlog": 1_000_000}
    async with (
        serve(recorder, carrier, buffers=SMALL, **options) as server,
        await Peer.open(server, buffers=SMALL) as peer,
    ):
        ws = await recorder.opened.get()
        while ws.state == fastws.State.OPEN:
            ws.send(bytes(100_000))
            await asyncio.sleep(0)
        assert recorder.overflows == 1
        assert await peer.close_frame() == (3008, "slow")


async def test_on_overflow_that_does_not_close_leaves_it_to_1008(carrier: str) -> None:
    class Listener(Recorder):
        def on_overflow(self, ws: fastws.Connection) -> None:
            assert ws.buffered_amount < 500_000

    recorder = Listener()
    options = {"write_limit": 10_000, "max_backlog": 1_000_000}
    async with (
        serve(recorder, carrier, buffers=SMALL, **options) as server,
        await Peer.open(server, buffers=SMALL) as peer,
    ):
        ws = await recorder.opened.get()
        while ws.state == fastws.State.OPEN:
            ws.send(bytes(100_000))
            await asyncio.sleep(0)
        assert await peer.close_frame() == (1008, "too slow")


async def test_send_does_not_hang_when_on_overflow_aborts(carrier: str) -> None:
    class Listener(Recorder):
        def on_overflow(self, ws: fastws.Connection) -> None:
            ws.abort()

    recorder = Listener()
    async with (
        serve(recorder, carrier, buffers=SMALL, max_backlog=3_000_000) as server,
        await Peer.open(server, buffers=SMALL),
    ):
        ws = await recorder.opened.get()

        async def sender() -> None:
            # Several at once, so that nobody waits until it is too much.
            while True:
                await asyncio.gather(*(ws.send(bytes(1_000_000)) for _ in range(40)))

        with pytest.raises(fastws.ConnectionClosedError):
            await asyncio.wait_for(sender(), 10)


async def test_backlog_may_be_unbounded(carrier: str) -> None:
    held = Held()
    async with (
        serve(held, carrier, buffers=SMALL, max_backlog=None) as server,
        await Peer.open(server, buffers=SMALL) as peer,
    ):
        ws = await held.connection()
        for _ in range(10):
            ws.send(bytes(1_000_000))
        for _ in range(10):
            assert await peer.message() == bytes(1_000_000)


# --- in: listeners


@pytest.mark.parametrize("what", ["messages", "pings"])
@pytest.mark.parametrize("handler", [Echo, echo], ids=["listener", "coroutine"])
async def test_reading_pauses_while_the_peer_does_not_read_the_answers(
    carrier: str, handler: Any, what: str
) -> None:
    """What the server holds is bounded by its mark and one read, not by what the peer sends."""
    async with (
        serve(handler, carrier, buffers=SMALL, write_limit=100_000, max_backlog=None) as server,
        await Peer.open(server, buffers=SMALL) as peer,
    ):
        (ws,) = server.connections
        if what == "messages":
            payload, opcode, count = bytes(10_000), BINARY, 500
        else:
            payload, opcode, count = bytes(125), PING, 40_000
        data = frame(opcode, payload) * count
        sent = await sent_when_stuck(peer, data)
        assert sent < len(data), "the peer's sending was never held up"
        # Its mark, and the answers to one read (256 KiB).
        assert 0 < ws.buffered_amount < 400_000
        assert ws.state == fastws.State.OPEN
        # Once it reads, everything is answered.
        rest = asyncio.create_task(peer.send(data[sent:]))
        for _ in range(count):
            assert (await peer.frame())[1] == payload
        await rest


async def test_paused_listener_gets_every_message_in_order(carrier: str) -> None:
    class Answering(fastws.Listener):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            assert isinstance(message, str)
            ws.send(message + "x" * 1000)

    count = 20_000
    async with (
        serve(Answering, carrier, buffers=SMALL, write_limit=20_000, max_backlog=None) as server,
        await Peer.open(server, buffers=SMALL) as peer,
    ):
        data = b"".join(frame(TEXT, str(index).encode()) for index in range(count))
        flood = asyncio.create_task(peer.send(data))
        await turns(20)
        for index in range(count):
            assert await peer.message() == str(index) + "x" * 1000
        await flood


# --- in: coroutines


async def test_messages_that_nobody_receives_stay_in_the_socket(carrier: str) -> None:
    """max_queue bounds what is taken, so the peer is stopped soon after the buffers are full."""
    held = Held()
    async with (
        serve(held, carrier, buffers=SMALL, max_queue=4) as server,
        await Peer.open(server, buffers=SMALL) as peer,
    ):
        ws = await held.connection()
        size, count = 20_000, 200
        one = frame(BINARY, bytes(size))
        sent = await sent_when_stuck(peer, one * count)
        assert sent < len(one) * count, "the peer was never held up"
        rest = asyncio.create_task(peer.send((one * count)[sent:]))
        for _ in range(count):
            assert await ws.recv() == bytes(size)
        await rest


@pytest.mark.parametrize("limit", [1, 2, 16, None])
async def test_small_messages_of_one_read_are_all_received_whatever_max_queue(
    carrier: str, limit: int | None
) -> None:
    held = Held()
    async with (
        serve(held, carrier, buffers=SMALL, max_queue=limit) as server,
        await Peer.open(server) as peer,
    ):
        ws = await held.connection()
        count = 1000
        await peer.send(b"".join(frame(TEXT, str(index).encode()) for index in range(count)))
        await turns(5)
        for index in range(count):
            assert await ws.recv() == str(index)
            if index % 100 == 0:
                await turns(2)
        await peer.text("end")
        assert await ws.recv() == "end"


async def test_slow_coroutine_holds_up_only_its_own_client(carrier: str) -> None:
    release = asyncio.Event()

    async def handler(ws: fastws.Connection) -> None:
        if ws.request.path == "/slow":
            await release.wait()
        async for message in ws:
            await ws.send(message)

    async with (
        serve(handler, carrier, buffers=SMALL, max_queue=2) as server,
        await Peer.open(server, path="/slow") as slow,
        await Peer.open(server, path="/fast") as fast,
    ):
        await slow.send(frame(TEXT, b"x" * 100) * 100)
        for index in range(50):
            await fast.text(str(index))
            assert await fast.message() == str(index)
        release.set()
        for _ in range(100):
            assert await slow.message() == "x" * 100


async def test_close_frame_behind_messages_that_wait_is_seen_when_they_are_received(
    carrier: str,
) -> None:
    held = Held()
    async with (
        serve(held, carrier, buffers=SMALL, max_queue=1) as server,
        await Peer.open(server) as peer,
    ):
        ws = await held.connection()
        await peer.send(frame(TEXT, b"x") * 50)
        await peer.say_close(4000, "bye")
        await turns(5)
        assert [message async for message in _quietly(ws)] == ["x"] * 50
        assert (ws.close_code, ws.close_reason) == (4000, "bye") or await ws.wait_closed() is None
        assert await peer.close_frame() == (4000, "bye")


async def _quietly(ws: fastws.Connection) -> Any:
    with contextlib.suppress(fastws.ConnectionClosed):
        while True:
            yield await ws.recv()


async def test_messages_before_a_fin_are_received_even_if_they_had_to_wait(carrier: str) -> None:
    held = Held()
    async with (
        serve(held, carrier, buffers=SMALL, max_queue=1) as server,
        await Peer.open(server) as peer,
    ):
        ws = await held.connection()
        await peer.send(frame(TEXT, b"x") * 500)
        peer.half_close()
        await turns(10)
        assert [message async for message in _quietly(ws)] == ["x"] * 500
