"""Any bytes, cut anywhere, into a decoder: what comes out does not depend on the cuts.

Byte 0 holds the decoder's options, bytes 1 and 2 where the stream is cut; the rest is the stream.
In the build for libFuzzer, ``_cuts.pyx`` decodes every input in two ways. The twin in Python and
the reference of the tests are slower by far, so that only few inputs are compared with them; all
are when the corpus is replayed.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from fastws._pure import codec as twin
from tests.fastws import reference
from tests.fastws.reference import BINARY, CLOSE, CONT, PING, PONG, TEXT

from . import MAX_CUTS, picked, pieces
from ._chosen import codec

try:
    decode_cut: Any = importlib.import_module("fuzz.targets._cuts").decode
except ModuleNotFoundError:  # an ordinary build
    decode_cut = None

# No more than needed for each form of a length: AddressSanitizer makes large objects slow.
SIZES = (5_000, 10, 300, 66_000)
FRAGMENTS = (4096, 3, 1, None)

CLIENT = 0x01
DIRECT = 0x20  # payload is put where the poller would read it to

KINDS = {TEXT: str, BINARY: bytes, CLOSE: bytes, PING: bytes, PONG: bytes}

Event = tuple[int, str | bytes]
Fault = tuple[int, str] | None


def run(data: bytes, *, thorough: bool = False) -> None:
    if len(data) < 4:
        return
    options, first, step = data[:3]
    stream = data[3:]
    settings = {
        "client": bool(options & CLIENT),
        "max_size": SIZES[options >> 1 & 3],
        "max_fragments": FRAGMENTS[options >> 3 & 3],
    }
    if decode_cut is not None:
        direct = bool(options & DIRECT)
        outcome = decode_cut(stream, first, step, MAX_CUTS, direct, settings)
        assert outcome == decode_cut(stream, 255, 0, 0, False, settings), "it depends on the cuts"
    if thorough or picked(data):
        parts = pieces(stream, first, step)
        steps, fault = decode(codec, parts, settings)
        events = [event for step in steps for event in step]
        assert decode(codec, [stream], settings) == ([events], fault), "it depends on the cuts"
        unlimited = settings | {"max_size": None}
        assert decode(codec, parts, unlimited) == decode(twin, parts, unlimited)
        come_back(events, settings)
        assert decode(twin, parts, settings) == (steps, fault), "the twin differs"
        follow_the_reference(parts, steps, fault, settings)


def decode(
    module: ModuleType, parts: Sequence[bytes], settings: dict[str, Any]
) -> tuple[list[list[Event]], Fault]:
    """The events of each part, and the fault."""
    decoder = module.Decoder(**settings)
    steps = []
    for part in parts:
        over = decoder.closed or decoder.error is not None
        events = decoder.feed(part)
        assert not (over and events), "something came after the end"
        steps.append(events)
        for opcode, payload in events:
            assert type(payload) is KINDS[opcode]
    error = decoder.error
    return steps, error and (error.code, error.message)


def come_back(events: list[Event], settings: dict[str, Any]) -> None:
    """What was received can be sent on, and is the same at the other end."""
    key = None if settings["client"] else b"\x01\x80\xff\x00"
    decoder = codec.Decoder(client=settings["client"], max_size=None)
    for opcode, payload in events:
        data = payload.encode() if isinstance(payload, str) else payload
        if opcode == CLOSE and data:
            assert codec.encode_close(*codec.parse_close(data)) == data
        frame = codec.encode_frame(opcode, data, mask_key=key)
        assert decoder.feed(frame) == [(opcode, payload)]


def follow_the_reference(
    parts: list[bytes], steps: list[list[Event]], fault: Fault, settings: dict[str, Any]
) -> None:
    expected, broken = reference.decode(b"".join(parts), **settings)
    assert fault == (None if broken is None else (broken.code, broken.text))
    fed = 0
    events: list[Event] = []
    for part, step in zip(parts, steps, strict=True):
        fed += len(part)
        events += step
        assert events == [(e.opcode, e.payload) for e in expected if e.end <= fed]


def seeds() -> Iterator[bytes]:
    text = "naïve 日本語 😀 " * 9
    frames = [
        (TEXT, b"hello", True),
        (TEXT, text.encode(), True),
        (BINARY, bytes(range(256)) * 2, True),
        (PING, b"ping", True),
        (TEXT, text.encode()[:11], False),
        (PONG, b"", True),
        (CONT, text.encode()[11:], True),
        (BINARY, b"", False),
        (CONT, bytes(126), False),
        (CONT, b"", True),
        (CLOSE, b"\x03\xe8bye", True),
    ]
    for client in (False, True):
        key = None if client else bytes(4)
        encoded = [reference.frame(op, data, fin=fin, key=key) for op, data, fin in frames]
        for first, step in ((3, 0), (1, 1), (0, 7), (70, 64)):
            yield bytes((client, first, step)) + b"".join(encoded)
        for part in encoded:
            yield bytes((client, 4, 3)) + part
