"""Compressed messages, right and wrong: inflated whole, in fragments and in pieces of a read.

Byte 0 holds what was agreed on and the limit, bytes 1 and 2 where a message is cut; the rest is
what the peer sends: as it stands, or (SQUEEZE) the text that it compresses.
"""

from __future__ import annotations

import importlib
import importlib.util
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from fastws._pure import codec as twin
from fastws.deflate import Agreement, Deflate, Deflater, Inflater, Parameters, parse_extensions
from fastws.exceptions import InvalidHandshake, ProtocolError
from tests.fastws import reference
from tests.fastws.reference import BINARY, CONT, TEXT

from . import picked, pieces
from ._chosen import codec

RSV1 = 4  # as `reserved` of a frame
TAIL = b"\x00\x00\xff\xff"
FINAL = b"\x03\x00"  # an empty last block

ALONE = 0x01  # no context takeover by the peer
SMALL_WINDOW = 0x02
IS_TEXT = 0x10
SQUEEZE = 0x20
STORED = 0x40  # at level 0
ROOMS = (100_000, 10, 300, 5_000)

SETTINGS = Deflate(package="zlib")
AGREEMENTS = [
    Agreement(
        SETTINGS,
        Parameters(client_no_context_takeover=alone, client_max_window_bits=bits),
        client=False,
        shared={},
    )
    for bits in (0, 9)
    for alone in (False, True)
]
OWN = [
    Agreement(Deflate(), Parameters(True, True, bits), client=False, shared={}) for bits in (9, 15)
]
PACKAGES = [
    importlib.import_module(name)
    for name in ("zlib", "zlib_ng.zlib_ng")
    if importlib.util.find_spec(name.partition(".")[0])
]

Outcome = tuple[list[Any], int | None]


def run(data: bytes, *, thorough: bool = False) -> None:
    if len(data) < 4:
        return
    options, first, step = data[:3]
    plain = payload = data[3:]
    if options & SQUEEZE:
        bits = 9 if options & SMALL_WINDOW else 15
        payload = squeeze(plain, bits, 0 if options & STORED else 6)
    else:
        # What refers back beyond the window is found, or not, by how much of it came at once.
        options &= ~SMALL_WINDOW
    opcode = TEXT if options & IS_TEXT else BINARY
    room = ROOMS[options >> 2 & 3]
    agreement = AGREEMENTS[options & 3]
    parts = pieces(payload, first, step)
    whole = frames(opcode, [payload]) * 2  # the second time it may refer to the first
    outcome = decode(codec, [whole], agreement, room)
    check(outcome, plain if options & SQUEEZE else None, opcode, room)
    same(decode(codec, [frames(opcode, parts) * 2], agreement, room), outcome)
    same(decode(codec, pieces(whole, first, step), agreement, room), outcome)
    if thorough or picked(data):
        same(decode(twin, pieces(whole, first, step), agreement, room), outcome)
        for package in PACKAGES:
            inflate(package, parts, options, room)
        come_back(plain)
        negotiate(data[3:].decode("latin-1"))


def squeeze(data: bytes, bits: int, level: int) -> bytes:
    stream = zlib.compressobj(level, wbits=-bits)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def frames(opcode: int, parts: list[bytes]) -> bytes:
    """A compressed message in fragments, not masked."""
    last = len(parts) - 1
    return b"".join(
        reference.frame(
            CONT if index else opcode,
            part,
            key=None,
            fin=index == last,
            reserved=0 if index else RSV1,
        )
        for index, part in enumerate(parts)
    )


def decode(module: ModuleType, parts: list[bytes], agreement: Agreement, room: int) -> Outcome:
    decoder = module.Decoder(client=True, max_size=room, deflate=agreement)
    events = [event for part in parts for event in decoder.feed(part)]
    assert decoder.feed(b"") == []
    return events, None if decoder.error is None else decoder.error.code


