"""What a connection does per message, and what the connections of one loop share: the twin of
``fastws._core``.

Order of a tick: bytes are decoded and callbacks run, then outboxes are flushed. User code is never
re-entered: what a call of the user's meets (a queue that is too long) is acted on at the end of the
tick. Coroutines in ``recv()`` wait on ordinary futures. Bytes move through asyncio transports only:
there is no poller in Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import mmap
import os
import random
import sys
import time
from collections import deque
from collections.abc import AsyncIterable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .._awaitable import Done, Later
from .._fragment import Fragment
from ..exceptions import ConcurrencyError, ConnectionClosed, ProtocolError
from .codec import Decoder, encode_frame

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer

    from .._deflate import OwnDeflater
    from ..deflate import Agreement, Deflater, DeflaterKey

    Message: TypeAlias = "str | Buffer | PreparedMessage"

__all__ = [
    "Carrier",
    "Core",
    "PreparedMessage",
    "Reactor",
    "Settings",
    "TransportCarrier",
    "broadcast",
]

# frames.State as plain integers
_CONNECTING: Final = 0
_OPEN: Final = 1
_CLOSING: Final = 2
_CLOSED: Final = 3

# RFC 6455 5.2
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA

# What becomes of the TCP connection once the outbox is empty
_KEEP: Final = 0
_LINGER: Final = 1  # send FIN, read and ignore until the peer's FIN or the deadline
_DROP: Final = 2  # close it

_NO_SLOT: Final = 0xFFFFFFFF
_NO_LIMIT: Final = sys.maxsize

_FLUSHES_PER_TICK: Final = 512  # outboxes flushed before the loop gets its turn again
_SLICE: Final = 4096  # bytes decoded at a time where messages may be compressed
_INFLATED_AT_ONCE: Final = 1 << 20  # bytes, before others get their turn
_SEGMENT_COST: Final = 64  # bytes that a queued frame costs besides its own, for max_backlog

# The payload of keepalive pings, told from those that the user sends.
_KEEPALIVE: Final = b"fastws"

_COMPLETED: Final = Done(None)


class Settings:
    """What the connections of one server or client have in common.

    Sizes in bytes, times in seconds; ``None`` means no limit, or off. ``write_limit`` is a
    high-water mark, or a pair (high, low); low is a quarter of high by default.
    """

    def __init__(
        self,
        *,
        client: bool = False,
        max_size: int | None = 2**20,
        max_fragments: int | None = 4096,
        max_queue: int | None = 16,
        write_limit: int | tuple[int, int] = 65536,
        max_backlog: int | None = 16 * 2**20,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        open_timeout: float | None = 10.0,
        close_timeout: float | None = 10.0,
    ) -> None:
        if isinstance(write_limit, tuple):
            high, low = write_limit
        else:
            high, low = write_limit, write_limit // 4
        if not 0 <= low <= high:
            raise ValueError(f"write_limit: low-water mark {low} is not in 0..{high}")
        if max_queue is not None and max_queue < 1:
            raise ValueError(f"max_queue: {max_queue} messages; at least 1")
        for name, size in (
            ("max_size", max_size),
            ("max_fragments", max_fragments),
            ("max_backlog", max_backlog),
        ):
            if size is not None and size < 1:
                raise ValueError(f"{name}: {size}; at least 1, or None for no limit")
        for name, delay in (
            ("ping_interval", ping_interval),
            ("ping_timeout", ping_timeout),
            ("open_timeout", open_timeout),
            ("close_timeout", close_timeout),
        ):
            if delay is not None and delay <= 0:
                raise ValueError(f"{name}: {delay} s; more than 0, or None for none")
        self.client = bool(client)
        self.max_size = max_size
        self.max_fragments = max_fragments
        self.max_queue = _NO_LIMIT if max_queue is None else max_queue
        self.write_high = high
        self.write_low = low
        self.max_backlog = _NO_LIMIT if max_backlog is None else max_backlog
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.open_timeout = open_timeout
        self.close_timeout = close_timeout
        self.connections = 0  # that are not closed


class PreparedMessage:
    """A message framed once, for sending to many connections (``data``: str, or bytes-like).

    ``text=True`` sends bytes as text (they must be UTF-8), ``text=False`` sends a str as binary.
    """

    __slots__ = ("_compressed", "frame", "header", "opcode")

    def __init__(self, data: str | Buffer, text: bool | None = None) -> None:
        if isinstance(data, str):
            self.opcode = _BINARY if text is False else _TEXT
            payload = data.encode()
        else:
            self.opcode = _TEXT if text else _BINARY
            payload = _contiguous(data)
        self.frame = encode_frame(self.opcode, payload)  # as a server sends it
        self.header = len(self.frame) - len(payload)
        self._compressed: dict[DeflaterKey, bytes | None] = {}  # None where that is no shorter

    def __len__(self) -> int:
        """Bytes of payload."""
        return len(self.frame) - self.header

    def _payload_for(self, deflater: Deflater | OwnDeflater) -> bytes | None:
        """The payload compressed, once for each kind of ``Deflater``; ``None``: that is no
        shorter.
        """
        if deflater.key not in self._compressed:
            payload = deflater.compress(self.frame[self.header :])
            self._compressed[deflater.key] = payload if len(payload) < len(self) else None
        return self._compressed[deflater.key]


def _contiguous(data: Buffer) -> bytes:
    """The bytes of ``data``; ``BufferError`` unless they lie in one piece."""
    if type(data) is bytes:
        return data
    with memoryview(data) as view:
        if not view.c_contiguous:
            raise BufferError("memoryview: underlying buffer is not C-contiguous")
        return view.tobytes()


def _hand_out(core: Core, message: PreparedMessage) -> None:
    """To one open connection of a broadcast; it is dropped if too much waits for it."""
    if core._sending:
        core._send_later(message, None)
        return
    core._write_prepared(message)
    if core._queued > core.settings.write_high:
        core._check_backlog()


def broadcast(
    connections: Iterable[Core],
    message: str | Buffer | PreparedMessage,
    *,
    text: bool | None = None,
    raise_exceptions: bool = False,
) -> None:
    """Send ``message`` to every open connection in ``connections``.

    Framed once, whatever their number. Never blocks and never raises for one of them: a connection
    that does not read is dropped when its queue passes ``max_backlog``. What is sent in one tick of
    the loop leaves in one system call per connection. ``raise_exceptions`` changes nothing, and is
    there for programs written for ``websockets``.
    """
    if not isinstance(message, PreparedMessage):
        message = PreparedMessage(message, text)
    for core in list(connections):
        if not isinstance(core, Core):
            raise TypeError(f"not a connection: {type(core).__name__}")
        if core._state == _OPEN:
            _hand_out(core, message)


def broadcast_ready(
    connections: Iterable[Core],
    message: str | Buffer | PreparedMessage,
    *,
    text: bool | None = None,
) -> list[Core]:
    """``broadcast`` to those that read fast enough; returns the open connections it leaves out.

    They are those whose queue is over the high-water mark of ``write_limit``. Their listener's
    ``on_drain`` is called once it has fallen to the low one.
    """
    if not isinstance(message, PreparedMessage):
        message = PreparedMessage(message, text)
    full = []
    for core in list(connections):
        if not isinstance(core, Core):
            raise TypeError(f"not a connection: {type(core).__name__}")
        if core._state == _OPEN:
            if core._queued > core.settings.write_high:
                full.append(core)
            else:
                _hand_out(core, message)
    return full


def own_send(connection: type[Core]) -> None:
    """Only the compiled core gains from a method of the class's own."""


