"""Messages in fragments, in both directions (RFC 6455 5.4), and ``recv(decode=…)``.

Cold: what is sent and received whole does not come here.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ._awaitable import Later
from ._fragment import Fragment
from ._impl import PreparedMessage
from .deflate import Fragments
from .exceptions import ConcurrencyError, ConnectionClosed
from .frames import CloseCode, Opcode, State

if TYPE_CHECKING:
    from .connection import Connection

__all__ = [
    "Streams",
    "fragments_of",
    "is_whole",
    "receive_fragments",
    "receive_whole",
    "send_behind",
    "send_fragments",
]

# Bytes that a queued message costs besides its own, for max_backlog.
_COST: Final = 64

_WHOLE: Final = (str, bytes, bytearray, memoryview, PreparedMessage)


class Streams:
    """The messages of one connection that are under way in fragments."""

    __slots__ = ("begun", "behind", "behind_size", "reading", "sent")

    def __init__(self) -> None:
        # Out
        self.sent: asyncio.Future[None] | None = None  # when the message that goes out has gone
        # Messages that go out then, and whether to compress them.
        self.behind: list[tuple[PreparedMessage, bool | None]] = []
        self.behind_size = 0  # bytes that they take
        # In
        self.reading = False  # somebody is in recv_streaming()
        self.begun: list[Fragment] = []  # of a message that recv() puts together


# --- out


def is_whole(message: Any) -> bool:
    """Whether ``message`` is one message, not an iterable of fragments."""
    if isinstance(message, _WHOLE):
        return True
    try:
        memoryview(message)
    except TypeError:
        return False
    return True


def fragments_of(message: Any) -> AsyncIterator[Any]:
    """``TypeError`` for what is no iterable, and for mappings, of which only the keys would go."""
    if isinstance(message, AsyncIterable):
        return aiter(message)
    if isinstance(message, Iterable) and not isinstance(message, Mapping | memoryview):
        return _one_by_one(message)
    raise TypeError(
        "message must be str, bytes-like, PreparedMessage or an iterable of fragments, "
        f"not {type(message).__name__}"
    )


async def _one_by_one(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def send_fragments(
    ws: Connection,
    streams: Streams,
    fragments: AsyncIterator[Any],
    text: bool | None,
    compress: bool | None,
) -> None:
    """Send each item as a fragment of one message; nothing if there is none."""
    try:
        fragment = await anext(fragments)
    except StopAsyncIteration:
        return
    kind = _kind(fragment)
    while streams.sent is not None:
        await asyncio.shield(streams.sent)
    _check_open(ws)
    streams.sent = ws.reactor.loop.create_future()
    ws._sending = True
    try:
        as_text = kind is str if text is None else text
        opcode = Opcode.TEXT if as_text else Opcode.BINARY
        data = _data(fragment)
        deflater = ws._begin_compressed(len(data), compress)
        compressed = None if deflater is None else Fragments(deflater)
        if compressed is not None:
            data = compressed.compress(data)
        ws._write_frame(opcode, data, False, rsv1=compressed is not None)
        await ws._drain()
        async for fragment in fragments:
            if _kind(fragment) is not kind:
                raise TypeError("fragments of one message must all be str, or all bytes-like")
            _check_open(ws)
            data = _data(fragment)
            if compressed is not None:
                data = compressed.compress(data)
            ws._write_frame(Opcode.CONT, data, False)
            await ws._drain()
        _check_open(ws)
        ws._write_frame(Opcode.CONT, b"" if compressed is None else compressed.end(), True)
        if deflater is not None:
            ws._end_compressed(deflater)
    except BaseException as error:
        # A message that will not be finished: nothing else can be sent any more.
        if ws._state == State.OPEN:
            ws._fail(CloseCode.INTERNAL_ERROR, "error in a fragmented message", error)
        raise
    finally:
        _let_others_send(ws, streams)
    await ws._drain()


def send_behind(
    ws: Connection, streams: Streams, message: Any, text: bool | None, compress: bool | None
) -> Later[None]:
    """Queue a whole message behind the one that is going out in fragments."""
    if not isinstance(message, PreparedMessage):
        message = PreparedMessage(message, text)
    assert streams.sent is not None
    limit = ws.settings.max_backlog
    size = streams.behind_size + len(message) + _COST
    if size <= limit:
        streams.behind.append((message, compress))
    elif streams.behind_size <= limit:
        # Not from here: this is code of the user's, which a listener's callback must not interrupt.
        ws.reactor.loop.call_soon(ws._on_overflow)
    streams.behind_size = size
    return Later(streams.sent)


def _let_others_send(ws: Connection, streams: Streams) -> None:
    sent, streams.sent = streams.sent, None
    behind, streams.behind = streams.behind, []
    streams.behind_size = 0
    ws._sending = False
    assert sent is not None
    if ws._state == State.OPEN:
        for message, compress in behind:
            ws.send(message, None, compress)
        sent.set_result(None)
    else:
        sent.set_exception(ws._closed_error())
        sent.exception()  # it may be nobody who waits


def _check_open(ws: Connection) -> None:
    if ws._state != State.OPEN:
        raise ws._closed_error()


def _kind(fragment: Any) -> type:
    if isinstance(fragment, str):
        return str
    if isinstance(fragment, PreparedMessage) or not is_whole(fragment):
        raise TypeError(f"a fragment must be str or bytes-like, not {type(fragment).__name__}")
    return bytes


def _data(fragment: Any) -> bytes:
    # bytes() copies what could be changed before it has left.
    return fragment.encode() if isinstance(fragment, str) else bytes(fragment)


# --- in


async def receive_whole(ws: Connection, streams: Streams, decode: bool | None) -> str | bytes:
    """``recv()`` with ``decode``, or while messages come in fragments."""
    if streams.reading:
        raise ConcurrencyError("recv_streaming() is in the middle of a message")
    item = None if streams.begun else await ws._next_item()
    if item is None or isinstance(item, Fragment):
        item = await _put_together(ws, streams, item)
        ws._stop_streaming()
    return _converted(ws, item, decode)


async def _put_together(ws: Connection, streams: Streams, fragment: Fragment | None) -> str | bytes:
    """The message that ``fragment`` begins, or that was begun before."""
    begun = streams.begun  # kept there, so that cancelling loses nothing
    if fragment is not None:
        begun.append(fragment)
    while not begun[-1].final:
        item = await ws._next_item()
        assert isinstance(item, Fragment)
        begun.append(item)
    streams.begun = []
    empty: Any = type(begun[0].data)()
    message: str | bytes = empty.join(fragment.data for fragment in begun)
    return message


async def receive_fragments(
    ws: Connection, streams: Streams, decode: bool | None
) -> AsyncIterator[str | bytes]:
    """What ``recv_streaming()`` gives."""
    if ws.listener is not None:
        raise RuntimeError("the listener gets the messages of this connection")
    if streams.reading:
        raise ConcurrencyError("recv_streaming() is in the middle of a message")
    ws._stream()
    streams.reading = True
    begun, streams.begun = streams.begun, []
    decoder = codecs.getincrementaldecoder("utf-8")()
    untouched = True
    final = False
    try:
        while not final:
            item = begun.pop(0) if begun else await ws._next_item()
            untouched = False
            if isinstance(item, Fragment):
                final = item.final
                piece = item.data
                if decode is True and isinstance(piece, bytes):
                    piece = _decoded(ws, decoder, piece, final)
                elif decode is False and isinstance(piece, str):
                    piece = piece.encode()
            else:
                final = True
                piece = _converted(ws, item, decode)
            if final:
                # Before the last one leaves: not everyone asks for one more.
                _stop_reading(ws, streams)
            yield piece
    except ConnectionClosed:
        _stop_reading(ws, streams)
        raise
    finally:
        if untouched:
            _stop_reading(ws, streams)


def _stop_reading(ws: Connection, streams: Streams) -> None:
    streams.reading = False
    ws._stop_streaming()


def _decoded(ws: Connection, decoder: codecs.IncrementalDecoder, data: bytes, final: bool) -> str:
    try:
        return decoder.decode(data, final)
    except UnicodeDecodeError as error:
        raise _undecodable(ws, error) from error


def _converted(ws: Connection, message: str | bytes, decode: bool | None) -> str | bytes:
    if decode is True and isinstance(message, bytes):
        try:
            return message.decode()
        except UnicodeDecodeError as error:
            raise _undecodable(ws, error) from error
    if decode is False and isinstance(message, str):
        return message.encode()
    return message


def _undecodable(ws: Connection, error: UnicodeDecodeError) -> ConnectionClosed:
    """A binary message was to be text."""
    if ws._state == State.OPEN:
        ws._fail(CloseCode.INVALID_DATA, "binary message is not valid UTF-8", error)
    return ws._closed_error()
