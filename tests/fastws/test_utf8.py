"""UTF-8 (RFC 3629), at once and as bytes arrive, against the grammar and against CPython."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.fastws.reference import scan_utf8

# Both sides of every border in the table of RFC 3629 section 4.
SECOND = [0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xF0, 0xFF]
LATER = [0x41, 0x7F, 0x80, 0xBF, 0xC0]

KINDS = {
    "ascii": "The quick brown fox, 0123456789. ",
    "latin": "Ça coûte 5 £ déjà, naïve œuvre: ÿ",
    "bmp": "日本語テキスト€ࠀ퟿\uffff ",
    "astral": "😀𝄞 a\U00010000é\U0010ffff漢",
    "dense latin": "éèêëàâäîïôöûü" * 3,
    "dense astral": "😀😁😂🤣" * 3,
}

BAD = {
    "lone continuation": b"\x80",
    "overlong of two": b"\xc0\xaf",
    "overlong of three": b"\xe0\x80\xaf",
    "overlong of four": b"\xf0\x80\x80\xaf",
    "surrogate": b"\xed\xa0\x80",
    "above 10FFFF": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "never a byte of UTF-8": b"\xff",
    "two begun": b"\xc3",
    "three begun": b"\xe2\x82",
    "four begun": b"\xf0\x9f\x98",
}


def outcome(decode: Callable[[bytes], str], data: bytes) -> tuple[Any, ...]:
    """The text and its size in memory, or all that a UnicodeDecodeError says."""
    try:
        text = decode(data)
    except UnicodeDecodeError as error:
        return (error.encoding, error.object, error.start, error.end, error.reason)
    # As narrow as CPython's own, with one, two or four bytes to the character; as usable as a key.
    return (text, sys.getsizeof(text), hash(text))


def assert_decodes_as_cpython(codec: ModuleType, data: bytes) -> None:
    assert outcome(codec.decode_utf8, data) == outcome(bytes.decode, data)


def first_bad_byte(validator: Any, data: bytes) -> int | None:
    for index in range(len(data)):
        if not validator.feed(data[index : index + 1]):
            return index
    return None


def test_every_code_point_decodes(codec: ModuleType) -> None:
    text = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point <= 0xDFFF)
    assert codec.decode_utf8(text.encode()) == text
    for first, last in ((0, 0x7F), (0, 0xFF), (0, 0xD7FF), (0xE000, 0xFFFF)):
        part = "".join(map(chr, range(first, last + 1)))
        assert codec.decode_utf8(part.encode()) == part


def test_every_pair_of_bytes_is_judged_as_the_grammar_does(codec: ModuleType) -> None:
    validator = codec.Utf8Validator()
    for first, second in itertools.product(range(256), repeat=2):
        data = bytes((first, second))
        bad, whole = scan_utf8(data)
        validator.reset()
        assert validator.feed(data) is (bad is None)
        assert validator.finish() is (bad is None and whole)


def test_every_border_of_longer_sequences_is_judged_as_the_grammar_does(
    codec: ModuleType,
) -> None:
    validator = codec.Utf8Validator()
    for first in (*range(0xC0, 0x100), 0x7F, 0x80):
        for rest in itertools.product(SECOND, LATER, LATER):
            data = bytes((first, *rest))
            bad, whole = scan_utf8(data)
            validator.reset()
            assert validator.feed(data) is (bad is None)
            assert validator.finish() is (bad is None and whole)


def test_every_border_fails_at_its_first_bad_byte(codec: ModuleType) -> None:
    validator = codec.Utf8Validator()
    for first in range(0xC0, 0x100):
        for second, third in itertools.product(SECOND, LATER):
            data = bytes((first, second, third, 0x80))
            validator.reset()
            assert first_bad_byte(validator, data) == scan_utf8(data)[0]


def test_every_border_decodes_or_fails_as_in_cpython(codec: ModuleType) -> None:
    for first in (*range(0xC0, 0x100), 0x7F, 0x80):
        for second, third in itertools.product(SECOND, LATER):
            assert_decodes_as_cpython(codec, bytes((first, second, third, 0x80)))
            assert_decodes_as_cpython(codec, bytes((first, second)))
        assert_decodes_as_cpython(codec, bytes((first,)))


@pytest.mark.parametrize("kind", KINDS)
def test_text_of_every_length_decodes(codec: ModuleType, kind: str) -> None:
    text = KINDS[kind] * 20
    for length in (*range(140), 255, 256, 257, 511, 513):
        assert_decodes_as_cpython(codec, text[:length].encode())


@pytest.mark.parametrize("kind", KINDS)
def test_text_cut_at_any_byte_fails_as_in_cpython(codec: ModuleType, kind: str) -> None:
    data = (KINDS[kind] * 5).encode()
    for end in range(min(len(data), 160)):
        assert_decodes_as_cpython(codec, data[:end])


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("kind", ["ascii", "latin", "bmp", "astral"])
def test_a_fault_at_any_place_of_a_text_is_found(codec: ModuleType, kind: str, fault: str) -> None:
    before = KINDS[kind] * 4
    after = (KINDS[kind] * 3).encode()
    validator = codec.Utf8Validator()
    for length in range(0, 100, 3):
        data = before[:length].encode() + BAD[fault] + after
        assert_decodes_as_cpython(codec, data)
        validator.reset()
        assert validator.feed(data) is False


@pytest.mark.parametrize("fault", BAD)
def test_a_fault_in_the_last_bytes_is_found(codec: ModuleType, fault: str) -> None:
    validator = codec.Utf8Validator()
    for length in range(140):
        data = b"x" * length + BAD[fault]
        assert_decodes_as_cpython(codec, data)
        validator.reset()
        validator.feed(data)
        assert validator.finish() is False


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_text_decodes_at_any_alignment(codec: ModuleType, kind: str) -> None:
    data = (KINDS[kind] * 1000).encode()
    for start in range(5):
        buffer = bytearray(start) + data
        assert codec.decode_utf8(memoryview(buffer)[start:]) == data.decode()


def test_one_wide_character_anywhere_widens_the_text(codec: ModuleType) -> None:
    for wide in "\x7f\x80ÿĀ\uffff\U00010000":
        for length in (0, 1, 15, 16, 31, 32, 63, 64, 65, 130):
            assert_decodes_as_cpython(codec, ("a" * length + wide + "b" * 70).encode())


@pytest.mark.parametrize("kind", KINDS)
def test_the_validator_takes_a_text_in_two_pieces_cut_anywhere(
    codec: ModuleType, kind: str
) -> None:
    data = (KINDS[kind] * 2).encode()
    validator = codec.Utf8Validator()
    for cut in range(len(data) + 1):
        validator.reset()
        assert validator.feed(data[:cut]) is True
        assert validator.finish() is scan_utf8(data[:cut])[1]
        assert validator.feed(data[cut:]) is True
        assert validator.finish() is True


@pytest.mark.parametrize("fault", BAD)
def test_the_validator_fails_at_the_same_byte_however_the_text_is_cut(
    codec: ModuleType, fault: str
) -> None:
    data = "aé€😀".encode() * 4 + BAD[fault] + b"tail " * 20
    expected = scan_utf8(data)[0]
    assert expected is not None
    validator = codec.Utf8Validator()
    assert first_bad_byte(validator, data) == expected
    for cut in range(expected + 1):
        validator.reset()
        assert validator.feed(data[:cut]) is True
        assert validator.feed(data[cut : expected + 1]) is False


def test_once_invalid_the_validator_stays_so_until_it_is_reset(codec: ModuleType) -> None:
    validator = codec.Utf8Validator()
    assert validator.feed(b"\xff") is False
    assert validator.feed(b"fine") is False
    assert validator.feed(b"") is False
    assert validator.finish() is False
    validator.reset()
    assert validator.feed(b"fine") is True
    assert validator.finish() is True


def test_reset_forgets_a_code_point_that_has_begun(codec: ModuleType) -> None:
    validator = codec.Utf8Validator()
    assert validator.feed(b"\xe2\x82") is True
    assert validator.finish() is False
    validator.reset()
    assert validator.finish() is True
    assert validator.feed(b"\x82") is False


def test_an_empty_text_is_valid(codec: ModuleType) -> None:
    validator = codec.Utf8Validator()
    assert validator.finish() is True
    assert validator.feed(b"") is True
    assert validator.finish() is True
    assert codec.decode_utf8(b"") == ""


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_decoded_and_checked(codec: ModuleType, wrap: type) -> None:
    data = "naïve 漢字 😀".encode()
    assert codec.decode_utf8(wrap(data)) == "naïve 漢字 😀"
    assert codec.Utf8Validator().feed(wrap(data)) is True


@pytest.mark.parametrize("data", ["text", 5, None])
def test_what_is_no_buffer_is_a_type_error(codec: ModuleType, data: object) -> None:
    with pytest.raises(TypeError):
        codec.decode_utf8(data)
    with pytest.raises(TypeError):
        codec.Utf8Validator().feed(data)
