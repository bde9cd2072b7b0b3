"""Each C kernel that this processor can run, not only the one that was chosen."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import os
import random
import subprocess
import sys
from types import ModuleType

import pytest

from tests.fastws.reference import KEY, scan_utf8, xor
from tests.fastws.test_mask import DATA, LARGE, xor_large
from tests.fastws.test_utf8 import BAD, KINDS, LATER, SECOND, outcome

# Without the extension there is nothing here to test, rather than something to skip.
__test__ = (
    os.environ.get("FASTWS_PURE", "") in ("", "0")
    and importlib.util.find_spec("fastws._codec") is not None
)
KERNELS = importlib.import_module("fastws._codec").available_kernels() if __test__ else []
each_kernel = pytest.mark.parametrize("kernel", KERNELS)


@pytest.fixture(scope="module")
def native() -> ModuleType:
    return importlib.import_module("fastws._codec")


def assert_decodes_as_cpython(native: ModuleType, kernel: str, data: bytes) -> None:
    got = outcome(functools.partial(native.decode_utf8_with, kernel), data)
    assert got == outcome(bytes.decode, data)
    bad, whole = scan_utf8(data)
    assert native.validate_utf8_with(kernel, data) is (bad is None and whole)


def test_the_chosen_kernel_is_one_that_is_available(native: ModuleType) -> None:
    names = native.available_kernels()
    assert native.kernel_name in names
    assert len(set(names)) == len(names)


def test_a_kernel_that_does_not_exist_is_a_value_error(native: ModuleType) -> None:
    with pytest.raises(ValueError, match="abacus"):
        native.mask_with("abacus", b"data", KEY)
    with pytest.raises(ValueError, match="abacus"):
        native.decode_utf8_with("abacus", b"data")
    with pytest.raises(ValueError, match="abacus"):
        native.validate_utf8_with("abacus", b"data")


@each_kernel
def test_the_environment_forces_a_kernel(native: ModuleType, kernel: str) -> None:
    code = "import fastws._codec as codec; print(codec.kernel_name)"
    environment = {**os.environ, "FASTWS_KERNEL": kernel, "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert printed.strip() == kernel


@each_kernel
@pytest.mark.parametrize("offset", range(4))
def test_every_length_at_every_alignment_is_masked(
    native: ModuleType, kernel: str, offset: int
) -> None:
    view = memoryview(DATA)
    expected = xor(DATA, KEY, offset)
    for start in range(0, 68, 4):
        for length in range(201):
            masked = native.mask_with(kernel, view[start : start + length], KEY, offset)
            assert masked == expected[start : start + length]
    for start in (1, 2, 3, 7, 15, 31, 63):
        expected = xor(DATA[start:], KEY, offset)
        for length in range(201):
            masked = native.mask_with(kernel, view[start : start + length], KEY, offset)
            assert masked == expected[:length]


@each_kernel
@pytest.mark.parametrize("length", LARGE)
def test_large_data_is_masked(native: ModuleType, kernel: str, length: int) -> None:
    data = random.Random(length).randbytes(length)
    for offset in range(4):
        assert native.mask_with(kernel, data, KEY, offset) == xor_large(data, KEY, offset)


@each_kernel
def test_every_code_point_decodes(native: ModuleType, kernel: str) -> None:
    text = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point <= 0xDFFF)
    assert native.validate_utf8_with(kernel, text.encode()) is True
    assert native.decode_utf8_with(kernel, text.encode()) == text
    for first, last in ((0, 0x7F), (0, 0xFF), (0, 0xD7FF), (0xE000, 0xFFFF)):
        part = "".join(map(chr, range(first, last + 1)))
        assert native.decode_utf8_with(kernel, part.encode()) == part


@each_kernel
@pytest.mark.parametrize("shift", [0, 14, 29, 61])
def test_every_border_is_judged_as_the_grammar_does(
    native: ModuleType, kernel: str, shift: int
) -> None:
    # Shifted, so that sequences lie across the blocks that a kernel reads.
    before = b"x" * shift
    after = b"y" * 70 if shift else b""
    for first in (*range(0xC0, 0x100), 0x7F, 0x80):
        for rest in itertools.product(SECOND, LATER, (0x41, 0x80, 0xBF)):
            data = before + bytes((first, *rest)) + after
            bad, whole = scan_utf8(data[shift : shift + 5])
            assert native.validate_utf8_with(kernel, data) is (bad is None and whole)


@each_kernel
@pytest.mark.parametrize("kind", KINDS)
def test_text_of_every_length_decodes(native: ModuleType, kernel: str, kind: str) -> None:
    text = KINDS[kind] * 20
    for length in (*range(200), 255, 256, 257, 511, 513):
        assert_decodes_as_cpython(native, kernel, text[:length].encode())


@each_kernel
@pytest.mark.parametrize("kind", KINDS)
def test_text_cut_at_any_byte_fails(native: ModuleType, kernel: str, kind: str) -> None:
    data = (KINDS[kind] * 5).encode()
    for end in range(min(len(data), 200)):
        assert_decodes_as_cpython(native, kernel, data[:end])


@each_kernel
@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("kind", ["ascii", "latin", "bmp", "astral"])
def test_a_fault_at_any_place_of_a_text_is_found(
    native: ModuleType, kernel: str, kind: str, fault: str
) -> None:
    before = KINDS[kind] * 5
    after = (KINDS[kind] * 4).encode()
    for length in range(140):
        data = before[:length].encode() + BAD[fault]
        assert_decodes_as_cpython(native, kernel, data)
        assert_decodes_as_cpython(native, kernel, data + after)


@each_kernel
def test_one_wide_character_anywhere_widens_the_text(native: ModuleType, kernel: str) -> None:
    for wide in "\x7f\x80ÿĀ\uffff\U00010000":
        for length in range(140):
            data = ("a" * length + wide + "b" * 70).encode()
            assert_decodes_as_cpython(native, kernel, data)


@each_kernel
@pytest.mark.parametrize("kind", KINDS)
def test_a_large_text_decodes_at_any_alignment(native: ModuleType, kernel: str, kind: str) -> None:
    data = (KINDS[kind] * 1000).encode()
    for start in range(17):
        view = memoryview(bytearray(start) + data)[start:]
        assert native.decode_utf8_with(kernel, view) == data.decode()