# --- one per loop


class Reactor:
    """What the connections of one loop share; used from the loop's thread only.

    ``capacity``: connections at once. ``last_seen`` is a memoryview of doubles:
    ``time.monotonic()`` at which the last bytes of the connection in that slot came in; it stays at
    one address, so that numpy can look at it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, capacity: int) -> None:
        self.loop = loop
        self.context = contextvars.copy_context()
        # Untouched pages of this take no memory.
        self.last_seen: memoryview[float] = memoryview(mmap.mmap(-1, max(capacity, 1) * 8)).cast(
            "d"
        )
        self.deadlines: dict[Core, float] = {}
        # What connections of this loop share beyond that, by key: compressors.
        self.shared: dict[Any, Any] = {}
        self.poller: Any = None
        self._capacity = capacity
        self._owners: list[Core | None] = []  # by slot
        self._free: list[int] = []
        self._dirty: list[Core] = []
        self._ping_at: dict[Core, float] = {}  # when to ping next, or when the pong is due
        self._ticking = False
        self._scheduled = False
        self._granularity = 1.0  # seconds between sweeps
        self._sweep_handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Connections that hold a slot."""
        return len(self._owners) - len(self._free)

    def connections(self, settings: Settings | None = None) -> list[Any]:
        """Those of one server, or all, that are not closed."""
        return [
            core
            for core in self._owners
            if core is not None
            and core._state != _CLOSED
            and (settings is None or core.settings is settings)
        ]

    def _acquire(self, core: Core) -> int:
        if self._free:
            slot = self._free.pop()
            self._owners[slot] = core
        elif len(self._owners) < self._capacity:
            slot = len(self._owners)
            self._owners.append(core)
        else:
            raise OverflowError(
                f"{self._capacity} connections are open, more than this reactor was made for"
            )
        self.last_seen[slot] = time.monotonic()
        return slot

    def _release(self, core: Core) -> None:
        if core.slot != _NO_SLOT:
            self._owners[core.slot] = None
            self._free.append(core.slot)
            core.slot = _NO_SLOT

    # --- ticks

    def _touch(self, core: Core) -> None:
        """Flush ``core`` (and let it go on reading, if it was held) at the end of this tick."""
        if not core._dirty:
            self._dirty.append(core)
            core._dirty = True
            self._schedule()

    def _schedule(self) -> None:
        if not self._ticking and not self._scheduled:
            self.loop.call_soon(self._run, context=self.context)
            self._scheduled = True

    def _run(self) -> None:
        self._scheduled = False
        self._begin_tick()
        self._end_tick()

    def _begin_tick(self) -> bool:
        """Whether this is the outermost tick, to be ended by the caller."""
        outer = not self._ticking
        self._ticking = True
        return outer

    def _end_tick(self) -> None:
        """Flush until there is nothing left, or it is the loop's turn: a fan-out so wide shall let
        the loop breathe.
        """
        budget = _FLUSHES_PER_TICK
        try:
            while self._dirty and budget > 0:
                batch = self._dirty[:budget]
                del self._dirty[:budget]
                budget -= len(batch)
                self._settle(batch)
        finally:
            self._ticking = False
            if self._dirty:
                self._schedule()

    def _settle(self, batch: list[Core]) -> None:
        batch.reverse()
        try:
            while batch:
                core = batch.pop()
                core._dirty = False
                core._settle()
        finally:
            self._dirty[:0] = reversed(batch)  # nothing, unless a hook raised

    # --- time-outs: one timer for all

    def set_deadline(self, core: Core, delay: float | None) -> None:
        """Call ``core._on_deadline()`` after ``delay`` seconds unless another deadline or ``None``
        comes first.
        """
        if delay is None:
            self.deadlines.pop(core, None)
            return
        self.deadlines[core] = time.monotonic() + delay
        self._sweep_for(delay)

    def _keep_alive(self, core: Core) -> None:
        """Begin to ping ``core``; the first time at a random point in the second half of the
        interval.
        """
        interval = core.settings.ping_interval
        if interval is None or core.slot == _NO_SLOT:
            return
        self._ping_at[core] = time.monotonic() + interval * (0.5 + 0.5 * random.random())
        self._sweep_for(interval)
        if core.settings.ping_timeout is not None:
            self._sweep_for(core.settings.ping_timeout)

    def _sweep_for(self, delay: float) -> None:
        """Sweep often enough that ``delay`` is kept to a quarter of itself, but no timer is set per
        connection.
        """
        granularity = min(max(delay / 4, 0.01), 1.0)
        if granularity < self._granularity:
            self._granularity = granularity
            self._stop_sweeping()
        self._sweep_later()

    def _sweep_later(self) -> None:
        if self._sweep_handle is None:
            self._sweep_handle = self.loop.call_later(
                self._granularity, self._sweep, context=self.context
            )

    def _stop_sweeping(self) -> None:
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
            self._sweep_handle = None

    def _sweep(self) -> None:
        self._sweep_handle = None
        now = time.monotonic()
        self._begin_tick()
        try:
            for core in [core for core, due in self.deadlines.items() if due <= now]:
                if self.deadlines.pop(core, None) is not None:
                    core._on_deadline()
            for core in [core for core, due in self._ping_at.items() if due <= now]:
                core._ping_or_give_up(now)
        finally:
            self._end_tick()
            if self.deadlines or self._ping_at:
                self._sweep_later()
            else:
                self._granularity = 1.0

    def close(self) -> None:
        """Drop every connection and stop. For a loop that is closed, or about to be."""
        for core in self.connections():
            core._lose()
        self._stop_sweeping()


