"""Frames and close payloads that go out (RFC 6455 5.2, 5.5.1), and close payloads that come in."""

from __future__ import annotations

import array
from types import ModuleType

import pytest

from fastws import _messages
from fastws.exceptions import ProtocolError
from tests.fastws.reference import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT, frame, is_close_code

SIZES = [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 128, 2047, 2048, 2049, 65534, 65535, 65536, 65537]


def payload_of(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_a_length_is_in_its_shortest_form(codec: ModuleType, size: int) -> None:
    payload = payload_of(size)
    encoded = codec.encode_frame(BINARY, payload)
    assert type(encoded) is bytes
    assert encoded == frame(BINARY, payload, key=None)
    assert len(encoded) - size == (2 if size < 126 else 4 if size < 65536 else 10)


@pytest.mark.parametrize("size", SIZES)
def test_a_masked_frame_carries_its_key_and_the_masked_payload(
    codec: ModuleType, size: int
) -> None:
    payload = payload_of(size)
    assert codec.encode_frame(TEXT, payload, mask_key=KEY) == frame(TEXT, payload)


def test_the_examples_of_the_rfc_come_out(codec: ModuleType) -> None:
    assert codec.encode_frame(TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    masked = codec.encode_frame(TEXT, b"Hello", mask_key=KEY)
    assert masked == bytes.fromhex("818537fa213d7f9f4d5158")
    assert codec.encode_frame(TEXT, b"Hel", fin=False) == bytes.fromhex("010348656c")
    assert codec.encode_frame(CONT, b"lo") == bytes.fromhex("80026c6f")
    assert codec.encode_frame(PING, b"Hello") == bytes.fromhex("890548656c6c6f")
    assert codec.encode_frame(BINARY, bytes(256))[:4] == bytes.fromhex("827e0100")
    assert codec.encode_frame(BINARY, bytes(65536))[:10] == bytes.fromhex("827f0000000000010000")


@pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("rsv1", [True, False])
def test_fin_and_rsv1_are_bits_of_the_first_byte(
    codec: ModuleType, opcode: int, fin: bool, rsv1: bool
) -> None:
    encoded = codec.encode_frame(opcode, b"abc", fin=fin, rsv1=rsv1)
    assert encoded == frame(opcode, b"abc", key=None, fin=fin, reserved=4 if rsv1 else 0)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_a_payload(codec: ModuleType, wrap: type) -> None:
    for payload in (b"", b"abcd", payload_of(5000)):
        assert codec.encode_frame(BINARY, wrap(payload)) == frame(BINARY, payload, key=None)
        masked = codec.encode_frame(BINARY, wrap(payload), mask_key=KEY)
        assert masked == frame(BINARY, payload)


def test_a_payload_of_wide_items_counts_in_bytes(codec: ModuleType) -> None:
    words = array.array("I", payload_of(400))
    assert codec.encode_frame(BINARY, words) == frame(BINARY, words.tobytes(), key=None)


def test_a_slice_of_a_buffer_is_encoded_from_where_it_starts(codec: ModuleType) -> None:
    data = payload_of(300)
    for start in range(9):
        part = memoryview(data)[start : start + 201]
        assert codec.encode_frame(BINARY, part, mask_key=KEY) == frame(BINARY, bytes(part))


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde"])
def test_a_key_that_has_not_four_bytes_is_refused(codec: ModuleType, key: bytes) -> None:
    with pytest.raises(ValueError, match=f"not {len(key)}"):
        codec.encode_frame(BINARY, b"abc", mask_key=key)


@pytest.mark.parametrize("payload", ["text", 5, None])
def test_a_payload_that_is_no_buffer_is_a_type_error(codec: ModuleType, payload: object) -> None:
    with pytest.raises(TypeError):
        codec.encode_frame(BINARY, payload)


@pytest.mark.parametrize("opcode", [-1, 16, 0x81, 256])
def test_an_opcode_of_more_than_four_bits_is_refused(codec: ModuleType, opcode: int) -> None:
    with pytest.raises(ValueError, match=str(opcode)):
        codec.encode_frame(opcode, b"")


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_control_frame_that_breaks_the_rules_is_refused(codec: ModuleType, opcode: int) -> None:
    whole = payload_of(125)
    assert codec.encode_frame(opcode, whole) == frame(opcode, whole, key=None)
    with pytest.raises(ValueError, match=f"0x{opcode:x} is longer than 125 bytes"):
        codec.encode_frame(opcode, payload_of(126))
    with pytest.raises(ValueError, match=f"0x{opcode:x} is fragmented"):
        codec.encode_frame(opcode, b"", fin=False)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("client", [False, True])
def test_what_is_encoded_is_decoded(codec: ModuleType, size: int, client: bool) -> None:
    payload = payload_of(size)
    encoded = codec.encode_frame(BINARY, payload, mask_key=None if client else KEY)
    decoder = codec.Decoder(client=client)
    assert decoder.feed(encoded) == [(BINARY, payload)]
    assert decoder.error is None


# --- close payloads


def test_exactly_the_codes_allowed_on_the_wire_are_encoded_and_parsed(codec: ModuleType) -> None:
    for code in (*range(0, 5100), 9999, 32768, 65535):
        payload = code.to_bytes(2, "big")
        if is_close_code(code):
            assert codec.encode_close(code) == payload
            assert codec.parse_close(payload) == (code, "")
        else:
            with pytest.raises(ProtocolError) as sending:
                codec.encode_close(code)
            with pytest.raises(ProtocolError) as receiving:
                codec.parse_close(payload)
            assert sending.value.code == receiving.value.code == 1002
            assert str(sending.value) == _messages.invalid_close_code(code)
            assert str(receiving.value) == _messages.invalid_close_code(code)


@pytest.mark.parametrize("code", [-1, 65536, 66536])
def test_a_code_that_does_not_fit_two_bytes_is_not_sent(codec: ModuleType, code: int) -> None:
    with pytest.raises(ProtocolError):
        codec.encode_close(code)


@pytest.mark.parametrize("reason", ["", "bye", "à bientôt", "再见", "👋", "x" * 123, "é" * 61])
def test_a_close_reason_survives_both_ways(codec: ModuleType, reason: str) -> None:
    payload = codec.encode_close(1001, reason)
    assert type(payload) is bytes
    assert payload == b"\x03\xe9" + reason.encode()
    assert codec.parse_close(payload) == (1001, reason)


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, "👋" * 31])
def test_a_reason_over_123_bytes_is_refused(codec: ModuleType, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.encode_close(1000, reason)
    assert caught.value.code == 1002
    assert str(caught.value) == _messages.oversized_close_reason(len(reason.encode()))


def test_an_empty_close_payload_means_1005(codec: ModuleType) -> None:
    assert codec.parse_close(b"") == (1005, "")


@pytest.mark.parametrize("byte", [b"\x00", b"\x03", b"\xff"])
def test_a_close_payload_of_one_byte_is_refused(codec: ModuleType, byte: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.parse_close(byte)
    assert caught.value.code == 1002
    assert str(caught.value) == _messages.short_close()


@pytest.mark.parametrize("reason", [b"\xff", b"ok\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_a_close_reason_that_is_not_utf8_is_refused(codec: ModuleType, reason: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.parse_close(b"\x03\xe8" + reason)
    assert caught.value.code == 1007
    assert str(caught.value) == _messages.invalid_close_reason()


def test_a_forbidden_code_is_reported_before_a_bad_reason(codec: ModuleType) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.parse_close(b"\x03\xed\xff")
    assert caught.value.code == 1002


def test_every_refusal_fits_into_a_close_reason() -> None:
    texts = [
        _messages.reserved_bits(0x70),
        _messages.reserved_opcode(15),
        _messages.fragmented_control(10),
        _messages.oversized_control(10),
        _messages.unmasked(),
        _messages.masked(),
        _messages.unexpected_continuation(),
        _messages.interrupted_message(2),
        _messages.short_close(),
        _messages.too_many_fragments(2**63),
        _messages.length_top_bit(2**64 - 1),
        _messages.length_not_minimal(65535),
        _messages.message_too_big(2**64, 2**63),
        _messages.invalid_text(),
        _messages.invalid_close_code(65535),
        _messages.invalid_close_reason(),
        _messages.oversized_close_reason(2**63),
    ]
    for text in texts:
        assert len(text.encode()) <= 123
