"""Frames that come in (RFC 6455 5.2 to 5.5): every rule, at the byte that shows it broken."""

from __future__ import annotations

import functools
import gc
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from fastws import _messages
from tests.fastws import reference
from tests.fastws.reference import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT, xor

Frame = Callable[..., bytes]
SIDES = ["server", "client"]


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> str:
    """Who decodes: a server's peer masks its frames, a client's does not."""
    return str(request.param)


@pytest.fixture
def make(codec: ModuleType, side: str) -> Callable[..., Any]:
    """A decoder of that side."""
    return functools.partial(codec.Decoder, client=side == "client")


@pytest.fixture
def frame(side: str) -> Frame:
    """Frames as that side's peer sends them."""
    return functools.partial(reference.frame, key=KEY if side == "server" else None)


def assert_refused(
    make: Callable[..., Any], code: int, text: str, data: bytes, *, at: int | None = None
) -> None:
    """The last byte of `data`, or the one before `at`, brings the error; however `data` is cut."""
    at = len(data) if at is None else at
    whole = make()
    whole.feed(data)
    dripping = make()
    for index in range(at):
        assert dripping.error is None, f"after {index} bytes already"
        dripping.feed(data[index : index + 1])
    for decoder in (whole, dripping):
        assert decoder.error is not None
        assert decoder.error.code == code
        assert str(decoder.error) == text
        assert decoder.closed is False


# --- what is right


def test_the_examples_of_the_rfc_are_decoded(codec: ModuleType) -> None:
    client = codec.Decoder(client=True)
    assert client.feed(bytes.fromhex("810548656c6c6f")) == [(TEXT, "Hello")]
    assert client.feed(bytes.fromhex("010348656c80026c6f")) == [(TEXT, "Hello")]
    assert client.feed(bytes.fromhex("890548656c6c6f")) == [(PING, b"Hello")]
    assert client.feed(bytes.fromhex("827e0100") + bytes(256)) == [(BINARY, bytes(256))]
    large = bytes.fromhex("827f0000000000010000") + bytes(65536)
    assert client.feed(large) == [(BINARY, bytes(65536))]
    server = codec.Decoder()
    assert server.feed(bytes.fromhex("818537fa213d7f9f4d5158")) == [(TEXT, "Hello")]
    assert server.feed(bytes.fromhex("8a8537fa213d7f9f4d5158")) == [(PONG, b"Hello")]


def test_a_new_decoder_has_no_error_and_is_not_closed(make: Callable[..., Any]) -> None:
    decoder = make()
    assert decoder.error is None
    assert decoder.closed is False
    assert decoder.feed(b"") == []


@pytest.mark.parametrize("opcode", [BINARY, PING, PONG])
def test_payloads_that_are_not_text_are_bytes(
    make: Callable[..., Any], frame: Frame, opcode: int
) -> None:
    for payload in (b"", b"\xff\x00", bytes(range(125))):
        [(got, data)] = make().feed(frame(opcode, payload))
        assert (got, data) == (opcode, payload)
        assert type(data) is bytes


@pytest.mark.parametrize(
    "text", ["", "a", "plain", "naïve", "漢字", "😀", "a\x00b\r\nc", "é" * 5000]
)
def test_text_is_str(make: Callable[..., Any], frame: Frame, text: str) -> None:
    [(opcode, got)] = make().feed(frame(TEXT, text.encode()))
    assert (opcode, got) == (TEXT, text)
    assert type(got) is str


