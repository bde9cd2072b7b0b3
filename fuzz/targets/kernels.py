"""Any bytes at any address, into every kernel of this processor: beside Python's own UTF-8 and XOR.

``kernels.c`` also takes them for a message to compress, and for one to decompress.

Byte 0 is the offset of the data in its buffer, bytes 1 to 4 the mask key; the rest is the data.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from fastws._impl import COMPILED

from ._chosen import codec

KERNELS = codec.available_kernels() if COMPILED else []


def run(data: bytes, *, thorough: bool = False) -> None:
    if len(data) < 5:
        return
    offset, key = data[0] & 63, data[1:5]
    view = memoryview(bytes(offset) + data[5:])[offset:]
    try:
        text: str | None = str(view, "utf-8")
    except UnicodeDecodeError:
        text = None
    masked = xor(data[5:], key[offset & 3 :] + key[: offset & 3])
    assert codec.mask(view, key, offset) == masked
    for kernel in KERNELS:
        assert decoded(kernel, view) == text, kernel
        assert codec.validate_utf8_with(kernel, view) is (text is not None), kernel
        assert codec.mask_with(kernel, view, key, offset) == masked, kernel
    validate_in_steps(view, text, data[1])
    decode_masked(view, key, text)


def xor(data: bytes, key: bytes) -> bytes:
    keys = (key * (len(data) // 4 + 1))[: len(data)]
    mixed = int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")
    return mixed.to_bytes(len(data), "little")


def decoded(kernel: str, view: memoryview) -> str | None:
    try:
        text: str = codec.decode_utf8_with(kernel, view)
    except UnicodeDecodeError:
        return None
    return text


def validate_in_steps(view: memoryview, text: str | None, step: int) -> None:
    validator = codec.Utf8Validator()
    step = step or 1
    valid = True
    for at in range(0, len(view), step):
        valid = validator.feed(view[at : at + step])
    assert (valid and validator.finish()) is (text is not None)


def decode_masked(view: memoryview, key: bytes, text: str | None) -> None:
    """Unmasked, checked and decoded in one pass."""
    decoder = codec.Decoder(max_size=None)
    events = decoder.feed(codec.encode_frame(1, view, mask_key=key))
    if text is None:
        assert events == [] and decoder.error.code == 1007
    else:
        assert events == [(1, text)]


def seeds() -> Iterator[bytes]:
    alphabets = ("a", "aé", "é", "日", "日a", "😀", "a😀é日", "\u07ff\u0800\ud7ff\ue000\uffff")
    broken = (b"\x80", b"\xc0\xaf", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0")
    for index, alphabet in enumerate(alphabets):
        for length in (5, 16, 33, 70, 140):
            text = (alphabet * length).encode()[: length * 2]
            yield bytes((index * 7,)) + b"\x37\xfa\x21\x3d" + text
    for bad in broken:
        for before in (0, 15, 31, 63, 64):
            yield bytes(5) + b"a" * before + bad + b"b" * 20
    # What kernels.c takes for compressed messages as well.
    for kind in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY):
        for level in (0, 6):
            stream = zlib.compressobj(level, wbits=-15, strategy=kind)
            payload = stream.compress(bytes(range(9)) * 8 + b"abcdefghij" * 8)
            yield b"\x30" + bytes(4) + payload + stream.flush(zlib.Z_SYNC_FLUSH)[:-4]
