"""A whole connection, server's or client's, on a transport and in a time of our own: no socket.

The input is a program: byte 0 configures the two ends, then each instruction is a byte (what in its
low half, an argument in its high half) with operands behind it. The peer sends bytes and frames,
stops reading, goes on, ends or is cut off; the user sends, closes, aborts, receives; time passes.
At any moment

- no exception reaches the loop, and nothing is logged but what the user's own code raised;
- messages come in the order in which the peer sent them, between ``on_open`` and one ``on_close``;
- what goes out is a handshake and valid frames, messages in the order in which they were sent, and
  nothing behind a close frame;
- what is queued is bounded;

and in the end nothing is left: no connection, task, time-out or place in the reactor.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any


class Clock:
    """The time, for asyncio and for the library alike."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


clock = Clock()
time.monotonic = clock  # before the library takes it

import fastws  # noqa: E402
from fastws._impl import Decoder  # noqa: E402
from fastws._loop import reactor_of  # noqa: E402
from fastws._transport import ConnectionProtocol, ServerProtocol  # noqa: E402
from fastws.client_connection import ClientConnection, ClientEndpoint, ClientSettings  # noqa: E402
from fastws.client_handshake import ClientHandshake  # noqa: E402
from fastws.connection import Connection  # noqa: E402
from fastws.deflate import Deflate  # noqa: E402
from fastws.handshake import accept_key  # noqa: E402
from fastws.http import Headers  # noqa: E402
from fastws.server import Server  # noqa: E402
from fastws.server_connection import ServerSettings  # noqa: E402
from fastws.uri import parse_uri  # noqa: E402
from tests.fastws.reference import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT  # noqa: E402

# --- limits, so low that a short program reaches them

MAX_SIZE = 3000
HIGH, LOW = 300, 50  # of the write buffers
MAX_BACKLOG = 4000
FRAME_COST = 64  # that a queued frame counts for besides its bytes
LIMITS: dict[str, Any] = {
    "max_size": MAX_SIZE,
    "max_fragments": 5,
    "max_queue": 3,
    "write_limit": (HIGH, LOW),
    "max_backlog": MAX_BACKLOG,
    "ping_interval": 20.0,
    "ping_timeout": 20.0,
    "open_timeout": 10.0,
    "close_timeout": 10.0,
}
SIZES = (0, 1, 5, 50, 125, 126, 250, 299, 300, 301, 600, 1500, 2900, 3000, 3001, 5000)
TIMES = (0.0, 0.001, 0.5, 1.0, 2.0, 5.0, 9.0, 10.5, 11.0, 15.0, 19.0, 20.5, 21.0, 30.0, 41.0, 100.0)
# So much more may one call queue before it is noticed: a message, a pong, a close frame.
MAX_QUEUED = MAX_BACKLOG + 2 * SIZES[-1] + 1000

CLIENT = 0x01
COROUTINE = 0x02  # the user's side is a coroutine; else a listener
ECHO = 0x04
DEFLATE = 0x08
THINKING = 0x10  # process_request is a coroutine
TAKEOVER = 0x20

OWN_PING = b"own"
OWN_PONG = b"own pong"


class Planned(Exception):
    """What the user's code raises."""


# --- frames


