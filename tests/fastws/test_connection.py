"""An open connection: send, recv, ping, and every way in which it ends (RFC 6455 5.5, 7)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError as TheirConnectionClosedError

import fastws
from fastws import Close, CloseCode, State
from tests.fastws.client import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Echo,
    Held,
    Peer,
    Recorder,
    address,
    close_payload,
    echo,
    frame,
    logged,
    serve,
    shown,
    turns,
    until,
    url,
)
from tests.fastws.reference import CONT

pytestmark = pytest.mark.usefixtures("loop_kind")

styles = pytest.mark.parametrize("handler", [echo, Echo], ids=["coroutine", "listener"])


# --- send


@styles
async def test_text_and_binary_come_back_as_they_went(carrier: str, handler: Any) -> None:
    async with serve(handler, carrier) as server, await Peer.open(server) as peer:
        for size in (0, 1, 125, 126, 127, 65535, 65536, 300_000):
            await peer.send(frame(BINARY, bytes(size)))
            assert await peer.frame() == (BINARY, bytes(size))
            text = ("ascii" * (size // 5 + 1))[:size]
            await peer.text(text)
            assert await peer.frame() == (TEXT, text.encode())
        for text in ("\xe4\xf6\xfc", "\N{SNOWMAN}" * 50_000, "\N{GRINNING FACE}", "a\0b"):
            await peer.text(text)
            assert await peer.frame() == (TEXT, text.encode())


@styles
async def test_fragments_become_one_message_with_control_frames_between(
    carrier: str, handler: Any
) -> None:
    async with serve(handler, carrier) as server, await Peer.open(server) as peer:
        await peer.send(
            frame(TEXT, "\N{SNOWMAN}".encode()[:2], fin=False)
            + frame(PING, b"between")
            + frame(CONT, "\N{SNOWMAN}".encode()[2:], fin=False)
            + frame(CONT, b"")
        )
        assert await peer.frame() == (PONG, b"between")
        assert await peer.frame() == (TEXT, "\N{SNOWMAN}".encode())


class Text(str):
    """A str, but not exactly."""


@pytest.mark.parametrize(
    ("message", "text", "expected"),
    [
        ("text", None, (TEXT, b"text")),
        ("text", True, (TEXT, b"text")),
        ("text", False, (BINARY, b"text")),
        (Text("text"), None, (TEXT, b"text")),
        ("\N{SNOWMAN}", None, (TEXT, "\N{SNOWMAN}".encode())),
        ("\N{SNOWMAN}", False, (BINARY, "\N{SNOWMAN}".encode())),
        (b"data", None, (BINARY, b"data")),
        (b"data", True, (TEXT, b"data")),
        (bytearray(b"data"), None, (BINARY, b"data")),
        (memoryview(b"data")[1:3], None, (BINARY, b"at")),
        (memoryview(b"data"), True, (TEXT, b"data")),
        (fastws.PreparedMessage("p" * 1000), None, (TEXT, b"p" * 1000)),
        (fastws.PreparedMessage(b"data"), None, (BINARY, b"data")),
        (fastws.PreparedMessage(b"data", text=True), None, (TEXT, b"data")),
        (fastws.PreparedMessage("text", text=False), None, (BINARY, b"text")),
    ],
    ids=shown,
)
def test_send_takes(message: Any, text: bool | None, expected: tuple[int, bytes]) -> None:
    async def main() -> None:
        held = Held()
        async with serve(held, "auto") as server, await Peer.open(server) as peer:
            ws = await held.connection()
            assert await ws.send(message, text=text) is None
            assert await peer.frame() == expected

    asyncio.run(main())


async def test_send_refuses_what_is_no_message_and_goes_on(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        for wrong in (None, 1, {"a": 1}, memoryview(b"abcd")[::2]):
            with pytest.raises(TypeError, match="message"):
                ws.send(wrong)
        with pytest.raises(UnicodeEncodeError):
            ws.send("\ud800")
        await ws.send("still open")
        assert await peer.message() == "still open"


async def test_send_need_not_be_awaited(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        for index in range(100):
            ws.send(str(index))
        assert [await peer.message() for _ in range(100)] == [str(index) for index in range(100)]


# --- recv


async def test_recv_gives_messages_in_order_and_then_raises(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        await peer.send(frame(TEXT, b"1") + frame(BINARY, b"2") + frame(TEXT, b"3"))
        await peer.say_close(1001, "bye")
        await ws.wait_closed()
        assert [await ws.recv() for _ in range(3)] == ["1", b"2", "3"]
        for _ in range(2):
            with pytest.raises(fastws.ConnectionClosedOK) as caught:
                await ws.recv()
            assert caught.value.rcvd == Close(1001, "bye")
            assert caught.value.sent == Close(1001, "bye")
            assert caught.value.rcvd_then_sent is True
            assert (caught.value.code, caught.value.reason) == (1001, "bye")


async def test_close_code_is_known_when_iteration_ends(carrier: str) -> None:
    """The TCP connection is still open then, but no other close frame can come."""
    known: list[Any] = []

    async def handler(ws: fastws.Connection) -> None:
        try:
            async for _ in ws:
                pass
        except fastws.ConnectionClosed:
            pass
        known.append((ws.close_code, ws.close_reason))

    async with serve(handler, carrier) as server:
        for data in (frame(CLOSE, close_payload(4000, "bye")), frame(CLOSE), frame(3)):
            async with await Peer.open(server) as peer:
                await peer.send(data)
                await peer.close_frame()
        async with await Peer.open(server):
            pass
        await until(lambda: len(known) == 4)
    assert known == [(4000, "bye"), (1005, ""), (1006, ""), (1006, "")]


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_iteration_ends_quietly_when_the_peer_closes_well(
    carrier: str, code: int | None
) -> None:
    got: list[Any] = []
    ended = asyncio.Event()

    async def handler(ws: fastws.Connection) -> None:
        got.extend([message async for message in ws])
        ended.set()

    async with serve(handler, carrier) as server, await Peer.open(server) as peer:
        await peer.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
        await peer.send(frame(CLOSE, close_payload(code) if code else b""))
        await ended.wait()
        assert got == ["1", "2"]


@pytest.mark.parametrize("end", ["4000", "fin", "reset"])
async def test_iteration_raises_when_the_connection_ends_in_another_way(
    carrier: str, end: str
) -> None:
    caught: asyncio.Queue[fastws.ConnectionClosed] = asyncio.Queue()

    async def handler(ws: fastws.Connection) -> None:
        try:
            async for _ in ws:
                pass
        except fastws.ConnectionClosedError as error:
            caught.put_nowait(error)
            raise

    async with serve(handler, carrier) as server, await Peer.open(server) as peer:
        if end == "4000":
            await peer.say_close(4000, "because")
        elif end == "fin":
            peer.half_close()
        else:
            peer.reset()
        error = await caught.get()
        assert error.code == (4000 if end == "4000" else 1006)
        assert error.reason == ("because" if end == "4000" else "")
        if end == "4000":
            assert error.sent == Close(4000, "because")
        else:
            assert error.rcvd is None and error.sent is None


async def test_messages_that_came_before_the_end_can_still_be_received(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        await peer.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
        peer.half_close()
        await ws.wait_closed()
        assert [await ws.recv(), await ws.recv()] == ["1", "2"]
        with pytest.raises(fastws.ConnectionClosedError):
            await ws.recv()


async def test_everything_raises_once_the_connection_is_closed(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        await peer.say_close()
        await ws.wait_closed()
        calls: list[Callable[[], Any]] = [
            lambda: ws.send("x"),
            lambda: ws.send(b"x"),
            lambda: ws.send(fastws.PreparedMessage("x")),
            ws.ping,
            ws.pong,
            ws.recv,
        ]
        for call in calls:
            with pytest.raises(fastws.ConnectionClosedOK):
                await call()
        # Except what ends it.
        await ws.close()
        await ws.wait_closed()
        ws.abort()
        fastws.broadcast([ws], "x")


# --- ping, pong


@styles
async def test_ping_is_answered_with_its_payload(carrier: str, handler: Any) -> None:
    async with serve(handler, carrier) as server, await Peer.open(server) as peer:
        for payload in (b"", b"x", bytes(range(125))):
            await peer.send(frame(PING, payload))
            assert await peer.frame() == (PONG, payload)


async def test_ping_gives_the_round_trip_time(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        assert ws.latency == 0
        waiter = await ws.ping()
        opcode, payload = await peer.frame()
        assert opcode == PING and len(payload) == 4
        received = time.monotonic()
        await asyncio.sleep(0.02)
        held_back = time.monotonic() - received
        await peer.send(frame(PONG, payload))
        latency = await waiter
        assert held_back <= latency < held_back + 5
        assert ws.latency == latency


async def test_pong_answers_every_ping_before_its_own(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        waiters = [await ws.ping(str(index)) for index in range(4)]
        await peer.send(frame(PONG, b"unknown") + frame(PONG, b"2"))
        await asyncio.gather(*waiters[:3])
        assert not waiters[3].done()
        await peer.send(frame(PONG, b"3"))
        await waiters[3]


async def test_ping_rejects_data_that_cannot_go_out(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        await ws.ping("same")
        with pytest.raises(fastws.ConcurrencyError, match="same data"):
            await ws.ping(b"same")
        for call in (ws.ping, ws.pong):
            with pytest.raises(fastws.ProtocolError, match="125"):
                await call(b"x" * 126)
        assert await peer.frame() == (PING, b"same")
        await ws.ping(b"x" * 125)
        assert await peer.frame() == (PING, b"x" * 125)


async def test_ping_raises_if_the_connection_ends_first(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        waiter = await ws.ping()
        await ws.ping()  # nobody waits for this one, and nobody is told
        peer.half_close()
        with pytest.raises(fastws.ConnectionClosedError):
            await waiter


async def test_listener_hears_of_pongs(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server, await Peer.open(server) as peer:
        ws = await recorder.opened.get()
        waiter = await ws.ping(b"asked")
        await peer.send(frame(PONG, b"asked") + frame(PONG, b"unasked"))
        assert await recorder.pongs.get() == b"asked"
        assert await recorder.pongs.get() == b"unasked"
        assert await waiter >= 0


@styles
async def test_keepalive_keeps_open_who_answers(carrier: str, handler: Any) -> None:
    options = {"ping_interval": 0.04, "ping_timeout": 0.04}
    async with serve(handler, carrier, **options) as server, await Peer.open(server) as peer:
        (ws,) = server.connections
        for _ in range(4):
            opcode, payload = await peer.frame()
            assert opcode == PING
            await peer.send(frame(PONG, payload))
        await peer.text("still here")
        while (got := await peer.frame())[0] == PING:
            await peer.send(frame(PONG, got[1]))
        assert got == (TEXT, b"still here")
        assert ws.latency > 0


@styles
async def test_keepalive_closes_with_1011_who_does_not_answer(carrier: str, handler: Any) -> None:
    options = {"ping_interval": 0.04, "ping_timeout": 0.04}
    async with serve(handler, carrier, **options) as server, await Peer.open(server) as peer:
        (ws,) = server.connections
        opcode, _ = await peer.frame()
        assert opcode == PING
        assert await peer.close_frame() == (1011, "keepalive ping timeout")
        assert await peer.ended() == "fin"
        peer.close()
        await ws.wait_closed()
        assert ws.close_code == 1006
        with pytest.raises(fastws.ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.sent == Close(1011, "keepalive ping timeout")


async def test_keepalive_drops_who_is_gone_without_a_word(carrier: str) -> None:
    """It reads nothing and answers nothing, not even FIN."""
    recorder = Recorder()
    options = {"ping_interval": 0.04, "ping_timeout": 0.04, "close_timeout": 0.04}
    async with serve(recorder, carrier, **options) as server, await Peer.open(server):
        _, code, _ = await recorder.closed.get()
        assert code == 1006
        assert len(server.reactor) == 0


async def test_keepalive_can_be_switched_off(carrier: str) -> None:
    options = {"ping_interval": None, "ping_timeout": 0.01}
    async with serve(echo, carrier, **options) as server, await Peer.open(server) as peer:
        await asyncio.sleep(0.1)
        await peer.text("x")
        assert await peer.frame() == (TEXT, b"x")


async def test_keepalive_without_time_out_only_pings(carrier: str) -> None:
    options = {"ping_interval": 0.02, "ping_timeout": None}
    async with serve(echo, carrier, **options) as server, await Peer.open(server) as peer:
        for _ in range(4):
            assert (await peer.frame())[0] == PING
        (ws,) = server.connections
        assert ws.state == State.OPEN


async def test_application_ping_is_independent_of_keepalive(carrier: str) -> None:
    held = Held()
    options = {"ping_interval": 0.05, "ping_timeout": 5}
    async with serve(held, carrier, **options) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        _, keepalive = await peer.frame()
        waiter = await ws.ping(keepalive)  # by chance, or by malice, the same payload
        assert await peer.frame() == (PING, keepalive)
        await peer.send(frame(PONG, keepalive) + frame(PONG, keepalive))
        assert await asyncio.wait_for(waiter, 5) >= 0


# --- close, by us


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 3000, 4999])
async def test_close_sends_code_and_reason_and_waits_for_the_answer(
    carrier: str, code: int
) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        assert (ws.state, ws.close_code, ws.close_reason) == (State.OPEN, None, None)
        assert ws.close_sent is None
        closing = ws.close(code, "r\xe9ason")
        assert ws.close_sent == Close(code, "r\xe9ason")
        assert (ws.state, ws.close_code) == (State.CLOSING, None)
        assert await peer.frame() == (CLOSE, close_payload(code, "r\xe9ason"))
        await peer.say_close(code, "answer")
        await closing
        assert (ws.state, ws.close_code, ws.close_reason) == (State.CLOSED, code, "answer")
        assert await peer.ended() == "fin"
        with pytest.raises(fastws.ConnectionClosed) as caught:
            ws.send("x")
        assert caught.value.sent == Close(code, "r\xe9ason")
        assert caught.value.rcvd == Close(code, "answer")
        assert caught.value.rcvd_then_sent is False
        assert isinstance(caught.value, fastws.ConnectionClosedOK) == (code in (1000, 1001))


async def test_close_refuses_codes_and_reasons_that_cannot_go_out(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65536):
            with pytest.raises(fastws.ProtocolError):
                ws.close(code)
        with pytest.raises(fastws.ProtocolError, match="124 bytes"):
            ws.close(1000, "\xe9" * 62)
        assert ws.state == State.OPEN
        ws.close(1000, "x" * 123)
        assert await peer.close_frame() == (1000, "x" * 123)


async def test_close_twice_sends_one_frame_and_both_wait(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        both = asyncio.gather(ws.close(4000, "first"), ws.close(4001, "second"))
        assert await peer.close_frame() == (4000, "first")
        await peer.say_close(4000)
        await both
        assert await peer.ended() == "fin"


async def test_close_that_is_cancelled_goes_on_for_others(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        first, second = asyncio.ensure_future(ws.close()), asyncio.ensure_future(ws.close())
        await turns()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await peer.say_close()
        await second
        assert ws.close_code == 1000


async def test_close_gives_up_after_the_close_timeout(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier, close_timeout=0.05) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        began = time.monotonic()
        await ws.close()
        assert 0.04 <= time.monotonic() - began < 2
        assert (ws.state, ws.close_code, ws.close_reason) == (State.CLOSED, 1006, "")
        assert await peer.close_frame() == (1000, "")
        assert await peer.ended() == "fin"
        with pytest.raises(fastws.ConnectionClosedError) as caught:
            ws.send("x")
        assert caught.value.rcvd is None and caught.value.sent == Close(1000)
        assert isinstance(caught.value.__cause__, TimeoutError)


async def test_messages_after_close_are_neither_sent_nor_received(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server, await Peer.open(server) as peer:
        ws = await recorder.opened.get()
        ws.send("before")
        ws.close()
        for message in ("x", b"x", fastws.PreparedMessage("x")):
            with pytest.raises(fastws.ConnectionClosed):
                ws.send(message)
        fastws.broadcast([ws], "x")
        await peer.text("late")
        await peer.send(frame(PING, b"late"))
        await peer.say_close()
        assert await peer.frame() == (TEXT, b"before")
        assert await peer.frame() == (CLOSE, close_payload(1000))
        assert await peer.ended() == "fin"
        assert recorder.messages.empty()


async def test_close_wakes_the_coroutine_in_recv_when_the_peer_has_answered(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        receiving = asyncio.ensure_future(ws.recv())
        await turns()
        ws.close()
        await peer.close_frame()
        assert not receiving.done()
        await peer.say_close()
        with pytest.raises(fastws.ConnectionClosedOK):
            await receiving


async def test_close_with_a_full_queue_does_not_wait_for_the_time_out(carrier: str) -> None:
    """Messages that nobody received are in the way of the peer's close frame."""
    enough = asyncio.Event()

    async def handler(ws: fastws.Connection) -> None:
        await ws.recv()
        await enough.wait()

    async with serve(handler, carrier, max_queue=2) as server, await Peer.open(server) as peer:
        await peer.send(frame(TEXT, b"x" * 1000) * 1000)
        await turns(10)
        enough.set()
        assert await peer.close_frame() == (1000, "")
        (ws,) = server.reactor.connections()
        began = time.monotonic()
        await peer.say_close()
        await ws.wait_closed()
        assert time.monotonic() - began < 5
        assert ws.close_code == 1000