@pytest.mark.parametrize(
    "size", [0, 1, 124, 125, 126, 127, 2047, 2048, 65535, 65536, 65537, 300000]
)
def test_every_form_of_length_is_read(make: Callable[..., Any], frame: Frame, size: int) -> None:
    payload = (bytes(range(251)) * (size // 251 + 1))[:size]
    decoder = make()
    assert decoder.feed(frame(BINARY, payload) * 2) == [(BINARY, payload)] * 2
    text = "x" * size
    assert decoder.feed(frame(TEXT, text.encode())) == [(TEXT, text)]


def test_many_frames_in_one_feed_come_in_order(make: Callable[..., Any], frame: Frame) -> None:
    parts = [(TEXT, f"message {i}") if i % 3 else (PING, b"%d" % i) for i in range(500)]
    data = b"".join(
        frame(opcode, payload.encode() if isinstance(payload, str) else payload)
        for opcode, payload in parts
    )
    assert make().feed(data) == parts


def test_frames_may_be_cut_at_any_two_places(make: Callable[..., Any], frame: Frame) -> None:
    data = frame(TEXT, "héé".encode()) + frame(PING, b"p") + frame(BINARY, bytes(130))
    expected = [(TEXT, "héé"), (PING, b"p"), (BINARY, bytes(130))]
    for first in range(0, len(data) + 1, 3):
        for second in range(first, len(data) + 1):
            decoder = make()
            events = decoder.feed(data[:first])
            events += decoder.feed(data[first:second])
            events += decoder.feed(data[second:])
            assert events == expected


def test_an_event_comes_with_its_last_byte(make: Callable[..., Any], frame: Frame) -> None:
    for opcode, payload in ((BINARY, b""), (BINARY, b"abc"), (PING, b""), (PONG, b"abc")):
        data = frame(opcode, payload)
        decoder = make()
        assert decoder.feed(data[:-1]) == []
        assert decoder.feed(data[-1:]) == [(opcode, payload)]


def test_fragments_are_put_together(make: Callable[..., Any], frame: Frame) -> None:
    decoder = make()
    assert decoder.feed(frame(BINARY, b"ab", fin=False)) == []
    assert decoder.feed(frame(CONT, b"", fin=False)) == []
    assert decoder.feed(frame(CONT, b"c" * 200, fin=False)) == []
    assert decoder.feed(frame(CONT, b"d")) == [(BINARY, b"ab" + b"c" * 200 + b"d")]
    assert decoder.feed(frame(BINARY, b"next")) == [(BINARY, b"next")]


def test_empty_fragments_make_an_empty_message(make: Callable[..., Any], frame: Frame) -> None:
    decoder = make()
    for opcode, empty in ((BINARY, b""), (TEXT, "")):
        assert decoder.feed(frame(opcode, fin=False) + frame(CONT, fin=False)) == []
        assert decoder.feed(frame(CONT)) == [(opcode, empty)]


def test_control_frames_may_stand_between_fragments(make: Callable[..., Any], frame: Frame) -> None:
    data = (
        frame(TEXT, b"a", fin=False)
        + frame(PING, b"1")
        + frame(CONT, b"b", fin=False)
        + frame(PONG)
        + frame(PING, b"2")
        + frame(CONT, b"c")
    )
    expected = [(PING, b"1"), (PONG, b""), (PING, b"2"), (TEXT, "abc")]
    assert make().feed(data) == expected
    decoder = make()
    assert [event for byte in data for event in decoder.feed(bytes((byte,)))] == expected


def test_a_code_point_may_be_cut_by_fragments_and_control_frames(
    make: Callable[..., Any], frame: Frame
) -> None:
    text = "é漢😀"
    data = text.encode()
    stream = frame(TEXT, data[:1], fin=False)
    for index in range(1, len(data)):
        stream += frame(PING) + frame(CONT, data[index : index + 1], fin=False)
    stream += frame(CONT)
    assert make().feed(stream)[-1] == (TEXT, text)


def test_line_ends_in_fragments_are_kept(make: Callable[..., Any], frame: Frame) -> None:
    decoder = make()
    decoder.feed(frame(TEXT, b"a\r", fin=False))
    assert decoder.feed(frame(CONT, b"\nb\rc\n\n")) == [(TEXT, "a\r\nb\rc\n\n")]


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_fed(make: Callable[..., Any], frame: Frame, wrap: type) -> None:
    decoder = make()
    data = frame(TEXT, "naïve".encode()) + frame(BINARY, bytes(5000))
    assert decoder.feed(wrap(data)) == [(TEXT, "naïve"), (BINARY, bytes(5000))]
    shifted = memoryview(wrap(b"\x00\x00\x00" + data))[3:]
    assert decoder.feed(shifted) == [(TEXT, "naïve"), (BINARY, bytes(5000))]


@pytest.mark.parametrize("data", ["text", 5, None])
def test_what_is_no_buffer_is_a_type_error(make: Callable[..., Any], data: object) -> None:
    with pytest.raises(TypeError):
        make().feed(data)


def test_the_buffer_fed_is_free_again_and_no_event_depends_on_it(
    make: Callable[..., Any], frame: Frame
) -> None:
    data = bytearray(frame(BINARY, b"x" * 50) + frame(PING, b"p") + frame(BINARY, b"unfinished"))
    decoder = make()
    events = decoder.feed(memoryview(data)[:-5])
    tail = bytes(data[-5:])
    data[:] = bytes(len(data))
    data.extend(b"grows, so nothing exports it")
    events += decoder.feed(tail)
    assert events == [(BINARY, b"x" * 50), (PING, b"p"), (BINARY, b"unfinished")]


def test_each_frame_has_its_own_key(codec: ModuleType) -> None:
    decoder = codec.Decoder()
    for key in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04", b"\x00\x00\x00\x01"):
        data = reference.frame(BINARY, b"payload", key=key)
        assert decoder.feed(data[:9]) == []
        assert decoder.feed(data[9:]) == [(BINARY, b"payload")]


@pytest.mark.parametrize("feed", [1, 3, 1000, 8193, 70_000, 10**9])
@pytest.mark.parametrize("fragments", [1, 2, 7])
@pytest.mark.parametrize(
    "parts",
    [
        ["ascii "],
        ["naïve "],
        ["日本語 "],
        ["😀 "],
        ["ascii ", "naïve "],
        ["ascii ", "日本語 "],
        ["ascii ", "😀 "],
        ["naïve ", "日本語 ", "😀 "],
        ["naïve ", "😀 ", "ascii "],
        ["日本語 ", "ascii ", "😀 ", "naïve "],
    ],
    ids="-".join,
)
def test_a_long_text_is_decoded_however_it_is_cut_and_wherever_it_gets_wider(
    make: Callable[..., Any], frame: Frame, parts: list[str], fragments: int, feed: int
) -> None:
    times = 15 if feed < 1000 else 3000
    text = "".join(part * times for part in parts)
    payload = text.encode()
    step = -(-len(payload) // fragments)
    stream = b"".join(
        frame(
            TEXT if start == 0 else CONT,
            payload[start : start + step],
            fin=start + step >= len(payload),
        )
        for start in range(0, len(payload), step)
    )
    decoder = make()
    events = [
        event
        for start in range(0, len(stream), feed)
        for event in decoder.feed(stream[start : start + feed])
    ]
    assert decoder.error is None
    assert events == [(TEXT, text)]
    # In the narrowest form that holds it, as every other str: else it would not equal its copies.
    assert sys.getsizeof(events[0][1]) <= sys.getsizeof(payload.decode())
    assert hash(events[0][1]) == hash(text)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 64, 1021, 4096])
def test_a_long_payload_is_unmasked_however_it_is_cut(
    make: Callable[..., Any], frame: Frame, step: int
) -> None:
    payload = bytes(range(256)) * 40 + b"odd"
    text = "aé漢😀" * 900 + "end"
    data = frame(BINARY, payload) + frame(TEXT, text.encode())
    decoder = make()
    events = []
    for start in range(0, len(data), step):
        events += decoder.feed(data[start : start + step])
    assert events == [(BINARY, payload), (TEXT, text)]


# --- the first two bytes


@pytest.mark.parametrize("reserved", range(1, 8))
@pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY, CLOSE, PING, PONG, 3, 11])
def test_reserved_bits_are_refused(
    make: Callable[..., Any], frame: Frame, reserved: int, opcode: int
) -> None:
    head = frame(opcode, b"payload", reserved=reserved)[:2]
    assert_refused(make, 1002, _messages.reserved_bits(reserved << 4), head)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("fin", [True, False])