def check(outcome: Outcome, plain: bytes | None, opcode: int, room: int) -> None:
    events, fault = outcome
    for kind, payload in events:
        assert kind == opcode and type(payload) is (str if kind == TEXT else bytes)
        size = len(payload.encode() if isinstance(payload, str) else payload)
        assert size <= room, "more than the limit"
    assert fault in (None, 1007, 1009)
    if plain is None or len(plain) > room:
        return
    if opcode == TEXT:
        try:
            expected: Any = plain.decode()
        except UnicodeDecodeError:
            assert events == [] and fault == 1007
            return
    else:
        expected = plain
    # A compressed form longer than the limit is refused by its length.
    assert fault == 1009 or events == [(opcode, expected)] * 2


def same(outcome: Outcome, other: Outcome) -> None:
    """Of several faults either may be found first."""
    assert outcome[0] == other[0], "it depends on the cuts"
    assert (outcome[1] is None) == (other[1] is None), "it depends on the cuts"


def inflate(package: Any, parts: list[bytes], options: int, room: int) -> None:
    """Against zlib alone: the same bytes, and never more than there is room for."""
    kept = not options & ALONE
    inflater = Inflater(package, 15, context=kept)
    out = b""
    try:
        for index, part in enumerate(parts):
            piece = inflater.inflate(part, room - len(out), index == len(parts) - 1)
            assert len(piece) <= room - len(out)
            out += piece
    except ProtocolError as error:
        assert error.code in (1007, 1009)
        return
    stream = zlib.decompressobj(-15)
    whole = b"".join(parts)
    expected = stream.decompress(whole)
    assert out.startswith(expected)
    if not stream.eof and whole:
        # Nothing of what we look for its end by is taken for content.
        assert out == expected
        assert not stream.decompress(TAIL + FINAL)


def come_back(plain: bytes) -> None:
    """What any of our compressors makes is inflated to what it was."""
    key = SETTINGS.deflater_key(15)
    for name in ("zlib", "zlib-ng", "isal"):
        try:
            package = Deflate(package=name).package
        except ImportError:
            continue
        for context in (False, True):
            deflater = Deflater(key._replace(package=package), context=context)
            inflater = Inflater(zlib, 15, context=context)
            for _ in range(2):
                payload = deflater.compress(plain)
                assert inflater.inflate(payload, len(plain), True) == plain
    for agreement in OWN:
        assert agreement.deflater is not None
        payload = agreement.deflater.compress(plain)
        assert Inflater(zlib, 15, context=False).inflate(payload, len(plain), True) == plain
        assert agreement.inflate(payload, len(plain)) == plain


def negotiate(offers: str) -> None:
    try:
        agreed = SETTINGS.accept(parse_extensions(offers))
    except InvalidHandshake:
        return
    if agreed is not None:
        assert SETTINGS.accept(parse_extensions(str(agreed))) is not None


def seeds() -> Iterator[bytes]:
    plain = "naïve 日本語 😀 ".encode() * 9
    bomb = zlib.compressobj(9, wbits=-15)
    for options in range(0, 128, 5):
        yield bytes((options | SQUEEZE, 9, 5)) + plain
        yield bytes((options & ~SQUEEZE, 0, 0)) + squeeze(plain, 15, 6)
    yield bytes((0x08, 1, 3)) + bomb.compress(bytes(200_000)) + bomb.flush(zlib.Z_SYNC_FLUSH)[:-4]
    # A last block, and an empty one behind it (RFC 7692 7.2.3.4).
    last = zlib.compressobj(wbits=-15)
    yield bytes((0x01, 3, 1)) + last.compress(plain) + last.flush() + b"\x00"
    yield bytes((0x01, 3, 1)) + b"\x03\x00" * 3 + b"\x00"
    yield bytes((0, 0, 0)) + b"\x00"
    yield bytes((0, 0, 0)) + b"permessage-deflate; client_max_window_bits; server_max_window_bits=9"