def xor(data: bytes, key: bytes) -> bytes:
    """As ``reference.xor``, but not octet by octet."""
    keys = (key * (len(data) // 4 + 1))[: len(data)]
    number = int.from_bytes(data, "big") ^ int.from_bytes(keys, "big")
    return number.to_bytes(len(data), "big")


def frame(first: int, payload: bytes, key: bytes) -> bytes:
    """A frame of a length below 65,536 by any first byte; unmasked if the key is empty."""
    length = len(payload)
    head = bytes((first, length)) if length < 126 else struct.pack(">BBH", first, 126, length)
    if not key:
        return head + payload
    return head[:1] + bytes((head[1] | 0x80,)) + head[2:] + key + xor(payload, key)


# --- a loop, a log and a transport


class NoSelector:
    def select(self, timeout: float | None) -> list[Any]:
        return []

    def close(self) -> None: ...


class Loop(asyncio.BaseEventLoop):
    """asyncio's own, without anything to wait for."""

    if TYPE_CHECKING:  # what asyncio does not promise
        _ready: Any
        _scheduled: Any
        _timer_cancelled_count: int

    def __init__(self) -> None:
        super().__init__()
        self._selector = NoSelector()
        self.reported: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, what: self.reported.append(what))

    def time(self) -> float:
        return clock.now

    def _process_events(self, event_list: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...

    def spin(self) -> None:
        """Run what is ready, and what that makes ready; it comes to rest."""
        ready = self._ready
        for _ in range(1000):
            self.wake()
            if not ready:
                return
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
        raise AssertionError("the loop does not come to rest")

    def wake(self) -> None:
        """Make those timers ready whose time has come."""
        scheduled = self._scheduled
        while scheduled and (scheduled[0]._cancelled or scheduled[0]._when <= clock.now):
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if handle._cancelled:
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(handle)

    def pass_time(self, seconds: float) -> None:
        end = clock.now + seconds
        while self._scheduled and self._scheduled[0]._when <= end:
            clock.now = max(clock.now, self._scheduled[0]._when)
            self.spin()
        clock.now = end
        self.spin()


class Log(logging.Logger):
    """Nothing is said but of what the user's code raised."""

    def handle(self, record: logging.LogRecord) -> None:
        error = record.exc_info and record.exc_info[1]
        if not isinstance(error, Planned):
            raise AssertionError(f"logged: {record.getMessage()} {error!r}") from error


class Transport:
    """asyncio's contract for a transport, strictly."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.protocol: Any = None
        self.sent = bytearray()
        self.pending = 0  # bytes that the peer has not read
        self.high, self.low = HIGH, LOW
        self.reading = True
        self.writing = True
        self.closing = False
        self.lost = False
        self.eof = False

    # What the carrier calls

    def write(self, data: bytes) -> None:
        assert not self.eof, "written behind the FIN"
        assert not self.closing, "written after the end"
        self.sent += data
        self.pending += len(data)
        if self.pending > self.high and self.writing:
            self.writing = False
            self.protocol.pause_writing()

    # Idempotent, as asyncio documents them.

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        assert not self.eof and not self.closing
        self.eof = True

    def get_write_buffer_size(self) -> int:
        return self.pending

    def set_write_buffer_limits(self, high: int, low: int | None = None) -> None:
        self.high, self.low = high, high // 4 if low is None else low
        if self.pending > self.high and self.writing:
            self.writing = False
            self.protocol.pause_writing()

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        self._maybe_lost()

    def abort(self) -> None:
        self.closing = True
        self.pending = 0
        self._maybe_lost()

    def get_extra_info(self, name: str) -> None:
        return None

    # What the peer does

    def peer_reads(self, count: int) -> None:
        self.pending = max(0, self.pending - count) if count else 0
        if not self.writing and self.pending <= self.low and not self.closing:
            self.writing = True
            self.protocol.resume_writing()
        if self.closing:
            self._maybe_lost()

    def peer_is_gone(self, error: Exception | None) -> None:
        self.closing = True
        self.pending = 0
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(error)

    def _maybe_lost(self) -> None:
        if not self.pending and not self.lost:
            self.lost = True
            self.loop.call_soon(self.protocol.connection_lost, None)


# What happens in a destructor, and a warning such as "never awaited", counts as well.
sys.unraisablehook = lambda what: loop.reported.append({"exception": what.exc_value})
warnings.simplefilter("error")

loop: Loop = Loop()
asyncio._set_running_loop(loop)
reactor = reactor_of(loop)
log = Log("fuzz", logging.INFO)

# --- the user's code


def finished() -> asyncio.Future[None]:
    future = loop.create_future()
    future.set_result(None)
    return future


class User:
    """What happens to one connection, and what its user does."""

    def __init__(self, options: int) -> None:
        self.options = options
        self.ws: Connection | None = None
        self.events: list[str] = []
        self.got: list[str | bytes] = []
        self.sent: list[str | bytes] = []
        self.cut_short = False  # aborted or overflowed: what was sent may be missing
        self.task: asyncio.Task[Any] | None = None

    def take(self, message: str | bytes) -> None:
        """Each message says by its first character what becomes of it."""
        assert self.ws is not None
        self.got.append(message)
        match message[:1]:
            case "!" | b"!":
                raise Planned
            case "c":
                self.ws.close(4000, "as you wish")
            case "a":
                self.abort()
            case "p":
                self.ping()
            case "s":
                self.send("x" * 200)
            case _:
                if self.options & ECHO:
                    self.send(message)

    def send(self, message: str | bytes) -> Any:
        assert self.ws is not None
        try:
            done = self.ws.send(message)
        except fastws.ConnectionClosed:
            return finished()
        self.sent.append(message)
        return done

    def ping(self) -> None:
        assert self.ws is not None
        try:
            self.ws.ping(OWN_PING)
        except (fastws.ConnectionClosed, RuntimeError):
            pass

    def abort(self) -> None:
        assert self.ws is not None
        self.cut_short = True
        self.ws.abort()

    # As a coroutine

    async def handle(self, ws: Connection) -> None:
        self.opened(ws)
        try:
            async for message in ws:
                self.take(message)
                if self.options & ECHO:
                    await self.send("")
        except (fastws.ConnectionClosed, fastws.ConcurrencyError):
            pass
        finally:
            self.events.append("close")

    def opened(self, ws: Connection) -> None:
        assert self.ws in (None, ws)
        self.ws = ws
        self.events.append("open")


class Events(fastws.Listener):
    def __init__(self, user: User) -> None:
        self.user = user

    def on_open(self, ws: Any) -> None:
        self.user.opened(ws)

    def on_message(self, ws: Any, message: str | bytes) -> None:
        self.user.take(message)

    def on_pong(self, ws: Any, payload: bytes) -> None:
        assert self.user.events == ["open"]

    def on_overflow(self, ws: Any) -> None:
        self.user.cut_short = True

    def on_close(self, ws: Any, code: int, reason: str) -> None:
        self.user.events.append("close")


current = User(0)  # whose program is running


def server_settings() -> ServerSettings:
    return ServerSettings(**LIMITS)


async def handle(ws: Connection) -> None:
    await current.handle(ws)


async def think(ws: Any, request: Any) -> None:
    await asyncio.sleep(1.0)


def new_server(options: int) -> Server:
    deflate = Deflate(threshold=20, package="zlib") if options & DEFLATE else None
    if options & TAKEOVER and deflate is not None:
        deflate.server_no_context_takeover = deflate.client_no_context_takeover = False
    return Server(
        handle if options & COROUTINE else (lambda: Events(current)),
        settings=server_settings(),
        origins=None,
        subprotocols=["chat"],
        select_subprotocol=None,
        process_request=think if options & THINKING else None,
        process_response=None,
        server_header=None,
        deflate=deflate,
        http=None,
        logger=log,
    )


servers: dict[int, Server] = {}


def server_of(options: int) -> Server:
    if options not in servers:
        servers[options] = new_server(options)
    return servers[options]


# --- the two ends


class ServerEnd:
    """Our server, and a client at the other end."""

    masked = True

    def __init__(self, options: int, transport: Transport) -> None:
        self.server = server_of(options)
        self.settings = self.server.settings
        self.protocol: Any = ServerProtocol(self.server)

    def start(self, transport: Transport) -> None:
        self.protocol.connection_made(transport)

    def opening(self, variant: int) -> bytes:
        """What the peer may say first; 0 and 1 are right."""
        lines = [
            "GET / HTTP/1.1",
            "Host: localhost",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        if variant & 1:
            lines += [
                "Sec-WebSocket-Protocol: chat",
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            ]
        if variant > 1:
            del lines[variant % 6]
        return "\r\n".join((*lines, "", "")).encode()

    def finish(self) -> None:
        assert not self.server._tasks, "a task is left"


class ClientEnd:
    """Our client, and a server at the other end."""

    masked = False
    _uri = parse_uri("ws://localhost/")

    def __init__(self, options: int, transport: Transport) -> None:
        deflate = None
        if options & DEFLATE:
            alone = not options & TAKEOVER
            deflate = Deflate(
                threshold=20,
                package="zlib",
                server_no_context_takeover=alone,
                client_no_context_takeover=alone,
            )
        listener = None if options & COROUTINE else (lambda: Events(current))
        self.alone = not options & TAKEOVER
        self.settings = ClientSettings(client=True, **LIMITS)
        self.settings.endpoint = ClientEndpoint(log, listener)
        self.protocol: Any = ConnectionProtocol(self.settings, self.connect)
        self.handshake = ClientHandshake(
            self._uri, Headers(), subprotocols=["chat"], deflate=deflate
        )
        self.deflate = deflate
        self.options = options

    def connect(self, carrier: Any) -> Connection:
        current.ws = ClientConnection(self.settings, reactor, carrier)
        return current.ws

    def start(self, transport: Transport) -> None:
        self.protocol.connection_made(transport)
        self.task = loop.create_task(self.open(self.protocol.connection))
        loop.spin()

    async def open(self, ws: Any) -> None:
        try:
            async with asyncio.timeout(10.0):
                await ws._handshake(self.handshake)
        except (fastws.InvalidHandshake, TimeoutError):
            ws._lose()
            return
        if self.options & COROUTINE:
            try:
                await current.handle(ws)
            except Planned:
                pass
            ws.close()

    def opening(self, variant: int) -> bytes:
        key = self.handshake.request.headers["Sec-WebSocket-Key"]
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_key(key.encode()).decode()}",
        ]
        if variant & 1:
            lines.append("Sec-WebSocket-Protocol: chat")
            if self.deflate is not None:
                lines.append(f"Sec-WebSocket-Extensions: {self.answer()}")
        if variant > 1:
            del lines[variant % 4]
        return "\r\n".join((*lines, "", "")).encode()

    def answer(self) -> str:
        alone = "; server_no_context_takeover; client_no_context_takeover"
        return "permessage-deflate" + (alone if self.alone else "")

    def finish(self) -> None:
        assert self.task.done(), "a task is left"


# --- a program


class Machine:
    """Runs a program on one connection, and looks at everything that can be seen from outside."""

    def __init__(self, data: bytes) -> None:
        global current
        options = data[0] & 0x3F
        current = self.user = User(options)
        self.options = options
        self.data = data
        self.at = 1
        self.transport = Transport(loop)
        side = ClientEnd if options & CLIENT else ServerEnd
        self.end: Any = side(options, self.transport)
        self.transport.protocol = self.end.protocol
        self.delivered = bytearray()
        self.waiting = bytearray()  # sent by the peer while we do not read
        self.waiting_eof = False
        self.eof = False
        self.end.start(self.transport)

    @property
    def ws(self) -> Any:
        """The connection, as long as it is there."""
        return self.end.protocol.connection

    def byte(self) -> int:
        if self.at >= len(self.data):
            return 0
        self.at += 1
        return self.data[self.at - 1]

    def operand(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        self.at += len(taken)
        return taken

    def run(self) -> None:
        while self.at < len(self.data):
            instruction = self.byte()
            STEPS[instruction & 0x0F](self, instruction >> 4)
            self.look()

    def look(self) -> None:
        assert not loop.reported, loop.reported
        ws = self.ws
        if ws is not None:
            assert ws.buffered_amount <= MAX_QUEUED, "the queue grows without bound"
            if not self.transport.reading or not self.waiting:
                return
            self.deliver()

    # The peer

    def receive(self, data: bytes) -> None:
        if self.eof or self.waiting_eof:
            return
        self.waiting += data
        self.deliver()

    def deliver(self) -> None:
        """Hand over what the peer sent, as a loop does it: not while we do not read."""
        if self.transport.reading and not self.transport.closing:
            data, self.waiting = bytes(self.waiting), bytearray()
            if data:
                self.delivered += data
                self.end.protocol.data_received(data)
            if self.waiting_eof and not self.eof and self.transport.reading:
                self.hand_over_eof()

    def hand_over_eof(self) -> None:
        if not self.transport.closing:
            self.eof = True
            if not self.end.protocol.eof_received():
                self.transport.close()

    def raw(self, argument: int) -> None:
        self.receive(self.operand(1 + argument * 4))

    def frame(self, argument: int) -> None:
        """A well-formed frame with any first byte; the argument says where it is cut."""
        first = self.byte()
        payload = self.operand(self.byte())
        self.frame_of(first, payload, argument)

    def frame_of(self, first: int, payload: bytes, cut: int) -> None:
        data = frame(first, payload, KEY if self.end.masked else b"")
        if cut:
            self.receive(data[:cut])
            loop.spin()
        self.receive(data[cut:])

    def message(self, argument: int) -> None:
        opcode = BINARY if self.byte() & 1 else TEXT
        self.frame_of(0x80 | opcode, b"m" * SIZES[argument], 3)

    def compressed(self, argument: int) -> None:
        stream = zlib.compressobj(wbits=-15)
        payload = stream.compress(b"z" * SIZES[argument]) + stream.flush(zlib.Z_SYNC_FLUSH)
        self.frame_of(0xC0 | TEXT, payload[:-4], 2)

    def opening(self, argument: int) -> None:
        self.receive(self.end.opening(argument))

    def peer_reads(self, argument: int) -> None:
        self.transport.peer_reads(argument * 100)

    def peer_ends(self, argument: int) -> None:
        if argument & 1:
            self.transport.peer_is_gone(ConnectionResetError() if argument & 2 else None)
        elif not self.waiting_eof:
            self.waiting_eof = True
            self.deliver()

    # The user

    def send(self, argument: int) -> None:
        if self.opened():
            kind: Any = self.byte()
            size = SIZES[argument]
            self.user.send(
                "t" * size if kind & 1 else "é" * (size // 2) if kind & 2 else b"b" * size
            )

    def prepared(self, argument: int) -> None:
        if self.opened() and self.ws._state == 1:
            message = "w" * SIZES[argument]
            self.user.sent.append(message)
            fastws.broadcast([self.ws], message)

    def control(self, argument: int) -> None:
        if not self.opened():
            return
        if argument & 1:
            self.user.ping()
        else:
            try:
                self.ws.pong(OWN_PONG)
            except fastws.ConnectionClosed:
                pass

    def close(self, argument: int) -> None:
        if self.ws is None:
            return
        if argument == 15:
            self.user.cut_short = True
            self.ws.abort()
        else:
            self.ws.close(3000 + argument, "done")

    def receive_once(self, argument: int) -> None:
        """Another coroutine in ``recv()``, or its cancellation."""
        user = self.user
        if user.task is not None and not user.task.done():
            user.task.cancel()
        elif self.opened():
            user.task = loop.create_task(self.take_one(self.ws))

    async def take_one(self, ws: Any) -> None:
        try:
            message = await ws.recv()
        except (fastws.ConnectionClosed, fastws.ConcurrencyError):
            return
        self.user.got.append(message)

    # Time

    def tick(self, argument: int) -> None:
        loop.spin()

    def pass_time(self, argument: int) -> None:
        loop.pass_time(TIMES[argument])

    def opened(self) -> bool:
        return self.ws is not None and "open" in self.user.events

    # The end

    def finish(self) -> None:
        loop.spin()
        self.look()
        self.transport.peer_reads(0)
        loop.spin()
        self.transport.peer_is_gone(None)
        loop.spin()
        if self.user.task is not None:
            self.user.task.cancel()
            loop.spin()
        assert self.ws is None
        loop.spin()
        if self.options & CLIENT or self.options & THINKING:
            loop.pass_time(11.0)
        self.end.finish()
        assert not loop.reported, loop.reported
        assert len(reactor) == 0, "a place in the reactor is taken"
        assert not reactor.deadlines, "a time-out is left"
        assert self.settings_are_free(), "a connection is counted"
        assert self.user.events in ([], ["open", "close"]), self.user.events
        self.check_received()
        self.check_sent()

    def settings_are_free(self) -> bool:
        count: int = self.end.settings.connections
        return count == 0

    def check_received(self) -> None:
        """The user got what the peer sent, from the first message on."""
        if not self.user.got:
            return
        _, _, stream = bytes(self.delivered).partition(b"\r\n\r\n")
        ws = self.user.ws
        assert ws is not None
        decoder = Decoder(
            client=not self.end.masked,
            max_size=MAX_SIZE,
            max_fragments=LIMITS["max_fragments"],
            deflate=self.agreement(),
        )
        events = [payload for opcode, payload in decoder.feed(stream) if opcode in (TEXT, BINARY)]
        assert self.user.got == events[: len(self.user.got)], "not in order"

    def agreement(self) -> Any:
        """For a decoder of our own: the same as the connection's, made anew."""
        from fastws.deflate import Agreement, Parameters

        head = bytes(self.transport.sent if self.end.masked else self.delivered)
        head = head.partition(b"\r\n\r\n")[0]
        if b"permessage-deflate" not in head:
            return None
        takeover = b"no_context_takeover" not in head
        agreed = Parameters(not takeover, not takeover)
        return Agreement(Deflate(package="zlib"), agreed, client=not self.end.masked, shared={})

    def check_sent(self) -> None:
        sent = bytes(self.transport.sent)
        head, end, stream = sent.partition(b"\r\n\r\n")
        if not sent:
            return
        assert end, "half a handshake"
        if self.end.masked and not head.startswith(b"HTTP/1.1 101"):
            assert head.startswith(b"HTTP/1.1 4") or head.startswith(b"HTTP/1.1 5"), head
            return
        messages, closed = self.frames(stream)
        assert messages == self.user.sent[: len(messages)], "sent in another order"
        if closed and not self.user.cut_short and not self.overflowed():
            assert messages == self.user.sent, "something was not sent before the close frame"

    def overflowed(self) -> bool:
        total = sum(len(message) + FRAME_COST for message in self.user.sent)
        return total > MAX_BACKLOG // 2

    def frames(self, stream: bytes) -> tuple[list[str | bytes], bool]:
        """The messages in ``stream``, each frame of which must be right; whether it is closed."""
        messages: list[str | bytes] = []
        at = 0
        inflater = None
        while at < len(stream):
            first, second = stream[at], stream[at + 1]
            opcode, length = first & 0x0F, second & 0x7F
            assert first & 0xB0 == 0x80, "not a whole frame"
            assert bool(second & 0x80) is not self.end.masked, (
                "masked by a server, or not by a client"
            )
            at += 2
            if length == 126:
                length = int.from_bytes(stream[at : at + 2], "big")
                assert length >= 126
                at += 2
            elif length == 127:
                raise AssertionError("nothing here is so long")
            key = b""
            if not self.end.masked:
                key = stream[at : at + 4]
                at += 4
            payload = stream[at : at + length]
            assert len(payload) == length, "a frame is cut short"
            at += length
            if key:
                payload = xor(payload, key)
            if first & 0x40:
                assert self.options & DEFLATE and opcode in (TEXT, BINARY)
                if inflater is None or not self.options & TAKEOVER:
                    inflater = zlib.decompressobj(-15)
                payload = inflater.decompress(payload + b"\x00\x00\xff\xff")
            if opcode in (TEXT, BINARY):
                messages.append(payload.decode() if opcode == TEXT else payload)
            elif opcode == CLOSE:
                assert at == len(stream), "something came behind the close frame"
                return messages, True
            else:
                assert opcode in (PING, PONG) and length <= 125 and not first & 0x40
        return messages, False


STEPS: tuple[Callable[[Machine, int], None], ...] = (
    Machine.raw,
    Machine.frame,
    Machine.message,
    Machine.compressed,
    Machine.opening,
    Machine.peer_reads,
    Machine.peer_ends,
    Machine.send,
    Machine.prepared,
    Machine.control,
    Machine.close,
    Machine.receive_once,
    Machine.tick,
    Machine.pass_time,
    Machine.frame,
    Machine.tick,
)


def run(data: bytes, *, thorough: bool = False) -> None:
    if not data:
        return
    machine = Machine(data)
    machine.run()
    machine.finish()


def seeds() -> Iterator[bytes]:
    def step(method: Callable[[Machine, int], None], argument: int = 0, *operands: int) -> bytes:
        return bytes((STEPS.index(method) | argument << 4, *operands))

    def frame(first: int, payload: bytes, cut: int = 0) -> bytes:
        return step(Machine.frame, cut, first, len(payload)) + payload

    tick = step(Machine.tick)
    ending = (
        frame(0x80 | CLOSE, b"\x03\xe8bye"),
        step(Machine.close, 1) + frame(0x80 | CLOSE, b"\x0b\xb9"),
        step(Machine.close, 2) + step(Machine.pass_time, 8),
        step(Machine.close, 15),
        step(Machine.peer_ends, 0),
        step(Machine.peer_ends, 3),
        frame(0x83, b""),
        frame(0x80 | TEXT, b"!"),
        frame(0x80 | TEXT, b"c"),
        frame(0x80 | TEXT, b"a"),
        step(Machine.pass_time, 14) + step(Machine.pass_time, 14),
        b"".join(step(Machine.send, 15, 0) for _ in range(3)) + tick,
    )
    talk = (
        frame(0x80 | TEXT, b"hello") + frame(0x80 | PING, b"ping", 3) + tick,
        frame(TEXT, b"s") + frame(0x80 | CONT, b"o", 1) + frame(0x80 | PONG, b"") + tick,
        step(Machine.message, 12, 0) + step(Machine.message, 11, 1) * 4 + step(Machine.peer_reads),
        step(Machine.compressed, 10) + step(Machine.compressed, 15) + tick,
        step(Machine.send, 10, 1) + step(Machine.send, 9, 2) + step(Machine.prepared, 8) + tick,
        step(Machine.receive_once) + frame(0x80 | BINARY, b"x") * 5 + step(Machine.receive_once),
        step(Machine.control, 1) + step(Machine.control, 0) + step(Machine.pass_time, 11),
    )
    for options in range(0x40):
        some = options % len(talk)
        yield b"".join(
            (
                bytes((options,)),
                step(Machine.opening, 1),
                step(Machine.pass_time, 4),
                talk[some],
                talk[(some * 3 + 1) % len(talk)],
                ending[options % len(ending)],
                tick,
            )
        )
    for variant in range(6):
        yield bytes((0,)) + step(Machine.opening, variant) + tick
        yield bytes((1,)) + step(Machine.opening, variant) + tick
    yield bytes((0,)) + step(Machine.pass_time, 9) + tick
    yield bytes((1,)) + step(Machine.pass_time, 9) + tick
    yield bytes((0,)) + step(Machine.raw, 5) + b"GET / HTTP/1.1\r\nHost: x\r\n" + tick
