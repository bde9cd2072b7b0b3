"""Whether anything is left behind: ``python -m tests.fastws.leaks``, from the root folder.

A million messages of every kind in both directions, and 100,000 connections that end in every way
that a connection can end. What the process holds after a first round, it holds after the last one:
descriptors, Python objects, and memory but for what the allocators keep. ``test_leaks.py`` runs it
with smaller numbers; ``FASTWS_PURE=1`` chooses the Python codec.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import itertools
import json
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import fastws
from fastws._loop import reactor_of
from tests.fastws.client import Peer, address, close_payload, frame, head
from tests.fastws.reference import BINARY, CLOSE, CONT, PING, TEXT

AT_ONCE = 50  # connections of each way at a time
TIMEOUT = 0.2  # seconds, for the ways that end by one
BACKLOG = 100_000  # bytes queued for one connection
FLOOD = 40_000  # bytes in a message of the flood
BUFFER = 16384  # of the system, so that the flood is soon over

quiet = logging.getLogger("fastws.leaks")
quiet.setLevel(logging.CRITICAL + 1)


class Planned(Exception):
    """What a handler raises."""


# --- the server: what it does is in the path


async def handler(ws: Any) -> None:
    match ws.request.path:
        case "/raise":
            raise Planned
        case "/close":
            await ws.close(4000, "done")
        case "/abort":
            ws.abort()
        case "/flood":
            while ws.state is fastws.State.OPEN:
                ws.send(bytes(FLOOD))
                await asyncio.sleep(0)
        case "/cancel":
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(0.01, task.cancel)
            await ws.recv()
        case "/return":
            pass
        case _:
            async for message in ws:
                await ws.send(message)


class Callbacks(fastws.Listener):
    def on_open(self, ws: Any) -> None:
        self.path = ws.request.path
        match self.path:
            case "/raise":
                raise Planned
            case "/close" | "/return":
                ws.close(4000, "done")
            case "/abort" | "/cancel":
                ws.abort()
            case "/flood":
                for _ in range(100):
                    ws.send(bytes(FLOOD))

    def on_message(self, ws: Any, message: str | bytes) -> None:
        ws.send(message)


async def process_request(ws: Any, request: Any) -> Any:
    if request.path == "/refused":
        return ws.respond(403, "no")
    if request.path == "/slow":
        await asyncio.sleep(60)
    return None


def serve(carrier: str, handle: Any, **options: Any) -> Any:
    sock = socket.socket()  # what it accepts inherits the size of the buffer
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    sock.bind(("127.0.0.1", 0))
    return fastws.serve(
        handle,
        sock=sock,
        carrier=carrier,
        process_request=process_request,
        logger=quiet,
        max_size=1_000_000,
        max_backlog=BACKLOG,
        **options,
    )


# --- the ways in which a connection can end

numbers = itertools.count()


async def peer_of(server: fastws.Server, buffers: int = 0) -> Peer:
    """From one of many addresses: TIME_WAIT keeps a port for a minute, and each has its own."""
    sock = socket.socket()
    if buffers:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number = next(numbers)
    sock.bind((f"127.0.{number % 7}.{number % 250 + 2}", 0))
    peer = Peer(sock)
    try:
        await peer.loop.sock_connect(sock, address(server))
    except BaseException:
        sock.close()
        raise
    return peer


@contextlib.asynccontextmanager
async def opened(
    server: fastws.Server, path: str = "/", *, buffers: int = 0
) -> AsyncIterator[Peer]:
    peer = await peer_of(server, buffers)
    async with peer:
        await peer.send(head(path=path))
        await peer.response()
        yield peer


async def closed_by_client(server: fastws.Server) -> None:
    async with opened(server) as peer:
        await peer.text("hello")
        await peer.frame()
        await peer.say_close()
        await peer.drain()


async def reset_by_client(server: fastws.Server) -> None:
    async with opened(server) as peer:
        peer.reset()


async def half_closed_by_client(server: fastws.Server) -> None:
    async with opened(server) as peer:
        peer.half_close()
        await peer.drain()


async def cut_inside_a_message(server: fastws.Server) -> None:
    async with opened(server) as peer:
        await peer.send(frame(TEXT, "é".encode() * 9000, fin=False)[:-1])


async def cut_inside_the_handshake(server: fastws.Server) -> None:
    async with await peer_of(server) as peer:
        await peer.send(head()[:40])


def answered_with(fault: bytes) -> Callable[[fastws.Server], Awaitable[None]]:
    async def way(server: fastws.Server) -> None:
        async with opened(server) as peer:
            await peer.send(frame(TEXT, b"before") + fault)
            peer.half_close()
            await peer.drain()

    return way


def ended_by_server(path: str) -> Callable[[fastws.Server], Awaitable[None]]:
    async def way(server: fastws.Server) -> None:
        # A listener that aborts in on_open does so before the handshake has left.
        with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
            async with opened(server, path) as peer:
                with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
                    code, _ = await peer.close_frame()
                    await peer.send(frame(CLOSE, close_payload(code)))
                await peer.drain()

    return way


async def too_slow(server: fastws.Server) -> None:
    """The server sends more than it is willing to keep, and nobody reads."""
    async with opened(server, "/flood", buffers=BUFFER) as peer:
        await asyncio.sleep(TIMEOUT)
        await peer.drain()


def refused(request: bytes) -> Callable[[fastws.Server], Awaitable[None]]:
    async def way(server: fastws.Server) -> None:
        async with await peer_of(server) as peer:
            await peer.send(request)
            peer.half_close()
            await peer.drain()

    return way


async def silent(server: fastws.Server) -> None:
    """No handshake, until the server has had enough."""
    async with await peer_of(server) as peer:
        await peer.drain()


async def thinking(server: fastws.Server) -> None:
    """The handshake is here, and ``process_request`` takes too long."""
    async with await peer_of(server) as peer:
        await peer.send(head(path="/slow"))
        await peer.drain()


async def without_an_answer(server: fastws.Server) -> None:
    """Neither pongs nor a close frame come back, until the server has had enough of both."""
    async with opened(server) as peer:
        await peer.drain()


async def client_closes(server: fastws.Server) -> None:
    """With a client of ours, on a carrier of its own choice."""
    async with fastws.connect(f"ws://127.0.0.1:{address(server)[1]}/", logger=quiet) as ws:
        await ws.send("hello")
        await ws.recv()


async def client_is_dropped(server: fastws.Server) -> None:
    with contextlib.suppress(fastws.ConnectionClosed, fastws.InvalidHandshake):
        async with fastws.connect(f"ws://127.0.0.1:{address(server)[1]}/abort", logger=quiet) as ws:
            await ws.recv()


async def client_is_refused(server: fastws.Server) -> None:
    with contextlib.suppress(fastws.InvalidHandshake):
        await fastws.connect(f"ws://127.0.0.1:{address(server)[1]}/refused", logger=quiet)


async def client_is_cancelled(server: fastws.Server) -> None:
    task = asyncio.ensure_future(client_waits(server))
    await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def client_waits(server: fastws.Server) -> None:
    async with fastws.connect(f"ws://127.0.0.1:{address(server)[1]}/", logger=quiet) as ws:
        await ws.recv()


# The second number is how often: those that wait for a time-out, and our own client's, are slower.
PATIENT: dict[str, tuple[Callable[[fastws.Server], Awaitable[None]], int]] = {
    "closed by the client": (closed_by_client, 4),
    "reset by the client": (reset_by_client, 4),
    "half-closed by the client": (half_closed_by_client, 4),
    "cut inside a message": (cut_inside_a_message, 4),
    "cut inside the handshake": (cut_inside_the_handshake, 4),
    "protocol error": (answered_with(frame(3, b"")), 4),
    "bad UTF-8": (answered_with(frame(TEXT, b"\xff")), 4),
    "message too big": (answered_with(frame(BINARY, b"", length=2**40, length_bytes=8)), 4),
    "closed by the server": (ended_by_server("/close"), 4),
    "handler returns": (ended_by_server("/return"), 4),
    "handler raises": (ended_by_server("/raise"), 4),
    "aborted by the server": (ended_by_server("/abort"), 4),
    "cancelled in recv": (ended_by_server("/cancel"), 2),
    "too slow": (too_slow, 1),
    "refused by process_request": (refused(head(path="/refused")), 4),
    "not a WebSocket request": (refused(head(without="Upgrade")), 4),
    "not HTTP": (refused(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"), 4),
    "closed by our client": (client_closes, 1),
    "our client is dropped": (client_is_dropped, 1),
    "our client is refused": (client_is_refused, 1),
    "our client is cancelled": (client_is_cancelled, 1),
}
HASTY: dict[str, tuple[Callable[[fastws.Server], Awaitable[None]], int]] = {
    "no handshake in time": (silent, 1),
    "no answer of process_request in time": (thinking, 1),
    "no pong and no close frame in time": (without_an_answer, 1),
}


async def end_connections(carrier: str, handle: Any, rounds: int) -> int:
    """Open and end connections in every way; how many there were."""
    count = 0
    hasty = dict.fromkeys(("open_timeout", "close_timeout", "ping_interval"), TIMEOUT)
    async with (
        serve(carrier, handle) as patient,
        serve(carrier, handle, ping_timeout=TIMEOUT, **hasty) as fast,
    ):
        for _ in range(rounds):
            ways = [(patient, *way) for way in PATIENT.values()]
            ways += [(fast, *way) for way in HASTY.values()]
            running = [
                run_often(way, server, often) for server, way, often in ways for _ in range(AT_ONCE)
            ]
            count += sum(await asyncio.gather(*running))
    return count + await close_servers(carrier, handle, rounds)


async def run_often(way: Callable[[Any], Awaitable[None]], server: Any, often: int) -> int:
    for _ in range(often):
        await way(server)
    return often


async def close_servers(carrier: str, handle: Any, rounds: int) -> int:
    """Servers that close with connections open, and in the middle of handshakes."""
    count = 0
    for _ in range(rounds):
        server = await serve(carrier, handle)
        async with contextlib.AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(opened(server)) for _ in range(AT_ONCE)]
            for _ in range(AT_ONCE):
                peers.append(await stack.enter_async_context(await peer_of(server)))
                await peers[-1].send(head()[:30])
            server.close()
            for peer in peers[:AT_ONCE]:
                await peer.close_frame()
                await peer.send(frame(CLOSE, close_payload(1001)))
            await asyncio.gather(*(peer.drain() for peer in peers))
        await server.wait_closed()
        count += len(peers)
    return count


# --- messages

MESSAGES: list[str | bytes] = [
    "", b"", "a", "hello " * 20, "naïve 日本語 😀 " * 20, bytes(100), bytes(4000), "x" * 20_000,
    "日" * 5000, bytes(70_000),
]  # fmt: skip


async def send_messages(carrier: str, handle: Any, wanted: int) -> int:
    """Echo every kind through our client, then raw frames; how many messages went either way."""
    count = 0
    async with serve(carrier, handle) as server:
        uri = f"ws://127.0.0.1:{address(server)[1]}/"
        for compression in (None, "deflate", fastws.Deflate(server_no_context_takeover=False)):
            kind = "auto" if carrier == "reactor" else carrier
            async with fastws.connect(uri, compression=compression, carrier=kind) as ws:
                for turn in range(max(wanted // 60, 1)):
                    # The large ones are for the allocators, not for the clock.
                    few = MESSAGES if turn % 20 == 0 else MESSAGES[:6]
                    for message in few:
                        ws.send(message)
                    ws.send(b"".join(bytes(part) for part in few if isinstance(part, bytes))[:500])
                    for message in (*few, None):
                        got = await ws.recv()
                        assert message is None or got == message
                    count += 2 * (len(few) + 1)
                    if turn % 50 == 0:
                        await (await ws.ping())
        async with opened(server) as peer:
            fragments = frame(TEXT, b"one ", fin=False) + frame(PING, b"p") + frame(CONT, b"two")
            while count < wanted:
                await peer.send(fragments * 50)
                for _ in range(100):
                    await peer.frame()
                count += 200
    return count


# --- what the process holds


def settle() -> None:
    for _ in range(3):
        gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def holdings() -> dict[str, int]:
    settle()
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "objects": len(gc.get_objects()),
        "tasks": len(asyncio.all_tasks()),
        "connections": len(reactor_of(asyncio.get_running_loop())),
        "KiB": resident // 1024,
    }


async def measure(carrier: str, style: str, messages: int, rounds: int) -> dict[str, Any]:
    handle = handler if style == "coroutine" else Callbacks
    # What is made once, is made here: caches, free lists, the pools of the allocators.
    for _ in range(2):
        await send_messages(carrier, handle, min(messages, 20_000))
        await end_connections(carrier, handle, 1)
    await asyncio.sleep(2 * TIMEOUT)
    before = holdings()
    begin = time.perf_counter()
    sent = await send_messages(carrier, handle, messages)
    ended = await end_connections(carrier, handle, rounds)
    seconds = time.perf_counter() - begin
    await asyncio.sleep(2 * TIMEOUT)
    after = holdings()
    return {
        "codec": fastws.codec_name,
        "carrier": carrier,
        "style": style,
        "messages": sent,
        "connections": ended,
        "seconds": round(seconds, 1),
        "before": before,
        "after": after,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--carrier", choices=["reactor", "asyncio"], default="reactor")
    parser.add_argument("--style", choices=["listener", "coroutine"], default="coroutine")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=100_000)
    options = parser.parse_args()
    a_round = AT_ONCE * (sum(often for _, often in (*PATIENT.values(), *HASTY.values())) + 2)
    rounds = -(-options.connections // a_round)
    result = asyncio.run(measure(options.carrier, options.style, options.messages, rounds))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
