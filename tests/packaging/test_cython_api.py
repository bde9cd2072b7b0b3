"""Cython code of others calls the codec through fastws/codec.pxd, with what a wheel installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PURE, extension_exists
from tests.packaging.test_build_modes import ROOT, needs_compiler

pytestmark = [
    needs_compiler,
    pytest.mark.skipif(PURE or not extension_exists(), reason="the library is not compiled"),
]

SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup

names = ("frames", "checks")
extensions = [Extension(name, [name + ".pyx"]) for name in names]
setup(name="other", ext_modules=cythonize(extensions, language_level=3))
"""

CHECKS = """
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from fastws.codec cimport (
    MAX_HEADER_SIZE, FrameHeader, Utf8, is_utf8, mask, parse_header, utf8_feed, utf8_is_whole,
    write_header,
)

def masked(bytes payload, bytes key, uint64_t offset):
    out = bytearray(len(payload))
    cdef uint8_t *target = out
    cdef const uint8_t *source = payload
    cdef const uint8_t *four = key
    cdef size_t size = len(payload)
    with nogil:
        mask(target, source, size, four, offset)
    return bytes(out)

def parsed(bytes data):
    cdef FrameHeader header
    cdef const uint8_t *start = data
    cdef size_t length = len(data)
    cdef Py_ssize_t size
    memset(&header, 0, sizeof(header))
    with nogil:
        size = parse_header(start, length, &header)
    if size <= 0:
        return size
    key = bytes(header.key[index] for index in range(4)) if header.masked else None
    return size, header.fin, header.reserved, header.opcode, header.length, key

def written(int fin, int reserved, int opcode, uint64_t length, bytes key):
    cdef FrameHeader header
    cdef uint8_t out[MAX_HEADER_SIZE]
    cdef Py_ssize_t size
    header.fin, header.reserved, header.opcode, header.length = fin, reserved, opcode, length
    header.masked = key is not None
    if header.masked:
        for index in range(4):
            header.key[index] = key[index]
    with nogil:
        size = write_header(out, &header)
    return bytes(out[:size])

def valid(list pieces):
    cdef Utf8 text
    cdef const uint8_t *data
    memset(&text, 0, sizeof(text))
    whole = b"".join(pieces)
    data = whole
    at_once = is_utf8(data, len(whole))
    for piece in pieces:
        data = piece
        if not utf8_feed(&text, data, len(piece)):
            assert not at_once
            return False
    assert at_once == utf8_is_whole(&text)
    return at_once
"""

RUN = """
import itertools

import checks
import frames
from fastws import _codec

key = b"\\x01\\x80\\xff\\x7e"
payload = bytes(range(256)) * 5
for size, offset in itertools.product((0, 1, 3, 4, 63, 64, 65, 1000), (0, 1, 2, 3, 7, 2**32 + 1)):
    turned = key[offset % 4:] + key[:offset % 4]
    expected = bytes(byte ^ turned[i % 4] for i, byte in enumerate(payload[:size]))
    assert checks.masked(payload[:size], key, offset) == expected

for length in (0, 125, 126, 65535, 65536, 2**63 - 1):
    every = itertools.product((0, 1), (0, 0x40), (0, 1, 2), (None, key))
    for fin, reserved, opcode, mask_key in every:
        head = checks.written(fin, reserved, opcode, length, mask_key)
        assert checks.parsed(head) == (len(head), fin, reserved, opcode, length, mask_key)
        for cut in range(len(head)):
            assert checks.parsed(head[:cut]) == 0
assert checks.written(1, 0, 2, 1000, None) == _codec.encode_frame(2, bytes(1000))[:4]

for broken in (
    b"\\x83\\x00",  # reserved opcode
    b"\\x09\\x00",  # fragmented ping
    b"\\x89\\x7e\\x00\\x7e",  # long ping
    b"\\x82\\x7e\\x00\\x7d",  # length not in its shortest form
    b"\\x82\\x7f" + (65535).to_bytes(8, "big"),
    b"\\x82\\x7f" + (1 << 63).to_bytes(8, "big"),
):
    assert checks.parsed(broken) == -1, broken

text = "a\\u0175\\u221e\\U0001f389".encode()
for cut in range(len(text) + 1):
    assert checks.valid([text[:cut], b"", text[cut:]])
assert not checks.valid([text[:-1]])
assert not checks.valid([b"\\xed\\xa0\\x80"])
assert not checks.valid([b"\\xc0\\xaf"])

frame = bytearray(_codec.encode_frame(1, b"hello", mask_key=key))
assert frames.unmask(frame) == (b"hello", True)
for wrong in (bytearray(), frame[:-1], bytearray(_codec.encode_frame(1, b"from a server"))):
    try:
        frames.unmask(wrong)
    except ValueError:
        pass
    else:
        raise AssertionError(wrong)
print("all well")
"""


def installed(target: Path) -> None:
    """The library as a wheel installs it: without sources and headers, but with .pxd files."""
    shutil.copytree(
        ROOT / "fastws",
        target / "fastws",
        ignore=shutil.ignore_patterns("*.pyx", "*.c", "kernels", "__pycache__"),
    )


def example() -> str:
    """The program in docs/library.md."""
    page = (ROOT / "docs" / "library.md").read_text()
    [found] = re.findall(r"```cython\n(.*?)```", page, flags=re.DOTALL)
    program: str = found
    return program


def test_a_module_compiled_against_the_installed_package_calls_the_codec(tmp_path: Path) -> None:
    installed(tmp_path / "site")
    (tmp_path / "setup.py").write_text(SETUP)
    (tmp_path / "frames.pyx").write_text(example())
    (tmp_path / "checks.pyx").write_text(CHECKS)
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    for command in (["setup.py", "build_ext", "--inplace"], ["-c", RUN]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "all well\n"