def test_reserved_opcodes_are_refused(
    make: Callable[..., Any], frame: Frame, opcode: int, fin: bool
) -> None:
    head = frame(opcode, b"payload", fin=fin)[:2]
    assert_refused(make, 1002, _messages.reserved_opcode(opcode), head)
    opened = frame(TEXT, b"a", fin=False) + head
    assert_refused(make, 1002, _messages.reserved_opcode(opcode), opened)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_fragmented_control_frames_are_refused(
    make: Callable[..., Any], frame: Frame, opcode: int
) -> None:
    head = frame(opcode, b"", fin=False)[:2]
    assert_refused(make, 1002, _messages.fragmented_control(opcode), head)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("length_bytes", [2, 8])
def test_control_frames_over_125_bytes_are_refused_before_their_length_is_read(
    make: Callable[..., Any], frame: Frame, opcode: int, length_bytes: int
) -> None:
    for length in (0, 126, 65536 if length_bytes == 8 else 65535):
        head = frame(opcode, length=length, length_bytes=length_bytes)[:2]
        assert_refused(make, 1002, _messages.oversized_control(opcode), head)


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_control_frames_of_125_bytes_pass(
    make: Callable[..., Any], frame: Frame, opcode: int
) -> None:
    payload = bytes(range(125))
    data = frame(opcode, payload)
    assert make().feed(data) == [(opcode, payload)]
    decoder = make()
    assert [e for byte in data for e in decoder.feed(bytes((byte,)))] == [(opcode, payload)]


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_frames_from_a_client_must_be_masked(codec: ModuleType, opcode: int) -> None:
    head = reference.frame(opcode, b"\x03\xe8", key=None)[:2]
    assert_refused(codec.Decoder, 1002, _messages.unmasked(), head)


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_frames_from_a_server_must_not_be_masked(codec: ModuleType, opcode: int) -> None:
    make = functools.partial(codec.Decoder, client=True)
    assert_refused(make, 1002, _messages.masked(), reference.frame(opcode, b"\x03\xe8")[:2])


