"""Frames of RFC 6455 section 5 to messages and back: the pure-Python twin of ``fastws._codec``.

Cost is linear in the bytes fed, however they are cut. A decoder holds an unfinished header (at most
13 bytes), an unfinished control payload (at most 125) and the message under way, and no more.
"""

from __future__ import annotations

import codecs
import struct
import sys
from typing import TYPE_CHECKING, AnyStr, Final, Generic, TypeAlias, cast

from .. import _messages
from .._fragment import Fragment
from ..exceptions import ProtocolError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ..deflate import Agreement, Inflater

__all__ = [
    "Decoder",
    "Utf8Validator",
    "decode_utf8",
    "encode_close",
    "encode_frame",
    "mask",
    "mask_inplace",
    "parse_close",
]

# Opcodes (RFC 6455 5.2) as plain integers: an IntEnum costs a look-up per frame.
_CONT: Final = 0x0
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_OPCODES: Final = frozenset((0x0, 0x1, 0x2, 0x8, 0x9, 0xA))

_WHOLE_TEXT: Final = 0x81  # the first byte of a text message in one frame: FIN and the opcode
_WHOLE_BINARY: Final = 0x82

_MAX_CONTROL: Final = 125  # RFC 6455 5.5
_MAX_REASON: Final = _MAX_CONTROL - 2
_MAX_LENGTH: Final = 2**63 - 1  # RFC 6455 5.2

_PROTOCOL_ERROR: Final = 1002
_INVALID_DATA: Final = 1007
_MESSAGE_TOO_BIG: Final = 1009
_NO_STATUS: Final = 1005

# RFC 6455 7.4.1 and the IANA registry; 1004 to 1006 and 1015 never stand in a frame.
_REGISTERED_CODES: Final = frozenset((*range(1000, 1004), *range(1007, 1015)))
_APPLICATION_CODES: Final = range(3000, 5000)  # RFC 6455 7.4.2

_pack_short = struct.Struct("!BB").pack
_pack_medium = struct.Struct("!BBH").pack
_pack_long = struct.Struct("!BBQ").pack


# --- masking (RFC 6455 5.3)

_XOR_TABLES: Final = [bytes(byte ^ key for byte in range(256)) for key in range(256)]

# Below, one XOR of two big integers is fastest; from here on, four table translations of every
# fourth byte are, because integers slow down with their size.
_TRANSLATE_FROM: Final = 2048


def _xor(data: bytes | bytearray, key: bytes) -> bytes | bytearray:
    length = len(data)
    if length < _TRANSLATE_FROM:
        keys = key * (length >> 2) + key[: length & 3]
        return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(
            length, "little"
        )
    result = bytearray(length)
    for start in range(4):
        result[start::4] = data[start::4].translate(_XOR_TABLES[key[start]])
    return result


def _turned(key: bytes, offset: int) -> bytes:
    """The key as seen from the payload byte at `offset`."""
    if len(key) != 4:
        raise ValueError(f"a mask key has 4 bytes (RFC 6455 5.3), not {len(key)}")
    offset &= 3
    return key[offset:] + key[:offset] if offset else key


def mask(data: Buffer, key: bytes, offset: int = 0) -> bytes:
    """Mask or unmask into a new object (RFC 6455 5.3).

    `data[0]` meets `key[offset % 4]`. Raises ValueError unless the key has 4 bytes.
    """
    return bytes(_xor(_bytes(data), _turned(key, offset)))


def mask_inplace(data: Buffer, key: bytes, offset: int = 0) -> None:
    """As `mask`, in a writable, contiguous buffer."""
    key = _turned(key, offset)
    with memoryview(data) as view:
        if view.readonly:
            raise BufferError("mask_inplace() needs a writable buffer")
        if view.nbytes:
            view.cast("B")[:] = _xor(view.tobytes(), key)


def _bytes(data: Buffer) -> bytes:
    # Not bytes(data): that takes an integer for a length.
    return data if type(data) is bytes else memoryview(data).tobytes()


# --- UTF-8 (RFC 3629)


def decode_utf8(data: Buffer) -> str:
    """`data` as text. Raises UnicodeDecodeError as ``bytes.decode()`` does."""
    return _bytes(data).decode()


