"""Many sends or reads in one system call: the outcome is that of one by one, come what may."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import fastws
from fastws._loop import reactor_of
from tests.conftest import available_carriers, loop_factory
from tests.fastws.client import Echo, Peer, Recorder, frame, serve, turns
from tests.fastws.reference import TEXT

pytestmark = [
    pytest.mark.usefixtures("loop_kind"),
    pytest.mark.skipif(sys.platform != "linux", reason="io_uring is of Linux"),
]

MANY = 300  # more than one submission takes
FORCED = "io_uring" if "reactor" in available_carriers() else "one by one"


@pytest.fixture(params=sorted({FORCED, "one by one"}))
def sending(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the ring, where the system has one for us, and without."""
    kind: str = request.param
    monkeypatch.setenv("FASTWS_IO_URING", "1" if kind == "io_uring" else "0")
    return kind


def ring() -> Any:
    """Of this loop's poller; ``None`` if there is none."""
    return getattr(reactor_of(asyncio.get_running_loop()).poller, "ring", None)


def system_has_rings() -> bool:
    """Asked without the library: one that could not open its ring would go on in silence."""
    parameters = (ctypes.c_uint32 * 30)()
    parameters[2] = 1 << 7  # IORING_SETUP_SUBMIT_ALL, which the library needs
    descriptor: int = ctypes.CDLL(None).syscall(425, 1, parameters)  # io_uring_setup
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