@pytest.mark.parametrize("fin", [True, False])
def test_a_continuation_needs_a_message(make: Callable[..., Any], frame: Frame, fin: bool) -> None:
    text = _messages.unexpected_continuation()
    head = frame(CONT, b"abc", fin=fin)[:2]
    assert_refused(make, 1002, text, head)
    assert_refused(make, 1002, text, frame(TEXT, b"whole") + head)
    assert_refused(make, 1002, text, frame(TEXT, b"a", fin=False) + frame(CONT) + head)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_a_message_must_end_before_the_next_one_begins(
    make: Callable[..., Any], frame: Frame, opcode: int, fin: bool
) -> None:
    text = _messages.interrupted_message(opcode)
    for opened in (TEXT, BINARY):
        start = frame(opened, b"a", fin=False)
        head = frame(opcode, b"b", fin=fin)[:2]
        assert_refused(make, 1002, text, start + head)
        assert_refused(make, 1002, text, start + frame(PING) + head)
        assert_refused(make, 1002, text, start + frame(CONT, b"c", fin=False) + head)


# --- lengths


@pytest.mark.parametrize("length", [0, 1, 124, 125])
def test_a_16_bit_length_must_be_needed(
    make: Callable[..., Any], frame: Frame, length: int
) -> None:
    head = frame(BINARY, length=length, length_bytes=2)[:4]
    assert_refused(make, 1002, _messages.length_not_minimal(length), head)


@pytest.mark.parametrize("length", [0, 125, 126, 65535])
def test_a_64_bit_length_must_be_needed(
    make: Callable[..., Any], frame: Frame, length: int
) -> None:
    head = frame(BINARY, length=length, length_bytes=8)[:10]
    assert_refused(make, 1002, _messages.length_not_minimal(length), head)


@pytest.mark.parametrize("length", [2**63, 2**63 + 1, 2**64 - 1])
def test_a_length_with_its_top_bit_set_is_refused(
    make: Callable[..., Any], frame: Frame, length: int
) -> None:
    head = frame(BINARY, length=length, length_bytes=8)[:10]
    assert_refused(make, 1002, _messages.length_top_bit(length), head)


@pytest.mark.parametrize("length", [2**31, 2**32, 2**62, 2**63 - 1])
def test_a_huge_length_is_refused_before_its_payload(
    make: Callable[..., Any], frame: Frame, length: int
) -> None:
    head = frame(BINARY, length=length, length_bytes=8)[:10]
    assert_refused(make, 1009, _messages.message_too_big(length, 2**20), head)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("length", [2**40, 2**63 - 1])