def _decode_begun(data: bytes | bytearray) -> tuple[str, bytes]:
    """The whole code points of `data`, and the bytes of one that has only begun: at most 3.

    Raises UnicodeDecodeError as soon as no continuation can make the text valid.
    """
    text, used = codecs.utf_8_decode(data, "strict", False)
    begun = bytes(data[used:])
    # CPython waits for the third byte of a surrogate, which the second one gives away.
    if len(begun) == 2 and begun[0] == 0xED and begun[1] > 0x9F:
        begun.decode()
    return text, begun


class Utf8Validator:
    """Says whether bytes that arrive in pieces are UTF-8 so far."""

    __slots__ = ("_begun", "_valid")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start over with a new text."""
        self._begun = b""  # of a code point whose other bytes are still to come: up to 3
        self._valid = True

    def feed(self, data: Buffer) -> bool:
        """False from the first byte on that no continuation can make valid."""
        if self._valid:
            try:
                self._begun = _decode_begun(self._begun + _bytes(data))[1]
            except UnicodeDecodeError:
                self._valid = False
        return self._valid

    def finish(self) -> bool:
        """False if the text is invalid or ends inside a code point."""
        return self._valid and not self._begun


# --- messages that do not come at once

_JOIN_PIECES: Final = 256

# What a compressed message costs besides its own bytes, in bytes inflated.
_MESSAGE_COST: Final = 512


class _Pieces(Generic[AnyStr]):
    """A text or bytes put together from pieces.

    They are joined early: a peer that sends byte by byte shall not make us keep an object per byte.
    """

    __slots__ = ("_empty", "_joined", "_recent")

    def __init__(self, empty: AnyStr) -> None:
        self._empty: AnyStr = empty
        self._joined: list[AnyStr] = []  # from _JOIN_PIECES pieces each
        self._recent: list[AnyStr] = []

    def add(self, piece: AnyStr) -> None:
        if piece:
            self._recent.append(piece)
            if len(self._recent) == _JOIN_PIECES:
                self._joined.append(self._empty.join(self._recent))
                self._recent.clear()

    def whole(self) -> AnyStr:
        return self._empty.join(self._joined + self._recent)


class _Binary:
    """A binary message under way."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = _Pieces(b"")

    def add(self, data: bytes | bytearray) -> None:
        # A bytearray can be joined as well.
        self._bytes.add(cast(bytes, data))

    def take(self) -> bytes:
        """What was added since the last call."""
        data = self._bytes.whole()
        self._bytes = _Pieces(b"")
        return data

    def finish(self) -> bytes:
        return self._bytes.whole()


class _Text:
    """A text message under way, decoded as it comes, so that no byte is looked at twice."""

    __slots__ = ("_begun", "_text")

    def __init__(self) -> None:
        self._begun = b""
        self._text = _Pieces("")

    def add(self, data: bytes | bytearray) -> None:
        text, self._begun = _decode_begun(self._begun + data if self._begun else data)
        self._text.add(text)

    def take(self) -> str:
        """What was added since the last call, but for a code point that has only begun."""
        text = self._text.whole()
        self._text = _Pieces("")
        return text

    def finish(self) -> str:
        self._begun.decode()  # raises if a code point has only begun
        return self._text.whole()


# --- encoding


def encode_frame(
    opcode: int,
    payload: Buffer,
    *,
    fin: bool = True,
    rsv1: bool = False,
    mask_key: bytes | None = None,
) -> bytes:
    """One frame (RFC 6455 5.2), its length in the shortest form.

    `rsv1` marks a compressed message (RFC 7692 6). Raises ValueError for an opcode outside 0..15,
    a control frame that is fragmented or longer than 125 bytes, a mask key that has not 4 bytes.
    """
    if not 0 <= opcode <= 0xF:
        raise ValueError(f"opcode {opcode} is not in 0..15")
    first = opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)
    if type(payload) is not bytes:
        payload = memoryview(payload).tobytes()
    length = len(payload)
    if opcode >= _CLOSE:
        if not fin:
            raise ValueError(_messages.fragmented_control(opcode))
        if length > _MAX_CONTROL:
            raise ValueError(_messages.oversized_control(opcode))
    masked = 0 if mask_key is None else 0x80
    if length < 126:
        head = _pack_short(first, masked | length)
    elif length < 65536:
        head = _pack_medium(first, masked | 126, length)
    else:
        head = _pack_long(first, masked | 127, length)
    if mask_key is None:
        return head + payload
    mask_key = _turned(mask_key, 0)
    return b"".join((head, mask_key, _xor(payload, mask_key)))


