"""Masking (RFC 6455 5.3): any length, any offset into the key, any alignment."""

from __future__ import annotations

import array
import random
from types import ModuleType

import pytest

from tests.fastws.reference import KEY, xor

DATA = random.Random(6455).randbytes(400)
# Around the sizes where a kernel changes its step, and where the pure codec changes its method.
LARGE = [255, 256, 257, 511, 513, 1023, 2047, 2048, 2049, 2051, 4097, 65535, 65539]


def xor_large(data: bytes, key: bytes, offset: int = 0) -> bytes:
    keys = (key * (len(data) // 4 + 2))[offset % 4 :][: len(data)]
    number = int.from_bytes(data, "big") ^ int.from_bytes(keys, "big")
    return number.to_bytes(len(data), "big")


def test_the_example_of_the_rfc_comes_out(codec: ModuleType) -> None:
    assert codec.mask(b"Hello", KEY) == b"\x7f\x9f\x4d\x51\x58"


@pytest.mark.parametrize("offset", range(4))
def test_every_length_at_every_alignment_matches_the_rfc(codec: ModuleType, offset: int) -> None:
    view = memoryview(DATA)
    for start in (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 63):
        for length in range(201):
            expected = xor(DATA[start : start + length], KEY, offset)
            assert codec.mask(view[start : start + length], KEY, offset) == expected


@pytest.mark.parametrize("length", LARGE)
def test_large_data_matches_the_rfc(codec: ModuleType, length: int) -> None:
    data = random.Random(length).randbytes(length + 1)
    for offset in range(4):
        assert codec.mask(data[:length], KEY, offset) == xor_large(data[:length], KEY, offset)
        shifted = memoryview(data)[1:]
        assert codec.mask(shifted, KEY, offset) == xor_large(data[1:], KEY, offset)


@pytest.mark.parametrize("offset", range(4))
def test_masking_in_place_changes_what_it_is_given_and_no_byte_more(
    codec: ModuleType, offset: int
) -> None:
    for start in (0, 1, 3, 8, 17, 33):
        for length in range(201):
            data = bytearray(DATA)
            with memoryview(data) as view:
                codec.mask_inplace(view[start : start + length], KEY, offset)
            end = start + length
            assert data[start:end] == xor(DATA[start:end], KEY, offset)
            assert data[:start] == DATA[:start]
            assert data[end:] == DATA[end:]


@pytest.mark.parametrize("length", LARGE)
def test_large_data_is_masked_in_place(codec: ModuleType, length: int) -> None:
    original = random.Random(length).randbytes(length)
    data = bytearray(original)
    codec.mask_inplace(data, KEY, 3)
    assert data == xor_large(original, KEY, 3)


def test_masking_in_pieces_equals_masking_at_once(codec: ModuleType) -> None:
    whole = codec.mask(DATA, KEY)
    for cut in range(0, 130):
        assert codec.mask(DATA[:cut], KEY) + codec.mask(DATA[cut:], KEY, cut) == whole


def test_an_offset_counts_modulo_four(codec: ModuleType) -> None:
    for offset in (4, 5, 1023, 2**31 + 1, 2**40 + 2):
        assert codec.mask(DATA, KEY, offset) == codec.mask(DATA, KEY, offset % 4)


def test_masking_twice_gives_the_data_back(codec: ModuleType) -> None:
    data = bytearray(DATA)
    codec.mask_inplace(data, KEY, 2)
    codec.mask_inplace(data, KEY, 2)
    assert data == DATA
    assert codec.mask(codec.mask(DATA, KEY), KEY) == DATA


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_masked_and_bytes_come_back(codec: ModuleType, wrap: type) -> None:
    masked = codec.mask(wrap(DATA), KEY)
    assert type(masked) is bytes
    assert masked == xor(DATA, KEY)


def test_a_buffer_of_wide_items_is_taken_as_its_bytes(codec: ModuleType) -> None:
    words = array.array("I", DATA)
    assert codec.mask(words, KEY) == xor(DATA, KEY)
    codec.mask_inplace(words, KEY)
    assert words.tobytes() == xor(DATA, KEY)


def test_the_source_is_left_as_it_was(codec: ModuleType) -> None:
    for length in (100, 5000):
        data = bytearray(range(100)) * (length // 100)
        before = bytes(data)
        codec.mask(data, KEY)
        assert data == before


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde"])
def test_a_key_that_has_not_four_bytes_is_refused(codec: ModuleType, key: bytes) -> None:
    data = bytearray(DATA)
    with pytest.raises(ValueError, match=f"not {len(key)}"):
        codec.mask(DATA, key)
    with pytest.raises(ValueError, match=f"not {len(key)}"):
        codec.mask_inplace(data, key)
    assert data == DATA


def test_read_only_data_cannot_be_masked_in_place(codec: ModuleType) -> None:
    data = bytes(DATA)
    with pytest.raises(BufferError):
        codec.mask_inplace(data, KEY)
    assert data == DATA


@pytest.mark.parametrize("data", ["text", 5, None])
def test_what_is_no_buffer_is_a_type_error(codec: ModuleType, data: object) -> None:
    with pytest.raises(TypeError):
        codec.mask(data, KEY)
    with pytest.raises(TypeError):
        codec.mask_inplace(data, KEY)
