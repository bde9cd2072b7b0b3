"""What a poller of our own inside the loop could get wrong."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import socket
import threading
import time
import warnings
from typing import Any

import pytest

import fastws
from tests.conftest import loop_factory
from tests.fastws.client import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    Echo,
    Held,
    Peer,
    Recorder,
    address,
    echo,
    frame,
    head,
    logged,
    serve,
    turns,
    until,
)
from tests.fastws.reference import BINARY, CONT

pytestmark = pytest.mark.usefixtures("loop_kind")


async def open_many(
    stack: contextlib.AsyncExitStack, server: fastws.Server, count: int
) -> list[Peer]:
    return [await stack.enter_async_context(await Peer.open(server)) for _ in range(count)]


# --- one batch of events


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_handler_may_end_another_connection_whose_message_is_in_the_same_batch(
    carrier: str, how: str
) -> None:
    class Killer(Recorder):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            super().on_message(ws, message)
            for other in opened:
                if other is not ws:
                    getattr(other, how)()

    recorder = Killer()
    async with (
        serve(recorder, carrier) as server,
        await Peer.open(server) as first,
        await Peer.open(server) as second,
    ):
        opened = [await recorder.opened.get(), await recorder.opened.get()]
        first.send_now(frame(TEXT, b"one"))
        second.send_now(frame(TEXT, b"two"))
        # Whichever is served first silences the other.
        await recorder.messages.get()
        if how == "close":
            survivor = first if opened[0].state == fastws.State.OPEN else second
            victim = second if survivor is first else first
            assert await victim.close_frame() == (1000, "")
            await victim.say_close()
        ws, code, _ = await recorder.closed.get()
        assert code == (1000 if how == "close" else 1006)
        assert recorder.messages.empty()
        assert ws.state == fastws.State.CLOSED
        (survivor_ws,) = server.connections
        assert survivor_ws is not ws


async def test_descriptor_that_gets_a_new_owner_within_a_batch_serves_the_new_owner(
    carrier: str,
) -> None:
    class Killer(Recorder):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            super().on_message(ws, message)
            if message == "kill":
                opened[1].abort()

    recorder = Killer()
    async with (
        serve(recorder, carrier) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        killer, victim = await open_many(stack, server, 2)
        opened = [await recorder.opened.get(), await recorder.opened.get()]
        descriptor, slot = opened[1]._fileno, opened[1].slot
        # Ready in this order, and all before the loop looks: the killer, a new client on the
        # listening socket, the victim.
        killer.send_now(frame(TEXT, b"kill"))
        sock = socket.create_connection(address(server))
        sock.sendall(head() + frame(TEXT, b"new"))
        sock.setblocking(False)
        newcomer = await stack.enter_async_context(Peer(sock))
        victim.send_now(frame(TEXT, b"stale"))
        assert await recorder.messages.get() == "kill"
        assert (await recorder.closed.get())[0] is opened[1]
        ws = await recorder.opened.get()
        if carrier == "reactor":
            assert (ws._fileno, ws.slot) == (descriptor, slot)
        assert (await newcomer.response())[0] == 101
        assert await recorder.messages.get() == "new"
        assert ws.state == fastws.State.OPEN
        assert recorder.messages.empty() and recorder.closed.empty()


async def test_reset_of_the_old_owner_of_a_slot_does_not_touch_the_new_one(carrier: str) -> None:
    recorder = Recorder()
    async with (
        serve(recorder, carrier) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(20):
            peer = await stack.enter_async_context(await Peer.open(server))
            ws = await recorder.opened.get()
            peer.send_now(frame(TEXT, b"x"))
            peer.reset()
            other = await stack.enter_async_context(await Peer.open(server))
            assert (await recorder.closed.get())[0] is ws
            new = await recorder.opened.get()
            await other.text("still here")
            while await recorder.messages.get() == "x":
                pass
            assert new.state == fastws.State.OPEN


async def test_bytes_behind_the_handshake_of_a_connection_that_on_open_aborts_are_ignored(
    carrier: str,
) -> None:
    class Refuser(Recorder):
        def on_open(self, ws: fastws.Connection) -> None:
            ws.abort()

    recorder = Refuser()
    async with serve(recorder, carrier) as server, await Peer.connect(server) as peer:
        await peer.send(head() + frame(TEXT, b"early"))
        assert (await recorder.closed.get())[1] == 1006
        assert recorder.messages.empty()
        assert server.connections == set()


async def test_bytes_behind_the_handshake_of_a_connection_that_on_open_closes_are_ignored(
    carrier: str,
) -> None:
    class Refuser(Recorder):
        def on_open(self, ws: fastws.Connection) -> None:
            ws.close(4000, "no")

    recorder = Refuser()
    async with (
        serve(recorder, carrier) as server,
        await Peer.open(server, behind=frame(TEXT, b"early")) as peer,
    ):
        assert await peer.close_frame() == (4000, "no")
        await peer.say_close(4000)
        assert (await recorder.closed.get())[1] == 4000
        assert recorder.messages.empty()


async def test_frames_behind_the_one_whose_handler_aborts_are_not_looked_at(carrier: str) -> None:
    class Killer(Recorder):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            super().on_message(ws, message)
            ws.abort()

    recorder = Killer()
    async with (
        serve(recorder, carrier, ping_interval=0.02, ping_timeout=10) as server,
        await Peer.open(server) as peer,
    ):
        opcode, keepalive = await peer.frame()
        assert opcode == PING
        ws = await recorder.opened.get()
        await peer.send(
            frame(TEXT, b"kill")
            + frame(PONG, keepalive)
            + frame(TEXT, b"late")
            + frame(PONG, b"late")
            + frame(CLOSE, b"\x0f\xa0")
        )
        _, code, _ = await recorder.closed.get()
        assert code == 1006 and ws.close_code == 1006
        assert await recorder.messages.get() == "kill"
        await turns()
        assert recorder.messages.empty() and recorder.pongs.empty()


async def test_handler_that_closes_its_own_connection_gets_nothing_more(carrier: str) -> None:
    class Closer(Recorder):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            super().on_message(ws, message)
            ws.close(4001, "enough")

    recorder = Closer()
    async with serve(recorder, carrier) as server, await Peer.open(server) as peer:
        await peer.send(frame(TEXT, b"one") + frame(TEXT, b"two") + frame(BINARY, b"three"))
        assert await peer.close_frame() == (4001, "enough")
        await peer.say_close(4001)
        await recorder.closed.get()
        assert await recorder.messages.get() == "one"
        assert recorder.messages.empty()


# --- shared memory


async def test_messages_keep_their_content_when_more_is_read(carrier: str) -> None:
    recorder = Recorder()
    texts = [f"message {index} " * (index % 50 + 1) for index in range(200)]
    async with (
        serve(recorder, carrier) as server,
        await Peer.open(server) as first,
        await Peer.open(server) as second,
    ):
        kept = []
        for index, text in enumerate(texts):
            peer = first if index % 2 else second
            data = text.encode()
            # As text, as binary, and in fragments cut between two reads.
            if index % 3 == 0:
                await peer.text(text)
            elif index % 3 == 1:
                await peer.send(frame(BINARY, data))
            else:
                await peer.send(frame(BINARY, data[:5], fin=False))
                await turns(1)
                await peer.send(frame(CONT, data[5:]))
            kept.append(await recorder.messages.get())
        assert [m if isinstance(m, str) else m.decode() for m in kept] == texts


async def test_messages_in_parts_on_two_connections_do_not_mix(carrier: str) -> None:
    recorder = Recorder()
    async with (
        serve(recorder, carrier) as server,
        await Peer.open(server) as first,
        await Peer.open(server) as second,
    ):
        a, b = frame(BINARY, b"a" * 100_000), frame(BINARY, b"b" * 100_000)
        for start in range(0, len(a), 10_000):
            await first.send(a[start : start + 10_000])
            await second.send(b[start : start + 10_000])
            await turns(1)
        got = {await recorder.messages.get(), await recorder.messages.get()}
        assert got == {b"a" * 100_000, b"b" * 100_000}


async def test_bytes_that_are_sent_may_be_changed_afterwards(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server, await Peer.open(server) as peer:
        ws = await recorder.opened.get()
        for size in (10, 100_000):
            data = bytearray(b"x" * size)
            ws.send(data)
            data[:] = b"y" * size
            assert await peer.message() == b"x" * size


# --- several loops, several servers


def test_two_loops_in_two_threads_do_not_disturb_each_other(carrier: str, loop_kind: str) -> None:
    failures: list[BaseException] = []

    async def main(name: str) -> None:
        async with (
            serve(echo if name == "a" else Echo, carrier) as server,
            contextlib.AsyncExitStack() as stack,
        ):
            peers = await open_many(stack, server, 5)
            for round_ in range(60):
                for index, peer in enumerate(peers):
                    await peer.text(f"{name} {index} {round_} " * 40)
                for index, peer in enumerate(peers):
                    assert await peer.message() == f"{name} {index} {round_} " * 40

    def run(name: str) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory(loop_kind)) as runner:
                runner.run(asyncio.wait_for(main(name), 20))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


async def test_servers_on_one_loop_share_a_reactor_and_nothing_else(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as first, serve(echo, carrier) as second:
        assert first.reactor is second.reactor
        async with await Peer.open(first) as a, await Peer.open(second) as b:
            await a.text("to the recorder")
            await b.text("to the echo")
            assert await recorder.messages.get() == "to the recorder"
            assert await b.message() == "to the echo"
            assert len(first.connections) == len(second.connections) == 1
            assert first.connections.isdisjoint(second.connections)
            first.close()
            assert await a.close_frame() == (1001, "")
            await b.text("still there")
            assert await b.message() == "still there"


async def test_carriers_of_both_kinds_live_on_one_loop(carrier: str) -> None:
    async with (
        serve(echo, carrier) as first,
        serve(Echo, "asyncio") as second,
        await Peer.open(first) as a,
        await Peer.open(second) as b,
    ):
        await a.text("a")
        await b.text("b")
        assert await a.message() == "a"
        assert await b.message() == "b"


# --- handlers that raise


async def test_listener_that_raises_is_closed_with_1011_and_others_go_on(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Picky(fastws.Listener):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            ws.send(message)
            if message == "bad":
                raise ValueError("I do not like it")

    async with serve(Picky, carrier) as server, contextlib.AsyncExitStack() as stack:
        peers = await open_many(stack, server, 3)
        for index, peer in enumerate(peers):
            peer.send_now(frame(TEXT, b"bad" if index == 1 else b"good") + frame(TEXT, b"more"))
        for peer in (peers[0], peers[2]):
            assert await peer.message() == "good"
            assert await peer.message() == "more"
        assert await peers[1].message() == "bad"
        assert await peers[1].frame() == (CLOSE, b"\x03\xf3")
        assert await peers[1].ended() == "fin"
    (record,) = logged(caplog)
    assert record.levelno == logging.ERROR and record.name == "fastws.server"
    assert record.exc_info is not None and "I do not like it" in str(record.exc_info[1])


@pytest.mark.parametrize("hook", ["on_open", "on_message", "on_pong", "on_drain"])
async def test_error_in_any_callback_is_reported_once_and_ends_only_that_connection(
    carrier: str, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any) -> None:
        raise ValueError(hook)

    listener = type("Failing", (Recorder,), {hook: fail})
    recorder = listener()
    async with (
        serve(recorder, carrier, write_limit=1000, max_backlog=None) as server,
        await Peer.open(server) as peer,
    ):
        if hook == "on_message":
            await peer.text("x")
        elif hook == "on_pong":
            await peer.send(frame(PONG, b"x"))
        elif hook == "on_drain":
            ws = await recorder.opened.get()
            ws.send(bytes(10_000_000))
            ws.send(bytes(10_000))
        assert (await peer.close_frame())[0] == 1011
        peer.close()
        await recorder.closed.get()
    assert [str(record.exc_info[1]) for record in logged(caplog) if record.exc_info] == [hook]


async def test_on_close_that_raises_is_reported_and_hurts_nobody(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Echo):
        def on_close(self, ws: fastws.Connection, code: int, reason: str) -> None:
            raise ValueError("in on_close")

    async with (
        serve(Failing, carrier) as server,
        await Peer.open(server) as first,
        await Peer.open(server) as second,
    ):
        await first.say_close()
        assert await first.close_frame() == (1000, "")
        assert await first.ended() == "fin"
        await second.text("x")
        assert await second.message() == "x"
    assert len(logged(caplog)) == 2


async def test_coroutine_that_raises_is_closed_with_1011_and_others_go_on(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def picky(ws: fastws.Connection) -> None:
        async for message in ws:
            if message == "bad":
                raise ValueError("I do not like it")
            await ws.send(message)

    async with serve(picky, carrier) as server, contextlib.AsyncExitStack() as stack:
        peers = await open_many(stack, server, 3)
        for index, peer in enumerate(peers):
            peer.send_now(frame(TEXT, b"bad" if index == 1 else b"good"))
        assert await peers[0].message() == "good"
        assert await peers[2].message() == "good"
        assert await peers[1].close_frame() == (1011, "")
        await peers[1].say_close(1011)
        assert await peers[1].ended() == "fin"
    (record,) = logged(caplog)
    assert record.exc_info is not None and "I do not like it" in str(record.exc_info[1])


# --- order


async def test_sends_broadcasts_and_a_queued_remainder_leave_in_the_order_of_the_calls(
    carrier: str,
) -> None:
    recorder = Recorder()
    async with (
        serve(recorder, carrier, max_backlog=None) as server,
        await Peer.open(server, buffers=100_000) as peer,
    ):
        ws = await recorder.opened.get()
        prepared = fastws.PreparedMessage("prepared")
        expected: list[str | bytes] = []
        # The first ones do not fit into the socket, so that the others queue behind them.
        for index in range(30):
            big = bytes([index]) * 400_000
            ws.send(big)
            ws.send(f"small {index}")
            fastws.broadcast([ws], f"broadcast {index}")
            ws.send(prepared)
            ws.send(bytes([index]) * 5000)
            expected += [
                big,
                f"small {index}",
                f"broadcast {index}",
                "prepared",
                bytes([index]) * 5000,
            ]
            if index % 7 == 0:
                await turns(1)
        assert ws.buffered_amount > 1_000_000 or carrier == "asyncio"
        for message in expected:
            assert await peer.message() == message
        assert ws.buffered_amount == 0


async def test_answer_ping_and_message_of_one_read_leave_in_the_order_they_came(
    carrier: str,
) -> None:
    async with serve(Echo, carrier) as server, await Peer.open(server) as peer:
        await peer.send(frame(TEXT, b"1") + frame(PING, b"2") + frame(TEXT, b"3"))
        assert [await peer.frame() for _ in range(3)] == [(TEXT, b"1"), (PONG, b"2"), (TEXT, b"3")]


async def test_what_one_tick_sends_leaves_together(carrier: str) -> None:
    """One segment: a client that reads once gets it all."""
    recorder = Recorder()
    async with serve(recorder, carrier) as server, await Peer.open(server) as peer:
        ws = await recorder.opened.get()
        for index in range(10):
            ws.send(f"message {index}")
            fastws.broadcast([ws], b"to all")
        data = await peer.loop.sock_recv(peer.sock, 65536)
        want = [frame(TEXT, f"message {i}".encode(), key=None) for i in range(10)]
        assert data == b"".join(one + frame(BINARY, b"to all", key=None) for one in want)


# --- recv() and cancellation


async def test_cancelled_recv_loses_no_message(carrier: str) -> None:
    """With time-outs shorter than the gaps between messages, and cancelled as a message arrives."""
    got: list[str | bytes] = []
    done = asyncio.Event()

    async def handler(ws: fastws.Connection) -> None:
        while len(got) < 100:
            try:
                got.append(await asyncio.wait_for(ws.recv(), 0.0005))
            except TimeoutError:
                pass
        done.set()

    async with serve(handler, carrier) as server, await Peer.open(server) as peer:
        for index in range(100):
            await peer.text(str(index))
            if index % 3 == 0:
                await asyncio.sleep(0.0006)
        await done.wait()
        assert got == [str(index) for index in range(100)]


async def test_recv_cancelled_at_the_moment_a_message_arrives_leaves_it_to_the_next(
    carrier: str,
) -> None:
    """Another connection's handler cancels the receiver in the batch that has its message."""
    held = Held()

    async with (
        serve(held, carrier) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        (peer,) = await open_many(stack, server, 1)
        ws = await held.connection()
        for index in range(30):
            task = asyncio.ensure_future(ws.recv())
            await turns(1)
            peer.send_now(frame(TEXT, str(index).encode()))
            if index % 3 == 0:
                task.cancel()  # before the loop sees the message
            elif index % 3 == 1:
                asyncio.get_running_loop().call_soon(task.cancel)
            else:
                await turns(1)
                task.cancel()  # after it was seen, perhaps before the task ran
            try:
                message = await task
            except asyncio.CancelledError:
                message = await ws.recv()
            assert message == str(index)


async def test_task_cancelled_between_wake_up_and_step_leaves_the_message(carrier: str) -> None:
    """The waiter has been woken but its task has not run: the cancellation wins, nothing is lost.

    Two tasks of one batch: the first, resumed, cancels the second.
    """
    held = Held()
    async with (
        serve(held, carrier) as server,
        await Peer.open(server) as first,
        await Peer.open(server) as second,
    ):
        a, b = await held.connection(), await held.connection()
        tasks: list[asyncio.Task[Any]] = []

        async def killer(ws: fastws.Connection, index: int) -> Any:
            message = await ws.recv()
            tasks[1 - index].cancel()
            return message

        tasks = [asyncio.create_task(killer(a, 0)), asyncio.create_task(killer(b, 1))]
        await turns()
        first.send_now(frame(TEXT, b"to a"))
        second.send_now(frame(TEXT, b"to b"))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for ws, result, text in zip((a, b), results, ("to a", "to b"), strict=True):
            if isinstance(result, asyncio.CancelledError):
                assert await ws.recv() == text
            else:
                assert result == text


async def test_second_recv_at_once_raises_concurrency_error_and_the_first_goes_on(
    carrier: str,
) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        first = asyncio.ensure_future(ws.recv())
        await turns()
        with pytest.raises(fastws.ConcurrencyError):
            await ws.recv()
        with pytest.raises(fastws.ConcurrencyError):
            async for _ in ws:
                pass
        await peer.text("hello")
        assert await first == "hello"


async def test_recv_can_be_a_task_be_gathered_and_be_waited_for(carrier: str) -> None:
    held = Held()
    async with (
        serve(held, carrier) as server,
        await Peer.open(server) as first,
        await Peer.open(server) as second,
    ):
        a, b = await held.connection(), await held.connection()
        task = asyncio.create_task(a.recv())
        await first.text("1")
        assert await task == "1"
        await first.text("2")
        await second.text("3")
        assert await asyncio.gather(a.recv(), b.recv()) == ["2", "3"]
        await first.text("4")
        assert await asyncio.wait_for(a.recv(), 5) == "4"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(a.recv(), 0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await a.recv()
        await first.text("5")
        done, _ = await asyncio.wait(
            [asyncio.ensure_future(ws.recv()) for ws in (a, b)],
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert [task.result() for task in done] == ["5"]
        await second.text("6")
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=0.01)


async def test_send_ping_and_close_can_be_tasks_and_be_waited_for(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server, await Peer.open(server) as peer:
        ws = await held.connection()
        assert await asyncio.create_task(ws.send("task")) is None
        assert await asyncio.wait_for(ws.send("wait_for"), 5) is None
        assert await asyncio.gather(ws.send("a"), ws.send("b")) == [None, None]
        assert [await peer.message() for _ in range(4)] == ["task", "wait_for", "a", "b"]
        waiter = await asyncio.wait_for(ws.ping(b"1"), 5)
        other = await asyncio.create_task(ws.ping(b"2"))
        assert [await peer.frame() for _ in range(2)] == [(PING, b"1"), (PING, b"2")]
        await peer.send(frame(PONG, b"1") + frame(PONG, b"2"))
        latencies = await asyncio.wait_for(asyncio.gather(waiter, other), 5)
        assert all(latency >= 0 for latency in latencies)
        assert await asyncio.create_task(ws.pong(b"3")) is None
        assert await peer.frame() == (PONG, b"3")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.wait_closed(), 0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.close(), 0.01)
        await peer.say_close()
        await asyncio.gather(ws.close(), asyncio.create_task(ws.wait_closed()))
        assert ws.close_code == 1000


async def test_coroutine_runs_in_its_own_task_and_context(carrier: str) -> None:
    """What is resumed straight from the poller is as if the loop had done it."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[Any] = []

    async def handler(ws: fastws.Connection) -> None:
        me = asyncio.current_task()
        variable.set(str(ws.id))
        async for message in ws:
            seen.append(asyncio.current_task() is me and variable.get() == str(ws.id))
            await ws.send(message)

    async with (
        serve(handler, carrier) as server,
        await Peer.open(server) as first,
        await Peer.open(server) as second,
    ):
        for _ in range(5):
            first.send_now(frame(TEXT, b"x"))
            second.send_now(frame(TEXT, b"x"))
            await first.message()
            await second.message()
    assert seen == [True] * 10


async def test_a_tick_never_runs_inside_a_task(carrier: str) -> None:
    """process_request drops the user's old connection, whose handler is in recv(), and bytes are
    behind the handshake: nobody may be resumed in the middle of another task.
    """
    ended = asyncio.Event()
    connections: list[fastws.Connection] = []

    async def handler(ws: fastws.Connection) -> None:
        connections.append(ws)
        try:
            async for message in ws:
                await ws.send(message)
        finally:
            ended.set()

    async def drop_the_old(ws: fastws.Connection, request: fastws.Request) -> None:
        await asyncio.sleep(0)
        for old in connections:
            old.abort()

    async with (
        serve(handler, carrier, process_request=drop_the_old) as server,
        await Peer.open(server) as old,
    ):
        await until(lambda: connections)
        async with await Peer.open(server, behind=frame(TEXT, b"early")) as new:
            assert await new.message() == "early"
            await ended.wait()
            with contextlib.suppress(ConnectionResetError):
                assert await old.rest() == b""


async def test_listener_may_run_tasks_that_use_its_connection(carrier: str) -> None:
    class Slow(fastws.Listener):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            self.task = asyncio.create_task(self.answer(ws, message))

        async def answer(self, ws: fastws.Connection, message: str | bytes) -> None:
            await asyncio.sleep(0)
            await ws.send(message)

    async with serve(Slow, carrier) as server, await Peer.open(server) as peer:
        await peer.text("x")
        assert await peer.message() == "x"


# --- the loop's end


def open_sockets() -> set[str]:
    """The sockets of this process; other descriptors (libuv keeps a pipe) may come and go."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {link for link in found if link.startswith("socket:")}


@pytest.mark.parametrize("style", ["listener", "coroutine"])
def test_loop_closed_with_connections_open_closes_their_sockets(
    carrier: str, loop_kind: str, style: str
) -> None:
    clients: list[socket.socket] = []

    async def main() -> None:
        # Bound already: a thread that looks a name up would know the loop for a moment longer.
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        handler = Recorder() if style == "listener" else Held()
        server = await fastws.serve(handler, sock=sock, carrier=carrier)
        for _ in range(3):
            peer = await Peer.open(server)
            clients.append(peer.sock)
        await turns()
        # The loop ends here, with the server and all connections left as they are.

    def run() -> None:
        loop = loop_factory(loop_kind)()
        loop.run_until_complete(main())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    before = open_sockets()
    with warnings.catch_warnings():
        # asyncio warns of transports that nobody closed.
        warnings.simplefilter("ignore", ResourceWarning)
        run()
        gc.collect()
        gc.collect()  # finalizers of the first round let go of more
    for sock in clients:
        sock.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(65536):
                pass
        sock.close()
    assert open_sockets() <= before


def test_reactor_close_drops_every_connection(carrier: str, loop_kind: str) -> None:
    recorder = Recorder()

    async def main() -> None:
        server = await serve(recorder, carrier)
        peer = await Peer.open(server)
        ws = await recorder.opened.get()
        server.reactor.close()
        assert (await recorder.closed.get())[0] is ws
        assert ws.state == fastws.State.CLOSED
        with contextlib.suppress(ConnectionResetError):
            assert await peer.rest() == b""
        peer.close()
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=loop_factory(loop_kind)) as runner:
        runner.run(asyncio.wait_for(main(), 10))


async def test_loop_run_again_after_a_server_was_closed_serves_again(carrier: str) -> None:
    for _ in range(3):
        async with serve(echo, carrier) as server, await Peer.open(server) as peer:
            await peer.text("x")
            assert await peer.message() == "x"


# --- fairness


async def test_wide_broadcast_lets_the_loop_breathe(carrier: str) -> None:
    """600 connections are flushed in slices, with a turn of the loop between."""
    count = 600
    recorder = Recorder()
    async with (
        serve(recorder, carrier) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        peers = await open_many(stack, server, count)
        connections = [await recorder.opened.get() for _ in range(count)]
        fastws.broadcast(connections, "hello")
        queued = []
        while not queued or queued[-1]:
            await asyncio.sleep(0)
            queued.append(sum(1 for ws in connections if ws.buffered_amount))
        assert any(0 < number < count for number in queued), queued
        for peer in peers:
            assert await peer.message() == "hello"


async def test_busy_client_does_not_starve_others(carrier: str) -> None:
    """One client has megabytes of small messages waiting; another's message is not behind them."""
    counts = {"busy": 0}
    when: list[int] = []

    class Counting(fastws.Listener):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            if message == "quiet":
                when.append(counts["busy"])
            else:
                counts["busy"] += 1

    async with (
        serve(Counting, carrier) as server,
        await Peer.open(server) as busy,
        await Peer.open(server) as quiet,
    ):
        total = 200_000
        flood = asyncio.create_task(busy.send(frame(BINARY, b"x" * 20) * total))
        await until(lambda: counts["busy"] > 0)
        for _ in range(3):
            seen = counts["busy"]
            await quiet.text("quiet")
            number = len(when)
            await until(lambda number=number: len(when) > number)
            # A wake-up reads at most 256 KiB of one socket: 10,000 of these frames. A transport of
            # uvloop takes 2 MiB.
            assert when[-1] - seen < (50_000 if carrier == "reactor" else total)
        await flood
        await until(lambda: counts["busy"] == total)


async def test_sweeps_come_as_often_as_the_shortest_time_out_needs_and_no_oftener(
    carrier: str,
) -> None:
    loop = asyncio.get_running_loop()
    delays: list[float] = []
    call_later = loop.call_later

    def spy(delay: float, callback: Any, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
        if getattr(callback, "__name__", "") == "_sweep":
            delays.append(delay)
        return call_later(delay, callback, *arguments, **options)

    loop.call_later = spy  # type: ignore[method-assign]
    async with (
        serve(echo, carrier, ping_interval=0.4, ping_timeout=0.4) as server,
        await Peer.open(server) as peer,
    ):
        for _ in range(2):
            opcode, payload = await peer.frame()
            assert opcode == PING
            await peer.send(frame(PONG, payload))
        assert len(delays) > 2
        assert min(delays) == pytest.approx(0.1)


# --- the clock in shared memory


async def test_last_seen_has_the_time_of_the_last_bytes_at_the_slot(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server, await Peer.open(server) as peer:
        ws = await recorder.opened.get()
        seen = server.reactor.last_seen
        assert seen.format == "d"
        before = time.monotonic()
        await peer.text("x")
        await recorder.messages.get()
        assert before <= seen[ws.slot] <= time.monotonic()
        later = seen[ws.slot]
        await asyncio.sleep(0.002)
        await peer.send(frame(PONG, b""))
        await recorder.pongs.get()
        assert seen[ws.slot] > later
        assert server.reactor.last_seen.obj is seen.obj


async def test_slots_are_used_again(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server:
        slots = set()
        for _ in range(5):
            async with await Peer.open(server):
                slots.add((await recorder.opened.get()).slot)
            await recorder.closed.get()
        assert len(slots) == 1
        assert len(server.reactor) == 0