# --- close, by the peer


@styles
@pytest.mark.parametrize(
    "payload",
    [b"", close_payload(1000), close_payload(1001, "bye"), close_payload(4000, "\N{SNOWMAN}")],
    ids=["no code", "1000", "1001", "4000"],
)
async def test_close_frame_is_answered_and_then_the_connection_ends(
    carrier: str, handler: Any, payload: bytes
) -> None:
    async with serve(handler, carrier) as server, await Peer.open(server) as peer:
        (ws,) = server.connections
        await peer.send(frame(CLOSE, payload))
        assert await peer.frame() == (CLOSE, payload)
        assert await peer.ended() == "fin"
        await ws.wait_closed()
        code = int.from_bytes(payload[:2], "big") if payload else 1005
        assert (ws.close_code, ws.close_reason) == (code, payload[2:].decode())


async def test_close_frame_without_a_code_is_a_good_end(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        await peer.send(frame(CLOSE))
        with pytest.raises(fastws.ConnectionClosedOK) as caught:
            await ws.recv()
        assert caught.value.rcvd == Close(1005)
        assert caught.value.code == 1005


async def test_frames_behind_a_close_frame_are_ignored(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server, await Peer.open(server) as peer:
        await peer.send(frame(TEXT, b"1") + frame(CLOSE, close_payload(1000)) + frame(TEXT, b"2"))
        assert await peer.frame() == (CLOSE, close_payload(1000))
        _, code, _ = await recorder.closed.get()
        assert code == 1000
        assert await recorder.messages.get() == "1"
        assert recorder.messages.empty()


async def test_close_frames_that_cross_end_the_connection_well(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        peer.send_now(frame(CLOSE, close_payload(4000, "peer")))
        await ws.close(4001, "we")
        assert (ws.close_code, ws.close_reason) == (4000, "peer")
        assert await peer.close_frame() == (4001, "we")
        assert await peer.ended() == "fin"


async def test_peer_that_half_closes_after_its_close_frame_gets_what_was_queued(
    carrier: str,
) -> None:
    recorder = Recorder()
    async with (
        serve(recorder, carrier, max_backlog=None) as server,
        await Peer.open(server, buffers=100_000) as peer,
    ):
        ws = await recorder.opened.get()
        for index in range(20):
            ws.send(bytes([index]) * 500_000)
        await peer.say_close()
        peer.half_close()
        for index in range(20):
            assert await peer.message() == bytes([index]) * 500_000
        assert await peer.close_frame() == (1000, "")
        assert await peer.ended() == "fin"
        _, code, _ = await recorder.closed.get()
        assert code == 1000


async def test_peer_that_half_closes_without_a_close_frame_is_lost(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server, await Peer.open(server) as peer:
        ws = await recorder.opened.get()
        await peer.text("last")
        peer.half_close()
        assert await recorder.closed.get() == (ws, 1006, "")
        assert await recorder.messages.get() == "last"
        assert (ws.close_code, ws.close_reason) == (1006, "")
        assert await peer.ended() == "fin"


async def test_answer_to_the_last_message_before_a_half_close_still_leaves(carrier: str) -> None:
    async with serve(Echo, carrier) as server, await Peer.open(server) as peer:
        await peer.text("last")
        peer.half_close()
        assert await peer.frame() == (TEXT, b"last")
        assert await peer.ended() == "fin"


async def test_peer_that_resets_is_lost(carrier: str) -> None:
    recorder = Recorder()
    held = Held()
    async with serve(recorder, carrier) as server, await Peer.open(server) as peer:
        ws = await recorder.opened.get()
        peer.reset()
        assert await recorder.closed.get() == (ws, 1006, "")
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        peer.reset()
        with pytest.raises(fastws.ConnectionClosedError) as caught:
            await ws.recv()
        assert isinstance(caught.value.__cause__, OSError)


async def test_peer_that_resets_while_much_is_queued_is_lost(carrier: str) -> None:
    recorder = Recorder()
    async with (
        serve(recorder, carrier, max_backlog=None) as server,
        await Peer.open(server, buffers=100_000) as peer,
    ):
        ws = await recorder.opened.get()
        ws.send(bytes(10_000_000))
        ws.send(bytes(1_000_000))
        await turns()
        peer.reset()
        assert await recorder.closed.get() == (ws, 1006, "")
        assert ws.buffered_amount == 0


@styles
async def test_peer_that_disappears_while_we_send_raises_nothing_but_connection_closed(
    carrier: str, handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(handler, carrier) as server:
        for _ in range(10):
            async with await Peer.open(server) as peer:
                peer.send_now(frame(BINARY, bytes(100_000)))
                await turns(1)
                peer.reset()
        await until(lambda: not len(server.reactor))
    assert logged(caplog) == []


# --- the other ends


async def test_abort_ends_without_a_close_frame(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        receiving = asyncio.ensure_future(ws.recv())
        await turns()
        ws.abort()
        assert (ws.state, ws.close_code) == (State.CLOSED, 1006)
        with pytest.raises(fastws.ConnectionClosedError):
            await receiving
        assert await peer.ended() in ("fin", "reset")
        await ws.wait_closed()
        ws.abort()


async def test_abort_drops_what_is_queued(carrier: str) -> None:
    """A peer that does not read cannot keep the connection."""
    held = Held()
    async with (
        serve(held, carrier, max_backlog=None) as server,
        await Peer.open(server, buffers=100_000) as peer,
    ):
        ws = await held.connection()
        ws.send(bytes(60_000_000))
        await turns()
        ws.abort()
        await turns()
        assert await peer.drain() < 30_000_000


async def test_close_timeout_drops_a_peer_that_does_not_read(carrier: str) -> None:
    held = Held()
    async with (
        serve(held, carrier, max_backlog=None, close_timeout=0.05) as server,
        await Peer.open(server, buffers=100_000) as peer,
    ):
        ws = await held.connection()
        ws.send(bytes(60_000_000))
        await ws.close()
        assert await peer.drain() < 30_000_000


async def test_what_was_sent_before_close_arrives_before_the_close_frame(carrier: str) -> None:
    async def handler(ws: fastws.Connection) -> None:
        for index in range(20):
            ws.send(bytes([index]) * 300_000)

    async with (
        serve(handler, carrier, max_backlog=None) as server,
        await Peer.open(server, buffers=100_000) as peer,
    ):
        for index in range(20):
            assert await peer.message() == bytes([index]) * 300_000
        assert await peer.close_frame() == (1000, "")
        await peer.say_close()
        assert await peer.ended() == "fin"


@pytest.mark.parametrize(
    "end", ["our close", "their close", "fin", "reset", "abort", "error", "server"]
)
async def test_on_close_is_called_exactly_once_with_code_and_reason(
    carrier: str, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Recorder):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            raise ValueError("fail")

    recorder = Failing()
    async with serve(recorder, carrier) as server, await Peer.open(server) as peer:
        ws = await recorder.opened.get()
        expected: tuple[int, str] = (1006, "")
        if end == "our close":
            ws.close(4000, "we")
            await peer.close_frame()
            await peer.say_close(4000, "they")
            expected = (4000, "they")
        elif end == "their close":
            await peer.say_close(4001, "they")
            expected = (4001, "they")
        elif end == "fin":
            peer.half_close()
        elif end == "reset":
            peer.reset()
        elif end == "abort":
            ws.abort()
            ws.abort()
        elif end == "error":
            await peer.text("x")
            await peer.close_frame()
            peer.close()
        else:
            server.close()
            assert await peer.close_frame() == (1001, "")
            await peer.say_close(1001)
            expected = (1001, "")
        assert await recorder.closed.get() == (ws, *expected)
        assert (ws.close_code, ws.close_reason) == expected
        peer.close()
        await turns()
    assert recorder.closed.empty()
    assert len(logged(caplog)) == (1 if end == "error" else 0)


async def test_on_close_may_use_the_connection(carrier: str) -> None:
    seen: list[Any] = []

    class Listener(fastws.Listener):
        def on_close(self, ws: fastws.Connection, code: int, reason: str) -> None:
            seen.append((ws.state, ws.close_code, ws.buffered_amount))
            with pytest.raises(fastws.ConnectionClosed):
                ws.send("x")
            ws.close()
            ws.abort()
            fastws.broadcast([ws], "x")

    async with serve(Listener, carrier) as server, await Peer.open(server) as peer:
        await peer.say_close()
        await peer.close_frame()
        await until(lambda: seen)
        assert seen == [(State.CLOSED, 1000, 0)]


async def test_wait_closed_returns_at_once_on_a_closed_connection(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        peer.half_close()
        await ws.wait_closed()
        await ws.wait_closed()
        await asyncio.wait_for(ws.wait_closed(), 1)


# --- what a connection is


async def test_connection_knows_its_addresses_and_has_an_id(carrier: str) -> None:
    recorder = Recorder()
    async with (
        serve(recorder, carrier) as server,
        await Peer.open(server) as first,
        await Peer.open(server) as second,
    ):
        for peer in (first, second):
            ws = await recorder.opened.get()
            assert ws.local_address == address(server)
            assert ws.remote_address == peer.sock.getsockname()
            assert ws.id == ws.id
            assert "OPEN" in repr(ws)
        first_ws, second_ws = server.connections
        assert first_ws.id != second_ws.id
        ws.abort()
        assert ws.local_address is None and ws.remote_address is None


async def test_addresses_outlive_a_connection_that_was_closed(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        client = peer.sock.getsockname()
        await peer.say_close()
        await peer.close_frame()
        await ws.wait_closed()
        assert (ws.local_address, ws.remote_address) == (address(server), client)


async def test_addresses_of_a_connection_that_is_dropped_are_there_if_they_were_read(
    carrier: str,
) -> None:
    for read in (True, False):
        held = Held()
        async with serve(held, carrier) as server, await Peer.open(server) as peer:
            ws = await held.connection()
            client = peer.sock.getsockname()
            assert not read or ws.remote_address == client
            ws.abort()
            expected = (address(server), client) if read else (None, None)
            assert (ws.local_address, ws.remote_address) == expected


async def test_an_idle_connection_keeps_no_address(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server, await Peer.open(server):
        ws = await recorder.opened.get()
        assert ws.remote_address is not None
        assert ws._details is None


async def test_what_a_connection_logs_names_it(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server):
        ws = await held.connection()
        ws.logger.error("said by the program")
        assert ws.logger.logger is server.logger
    assert [(record.message, record.websocket) for record in caplog.records] == [  # type: ignore[attr-defined]
        ("said by the program", ws)
    ]


async def test_connection_takes_attributes(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server):
        ws = await held.connection()
        ws.user = "somebody"
        assert ws.user == "somebody"
        assert {ws: 1}[ws] == 1


# --- with the client of websockets


@styles
async def test_client_of_websockets_pings_and_is_pinged(carrier: str, handler: Any) -> None:
    async with (
        serve(handler, carrier, ping_interval=0.05) as server,
        connect(url(server), ping_interval=0.05) as client,
    ):
        assert await (await client.ping()) >= 0
        await asyncio.sleep(0.15)
        await client.send("x")
        assert await client.recv() == "x"
        (ws,) = server.connections
        assert ws.latency > 0


async def test_client_of_websockets_sees_code_and_reason_of_our_close(carrier: str) -> None:
    async def handler(ws: fastws.Connection) -> None:
        await ws.close(CloseCode.POLICY_VIOLATION, "no")

    async with serve(handler, carrier) as server, connect(url(server)) as client:
        with pytest.raises(TheirConnectionClosedError) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "no")


async def test_client_of_websockets_may_send_in_fragments(carrier: str) -> None:
    async with serve(echo, carrier) as server, connect(url(server)) as client:
        await client.send(["a", "b" * 1000, "", "c"])
        assert await client.recv() == "a" + "b" * 1000 + "c"
