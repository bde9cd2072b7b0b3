"""RFC 6455 section 5, word for word and byte for byte: what the codecs are compared with.

Nothing here is fast or shared with the library, but for the texts of the errors.
"""

from __future__ import annotations

import dataclasses

from fastws import _messages

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

KEY = b"\x37\xfa\x21\x3d"  # of the example in RFC 6455 5.7


# --- masking (5.3) and building frames (5.2)


def xor(data: bytes, key: bytes, offset: int = 0) -> bytes:
    """Octet i of the result is octet i of the data XOR octet i modulo 4 of the key."""
    return bytes(octet ^ key[(offset + i) % 4] for i, octet in enumerate(data))


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    key: bytes | None = KEY,
    fin: bool = True,
    reserved: int = 0,
    length: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """A frame, right or wrong.

    `length` is declared instead of the payload's own; `length_bytes` (0, 2 or 8) extends the
    7-bit length by more bytes than are needed. `key=None` leaves the frame unmasked.
    """
    declared = len(payload) if length is None else length
    if length_bytes is None:
        length_bytes = 0 if declared < 126 else 2 if declared < 65536 else 8
    seven_bits = {0: declared, 2: 126, 8: 127}[length_bytes]
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    second = seven_bits | (0 if key is None else 0x80)
    head = bytes([first, second])
    if length_bytes:
        head += declared.to_bytes(length_bytes, "big")
    if key is None:
        return head + payload
    return head + key + xor(payload, key)


# --- UTF-8 (RFC 3629 section 4, its grammar)

_TAIL = (0x80, 0xBF)
_FORMS = [
    [(0x00, 0x7F)],
    [(0xC2, 0xDF), _TAIL],
    [(0xE0, 0xE0), (0xA0, 0xBF), _TAIL],
    [(0xE1, 0xEC), _TAIL, _TAIL],
    [(0xED, 0xED), (0x80, 0x9F), _TAIL],
    [(0xEE, 0xEF), _TAIL, _TAIL],
    [(0xF0, 0xF0), (0x90, 0xBF), _TAIL, _TAIL],
    [(0xF1, 0xF3), _TAIL, _TAIL, _TAIL],
    [(0xF4, 0xF4), (0x80, 0x8F), _TAIL, _TAIL],
]


def scan_utf8(data: bytes) -> tuple[int | None, bool]:
    """The index of the first byte that makes `data` invalid, if any does; whether `data` is whole.

    A byte is bad when no text at all begins with the bytes up to and including it.
    """
    expected: list[tuple[int, int]] = []
    for index, octet in enumerate(data):
        if not expected:
            forms = [form for form in _FORMS if form[0][0] <= octet <= form[0][1]]
            if not forms:
                return index, False
            expected = forms[0][1:]
        else:
            low, high = expected[0]
            if not low <= octet <= high:
                return index, False
            expected = expected[1:]
    return None, not expected


# --- decoding (5.2 to 5.5)


@dataclasses.dataclass(frozen=True)
class Event:
    """A message or control frame, complete once `end` bytes of the stream are there."""

    end: int
    opcode: int
    payload: str | bytes


class Fault(Exception):
    """A rule broken, as the first `end` bytes of the stream show and fewer do not."""

    def __init__(self, end: int, code: int, text: str) -> None:
        super().__init__(end, code, text)
        self.end = end
        self.code = code
        self.text = text


class _Unfinished(Exception):
    """The stream ends here."""


class _Stream:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.pos = 0

    def exactly(self, count: int) -> bytes:
        if len(self.data) - self.pos < count:
            raise _Unfinished
        return self.up_to(count)

    def up_to(self, count: int) -> bytes:
        taken = self.data[self.pos : self.pos + count]
        self.pos += len(taken)
        return taken


def decode(
    data: bytes,
    *,
    client: bool = False,
    max_size: int | None = 2**20,
    max_fragments: int | None = 4096,
) -> tuple[list[Event], Fault | None]:
    """Every event in `data`, and the fault that ends them if there is one."""
    stream = _Stream(data)
    events: list[Event] = []
    message_opcode = None
    message = b""
    fragments = 0

    def check(holds: object, text: str, code: int = 1002, end: int | None = None) -> None:
        if not holds:
            raise Fault(stream.pos if end is None else end, code, text)

    try:
        while True:
            first, second = stream.exactly(2)
            fin = bool(first & 0x80)
            reserved = first & 0x70
            opcode = first & 0x0F
            masked = bool(second & 0x80)
            length = second & 0x7F
            control = opcode >= 0x8
            if control:
                opens = continues = False
            else:
                opens = opcode in (TEXT, BINARY)
                continues = opcode == CONT

            check(reserved == 0, _messages.reserved_bits(reserved))
            check(opcode in (0, 1, 2, 8, 9, 10), _messages.reserved_opcode(opcode))
            check(fin or not control, _messages.fragmented_control(opcode))
            check(length <= 125 or not control, _messages.oversized_control(opcode))
            check(masked or client, _messages.unmasked())
            check(not masked or not client, _messages.masked())
            check(not continues or message_opcode is not None, _messages.unexpected_continuation())
            check(not opens or message_opcode is None, _messages.interrupted_message(opcode))
            check(opcode != CLOSE or length != 1, _messages.short_close())
            if not control and max_fragments is not None:
                text = _messages.too_many_fragments(max_fragments)
                check(fragments + 1 <= max_fragments, text, 1009)

            if length == 126:
                length = int.from_bytes(stream.exactly(2), "big")
                check(length >= 126, _messages.length_not_minimal(length))
            elif length == 127:
                length = int.from_bytes(stream.exactly(8), "big")
                check(length < 2**63, _messages.length_top_bit(length))
                check(length >= 65536, _messages.length_not_minimal(length))
            if not control and max_size is not None:
                size = len(message) + length
                check(size <= max_size, _messages.message_too_big(size, max_size), 1009)

            key = stream.exactly(4) if masked else bytes(4)
            start = stream.pos
            payload = xor(stream.up_to(length), key)
            complete = len(payload) == length

            if control:
                if not complete:
                    break
                if opcode == CLOSE and payload:
                    code = int.from_bytes(payload[:2], "big")
                    check(is_close_code(code), _messages.invalid_close_code(code))
                    bad, whole = scan_utf8(payload[2:])
                    check(bad is None and whole, _messages.invalid_close_reason(), 1007)
                events.append(Event(stream.pos, opcode, payload))
                if opcode == CLOSE:
                    break
                continue

            if opens:
                message_opcode = opcode
            fragments += 1
            before = len(message)
            message += payload
            whole = True
            if message_opcode == TEXT:
                bad, whole = scan_utf8(message)
                if bad is not None:
                    end = start + bad - before + 1
                    check(False, _messages.invalid_text(), 1007, end)
            if not complete:
                break
            if fin:
                check(whole, _messages.invalid_text(), 1007)
                if message_opcode == TEXT:
                    events.append(Event(stream.pos, TEXT, message.decode()))
                else:
                    events.append(Event(stream.pos, BINARY, message))
                message_opcode = None
                message = b""
                fragments = 0
    except _Unfinished:
        pass
    except Fault as fault:
        return events, fault
    return events, None


def is_close_code(code: int) -> bool:
    """Whether a close frame may carry it (RFC 6455 7.4 and the IANA registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
