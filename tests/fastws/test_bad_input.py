"""Hostile input over real sockets: the close code of every fault, at a bounded cost."""

from __future__ import annotations

import asyncio
import random
import resource
import time
from typing import Any

import pytest

import fastws
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
    close_payload,
    echo,
    frame,
    head,
    logged,
    serve,
    turns,
    until,
)
from tests.fastws.reference import CONT

pytestmark = pytest.mark.usefixtures("loop_kind")

MAX_SIZE = 1000

# Frames that are faulty, and the close code of the fault.
FAULTS: dict[str, tuple[bytes, int]] = {
    "not masked": (frame(TEXT, b"x", key=None), 1002),
    "reserved bit 1": (frame(TEXT, b"x", reserved=4), 1002),
    "reserved bit 2": (frame(TEXT, b"x", reserved=2), 1002),
    "reserved bit 3": (frame(TEXT, b"x", reserved=1), 1002),
    **{f"opcode {opcode}": (frame(opcode, b""), 1002) for opcode in (3, 4, 5, 6, 7)},
    **{f"opcode {opcode}": (frame(opcode, b""), 1002) for opcode in (11, 12, 13, 14, 15)},
    "fragmented ping": (frame(PING, b"", fin=False), 1002),
    "fragmented close": (frame(CLOSE, b"", fin=False), 1002),
    "ping of 126 bytes": (frame(PING, bytes(126)), 1002),
    "pong of 64 KiB": (frame(PONG, bytes(65536)), 1002),
    "close of 126 bytes": (frame(CLOSE, close_payload(1000, "x" * 124)), 1002),
    "continuation of nothing": (frame(CONT, b"x"), 1002),
    "text inside a message": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "binary inside a message": (frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"), 1002),
    "length with its top bit set": (frame(BINARY, b"", length=2**63, length_bytes=8), 1002),
    "the greatest length": (frame(BINARY, b"", length=2**64 - 1, length_bytes=8), 1002),
    "16-bit length of 125": (frame(BINARY, bytes(125), length_bytes=2), 1002),
    "64-bit length of 65535": (frame(BINARY, bytes(65535), length_bytes=8), 1002),
    "close of one byte": (frame(CLOSE, b"x"), 1002),
    **{
        f"close code {code}": (frame(CLOSE, close_payload(code)), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "close reason that is not UTF-8": (frame(CLOSE, close_payload(1000) + b"\xff"), 1007),
    "text that is not UTF-8": (frame(TEXT, b"abc\xff"), 1007),
    "text with a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "text in overlong form": (frame(TEXT, b"\xc0\xaf"), 1007),
    "text that ends inside a character": (frame(TEXT, b"\xe2\x98"), 1007),
    "text that is bad in a later fragment": (
        frame(TEXT, b"\xe2\x98", fin=False) + frame(CONT, b"x", fin=False),
        1007,
    ),
    "a message too big": (frame(BINARY, bytes(MAX_SIZE + 1)), 1009),
    "a message too big in its fragments": (
        frame(BINARY, bytes(MAX_SIZE), fin=False) + frame(CONT, b"x"),
        1009,
    ),
    "the header of a message of 2**63 - 1 bytes": (
        frame(BINARY, b"", length=2**63 - 1, length_bytes=8),
        1009,
    ),
    "more fragments than are allowed": (
        frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 20,
        1009,
    ),
}


@pytest.mark.parametrize("handler", [Echo, echo], ids=["listener", "coroutine"])
async def test_every_faulty_frame_is_answered_with_its_close_code(
    carrier: str, handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """After what came before it has been answered, and without a word in the log."""
    async with serve(handler, carrier, max_size=MAX_SIZE, max_fragments=10) as server:
        for case, (data, code) in FAULTS.items():
            async with await Peer.open(server) as peer:
                await peer.send(frame(TEXT, b"before") + data + frame(TEXT, b"after"))
                assert await peer.frame() == (TEXT, b"before"), case
                got, reason = await peer.close_frame()
                assert got == code, (case, reason)
                assert reason, case
                assert await peer.ended() == "fin", case
        await until(lambda: not len(server.reactor))
    assert logged(caplog) == []


async def test_faulty_frame_is_answered_however_it_is_cut(carrier: str) -> None:
    async with serve(echo, carrier, max_size=MAX_SIZE, max_fragments=10) as server:
        for case, (data, code) in FAULTS.items():
            async with await Peer.open(server) as peer:
                for start in range(0, min(len(data), 40), 3):
                    await peer.send(data[start : start + 3])
                    await turns(1)
                await peer.send(data[(start + 3) :])
                assert (await peer.close_frame())[0] == code, case


async def test_coroutine_learns_what_was_wrong(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        await peer.send(frame(TEXT, b"good") + frame(TEXT, b"\xff"))
        assert await ws.recv() == "good"
        with pytest.raises(fastws.ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.sent is not None and caught.value.sent.code == 1007
        assert isinstance(caught.value.__cause__, fastws.ProtocolError)
        assert caught.value.__cause__.code == 1007


async def test_coroutine_in_recv_is_woken_by_a_fault(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        receiving = asyncio.ensure_future(ws.recv())
        await turns()
        await peer.send(frame(3, b""))
        with pytest.raises(fastws.ConnectionClosedError) as caught:
            await receiving
        assert caught.value.sent is not None and caught.value.sent.code == 1002


async def test_listener_hears_of_a_fault_as_the_end(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server:
        async with await Peer.open(server) as peer:
            ws = await recorder.opened.get()
            await peer.send(frame(3, b""))
            assert (await peer.close_frame())[0] == 1002
            assert ws.state == fastws.State.CLOSING
        assert await recorder.closed.get() == (ws, 1006, "")


async def test_peer_that_goes_on_after_its_fault_is_dropped_after_the_close_timeout(
    carrier: str,
) -> None:
    recorder = Recorder()
    async with (
        serve(recorder, carrier, close_timeout=0.1) as server,
        await Peer.open(server) as peer,
    ):
        await peer.send(frame(3, b""))
        assert (await peer.close_frame())[0] == 1002

        async def go_on() -> None:
            while True:
                await peer.send(frame(TEXT, b"x" * 1000))
                await turns(1)

        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await asyncio.wait_for(go_on(), 10)
        assert recorder.messages.empty()


async def test_message_that_is_too_big_is_refused_by_its_header(carrier: str) -> None:
    """Nothing of it need be sent, and no memory is taken for it."""
    async with serve(echo, carrier) as server:
        for length, length_bytes in ((2**20 + 1, 8), (2**40, 8), (2**62, 8)):
            async with await Peer.open(server) as peer:
                await peer.send(frame(BINARY, b"", length=length, length_bytes=length_bytes))
                assert (await peer.close_frame())[0] == 1009


async def test_header_that_promises_much_takes_no_memory_before_it_comes(carrier: str) -> None:
    async with serve(echo, carrier, max_size=2**34) as server, await Peer.open(server) as peer:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await peer.send(frame(BINARY, bytes(1000), length=2**34, length_bytes=8))
        await turns(5)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert after - before < 50_000  # KiB
        (ws,) = server.connections
        assert ws.state == fastws.State.OPEN


async def test_100000_empty_fragments_are_refused_at_the_limit_and_cost_little(
    carrier: str,
) -> None:
    async with serve(echo, carrier) as server, await Peer.open(server) as peer:
        began = time.process_time()
        data = frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 100_000
        sending = asyncio.create_task(peer.send(data))
        assert (await peer.close_frame())[0] == 1009
        await sending
        assert time.process_time() - began < 5


async def test_100000_empty_fragments_are_one_message_if_that_is_allowed(carrier: str) -> None:
    async with (
        serve(echo, carrier, max_fragments=None) as server,
        await Peer.open(server) as peer,
    ):
        data = frame(TEXT, b"a", fin=False) + frame(CONT, b"", fin=False) * 100_000
        await peer.send(data + frame(CONT, b"z"))
        assert await peer.message() == "az"


async def test_many_pings_between_fragments_are_answered_and_cost_no_memory(carrier: str) -> None:
    async with serve(echo, carrier) as server, await Peer.open(server) as peer:
        await peer.send(frame(TEXT, b"a", fin=False))
        for _ in range(20):
            await peer.send(frame(PING, b"x") * 500)
            for _ in range(500):
                assert await peer.frame() == (PONG, b"x")
        await peer.send(frame(CONT, b"z"))
        assert await peer.message() == "az"


async def test_client_that_sends_byte_by_byte_is_served(carrier: str) -> None:
    async with serve(Echo, carrier) as server, await Peer.open(server) as peer:
        message = "byte by byte \N{SNOWMAN} " * 12
        for byte in frame(TEXT, message.encode()):
            peer.send_now(bytes([byte]))
            await turns(1)
        assert await peer.message() == message


async def test_many_clients_that_send_byte_by_byte_are_served_at_once(carrier: str) -> None:
    async with serve(Echo, carrier) as server:
        peers = [await Peer.open(server) for _ in range(50)]
        data = [frame(TEXT, f"client {index:03}".encode()) for index in range(50)]
        for column in zip(*data, strict=True):
            for peer, byte in zip(peers, column, strict=True):
                peer.send_now(bytes([byte]))
            await turns(1)
        for index, peer in enumerate(peers):
            assert await peer.message() == f"client {index:03}"
            peer.close()


async def test_client_that_stops_in_the_middle_holds_up_nobody(carrier: str) -> None:
    async with serve(Echo, carrier) as server, await Peer.open(server) as other:
        for cut in (1, 2, 5, 7, 50):
            async with await Peer.open(server) as peer:
                await peer.send(frame(TEXT, bytes(100))[:cut])
                await other.text("x")
                assert await other.message() == "x"
        await until(lambda: len(server.reactor) == 1)


async def test_client_that_never_reads_is_bounded_and_then_dropped(carrier: str) -> None:
    """By the keepalive: a peer that does not take our pings does not answer them."""
    recorder = Recorder()
    options = {"ping_interval": 0.1, "ping_timeout": 0.1, "close_timeout": 0.1}
    async with (
        serve(recorder, carrier, buffers=100_000, **options) as server,
        await Peer.open(server, buffers=100_000),
    ):
        ws = await recorder.opened.get()
        ws.send(bytes(4_000_000))
        await turns()
        fastws.broadcast([ws], "x" * 1000)
        assert await recorder.closed.get() == (ws, 1006, "")
        assert ws.buffered_amount == 0
        assert len(server.reactor) == 0


async def test_garbage_never_reaches_a_handler_unchecked_nor_the_log(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Random bytes, whole and after a good start: an answer or an end, and the server goes on."""
    rng = random.Random(6455)
    async with serve(Echo, carrier) as server:
        for index in range(60):
            garbage = rng.randbytes(rng.randrange(1, 300))
            async with await Peer.open(server) as peer:
                await peer.send(garbage if index % 2 else frame(TEXT, b"x") + garbage)
                peer.half_close()
                try:
                    await peer.rest()
                except ConnectionResetError:
                    pass
            async with await Peer.connect(server) as peer:
                await peer.send(garbage)
                peer.half_close()
                try:
                    await peer.rest()
                except ConnectionResetError:
                    pass
        async with await Peer.open(server) as peer:
            await peer.text("still here")
            assert await peer.message() == "still here"
    assert logged(caplog) == []


async def test_head_that_drips_is_cut_off_by_the_open_timeout_however_busy(carrier: str) -> None:
    async with (
        serve(echo, carrier, open_timeout=0.2) as server,
        await Peer.connect(server) as peer,
    ):
        drip = head() * 10
        began = time.monotonic()

        async def drips() -> None:
            for byte in b"GET / HTTP/1.1\r\nX: " + drip.replace(b"\r\n", b"  "):
                await peer.send(bytes([byte]))
                await asyncio.sleep(0.005)

        dripping = asyncio.ensure_future(drips())
        assert (await peer.response())[0] == 408
        assert time.monotonic() - began < 5
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_head_of_single_bytes_costs_little(carrier: str) -> None:
    """Parsing starts over with each read; the limit of the head bounds that too."""
    async with serve(echo, carrier) as server, await Peer.connect(server) as peer:
        began = time.process_time()
        data = head([("X", "x" * 3000)])
        for byte in data:
            peer.send_now(bytes([byte]))
            await turns(1)
        assert (await peer.response())[0] == 101
        assert time.process_time() - began < 10