@contextlib.contextmanager
def replaced(descriptor: int) -> Iterator[None]:
    """By one that is no ring, meanwhile."""
    kept = os.dup(descriptor)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(null, descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(null)


async def open_peers(
    stack: contextlib.AsyncExitStack, server: fastws.Server, count: int, **options: Any
) -> list[Peer]:
    return [
        await stack.enter_async_context(await Peer.open(server, **options)) for _ in range(count)
    ]


async def test_every_one_of_many_that_speak_at_once_is_answered(sending: str) -> None:
    async with serve(Echo(), "auto") as server, contextlib.AsyncExitStack() as stack:
        peers = await open_peers(stack, server, MANY)
        before = ring().tail if ring() else 0
        for round_ in range(3):
            for number, peer in enumerate(peers):
                peer.send_now(frame(TEXT, b"%d of %d" % (number, round_)) * (1 + number % 3))
            for number, peer in enumerate(peers):
                for _ in range(1 + number % 3):
                    assert await peer.message() == f"{number} of {round_}"
        if ring():
            # Three rounds of as many sends, and of as many reads.
            assert ring().tail - before > 4 * MANY, "they came or left one by one"


async def test_the_ring_is_used_where_there_is_one_unless_the_variable_says_no(
    sending: str,
) -> None:
    async with serve(Echo(), "auto"):
        assert (ring() is not None) is (sending == "io_uring" and system_has_rings())


async def test_bursts_of_shared_frames_leave_in_order(sending: str) -> None:
    """A connection's part is a vector; all parts together are more than one submission takes."""
    recorder = Recorder()
    async with serve(recorder, "auto") as server, contextlib.AsyncExitStack() as stack:
        peers = await open_peers(stack, server, 100)
        for number in range(100):  # more segments than one vector has, too
            fastws.broadcast(server.connections, f"shared {number}")
        for connection in server.connections:
            connection.send("own")
        for peer in peers:
            assert [await peer.message() for _ in range(101)] == [
                *(f"shared {number}" for number in range(100)),
                "own",
            ]


async def test_a_reader_that_is_slow_gets_all_and_keeps_nobody_waiting(sending: str) -> None:
    recorder = Recorder()
    async with (
        serve(recorder, "auto", buffers=4096, max_backlog=1 << 24) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        slow = await stack.enter_async_context(await Peer.open(server, buffers=4096))
        others = await open_peers(stack, server, 20)
        sent = []
        for number in range(200):
            sent.append(f"{number:4}" * 500)
            fastws.broadcast(server.connections, sent[-1])
            for peer in others:
                assert await peer.message() == sent[-1]
        assert [await slow.message() for _ in sent] == sent


async def test_one_that_was_reset_is_lost_and_the_others_get_theirs(sending: str) -> None:
    recorder = Recorder()
    async with serve(recorder, "auto") as server, contextlib.AsyncExitStack() as stack:
        gone = await Peer.open(server)
        doomed = await recorder.opened.get()
        peers = await open_peers(stack, server, 10)
        for peer in peers:
            await peer.text("here")
            await recorder.messages.get()
        # Before the loop can see the reset: the sends of this tick are the first to meet it.
        gone.reset()
        fastws.broadcast(server.connections, "to all")
        ws, code, _ = await recorder.closed.get()
        assert ws is doomed
        assert code == 1006
        for peer in peers:
            assert await peer.message() == "to all"


async def test_what_a_callback_does_at_the_end_of_a_tick_reaches_those_already_sent_to(
    sending: str,
) -> None:
    """``on_drained`` and ``on_close`` run between the sends of one tick and what follows them."""

    class Farewell(Recorder):
        def on_close(self, ws: fastws.Connection, code: int, reason: str) -> None:
            super().on_close(ws, code, reason)
            fastws.broadcast(server.connections, "one has left")

        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            super().on_message(ws, message)
            fastws.broadcast(server.connections, message)
            if message == "abort":
                ws.abort()

    recorder = Farewell()
    async with serve(recorder, "auto") as server, contextlib.AsyncExitStack() as stack:
        peers = await open_peers(stack, server, 10)
        first, second, *others = peers
        first.send_now(frame(TEXT, b"abort"))
        second.send_now(frame(TEXT, b"hello"))
        for peer in [second, *others]:
            got = [await peer.message() for _ in range(3)]
            assert sorted(map(str, got)) == ["abort", "hello", "one has left"]


@pytest.mark.parametrize("what", ["close", "abort"])
async def test_one_that_ends_another_of_its_batch_does_not_end_what_it_was_sent(
    sending: str, what: str
) -> None:
    class Ender(Recorder):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            super().on_message(ws, message)
            ws.send("to me")
            for other in list(server.connections):
                if other is not ws:
                    other.send("to you")
                    getattr(other, what)()

    recorder = Ender()
    async with serve(recorder, "auto") as server, contextlib.AsyncExitStack() as stack:
        peers = await open_peers(stack, server, 5)
        for peer in peers:
            peer.send_now(frame(TEXT, b"end the others"))
        await recorder.messages.get()
        await turns(10)
        assert recorder.messages.empty()
        (survivor,) = (ws for ws in server.connections if ws.state == fastws.State.OPEN)
        for peer in peers:
            if peer.sock.getsockname() == survivor.remote_address:
                assert await peer.message() == "to me"
            elif what == "close":
                assert await peer.message() == "to you"
                assert await peer.close_frame() == (1000, "")


async def test_a_ring_that_fails_costs_nobody_a_message(sending: str) -> None:
    """Whatever ``io_uring_enter`` answers: here, that it is no ring any more."""
    async with serve(Echo(), "auto") as server, contextlib.AsyncExitStack() as stack:
        peers = await open_peers(stack, server, 20)
        with replaced(ring().fd) if ring() else contextlib.nullcontext():
            for text in ("once", "twice"):
                for peer in peers:
                    peer.send_now(frame(TEXT, text.encode()))
                for peer in peers:
                    assert await peer.message() == text
        for peer in peers:
            peer.send_now(frame(TEXT, b"again"))
        for peer in peers:
            assert await peer.message() == "again"


async def test_more_than_is_read_together_comes_whole_and_in_order(sending: str) -> None:
    """Of several that are ready, each is read up to a bound at first."""
    sizes = (0, 1, 125, 1000, 32_760, 32_768, 40_000, 100_000, 3)
    sent = [b"%d" % size + b"x" * size for size in sizes]
    async with serve(Echo(), "auto") as server, contextlib.AsyncExitStack() as stack:
        peers = await open_peers(stack, server, 5)
        for peer in peers:
            for message in sent:
                await peer.send(frame(TEXT, message))
        for peer in peers:
            for message in sent:
                assert await peer.message() == message.decode()


async def test_large_messages_in_parts_of_many_at_once(sending: str) -> None:
    message = b"m" * 300_000
    whole = frame(TEXT, message)
    async with serve(Echo(), "auto") as server, contextlib.AsyncExitStack() as stack:
        peers = await open_peers(stack, server, 4)
        for start in range(0, len(whole), 50_000):
            for peer in peers:
                await peer.send(whole[start : start + 50_000])
        for peer in peers:
            assert await peer.message() == message.decode()


async def test_those_that_speak_and_end_at_once_are_heard_and_then_lost(sending: str) -> None:
    recorder = Recorder()
    async with serve(recorder, "auto") as server:
        peers = [await Peer.open(server) for _ in range(9)]
        for number, peer in enumerate(peers):
            if number % 3:
                peer.send_now(frame(TEXT, b"%d" % number))
        for number, peer in enumerate(peers):
            if number % 3 == 2:
                peer.reset()
            else:
                peer.close()
        codes = [(await recorder.closed.get())[1] for _ in peers]
        assert codes == [1006] * len(peers)
        heard = {await recorder.messages.get() for _ in range(recorder.messages.qsize())}
        assert {"1", "4", "7"} <= heard <= {"1", "2", "4", "5", "7", "8"}


async def test_readers_that_are_slow_do_not_lose_what_was_read_for_them(sending: str) -> None:
    start = asyncio.Event()

    async def handler(ws: fastws.Connection) -> None:
        await start.wait()
        async for message in ws:
            await asyncio.sleep(0)
            ws.send(message)

    async with (
        serve(handler, "auto", max_queue=2) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        peers = await open_peers(stack, server, 6)
        for round_ in range(3):
            for peer in peers:
                peer.send_now(b"".join(frame(TEXT, b"%d.%d" % (round_, n)) for n in range(10)))
            await turns(5)
        start.set()
        for peer in peers:
            for round_ in range(3):
                for number in range(10):
                    assert await peer.message() == f"{round_}.{number}"


if "reactor" in available_carriers():  # transports of asyncio do with interruptions what they do

    def test_what_was_read_is_not_lost_when_the_loop_is_interrupted(
        sending: str, loop_kind: str
    ) -> None:
        """``KeyboardInterrupt`` in the callback of one, while others of its batch wait."""

        class Interrupted(Recorder):
            def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
                if message == "interrupt":
                    raise KeyboardInterrupt
                super().on_message(ws, message)

        async def start() -> tuple[fastws.Server, list[Peer]]:
            server = await serve(recorder, "auto")
            return server, [await Peer.open(server) for _ in range(12)]

        async def finish() -> set[str | bytes]:
            async with asyncio.timeout(10):
                heard = {await recorder.messages.get() for _ in range(11)}
            for peer in peers:
                peer.close()
            server.close()
            await server.wait_closed()
            assert recorder.messages.empty()
            return heard

        async def speak() -> None:
            for number, peer in enumerate(peers):
                peer.send_now(frame(TEXT, b"interrupt" if number == 4 else b"%d" % number))
            await asyncio.sleep(5)

        recorder = Interrupted()
        with asyncio.Runner(loop_factory=loop_factory(loop_kind)) as runner:
            server, peers = runner.run(start())
            with pytest.raises(KeyboardInterrupt):
                runner.get_loop().run_until_complete(speak())
            assert runner.run(finish()) == {str(number) for number in range(12) if number != 4}


def test_rings_go_with_their_loops(sending: str) -> None:
    async def once() -> None:
        async with serve(Echo(), "auto"):
            pass

    def open_descriptors() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    asyncio.run(once())
    before = open_descriptors()
    for _ in range(3):
        asyncio.run(once())
    assert open_descriptors() == before