def _is_sendable(code: int) -> bool:
    return code in _REGISTERED_CODES or code in _APPLICATION_CODES


def encode_close(code: int, reason: str = "") -> bytes:
    """The payload of a close frame (RFC 6455 5.5.1).

    `code` is 1000-1003, 1007-1014 or 3000-4999, `reason` at most 123 bytes of UTF-8; ProtocolError
    (1002) otherwise. A close frame without a code has an empty payload and needs no encoding.
    """
    if not _is_sendable(code):
        raise ProtocolError(_PROTOCOL_ERROR, _messages.invalid_close_code(code))
    encoded = reason.encode()
    if len(encoded) > _MAX_REASON:
        raise ProtocolError(_PROTOCOL_ERROR, _messages.oversized_close_reason(len(encoded)))
    return code.to_bytes(2, "big") + encoded


def parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame's payload; 1005 if it is empty (RFC 6455 7.1.5).

    Raises ProtocolError: 1002 for one byte or for a code that must not be on the wire, 1007 for a
    reason that is not UTF-8.
    """
    if not payload:
        return _NO_STATUS, ""
    if len(payload) == 1:
        raise ProtocolError(_PROTOCOL_ERROR, _messages.short_close())
    code = int.from_bytes(payload[:2], "big")
    if not _is_sendable(code):
        raise ProtocolError(_PROTOCOL_ERROR, _messages.invalid_close_code(code))
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolError(_INVALID_DATA, _messages.invalid_close_reason()) from None


# --- decoding

Event: TypeAlias = tuple[int, "str | bytes | Fragment"]


def _extended_length(field: bytes) -> int:
    """The 16- or 64-bit length of a frame (RFC 6455 5.2)."""
    length = int.from_bytes(field, "big")
    if length > _MAX_LENGTH:
        raise ProtocolError(_PROTOCOL_ERROR, _messages.length_top_bit(length))
    if length < (126 if len(field) == 2 else 65536):
        raise ProtocolError(_PROTOCOL_ERROR, _messages.length_not_minimal(length))
    return length


class Decoder:
    """Bytes of a peer to events, with every rule of RFC 6455 5.2 to 5.5 and RFC 7692.

    Args:
        client: decode what a server sent, which must not be masked; otherwise what a client sent,
            which must be.
        max_size: bytes of payload in a message; None for no limit.
        max_fragments: frames in a message; None for no limit.
        deflate: what was agreed on for compressed messages (RFC 7692).

    Attributes:
        error: what the peer did wrong; its ``code`` is the close code to send: 1002, 1007 or 1009.
        closed: whether a well-formed close frame has come.
        inflated: bytes inflated since somebody set it to 0.
        discarding: messages are not wanted any more, and nothing is inflated.
        streaming: fragments leave as they come, as ``(0, Fragment)``, not the message they make.
        partly_taken: this has happened to the message under way.
    """

    __slots__ = (
        "_body",
        "_compressed",
        "_control",
        "_deflate",
        "_fin",
        "_fragments",
        "_head",
        "_inflater",
        "_key",
        "_left",
        "_mask_bit",
        "_max_fragments",
        "_max_size",
        "_message",
        "_opcode",
        "_size",
        "_stopped",
        "_wholes",
        "closed",
        "discarding",
        "error",
        "inflated",
        "partly_taken",
        "streaming",
    )

    def __init__(
        self,
        *,
        client: bool = False,
        max_size: int | None = 2**20,
        max_fragments: int | None = 4096,
        deflate: Agreement | None = None,
    ) -> None:
        self.error: ProtocolError | None = None
        self.closed = False
        self.streaming = False
        self.partly_taken = False
        self._stopped = False
        self._mask_bit = 0 if client else 0x80
        self._max_size = max_size
        self._max_fragments = max_fragments
        # What needs no check of its first byte; a limit of no frame at all makes nothing sound.
        self._wholes = () if max_fragments == 0 else (_WHOLE_TEXT, _WHOLE_BINARY)
        self._head = b""  # an unfinished header
        # The frame under way
        self._left = 0  # bytes of its payload still to come; 0 between frames
        self._opcode = 0
        self._fin = False
        self._key = b""  # turned to the next byte; empty if the frame is not masked
        self._control = b""  # payload so far of a control frame
        # The message under way
        self._message = 0  # its opcode; 0 between messages
        self._fragments = 0
        self._size = 0  # payload bytes that its frames declared, or that were inflated
        self._compressed = False
        self._deflate = deflate
        self._inflater: Inflater | None = None  # while one is needed
        self.inflated = 0
        self.discarding = False
        self._body: _Text | _Binary | None = None

    def use_deflate(self, deflate: Agreement) -> None:
        """Messages may be compressed from now on."""
        self._deflate = deflate

    def drop_inflater(self) -> None:
        """Nothing more will come."""
        self._inflater = None

    def feed(self, data: Buffer) -> list[Event]:
        """Take bytes and give the events that they complete, in order.

        (1, str) and (2, bytes) are messages, (8, bytes) the payload of a close frame, (9, bytes) a
        ping, (10, bytes) a pong. A peer's fault raises nothing: it sets `error` as soon as the
        bytes show it, and the events before it are returned. After that, and after a close frame,
        bytes are ignored.
        """
        events: list[Event] = []
        if self._stopped:
            return events
        try:
            self._decode(data if type(data) is bytes else memoryview(data).tobytes(), events)
        except ProtocolError as error:
            # The error must keep neither our frames nor the refused bytes alive.
            error.__context__ = None
            self.error = error.with_traceback(None)
            self._stop()
        except BaseException:
            self._stop()  # memory is out: where the next frame begins is not known any more
            raise
        return events

    def _decode(self, data: bytes, events: list[Event]) -> None:
        pos = 0
        if self._left:
            pos = self._payload(data, 0, events)
        elif self._head:
            data = self._head + data
        end = len(data)
        mask_bit = self._mask_bit
        wholes = self._wholes
        while end - pos >= 2 and not self._stopped:
            first = data[pos]
            second = data[pos + 1]
            whole = first in wholes and second & 0x80 == mask_bit and not self._message
            if not whole:
                self._check(first, second)

            # Limits are checked before anything waits for the bytes that follow.
            start = pos + 2
            length = second & 0x7F
            if length > 125:
                start += 2 if length == 126 else 8
                if end < start:
                    break
                length = _extended_length(data[pos + 2 : start])
            if self._max_size is not None and not self._is_free_to_be_long(first):
                size = self._size + length
                if size > self._max_size:
                    text = _messages.message_too_big(size, self._max_size)
                    raise ProtocolError(_MESSAGE_TOO_BIG, text)
            if mask_bit:
                start += 4
                if end < start:
                    break
                key = data[start - 4 : start]
            else:
                key = b""

            pos = start + length
            if whole and pos <= end:
                payload: bytes | bytearray = data[start:pos]
                if key:
                    payload = _xor(payload, key)
                if first == _WHOLE_TEXT:
                    try:
                        events.append((1, payload.decode()))
                    except UnicodeDecodeError:
                        raise ProtocolError(_INVALID_DATA, _messages.invalid_text()) from None
                else:
                    events.append((2, bytes(payload)))
            else:
                self._begin(first, length, key)
                pos = self._payload(data, start, events)
        if not self._stopped:
            self._head = data[pos:]

    def _is_free_to_be_long(self, first: int) -> bool:
        """Whether the limit on a message says nothing about the length of this frame."""
        opcode = first & 0x0F
        if opcode == _CONT:
            return self._compressed
        return opcode >= _CLOSE or first & 0x40 != 0

    def _check(self, first: int, second: int) -> None:
        """Refuse what the first two bytes of a frame show to be wrong. Changes nothing."""
        opcode = first & 0x0F
        reserved = first & 0x70
        if reserved == 0x40 and self._deflate is not None and opcode in (_TEXT, _BINARY):
            reserved = 0  # a compressed message (RFC 7692 6)
        if reserved:
            text = _messages.reserved_bits(first & 0x70)
        elif opcode not in _OPCODES:
            text = _messages.reserved_opcode(opcode)
        elif opcode >= _CLOSE and not first & 0x80:
            text = _messages.fragmented_control(opcode)
        elif opcode >= _CLOSE and second & 0x7F > _MAX_CONTROL:
            text = _messages.oversized_control(opcode)
        elif second & 0x80 != self._mask_bit:
            text = _messages.unmasked() if self._mask_bit else _messages.masked()
        elif opcode == _CONT and not self._message:
            text = _messages.unexpected_continuation()
        elif opcode != _CONT and opcode < _CLOSE and self._message:
            text = _messages.interrupted_message(opcode)
        elif opcode == _CLOSE and second & 0x7F == 1:
            text = _messages.short_close()
        elif (
            opcode < _CLOSE
            and self._max_fragments is not None
            and self._fragments >= self._max_fragments
        ):
            text = _messages.too_many_fragments(self._max_fragments)
            raise ProtocolError(_MESSAGE_TOO_BIG, text)
        else:
            return
        raise ProtocolError(_PROTOCOL_ERROR, text)

    def _begin(self, first: int, length: int, key: bytes) -> None:
        """A header is complete and right: enter its payload, of which any part may be there."""
        self._opcode = opcode = first & 0x0F
        self._fin = first >= 0x80
        self._left = length
        self._key = key
        if opcode < _CLOSE:
            self._fragments += 1
            if opcode != _CONT:
                self._message = opcode
                self._compressed = first & 0x40 != 0
                self._body = _Text() if opcode == _TEXT else _Binary()
            if not self._compressed:
                self._size += length

    def _payload(self, data: bytes, pos: int, events: list[Event]) -> int:
        """Take what `data` has from `pos` on of the current payload. Returns where it ends."""
        masked = data[pos : pos + self._left]
        length = len(masked)
        self._left -= length
        chunk: bytes | bytearray = masked
        if self._key:
            chunk = _xor(masked, self._key)
            self._key = _turned(self._key, length)
        if self._opcode >= _CLOSE:
            self._control += chunk
        elif self._body is not None:
            if self._compressed:
                last = self._fin and not self._left
                chunk = self._inflate(bytes(chunk), last)
            try:
                self._body.add(chunk)
            except UnicodeDecodeError:
                raise ProtocolError(_INVALID_DATA, _messages.invalid_text()) from None
        if not self._left:
            self._end(events)
        return pos + length

    def _inflate(self, data: bytes, last: bool) -> bytes:
        assert self._deflate is not None
        if self.discarding:
            return b""
        room = (sys.maxsize if self._max_size is None else self._max_size) - self._size
        if last and self._inflater is None and not self._deflate.keeps_inflater:
            inflated = self._deflate.inflate(data, room)
            self.inflated += len(inflated) + _MESSAGE_COST
            return inflated
        if self._inflater is None:
            self._inflater = self._deflate.new_inflater()
        inflated = self._inflater.inflate(data, room, last)
        self._size += len(inflated)
        self.inflated += len(inflated) + _MESSAGE_COST
        if last and not self._deflate.keeps_inflater:
            self._inflater = None
        return inflated

    def _end(self, events: list[Event]) -> None:
        """The current frame is complete."""
        if self._opcode >= _CLOSE:
            payload = bytes(self._control)
            self._control = b""
            if self._opcode == _CLOSE:
                parse_close(payload)
                self.closed = True
                self._stop()
            events.append((self._opcode, payload))
        elif self.streaming and not (self._fin and self._opcode):
            events.append((_CONT, self.take_fragment(self._fin)))
        elif self._fin and self._body is not None:
            try:
                events.append((self._message, self._body.finish()))
            except UnicodeDecodeError:
                raise ProtocolError(_INVALID_DATA, _messages.invalid_text()) from None
            self._forget_message()

    def take_fragment(self, final: bool) -> Fragment:
        """What has come of the message under way and was not taken yet."""
        assert self._body is not None
        fragment = Fragment(self._body.take(), final)
        if final:
            try:
                self._body.finish()
            except UnicodeDecodeError:
                raise ProtocolError(_INVALID_DATA, _messages.invalid_text()) from None
            self._forget_message()
        elif fragment.data:
            self.partly_taken = True
        return fragment

    @property
    def between_fragments(self) -> bool:
        """Whether a message is under way, but none of its frames."""
        return self._body is not None and (not self._left or self._opcode >= _CLOSE)

    def _forget_message(self) -> None:
        self._message = self._fragments = self._size = 0
        self._compressed = False
        self._body = None
        self.partly_taken = False

    def _stop(self) -> None:
        """Ignore what follows, and hold no more of what came."""
        self._stopped = True
        self._head = b""
        self._left = 0
        self._control = b""
        self._inflater = None
        self._forget_message()