# --- carriers


class Carrier:
    """Moves bytes between a socket and a ``Core``; knows no protocol."""

    def _flush(self, core: Core) -> None:
        """Send from the outbox of ``core`` what can be taken now."""
        raise NotImplementedError

    def _is_sending(self) -> bool:
        """Whether bytes that were taken have not left this process: then ``core._writable()`` is
        called when the last one has. Nothing more must be sent.
        """
        raise NotImplementedError

    def _hold_reading(self, hold: bool) -> None:
        """Stop reading, or go on."""
        raise NotImplementedError

    def _half_close(self) -> None:
        """Send FIN, go on reading."""
        raise NotImplementedError

    def _drop(self, orderly: bool) -> None:
        """Close the socket now; the connection hears no more of it. ``orderly``: after what it was
        given has left.
        """
        raise NotImplementedError


class TransportCarrier(Carrier):
    """An asyncio transport as carrier; one per connection.

    The transport's own buffer is kept small: above its high-water mark, bytes wait in the
    connection's outbox.
    """

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self._paused = False

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def _flush(self, core: Core) -> None:
        if not self._paused and not core._half_closed and not self.transport.is_closing():
            # Not writelines(): where it does not join, it forgets to pause us (CVE-2024-12254).
            data = core._outbox[0] if len(core._outbox) == 1 else b"".join(core._outbox)
            core._forget_queued()
            self.transport.write(data)

    def _is_sending(self) -> bool:
        if self.transport.is_closing() or not self.transport.get_write_buffer_size():
            return False
        self.transport.set_write_buffer_limits(0)  # resume_writing() comes when it is empty
        return True

    def _hold_reading(self, hold: bool) -> None:
        if self.transport.is_closing():
            return
        if hold:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _half_close(self) -> None:
        if self.transport.can_write_eof() and not self.transport.is_closing():
            # ENOTCONN: the peer has reset it, which reading is about to find out.
            with contextlib.suppress(OSError):
                self.transport.write_eof()

    def _drop(self, orderly: bool) -> None:
        # Only an orderly end waits for TLS to end as well.
        if orderly:
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.abort()