def test_without_a_limit_a_huge_length_reserves_little_before_its_payload(
    make: Callable[..., Any], frame: Frame, opcode: int, fin: bool, length: int
) -> None:
    data = frame(opcode, b"a" * 1000, fin=fin, length=length, length_bytes=8)
    tracemalloc.start()
    try:
        decoder = make(max_size=None)
        assert decoder.feed(data[:-1000]) == []
        assert decoder.feed(data[-1000:]) == []
        assert decoder.error is None
        # 16 MiB are reserved on the word of a header; the system gives pages as they are written.
        assert tracemalloc.get_traced_memory()[1] < 2**24 + 2**21
    finally:
        tracemalloc.stop()


# --- limits


@pytest.mark.parametrize("limit", [0, 1, 125, 126, 1000, 65535, 65536, 100000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_of_the_limit_passes_and_one_byte_more_does_not(
    make: Callable[..., Any], frame: Frame, opcode: int, limit: int
) -> None:
    limited = functools.partial(make, max_size=limit)
    [(got, payload)] = limited().feed(frame(opcode, b"x" * limit))
    assert (got, len(payload)) == (opcode, limit)
    above = frame(opcode, b"x" * (limit + 1))
    end = 2 if limit + 1 < 126 else 4 if limit + 1 < 65536 else 10
    text = _messages.message_too_big(limit + 1, limit)
    assert_refused(limited, 1009, text, above, at=end)


def test_the_limit_counts_all_fragments(make: Callable[..., Any], frame: Frame) -> None:
    limited = functools.partial(make, max_size=300)
    start = frame(BINARY, b"a" * 100, fin=False) + frame(PING) + frame(CONT, b"b" * 100, fin=False)
    exact = limited().feed(start + frame(CONT, b"c" * 100))
    assert exact[-1] == (BINARY, b"a" * 100 + b"b" * 100 + b"c" * 100)
    above = start + frame(CONT, b"c" * 101)[:2]
    assert_refused(limited, 1009, _messages.message_too_big(301, 300), above)


def test_the_limit_starts_anew_with_each_message(make: Callable[..., Any], frame: Frame) -> None:
    decoder = make(max_size=10, max_fragments=2)
    for _ in range(5):
        assert decoder.feed(frame(BINARY, bytes(10))) == [(BINARY, bytes(10))]
        decoder.feed(frame(TEXT, b"12345", fin=False))
        assert decoder.feed(frame(CONT, b"67890")) == [(TEXT, "1234567890")]
    assert decoder.error is None


def test_the_limit_is_not_for_control_frames(make: Callable[..., Any], frame: Frame) -> None:
    assert make(max_size=0).feed(frame(PING, b"x" * 125)) == [(PING, b"x" * 125)]


def test_the_default_limit_is_one_mebibyte(make: Callable[..., Any], frame: Frame) -> None:
    payload = bytes(2**20)
    assert make().feed(frame(BINARY, payload)) == [(BINARY, payload)]
    head = frame(BINARY, length=2**20 + 1)[:10]
    assert_refused(make, 1009, _messages.message_too_big(2**20 + 1, 2**20), head)


def test_without_a_limit_a_message_may_be_larger(make: Callable[..., Any], frame: Frame) -> None:
    payload = bytes(2**21)
    assert make(max_size=None).feed(frame(BINARY, payload)) == [(BINARY, payload)]


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_as_many_fragments_as_the_limit_pass_and_one_more_does_not(
    make: Callable[..., Any], frame: Frame, limit: int
) -> None:
    limited = functools.partial(make, max_fragments=limit)
    start = frame(BINARY, b"x", fin=False)
    start += (frame(PING) + frame(CONT, b"x", fin=False)) * (limit - 2)
    exact = start + frame(CONT, b"x") if limit > 1 else frame(BINARY, b"x")
    assert limited().feed(exact)[-1] == (BINARY, b"x" * limit)
    if limit > 1:
        start += frame(CONT, b"x", fin=False)
    above = start + frame(CONT, b"x")[:2]
    assert_refused(limited, 1009, _messages.too_many_fragments(limit), above)


def test_the_default_is_4096_fragments(make: Callable[..., Any], frame: Frame) -> None:
    start = frame(BINARY, b"x", fin=False) + frame(CONT, b"x", fin=False) * 4094
    decoder = make()
    assert decoder.feed(start + frame(CONT, b"x")) == [(BINARY, b"x" * 4096)]
    above = start + frame(CONT, b"x", fin=False) + frame(CONT, b"x")[:2]
    assert_refused(make, 1009, _messages.too_many_fragments(4096), above)


def test_too_many_fragments_are_reported_before_too_many_bytes(
    make: Callable[..., Any], frame: Frame
) -> None:
    limited = functools.partial(make, max_fragments=1, max_size=1)
    data = frame(BINARY, b"x", fin=False) + frame(CONT, b"too many")[:2]
    assert_refused(limited, 1009, _messages.too_many_fragments(1), data)


# --- text


INVALID = [
    b"\xff",
    b"\xc0",
    b"\xc1",
    b"\xe0\x80",
    b"\xed\xa0",
    b"\xf4\x90",
    b"\xf8",
    b"\xc3a",
    b"\x80",
]


@pytest.mark.parametrize("bad", INVALID)
@pytest.mark.parametrize("before", [b"", b"ok ", "é漢😀".encode(), b"x" * 200])
def test_invalid_text_is_refused_at_its_first_bad_byte(
    make: Callable[..., Any], frame: Frame, before: bytes, bad: bytes
) -> None:
    text = before + bad + b"never looked at" * 20
    for fin in (True, False):
        data = frame(TEXT, text, fin=fin)
        at = len(data) - len(text) + len(before) + len(bad)
        assert_refused(make, 1007, _messages.invalid_text(), data, at=at)
        # In a frame that stays unfinished, fed at once.
        decoder = make()
        decoder.feed(data[:at])
        assert decoder.error is not None


@pytest.mark.parametrize("bad", INVALID)
def test_invalid_text_is_refused_in_the_fragment_that_shows_it(
    make: Callable[..., Any], frame: Frame, bad: bytes
) -> None:
    data = frame(TEXT, "é漢".encode(), fin=False)
    for index in range(len(bad)):
        data += frame(PING) + frame(CONT, bad[index : index + 1], fin=False)
    assert_refused(make, 1007, _messages.invalid_text(), data)


@pytest.mark.parametrize("begun", [b"\xc3", b"\xe2", b"\xe2\x82", b"\xf0\x9f", b"\xf0\x9f\x98"])
def test_a_message_must_not_end_inside_a_code_point(
    make: Callable[..., Any], frame: Frame, begun: bytes
) -> None:
    text = _messages.invalid_text()
    for before in (b"", "aé".encode(), b"x" * 130):
        assert_refused(make, 1007, text, frame(TEXT, before + begun))
        opened = frame(TEXT, before + begun, fin=False)
        assert_refused(make, 1007, text, opened + frame(CONT))
        assert_refused(make, 1007, text, frame(TEXT, b"a", fin=False) + frame(CONT, begun))
        assert_refused(make, 1007, text, opened + frame(CONT, b"a"))
        decoder = make()
        decoder.feed(opened + frame(PING))
        assert decoder.error is None


def test_binary_messages_need_not_be_utf8(make: Callable[..., Any], frame: Frame) -> None:
    decoder = make()
    decoder.feed(frame(BINARY, b"\xff", fin=False))
    assert decoder.feed(frame(CONT, b"\xc3")) == [(BINARY, b"\xff\xc3")]


def test_a_text_after_a_cut_binary_message_starts_clean(
    make: Callable[..., Any], frame: Frame
) -> None:
    decoder = make()
    data = frame(BINARY, b"\xc3", fin=False) + frame(CONT, b"\xc3") + frame(TEXT, b"a", fin=False)
    assert decoder.feed(data) == [(BINARY, b"\xc3\xc3")]
    assert decoder.feed(frame(CONT, b"b")) == [(TEXT, "ab")]


# --- close


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x03\xe8", b"\x03\xe9bye", b"\x0f\xa0" + "é".encode(), b"\x03\xf6" + b"x" * 123],
)
def test_a_close_frame_is_handed_over_raw_and_ends_everything(
    make: Callable[..., Any], frame: Frame, payload: bytes
) -> None:
    data = frame(CLOSE, payload)
    for decoder in (make(), make()):
        assert decoder.feed(data[:-1]) == []
        assert decoder.closed is False
        assert decoder.feed(data[-1:] + frame(TEXT, b"late") + b"\xff\xff") == [(CLOSE, payload)]
        assert decoder.closed is True
        assert decoder.feed(frame(PING)) == []
        assert decoder.feed(b"\xff" * 100) == []
        assert decoder.error is None
    assert make().feed(frame(TEXT, b"a") + data + data) == [(TEXT, "a"), (CLOSE, payload)]


def test_a_close_frame_may_stand_inside_a_message(make: Callable[..., Any], frame: Frame) -> None:
    decoder = make()
    data = frame(TEXT, b"a", fin=False) + frame(CLOSE) + frame(CONT, b"b")
    assert decoder.feed(data) == [(CLOSE, b"")]
    assert decoder.closed is True
    assert decoder.error is None


def test_a_close_frame_of_one_byte_is_refused_by_its_header(
    make: Callable[..., Any], frame: Frame
) -> None:
    assert_refused(make, 1002, _messages.short_close(), frame(CLOSE, b"\x03")[:2])


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_a_close_code_that_is_not_for_the_wire_is_refused(
    make: Callable[..., Any], frame: Frame, code: int
) -> None:
    for reason in (b"", b"why", b"\xff"):
        data = frame(CLOSE, code.to_bytes(2, "big") + reason)
        assert_refused(make, 1002, _messages.invalid_close_code(code), data)


@pytest.mark.parametrize("reason", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"x" * 120 + b"\xe2\x82"])
def test_a_close_reason_that_is_not_utf8_is_refused(
    make: Callable[..., Any], frame: Frame, reason: bytes
) -> None:
    data = frame(CLOSE, b"\x03\xe8" + reason)
    assert_refused(make, 1007, _messages.invalid_close_reason(), data)


# --- after a fault


FAULTS: list[tuple[int, Callable[[Frame], bytes]]] = [
    (1002, lambda frame: frame(3)),
    (1002, lambda frame: frame(CONT)),
    (1002, lambda frame: frame(CLOSE, b"\x00\x00")),
    (1007, lambda frame: frame(TEXT, b"\xff")),
    (1007, lambda frame: frame(TEXT, b"\xff" + bytes(100))[:-50]),
    (1007, lambda frame: frame(TEXT, b"\xc3", fin=False) + frame(CONT)),
    (1009, lambda frame: frame(BINARY, length=2**40)),
]


@pytest.mark.parametrize(("code", "build"), FAULTS)
def test_events_before_a_fault_are_returned_and_nothing_after_it(
    make: Callable[..., Any], frame: Frame, code: int, build: Callable[[Frame], bytes]
) -> None:
    before = frame(TEXT, b"fine") + frame(PING, b"p")
    decoder = make()
    assert decoder.feed(before + build(frame) + frame(TEXT, b"late")) == [
        (TEXT, "fine"),
        (PING, b"p"),
    ]
    error = decoder.error
    assert error.code == code
    assert decoder.feed(frame(TEXT, b"late")) == []
    assert decoder.feed(frame(3)) == []
    assert decoder.error is error
    assert decoder.closed is False