# --- one per connection


class Core:
    """The hot part of a connection; ``fastws.connection.Connection`` adds the cold part.

    The cold part's hooks, all called outside of user code: ``_on_bytes`` (before the handshake is
    done), ``_on_close_frame``, ``_on_pong``, ``_on_protocol_error``, ``_on_handler_error``,
    ``_on_overflow``, ``_on_drained``, ``_on_deadline``, ``_on_ping_timeout`` and ``_on_lost``. What
    is rare in ``send`` and ``recv`` is there too: ``_send_fragments``, ``_send_later``,
    ``_recv_rarely`` and ``_next_rarely``.
    """

    # It has a decoder, where the compiled one is a decoder: attributes that users set on a
    # connection cannot meet those of the decoder then.

    settings: Settings
    reactor: Reactor
    carrier: Carrier
    slot: int
    listener: Any
    latency: float  # seconds from the last ping to its pong
    muted: bool  # bytes that come in are ignored
    _details: Any  # what few connections need: the cold part's
    _state: int
    _decoder: Decoder
    _deflate: Agreement | None  # for compressed messages, if there is one
    _deflater: Deflater | None  # if our messages refer to those before them
    _close_seen: bool
    _on_message: Any
    _messages: deque[str | bytes | Fragment]  # not received yet
    _waiter: asyncio.Future[None] | None  # in recv()
    _spill: list[tuple[int, Any]]  # decoded but not taken yet, while held; the oldest is last
    _unread: bytes  # read but not decoded yet, behind that
    _tired: bool  # enough was inflated in this turn of the loop
    _reading: bool  # the carrier reads
    _held: bool  # readers, or the peer's reading, do not keep up
    _end_of_file: bool  # the peer has sent FIN
    _outbox: list[bytes]  # whole frames
    _queued: int  # bytes in it
    _dirty: bool  # to be flushed at the end of the tick
    _above: bool  # the outbox has passed the high-water mark and is not below the low one yet
    _drained: asyncio.Future[None] | None  # of a send() above the high-water mark
    _overflowed: bool  # the outbox passed max_backlog and was dropped: no message goes out any more
    _overflow_told: bool
    _ending: int  # _KEEP, _LINGER or _DROP
    _half_closed: bool  # we have sent FIN
    _ping_sent: float  # 0: no keepalive ping is waiting for its pong
    _sending: bool  # a message is going out in fragments: others wait

    # In __new__, as the compiled one: the cold part's __init__ need not call ours.
    def __new__(cls, settings: Settings, reactor: Reactor, carrier: Carrier, *args: object) -> Self:
        self = super().__new__(cls)
        self.settings = settings
        self.reactor = reactor
        self.carrier = carrier
        self.listener = None
        self.latency = 0.0
        self.muted = False
        self._details = None
        self._state = _CONNECTING
        self._decoder = Decoder(
            client=settings.client,
            max_size=settings.max_size,
            max_fragments=settings.max_fragments,
        )
        self._deflate = None
        self._deflater = None
        self._close_seen = False
        self._on_message = None
        self._messages = deque()
        self._waiter = None
        self._spill = []
        self._unread = b""
        self._tired = False
        self._reading = True
        self._held = False
        self._end_of_file = False
        self._outbox = []
        self._queued = 0
        self._dirty = False
        self._above = False
        self._drained = None
        self._overflowed = False
        self._overflow_told = False
        self._ending = _KEEP
        self._half_closed = False
        self._ping_sent = 0.0
        self._sending = False
        self.slot = reactor._acquire(self)
        settings.connections += 1
        return self

    if TYPE_CHECKING:  # what the cold part adds

        def _on_bytes(self, data: bytes) -> None: ...
        def _on_close_frame(self, payload: bytes) -> None: ...
        def _on_pong(self, payload: bytes) -> None: ...
        def _on_protocol_error(self, error: ProtocolError) -> None: ...
        def _on_handler_error(self, error: BaseException) -> None: ...
        def _on_overflow(self) -> None: ...
        def _on_drained(self) -> None: ...
        def _on_deadline(self) -> None: ...
        def _on_ping_timeout(self) -> None: ...
        def _on_lost(self, error: BaseException | None) -> None: ...
        def _closed_error(self) -> ConnectionClosed: ...
        def _ended_well(self) -> bool: ...
        def _send_fragments(
            self, message: Any, text: bool | None, compress: bool | None
        ) -> Coroutine[Any, Any, None]: ...
        def _send_later(
            self, message: Any, text: bool | None, compress: bool | None = None
        ) -> Any: ...
        def _recv_rarely(self, decode: bool | None) -> Coroutine[Any, Any, str | bytes]: ...
        def _next_rarely(self) -> Coroutine[Any, Any, str | bytes]: ...

    @property
    def error(self) -> ProtocolError | None:
        """What the peer did wrong, if it did."""
        return self._decoder.error

    @property
    def closed(self) -> bool:
        """Whether a close frame has been seen."""
        return self._close_seen

    # --- in

    def _received(self, data: Buffer) -> None:
        """Take bytes that the carrier has read."""
        if self.muted:
            return
        self.reactor.last_seen[self.slot] = time.monotonic()
        if self._state == _CONNECTING:
            self._on_bytes(bytes(data))
            return
        if self._held:
            self._unread += bytes(data)  # the transport had more, in spite of being paused
        else:
            self._decode(bytes(data))

    def _decode(self, data: bytes) -> None:
        """Decode and take; in slices where a slice can inflate to a thousand times its size."""
        step = len(data) if self._deflate is None else _SLICE
        at = 0
        while at < len(data) and not self.muted:
            events = self._decoder.feed(data[at : at + step])
            events.reverse()
            self._spill[:0] = events
            at += step
            if self._decoder.inflated > _INFLATED_AT_ONCE and self._state == _OPEN:
                self._rest()
            self._take_events()
            if self._held:
                self._unread = data[at:]
                return

    def _rest(self) -> None:
        """Enough was inflated for this turn of the loop: go on in the next."""
        self._decoder.inflated = 0
        self._tired = self._held = True
        self.reactor.loop.call_soon(self._rested)

    def _rested(self) -> None:
        self._tired = False
        if self._state != _CLOSED:
            self.reactor._touch(self)

    def _take_events(self) -> None:
        """Take what was decoded while readers keep up; else stop reading."""
        if self._held and not self._spill:
            self._catch_up()
        while self._spill:
            self._on_event(*self._spill.pop())
            if self._held and not self._catch_up():
                return
        if self._decoder.error is not None and not self.muted:
            if self._messages:
                # What came before the error is answered before the close frame goes out.
                self.reactor.loop.call_soon(self._refuse_bytes)
            else:
                self._refuse_bytes()

    def _refuse_bytes(self) -> None:
        if self._decoder.error is not None and not self.muted:
            self.muted = True
            self._on_protocol_error(self._decoder.error)

    def _catch_up(self) -> bool:
        """Go on reading if that is possible by now, or stop."""
        if not self.muted:
            if self._above:
                self._flush()
            if self._may_go_on():
                self._held = False
            elif self._reading:
                self._reading = False
                self.carrier._hold_reading(True)
        return not self._held

    def _may_go_on(self) -> bool:
        """Whether readers, and the peer's reading, keep up with what comes in."""
        if self._state != _OPEN:
            return True  # messages are dropped, and the close frame is waited for
        return not self._above and not self._tired and len(self._messages) < self.settings.max_queue

    def _resume(self) -> None:
        """Readers have caught up: take what was kept, then read on."""
        self._held = False
        self._take_events()
        if not self._held:
            unread, self._unread = self._unread, b""
            self._decode(unread)
        if not self._held and not self._end_of_file and self._state != _CLOSED:
            self._reading = True
            self.carrier._hold_reading(False)

    def _on_event(self, opcode: int, payload: Any) -> None:
        if self._state == _CLOSED:
            return
        if opcode <= _BINARY:
            self._deliver(payload)
        elif opcode == _PING:
            if self._state == _OPEN:
                self._write_frame(_PONG, payload)
                if self._above:
                    self._held = True
        elif opcode == _PONG:
            if self._ping_sent and payload == _KEEPALIVE:
                self._keepalive_answered()
            else:
                self._on_pong(payload)
        else:
            self._close_seen = True
            self._on_close_frame(payload)

    def _deliver(self, message: str | bytes) -> None:
        """Hand a message to the listener, or to whoever is or will be in ``recv()``."""
        if self._state != _OPEN:
            return
        if self._on_message is not None:
            try:
                self._on_message(self, message)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                self._on_handler_error(error)
                return
            if self._above:
                self._held = True
        elif self.listener is None:
            self._messages.append(message)
            if len(self._messages) >= self.settings.max_queue:
                self._held = True
            self._wake()

    def _closed_for_recv(self) -> bool:
        """Whether nothing more can come: closed, or the peer's close frame has been seen."""
        return self._state >= _CLOSING and (
            self._state == _CLOSED or self._close_seen or self.muted
        )

    def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, str | bytes]:
        """The next message, ``str`` or ``bytes``, when awaited.

        ``decode=False`` gives a text as bytes of UTF-8, ``decode=True`` binary as str; the
        connection fails with 1007 if it is not UTF-8. ``ConnectionClosed`` once the connection is
        closed and what came before has been received; ``ConcurrencyError`` while another coroutine
        waits. Cancelling it loses no message.
        """
        if decode is not None or self._decoder.streaming:
            return self._recv_rarely(decode)
        return self._next_item()

    async def _next_item(self) -> Any:
        """The next message, or the next ``Fragment`` of one."""
        while not self._messages:
            if self._closed_for_recv():
                raise self._closed_error()
            if self._waiter is not None:
                raise ConcurrencyError("another coroutine is waiting in recv() of this connection")
            self._waiter = self.reactor.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        if not self._reading and len(self._messages) <= self.settings.max_queue >> 2:
            self.reactor._touch(self)
        return message

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, str | bytes]:
        return self._next_rarely() if self._decoder.streaming else self._next_message()

    async def _next_message(self) -> str | bytes:
        try:
            return await self.recv()
        except ConnectionClosed:
            if self._ended_well():
                raise StopAsyncIteration from None
            raise

    def _stream(self) -> None:
        """From now on fragments are received as they come; ``ConcurrencyError`` if somebody waits
        for a message.
        """
        if self._waiter is not None:
            raise ConcurrencyError("another coroutine is waiting in recv() of this connection")
        self._decoder.streaming = True
        if self._decoder.between_fragments:
            fragment = self._decoder.take_fragment(False)  # what came of a message before
            if fragment.data:
                # Behind what is decoded but not taken yet.
                self._spill.insert(0, (0, fragment))
                if not self._held:
                    self._take_events()

    def _stop_streaming(self) -> None:
        """From now on messages are received whole, if none is under way in fragments."""
        queued = (*self._messages, *(payload for _, payload in self._spill))
        self._decoder.streaming = self._decoder.partly_taken or any(
            isinstance(item, Fragment) for item in queued
        )

    # --- out

    def send(
        self,
        message: Message | Iterable[str | Buffer] | AsyncIterable[str | Buffer],
        text: bool | None = None,
        compress: bool | None = None,
    ) -> Done[None] | Later[None] | Coroutine[Any, Any, None]:
        """Send ``message``: ``str`` as text, bytes-like as binary, or a ``PreparedMessage``; or
        each item of an iterable or asynchronous iterable as a fragment of one message (RFC 6455
        5.4), which must be awaited.

        ``text=True`` sends bytes as text (they must be UTF-8), ``text=False`` a str as binary.
        ``compress``: whether to compress it, if permessage-deflate was agreed on; by default from
        the threshold on, which of fragments the first must reach. Takes effect at once and never
        blocks; what is sent in one tick of the loop leaves in one system call. Returns an awaitable
        that is done unless the connection is above its high-water mark: a coroutine that awaits it
        is slowed down to the speed of the peer, a callback may ignore it. ``ConnectionClosed`` once
        the connection is closing; ``TypeError`` for anything else.
        """
        if self._state != _OPEN:
            raise self._closed_error()
        if self._sending:
            later: Later[None] | Coroutine[Any, Any, None] = self._send_later(
                message, text, compress
            )
            return later
        if isinstance(message, str):
            self._write_message(_BINARY if text is False else _TEXT, message.encode(), compress)
        elif isinstance(message, PreparedMessage):
            self._write_prepared(message, compress)
        else:
            try:
                payload = _contiguous(message)  # type: ignore[arg-type]
            except (TypeError, BufferError):
                return self._send_fragments(message, text, compress)
            self._write_message(_TEXT if text else _BINARY, payload, compress)
        if self._above or self._queued > self.settings.write_high:
            return self._wait_drained()
        return _COMPLETED

    def _drain(self) -> Done[None] | Later[None]:
        """What ``send`` returns: done unless the connection is above its high-water mark."""
        above = self._above or self._queued > self.settings.write_high
        return self._wait_drained() if above and self._state != _CLOSED else _COMPLETED

    def _wait_drained(self) -> Done[None] | Later[None]:
        """Above the high-water mark: try to get below it at once, else wait for the peer to
        read.
        """
        self._check_backlog()
        if not self._above:
            return _COMPLETED
        if self._drained is None:
            self._drained = self.reactor.loop.create_future()
        return Later(self._drained)

    def _check_backlog(self) -> None:
        """The queue is over the high-water mark: try to shorten it now; drop it if it is over
        ``max_backlog``.

        Called by user code, so nothing here calls back: that is left to the end of the tick.
        """
        self._flush()
        cost = self._queued + len(self._outbox) * _SEGMENT_COST
        if cost > self.settings.max_backlog and not self._overflowed:
            self._forget_queued()
            self._overflowed = True
            self.reactor._touch(self)

    def _write_prepared(self, message: PreparedMessage, compress: bool | None = None) -> None:
        agreed = self._agreement_for(len(message), compress)
        if agreed is not None and agreed.deflater is not None:
            payload = message._payload_for(agreed.deflater)
            if payload is not None:
                if self._deflater is not None:
                    self._deflater.forget()
                self._write_frame(message.opcode, payload, rsv1=True)
                return
        if self.settings.client:
            self._write_frame(message.opcode, message.frame[message.header :])
        elif not self._overflowed:
            self._write_bytes(message.frame)

    def _agreement_for(self, size: int, compress: bool | None) -> Agreement | None:
        """How to compress a message of ``size`` bytes; ``None``: not at all."""
        agreed = self._deflate
        if agreed is None or agreed.deflater is None or not size or compress is False:
            return None
        return agreed if compress or size >= agreed.threshold else None

    def _write_message(self, opcode: int, payload: bytes, compress: bool | None) -> None:
        """Queue a message, compressed if it is to be and gets shorter."""
        agreed = self._agreement_for(len(payload), compress)
        if agreed is None or agreed.deflater is None or self._overflowed:
            self._write_frame(opcode, payload)
        elif agreed.context:
            # What ours remembers must be in the peer's window: should this message not get into
            # the queue, ours is gone.
            deflater, self._deflater = self._deflater or agreed.new_deflater(), None
            compressed = deflater.compress(payload)
            if len(compressed) < len(payload):
                self._write_frame(opcode, compressed, rsv1=True)
            else:
                deflater.forget()
                self._write_frame(opcode, payload)
            self._deflater = deflater
        else:
            compressed = agreed.deflater.compress(payload)
            if len(compressed) < len(payload):
                self._write_frame(opcode, compressed, rsv1=True)
            else:
                self._write_frame(opcode, payload)

    def _begin_compressed(self, size: int, compress: bool | None) -> Deflater | None:
        """The ``Deflater`` of a message in fragments, of which the first has ``size`` bytes;
        ``None``: it goes as it is.

        Should the message not get into the queue whole, what a connection's own remembers is gone:
        it is ours again when ``_end_compressed`` gets it back.
        """
        agreed = self._deflate
        if agreed is None or agreed.deflater is None or compress is False:
            return None
        if not compress and size < agreed.threshold:
            return None
        deflater, self._deflater = self._deflater, None
        return deflater or agreed.new_deflater()

    def _end_compressed(self, deflater: Deflater) -> None:
        if self._deflate is not None and self._deflate.context and self._state != _CLOSED:
            self._deflater = deflater

    def _forget_queued(self) -> None:
        self._outbox.clear()
        self._queued = 0

    def _flush(self) -> None:
        """Hand the carrier what it takes; whoever waits hears of it at the end of the tick."""
        if self._outbox:
            self.carrier._flush(self)
            if self._queued > self.settings.write_high:
                self._above = True

    def _settle(self) -> None:
        """At the end of a tick: send what is queued, read on if that was held."""
        if self._state == _CLOSED:
            return
        if self._overflowed and not self._overflow_told:
            self._overflow_told = True
            self._on_overflow()
        self._flush()
        if self._above and self._queued <= self.settings.write_low:
            self._above = False
            if self._drained is not None:
                if not self._drained.done():
                    self._drained.set_result(None)
                self._drained = None
            self._on_drained()  # which may send, close or drop
        if self._ending != _KEEP and self._state != _CLOSED and not self._queued:
            self._end_writing()
        if not self._reading and not self.muted and self._may_go_on():
            self._resume()

    def _end_writing(self) -> None:
        """The last byte has been handed over: do with the TCP connection what was decided."""
        if self._ending == _LINGER and not self._end_of_file:
            if not self._half_closed:
                self._half_closed = True
                self.carrier._half_close()
        elif not self.carrier._is_sending():  # else until the deadline
            self._lose(orderly=True)

    # --- the end

    def _receive_eof(self) -> None:
        """The peer has sent FIN."""
        self._end_of_file = True
        if (self._state == _CLOSING or self._ending != _KEEP) and (
            self._queued or self.carrier._is_sending()
        ):
            # Half-closed after a close frame: it may still read what we have for it, until the
            # deadline.
            self._end(linger=False)
        else:
            self._lose()

    def _lose(self, error: BaseException | None = None, *, orderly: bool = False) -> None:
        """Drop the TCP connection now; ``orderly``: everything queued has left."""
        if self._state == _CLOSED:
            return
        self._leave()
        # After that: a transport may call us back from inside close().
        self.carrier._drop(orderly)
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_exception(self._closed_error())
                self._drained.exception()  # not everyone waits for it
            self._drained = None
        self._wake()
        self._on_message = None  # with it goes the cycle through a listener that keeps us
        try:
            self._on_lost(error)
        finally:
            self.reactor._release(self)

    def _leave(self) -> None:
        """Nothing comes in or goes out any more."""
        self._state = _CLOSED
        self._mute()
        self._forget_queued()
        self._deflater = None
        self._decoder.drop_inflater()
        self._above = False
        self.settings.connections -= 1
        self.reactor.deadlines.pop(self, None)
        self.reactor._ping_at.pop(self, None)

    # --- keepalive

    def _ping_or_give_up(self, now: float) -> None:
        """Keepalive (``ping_interval``): send a ping, or miss a pong."""
        if self._state != _OPEN:
            self.reactor._ping_at.pop(self, None)
            return
        interval, timeout = self.settings.ping_interval, self.settings.ping_timeout
        if self._ping_sent and timeout is not None and not self._reading:
            # The pong may be waiting behind what we do not read: no fault of the peer's.
            self.reactor._ping_at[self] = now + timeout
            return
        if self._ping_sent and timeout is not None:
            self.reactor._ping_at.pop(self, None)
            self._on_ping_timeout()
            return
        self._write_frame(_PING, _KEEPALIVE)
        self._ping_sent = now
        delay = timeout if timeout is not None else interval
        if delay is not None:
            self.reactor._ping_at[self] = now + delay

    def _keepalive_answered(self) -> None:
        self.latency = time.monotonic() - self._ping_sent
        if self.settings.ping_interval is not None and self in self.reactor._ping_at:
            self.reactor._ping_at[self] = self._ping_sent + self.settings.ping_interval
        self._ping_sent = 0.0

    # --- for the cold part

    def _use_deflate(self, deflate: Agreement) -> None:
        """Messages may be compressed from now on, as ``deflate`` says."""
        self._deflate = deflate
        self._decoder.use_deflate(deflate)

    def _opened(self, on_message: Any) -> None:
        """The handshake is done: messages go to ``on_message`` (``None``: to ``recv``, or nowhere
        if there is a listener).
        """
        self._state = _OPEN
        self._on_message = on_message
        self.reactor._keep_alive(self)

    def _receive(self, data: Buffer) -> None:
        """Bytes from an asyncio transport, or those that followed the handshake."""
        outer = self.reactor._begin_tick()
        try:
            self._received(data)
        except BaseException as error:
            self._lose(error)
            raise
        finally:
            if outer:
                self.reactor._end_tick()

    def _writable(self) -> None:
        """The transport takes bytes again."""
        self.reactor._touch(self)

    def _write_bytes(self, data: bytes) -> None:
        """Queue bytes: whole frames, or a handshake."""
        if self._state != _CLOSED and data:
            self._outbox.append(data)
            self._queued += len(data)
            self.reactor._touch(self)

    def _write_frame(
        self, opcode: int, payload: bytes, fin: bool = True, *, rsv1: bool = False
    ) -> None:
        """Queue a frame; ``rsv1``: of a compressed message."""
        if self._overflowed and opcode < _CLOSE:
            return
        if opcode == _CLOSE:
            self._decoder.discarding = True  # what still comes is dropped (RFC 6455 5.5.1)
        # A mask key comes from the system's source of randomness (RFC 6455 5.3, 10.3).
        key = os.urandom(4) if self.settings.client else None
        self._write_bytes(encode_frame(opcode, payload, fin=fin, rsv1=rsv1, mask_key=key))

    def _end(self, linger: bool) -> None:
        """Close the TCP connection once everything queued has left: at once, or after the peer's
        FIN.
        """
        self._ending = _LINGER if linger else _DROP
        self.reactor._touch(self)

    def _mute(self) -> None:
        """Ignore what comes in from now on."""
        self.muted = True
        self._spill.clear()
        self._unread = b""
        if not self._reading and not self._end_of_file and self._state != _CLOSED:
            self._reading = True
            self.carrier._hold_reading(False)

    def _wake(self) -> None:
        """Whoever is in ``recv()`` looks again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _detach(self) -> None:
        """Another protocol takes the socket over: leave without closing it or telling anyone."""
        self._leave()
        self.reactor._release(self)

    @property
    def buffered_amount(self) -> int:
        """Bytes queued here and not yet handed to the operating system (or the transport)."""
        return self._queued

    @property
    def _fileno(self) -> int:
        return -1