@pytest.mark.parametrize(("code", "build"), FAULTS)
def test_an_error_keeps_nothing_alive(
    make: Callable[..., Any], frame: Frame, code: int, build: Callable[[Frame], bytes]
) -> None:
    decoder = make()
    decoder.feed(build(frame))
    assert decoder.error.__traceback__ is None
    assert decoder.error.__context__ is None
    assert decoder.error.__cause__ is None


def test_a_fault_in_the_callers_own_exception_handler_stays_clean(
    make: Callable[..., Any], frame: Frame
) -> None:
    decoder = make()
    try:
        raise KeyError("the caller's own")
    except KeyError:
        decoder.feed(frame(TEXT, b"\xff"))
    assert decoder.error.__context__ is None


def test_decoders_share_nothing(make: Callable[..., Any], frame: Frame) -> None:
    one, two = make(), make()
    data = frame(TEXT, "é".encode() * 100)
    for cut in (1, 7, 50):
        one.feed(data[:cut])
        two.feed(frame(BINARY, b"other")[:3])
        assert one.feed(data[cut:]) == [(TEXT, "é" * 100)]
        assert two.feed(frame(BINARY, b"other")[3:]) == [(BINARY, b"other")]


# --- cost


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """Bytes of memory in use since the start of the test; the peak is reset by each call."""
    gc.collect()
    tracemalloc.start()
    base = tracemalloc.get_traced_memory()[0]

    def peak() -> int:
        highest = tracemalloc.get_traced_memory()[1] - base
        tracemalloc.reset_peak()
        return highest

    yield peak
    tracemalloc.stop()


def test_100_000_empty_fragments_hold_no_memory(
    make: Callable[..., Any], frame: Frame, traced: Callable[[], int]
) -> None:
    decoder = make(max_fragments=None)
    decoder.feed(frame(TEXT, b"a", fin=False))
    fragments = frame(CONT, fin=False) * 1000
    traced()
    before = traced()
    for _ in range(100):
        assert decoder.feed(fragments) == []
    assert traced() - before < 20_000
    assert decoder.feed(frame(CONT, b"b")) == [(TEXT, "ab")]


def test_the_default_limit_stops_a_flood_of_empty_fragments(
    make: Callable[..., Any], frame: Frame
) -> None:
    decoder = make()
    assert decoder.feed(frame(TEXT, fin=False) + frame(CONT, fin=False) * 100_000) == []
    assert decoder.error.code == 1009
    assert str(decoder.error) == _messages.too_many_fragments(4096)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_header_alone_reserves_little_for_its_payload(
    make: Callable[..., Any], frame: Frame, traced: Callable[[], int], opcode: int
) -> None:
    decoders = [make() for _ in range(4)]
    traced()
    before = traced()
    for decoder in decoders:
        decoder.feed(frame(opcode, length=2**20))
    # At most the object that the user will get, so at most the limit on a message.
    assert traced() - before <= 4 * (2**20 + 500)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_a_payload_in_small_pieces_takes_memory_in_proportion(
    make: Callable[..., Any],
    frame: Frame,
    traced: Callable[[], int],
    opcode: int,
    piece: int,
) -> None:
    size = 30_000
    data = frame(opcode, "é漢".encode() * (size // 5), fin=False)
    decoder = make()
    traced()
    before = traced()
    for start in range(0, len(data), piece):
        decoder.feed(data[start : start + piece])
    assert traced() - before < 4 * size + 10_000
    assert decoder.error is None


def test_nothing_of_a_message_is_kept_after_a_fault(
    make: Callable[..., Any], frame: Frame, traced: Callable[[], int]
) -> None:
    decoder = make()
    traced()
    before = traced()
    decoder.feed(frame(BINARY, bytes(500_000), fin=False))
    decoder.feed(frame(TEXT)[:2])
    assert decoder.error is not None
    traced()
    assert traced() - before < 50_000


@pytest.mark.parametrize("way", ["pieces of a frame", "fragments"])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_time_grows_with_the_bytes_and_not_with_their_square(
    make: Callable[..., Any], frame: Frame, way: str, opcode: int
) -> None:
    step = 4096

    def seconds(size: int) -> float:
        if way == "fragments":
            count = size // step
            middle = frame(CONT, b"a" * step, fin=False)
            pieces = [frame(opcode, b"a" * step, fin=False), *[middle] * (count - 2)]
            pieces.append(frame(CONT, b"a" * step))
        else:
            data = frame(opcode, b"a" * size) if size < 2**16 else large_frame(size)
            pieces = [data[i : i + step] for i in range(0, len(data), step)]
        best = float("inf")
        for _ in range(3):
            decoder = make(max_size=None, max_fragments=None)
            start = time.perf_counter()
            events = [event for part in pieces for event in decoder.feed(part)]
            best = min(best, time.perf_counter() - start)
            assert [len(payload) for _, payload in events] == [size]
        return best

    def large_frame(size: int) -> bytes:
        # The naive XOR of the reference takes a second for this.
        head = frame(opcode, length=size, length_bytes=8)
        masked = len(head) > 10
        return head + (xor(b"aaaa", KEY) if masked else b"aaaa") * (size // 4)

    # 16 times the bytes: 16 times the time, or 256 times.
    assert seconds(2**23) < 80 * seconds(2**19) + 0.05
