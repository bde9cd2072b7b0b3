"""permessage-deflate (RFC 7692): negotiation, streams, and compressed messages on a connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

import fastws
from fastws import _messages
from fastws.deflate import (
    Agreement,
    Deflate,
    Deflater,
    Inflater,
    Parameters,
    _package,
    as_deflate,
    parse_extensions,
)
from fastws.exceptions import InvalidHeader, NegotiationError, ProtocolError
from tests.fastws import reference
from tests.fastws.client import Echo, Held, Peer, echo, frame, head, serve, turns, until, url
from tests.fastws.raw_server import ServerPeer, raw_server, switching
from tests.fastws.reference import BINARY, CONT, KEY, PING, TEXT

RSV1 = 4  # as `reserved` of a frame: the highest of the three bits
TAIL = b"\x00\x00\xff\xff"
LIMIT = 100_000


def squeeze(data: bytes, *, stream: Any = None, bits: int = 15) -> bytes:
    """A message compressed by zlib itself (RFC 7692 7.2.1)."""
    stream = stream or zlib.compressobj(wbits=-bits)
    out: bytes = stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)
    assert out.endswith(TAIL)
    return out[:-4]


def expand(payload: bytes, *, stream: Any = None) -> bytes:
    stream = stream or zlib.decompressobj(wbits=-15)
    out: bytes = stream.decompress(payload + TAIL)
    return out


def documents(count: int, size: int) -> list[bytes]:
    """JSON texts that resemble each other."""
    draw = random.Random(size)
    made = []
    for number in range(count):
        rows: list[dict[str, Any]] = []
        while len(json.dumps(rows)) < size:
            user = f"user {number}"
            rows.append({"id": draw.randrange(10**6), "user": user, "naïve": "日本語 😀"})
        made.append(json.dumps(rows, ensure_ascii=False).encode())
    return made


# --- the header


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("permessage-deflate", [("permessage-deflate", [])]),
        (
            "permessage-deflate; client_max_window_bits",
            [("permessage-deflate", [("client_max_window_bits", None)])],
        ),
        (
            'a ; x = "1";y=2 , , b',
            [("a", [("x", "1"), ("y", "2")]), ("b", [])],
        ),
        ("", []),
    ],
)
def test_extensions_are_parsed(value: str, found: list[Any]) -> None:
    assert parse_extensions(value) == found


@pytest.mark.parametrize(
    "value",
    ["a b", "a;", "a; =1", "a; x=", 'a; x="', 'a; x="1 2"', 'a; x=""', "a; x=1 2", ";", "a=1", "ä"],
)
def test_a_malformed_extension_header_is_refused(value: str) -> None:
    with pytest.raises(InvalidHeader, match="Sec-WebSocket-Extensions"):
        parse_extensions(value)


# --- negotiation


@pytest.mark.parametrize(
    ("settings", "offers", "answer"),
    [
        # Without takeover unless told otherwise: a connection costs no memory then.
        ({}, "", "server_no_context_takeover; client_no_context_takeover"),
        ({"server_no_context_takeover": False}, "", "client_no_context_takeover"),
        (
            {"server_no_context_takeover": False, "client_no_context_takeover": False},
            "",
            "",
        ),
        # Both can be asked for.
        (
            {"server_no_context_takeover": False, "client_no_context_takeover": False},
            "server_no_context_takeover; client_no_context_takeover",
            "server_no_context_takeover; client_no_context_takeover",
        ),
        # The smaller window is taken, and said if it was mentioned.
        ({}, "server_max_window_bits=15", "{}; server_max_window_bits=15"),
        ({}, "server_max_window_bits=9", "{}; server_max_window_bits=9"),
        ({"server_max_window_bits": 12}, "", "{}; server_max_window_bits=12"),
        (
            {"server_max_window_bits": 12},
            "server_max_window_bits=14",
            "{}; server_max_window_bits=12",
        ),
        (
            {"server_max_window_bits": 12},
            "server_max_window_bits=10",
            "{}; server_max_window_bits=10",
        ),
        # A client's window is limited only where it says that it can be.
        ({"client_max_window_bits": 11}, "", "{}"),
        ({"client_max_window_bits": 11}, "client_max_window_bits", "{}; client_max_window_bits=11"),
        (
            {"client_max_window_bits": 11},
            "client_max_window_bits=9",
            "{}; client_max_window_bits=9",
        ),
        ({}, "client_max_window_bits=8", "{}; client_max_window_bits=8"),
        ({}, "client_max_window_bits", "{}"),
    ],
)
def test_a_server_answers_what_was_offered(
    settings: dict[str, Any], offers: str, answer: str
) -> None:
    deflate = Deflate(**settings)
    parsed = parse_extensions("permessage-deflate" + ("; " + offers if offers else ""))
    expected = answer.format("server_no_context_takeover; client_no_context_takeover")
    assert str(deflate.accept(parsed)) == "; ".join(filter(None, ["permessage-deflate", expected]))


@pytest.mark.parametrize(
    "bad",
    [
        "server_no_context_takeover=1",
        "client_no_context_takeover=x",
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=09",
        "server_max_window_bits=8",  # legal, but zlib has no such window
        "client_max_window_bits=7",
        "client_max_window_bits=x",
        "unknown",
        "unknown=1",
        "client_max_window_bits; client_max_window_bits",
        "server_no_context_takeover; server_no_context_takeover",
    ],
)
def test_an_offer_that_cannot_be_met_is_passed_over(bad: str) -> None:
    deflate = Deflate()
    assert deflate.accept(parse_extensions(f"permessage-deflate; {bad}")) is None
    both = parse_extensions(f"other, permessage-deflate; {bad}, permessage-deflate")
    assert deflate.accept(both) is not None


@pytest.mark.parametrize(
    ("settings", "offer"),
    [
        ({}, "client_max_window_bits"),
        (
            {"server_no_context_takeover": True, "client_no_context_takeover": True},
            "server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
        ),
        (
            {"server_max_window_bits": 10, "client_max_window_bits": 11},
            "server_max_window_bits=10; client_max_window_bits=11",
        ),
    ],
)
def test_a_client_offers_what_it_wants(settings: dict[str, Any], offer: str) -> None:
    assert str(Deflate(**settings).offer()) == f"permessage-deflate; {offer}"


@pytest.mark.parametrize(
    ("settings", "answer", "agreed"),
    [
        ({}, "", Parameters(False, False, 0, 15)),
        ({}, "server_no_context_takeover", Parameters(True, False, 0, 15)),
        ({}, "client_no_context_takeover", Parameters(False, True, 0, 15)),
        ({"client_no_context_takeover": True}, "", Parameters(False, True, 0, 15)),
        ({}, "server_max_window_bits=10", Parameters(False, False, 10, 15)),
        ({}, "client_max_window_bits=9", Parameters(False, False, 0, 9)),
        (
            {"client_max_window_bits": 10},
            "client_max_window_bits=12",
            Parameters(False, False, 0, 10),
        ),
        (
            {"server_max_window_bits": 12},
            "server_max_window_bits=11",
            Parameters(False, False, 11, 15),
        ),
    ],
)
def test_a_client_holds_to_the_answer(
    settings: dict[str, Any], answer: str, agreed: Parameters
) -> None:
    parsed = parse_extensions("permessage-deflate" + ("; " + answer if answer else ""))
    assert Deflate(**settings).agree(parsed) == agreed


def test_without_an_answer_nothing_is_compressed() -> None:
    assert Deflate().agree([]) is None


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({}, "other"),
        ({}, "permessage-deflate, permessage-deflate"),
        ({}, "permessage-deflate; unknown"),
        ({}, "permessage-deflate; server_max_window_bits=16"),
        ({}, "permessage-deflate; server_max_window_bits"),
        ({}, "permessage-deflate; client_max_window_bits"),
        ({}, "permessage-deflate; server_no_context_takeover=1"),
        ({"server_no_context_takeover": True}, "permessage-deflate"),
        ({"server_max_window_bits": 12}, "permessage-deflate"),
        ({"server_max_window_bits": 12}, "permessage-deflate; server_max_window_bits=13"),
    ],
)
def test_an_answer_to_something_else_is_an_error(settings: dict[str, Any], answer: str) -> None:
    with pytest.raises(NegotiationError):
        Deflate(**settings).agree(parse_extensions(answer))


@pytest.mark.parametrize(
    "settings",
    [
        {"level": 10},
        {"level": -1},
        {"memory_level": 0},
        {"memory_level": 10},
        {"server_max_window_bits": 8},
        {"client_max_window_bits": 16},
        {"threshold": -1},
        {"package": "brotli"},
        {"level": 9, "package": "isal"},
        {"level": 2, "package": "fastws"},
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Deflate(**settings)


def test_the_argument_compression_takes_three_forms() -> None:
    own = Deflate()
    assert as_deflate(None) is None
    assert as_deflate(own) is own
    assert isinstance(as_deflate("deflate"), Deflate)
    with pytest.raises(ValueError, match="gzip"):
        as_deflate("gzip")


# --- streams: the same on each package


@pytest.fixture(params=["zlib", "zlib-ng", "isal"])
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The package that compresses; it decompresses as well, if it can."""
    name = str(request.param)
    if name != "zlib":
        pytest.importorskip({"zlib-ng": "zlib_ng", "isal": "isal"}[name])
    inflating = _package("zlib" if name == "isal" else name)
    monkeypatch.setattr("fastws.deflate._inflating_package", lambda: inflating)
    return name


def agree(*, alone: bool, client: bool = False, **settings: Any) -> Agreement:
    deflate = Deflate(**settings)
    return Agreement(deflate, Parameters(alone, alone), client=client, shared={})


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("context", [True, False], ids=["takeover", "alone"])
def test_zlib_reads_what_is_compressed(package: str, context: bool, bits: int) -> None:
    key = Deflate(package=package).deflater_key(bits)
    deflater = Deflater(key, context=context)
    stream = zlib.decompressobj(wbits=-bits)
    for data in [*documents(20, 3000), b"x", random.Random(1).randbytes(5000), b"y" * 100_000]:
        payload = deflater.compress(data)
        assert expand(payload, stream=stream) == data
        if not context:
            assert expand(payload) == data


def test_takeover_makes_similar_messages_smaller(package: str) -> None:
    key = Deflate(package=package).deflater_key(15)
    with_context, alone = Deflater(key, context=True), Deflater(key, context=False)
    sizes = [(len(with_context.compress(d)), len(alone.compress(d))) for d in documents(5, 400)]
    assert all(small < large for small, large in sizes[1:])


@pytest.mark.parametrize("level", range(10))
def test_each_level_works(level: int) -> None:
    for data in documents(3, 2000):
        for alone in (True, False):
            agreement = agree(alone=alone, level=level)
            assert agreement.deflater is not None
            assert expand(agreement.deflater.compress(data)) == data
            assert expand(agreement.new_deflater().compress(data)) == data


@pytest.mark.parametrize("pieces", [1, 2, 50])
@pytest.mark.parametrize("context", [True, False], ids=["takeover", "alone"])
def test_what_zlib_compressed_is_read(package: str, context: bool, pieces: int) -> None:
    agreement = agree(alone=not context, package=package)
    inflater: Inflater | None = None
    stream = zlib.compressobj(wbits=-15)
    for data in documents(10, 3000):
        payload = squeeze(data, stream=stream if context else None)
        if inflater is None or not context:
            inflater = agreement.new_inflater()
        step = -(-len(payload) // pieces)
        out = b"".join(
            inflater.inflate(payload[at : at + step], LIMIT, at + step >= len(payload))
            for at in range(0, len(payload), step)
        )
        assert out == data


@pytest.mark.parametrize("context", [True, False], ids=["takeover", "alone"])
@pytest.mark.parametrize(
    "payload",
    [
        b"\x00",  # an empty stored block
        b"\x02\x00",  # an empty block of fixed codes, then the stored one
        b"",  # what some senders make of it
    ],
)
def test_an_empty_message_can_be_written_in_several_ways(
    package: str, context: bool, payload: bytes
) -> None:
    inflater = agree(alone=not context, package=package).new_inflater()
    assert inflater.inflate(payload, LIMIT, True) == b""


@pytest.mark.parametrize("context", [True, False], ids=["takeover", "alone"])
def test_the_examples_of_rfc_7692_are_read(package: str, context: bool) -> None:
    inflater = agree(alone=not context, package=package).new_inflater

    def read(*payloads: str) -> list[bytes]:
        one = inflater()
        return [one.inflate(bytes.fromhex(payload), LIMIT, True) for payload in payloads]

    assert read("f248cdc9c90700") == [b"Hello"]  # 7.2.3.1: one block
    if context:
        assert read("f248cdc9c90700", "f200110000") == [b"Hello", b"Hello"]  # 7.2.3.2: sliding
    assert read("000500faff48656c6c6f00") == [b"Hello"]  # 7.2.3.3: not compressed
    assert read("f348cdc9c9070000") == [b"Hello"]  # 7.2.3.4: BFINAL set
    assert read("f248050000 00ffffcac9c90700".replace(" ", "")) == [b"Hello"]  # 7.2.3.5: two blocks


@pytest.mark.parametrize("context", [True, False], ids=["takeover", "alone"])
@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xff\xff",  # no type of block
        b"hello",
        squeeze(b"Hello, Hello, Hello!")[:-3],  # ends inside a block
        b"\x00\x05\x00\xfa\xffHel",  # ends inside a stored block
        b"\xf3\x48\xcd\xc9\xc9\x07\x00",  # BFINAL, and nothing to begin the next block
        # Blocks that are left open, and would take as their content what is put behind the message.
        b"\x00\x04\x00\xfb\xff",
        b"\x00\x05\x00\xfa\xffH",
        b"\x01\x06\x00\xf9\xff",
        b"\x01\x07\x00\xf8\xffH",
    ],
)
def test_what_is_no_stream_is_refused(package: str, context: bool, payload: bytes) -> None:
    inflater = agree(alone=not context, package=package).new_inflater()
    with pytest.raises(ProtocolError) as caught:
        inflater.inflate(payload, LIMIT, True)
    assert caught.value.code == 1007


def finished(*parts: bytes) -> bytes:
    """A message each part of which ends its stream, which RFC 7692 7.2.3.4 allows."""
    payload = b""
    for part in parts:
        stream = zlib.compressobj(wbits=-15)
        payload += stream.compress(part) + stream.flush()
    return payload + b"\x00"


@pytest.mark.parametrize("context", [True, False], ids=["takeover", "alone"])
def test_a_message_may_be_of_many_streams_but_not_of_nothing_else(
    package: str, context: bool
) -> None:
    new = agree(alone=not context, package=package).new_inflater
    parts = [f"{number} {'x' * 70}".encode() for number in range(1000)]
    assert new().inflate(finished(*parts), LIMIT, True) == b"".join(parts)
    with pytest.raises(ProtocolError) as caught:
        new().inflate(b"\x03\x00" * 100_000, LIMIT, True)
    assert caught.value.code == 1009


@pytest.mark.parametrize("cuts", [1, 7, 10**9])
@pytest.mark.parametrize("context", [True, False], ids=["takeover", "alone"])
def test_a_stream_may_refer_to_those_before_it(package: str, context: bool, cuts: int) -> None:
    # The window is of what came out (RFC 7692 7.1.1); only the sender's stream ends with BFINAL.
    inflater = agree(alone=not context, package=package).new_inflater()
    noise = random.Random(7).randbytes(40_000)
    history = b""

    def last_block(data: bytes) -> bytes:
        stream = (
            zlib.compressobj(wbits=-15, zdict=history[-32768:])
            if history
            else zlib.compressobj(wbits=-15)
        )
        return stream.compress(data) + stream.flush()

    for parts in ((noise[:300], noise[:200]), (noise[:1000],), (noise, noise[20_000:])):
        payload = b""
        for part in parts:
            payload += last_block(part)
            history += part
        assert len(payload) < len(b"".join(parts)) or len(parts) == 1
        payload += b"\x00"
        out = b"".join(
            inflater.inflate(payload[at : at + cuts], LIMIT, at + cuts >= len(payload))
            for at in range(0, len(payload), cuts)
        )
        assert out == b"".join(parts)
        if not context:
            history = b""


def test_a_stream_that_never_ends_is_not_remembered_twice(package: str) -> None:
    inflater = agree(alone=False, package=package).new_inflater()
    inflater.inflate(squeeze(b"x" * 1000), LIMIT, True)
    assert inflater._history is None


def test_a_message_that_failed_leaves_nothing_in_the_stream_that_others_share(
    package: str,
) -> None:
    deflater = Deflater(Deflate(package=package).deflater_key(15), context=False)

    class Interrupted(BaseException):
        pass

    def interrupt(mode: int) -> bytes:
        raise Interrupted

    deflater._flush = interrupt
    with pytest.raises(Interrupted):
        deflater.compress(b"a secret of somebody else")
    assert expand(deflater.compress(b"mine")) == b"mine"


def test_a_deflater_can_forget_what_it_has_seen(package: str) -> None:
    deflater = Deflater(Deflate(package=package).deflater_key(15), context=True)
    for document in documents(10, 800):
        deflater.compress(document)
        deflater.forget()
        assert expand(deflater.compress(document)) == document


@pytest.mark.parametrize("context", [True, False], ids=["takeover", "alone"])
def test_a_message_may_have_all_of_its_room_and_not_a_byte_more(
    package: str, context: bool
) -> None:
    agreement = agree(alone=not context, package=package)
    payload = squeeze(b"a" * 5000)
    assert len(agreement.new_inflater().inflate(payload, 5000, True)) == 5000
    for room in (4999, 1, 0):
        with pytest.raises(ProtocolError) as caught:
            agreement.new_inflater().inflate(payload, room, True)
        assert caught.value.code == 1009
    assert len(agreement.new_inflater().inflate(payload, sys.maxsize, True)) == 5000


# --- the decoder


@pytest.fixture(params=["server", "client"])
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(codec: ModuleType, side: str) -> Callable[..., Any]:
    """A decoder of that side, without context takeover unless told otherwise."""

    def decoder(*, alone: bool = True, **options: Any) -> Any:
        client = side == "client"
        return codec.Decoder(client=client, deflate=agree(alone=alone, client=client), **options)

    return decoder


@pytest.fixture
def wire(side: str) -> Callable[..., bytes]:
    key = KEY if side == "server" else None
    return lambda opcode, payload=b"", **options: frame(opcode, payload, key=key, **options)


def compressed(
    wire: Callable[..., bytes], opcode: int, payload: bytes, *, fragments: int = 1
) -> bytes:
    """The frames of a message whose payload is compressed already."""
    step = max(1, -(-len(payload) // fragments))
    starts = range(0, max(1, len(payload)), step)
    return b"".join(
        wire(
            CONT if at else opcode,
            payload[at : at + step],
            reserved=0 if at else RSV1,
            fin=at + step >= len(payload),
        )
        for at in starts
    )


@pytest.mark.parametrize("feed", [1, 7, 1000, 10**9])
@pytest.mark.parametrize("fragments", [1, 2, 9])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "takeover"])
def test_compressed_messages_are_decoded_however_they_are_cut(
    make: Callable[..., Any], wire: Callable[..., bytes], alone: bool, fragments: int, feed: int
) -> None:
    stream = None if alone else zlib.compressobj(wbits=-15)
    data, expected = b"", []
    for number, document in enumerate([*documents(3, 900), b"", b"ascii only " * 20]):
        opcode = TEXT if number % 3 else BINARY
        payload = squeeze(document, stream=stream)
        data += compressed(wire, opcode, payload, fragments=fragments)
        data += wire(TEXT, b"as it is") + wire(PING, b"between")
        expected += [
            (opcode, document.decode() if opcode == TEXT else document),
            (TEXT, "as it is"),
            (PING, b"between"),
        ]
    decoder = make(alone=alone)
    events = [e for at in range(0, len(data), feed) for e in decoder.feed(data[at : at + feed])]
    assert decoder.error is None
    assert events == expected


def test_a_control_frame_may_stand_inside_a_compressed_message(
    make: Callable[..., Any], wire: Callable[..., bytes]
) -> None:
    payload = squeeze("naïve 日本語".encode())
    data = wire(TEXT, payload[:5], fin=False, reserved=RSV1) + wire(PING, b"!")
    data += wire(CONT, payload[5:], fin=False) + wire(CONT)
    assert make().feed(data) == [(PING, b"!"), (TEXT, "naïve 日本語")]


@pytest.mark.parametrize("opcode", [CONT, PING, 0xA, 0x8])
def test_only_the_first_frame_of_a_message_may_say_that_it_is_compressed(
    make: Callable[..., Any], wire: Callable[..., bytes], opcode: int
) -> None:
    decoder = make()
    if opcode == CONT:
        decoder.feed(wire(TEXT, b"a", fin=False))
    decoder.feed(wire(opcode, b"", reserved=RSV1))
    assert decoder.error.code == 1002
    assert str(decoder.error) == _messages.reserved_bits(0x40)


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "takeover"])
@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x02\x00"])
def test_an_empty_compressed_message_is_an_empty_message(
    make: Callable[..., Any], wire: Callable[..., bytes], alone: bool, payload: bytes
) -> None:
    decoder = make(alone=alone)
    data = wire(TEXT, payload, reserved=RSV1) + wire(BINARY, b"", reserved=RSV1, fin=False)
    assert decoder.feed(data + wire(CONT, payload)) == [(TEXT, ""), (BINARY, b"")]


@pytest.mark.parametrize("reserved", [1, 2, 3, 5, 6, 7])
def test_the_other_reserved_bits_stay_reserved(
    make: Callable[..., Any], wire: Callable[..., bytes], reserved: int
) -> None:
    decoder = make()
    decoder.feed(wire(TEXT, squeeze(b"a"), reserved=reserved))
    assert decoder.error.code == 1002


@pytest.mark.parametrize("feed", [1, 10**9])
def test_invalid_text_inside_a_compressed_message_is_1007(
    make: Callable[..., Any], wire: Callable[..., bytes], feed: int
) -> None:
    for bad in (b"\xff", "naïve".encode()[:3], b"ok " * 100 + b"\xed\xa0\x80"):
        decoder = make()
        data = compressed(wire, TEXT, squeeze(bad))
        for at in range(0, len(data), feed):
            decoder.feed(data[at : at + feed])
        assert decoder.error.code == 1007
        assert str(decoder.error) == _messages.invalid_text()


def test_a_bad_stream_is_refused_at_its_first_bad_byte_not_at_the_end_of_the_message(
    make: Callable[..., Any], wire: Callable[..., bytes]
) -> None:
    decoder = make()
    data = wire(BINARY, b"\xff" + bytes(1000), reserved=RSV1)
    decoder.feed(data[:-999])
    assert decoder.error.code == 1007
    assert str(decoder.error) == _messages.invalid_deflate()


@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("feed", [100, 10**9])
def test_the_limit_is_on_what_a_message_inflates_to(
    make: Callable[..., Any], wire: Callable[..., bytes], fragments: int, feed: int
) -> None:
    for size, passes in ((LIMIT, True), (LIMIT + 1, False)):
        payload = squeeze(bytes(size))
        data = compressed(wire, BINARY, payload, fragments=fragments)
        decoder = make(max_size=LIMIT)
        events = [e for at in range(0, len(data), feed) for e in decoder.feed(data[at : at + feed])]
        if passes:
            assert decoder.error is None
            assert events == [(BINARY, bytes(size))]
        else:
            assert decoder.error.code == 1009
            assert events == []


def test_a_message_that_fills_the_limit_with_a_fragment_gets_no_byte_more(
    make: Callable[..., Any], wire: Callable[..., bytes]
) -> None:
    # zlib takes a limit of 0 for none at all.
    stream = zlib.compressobj(wbits=-15)
    first = stream.compress(bytes(LIMIT)) + stream.flush(zlib.Z_SYNC_FLUSH)
    rest = stream.compress(bytes(10**7)) + stream.flush(zlib.Z_SYNC_FLUSH)
    decoder = make(max_size=LIMIT)
    assert decoder.feed(wire(BINARY, first, fin=False, reserved=RSV1)) == []
    assert decoder.error is None
    decoder.feed(wire(CONT, rest[:-4]))
    assert decoder.error.code == 1009


def test_a_message_that_does_not_compress_may_be_longer_on_the_wire_than_the_limit(
    make: Callable[..., Any], wire: Callable[..., bytes]
) -> None:
    data = random.Random(2).randbytes(LIMIT)
    payload = squeeze(data)
    assert len(payload) > LIMIT
    assert make(max_size=LIMIT).feed(compressed(wire, BINARY, payload)) == [(BINARY, data)]


def test_a_bomb_costs_no_more_memory_than_the_limit(
    make: Callable[..., Any], wire: Callable[..., bytes]
) -> None:
    bomb = compressed(wire, BINARY, squeeze(bytes(50 * 2**20)))
    decoder = make(max_size=2**20)
    gc.collect()
    tracemalloc.start()
    try:
        decoder.feed(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.error.code == 1009
    assert peak < 3 * 2**20


# --- connections

OFFER = ("Sec-WebSocket-Extensions", "permessage-deflate")

pytest_loop = pytest.mark.usefixtures("loop_kind")


async def test_a_client_that_offers_nothing_gets_nothing_compressed(carrier: str) -> None:
    async with serve(Echo, carrier) as server, await Peer.connect(server) as peer:
        await peer.send(head())
        status, headers, _ = await peer.response()
        assert (status, headers.get("sec-websocket-extensions")) == (101, None)
        await peer.text("a" * 1000)
        assert await peer.message() == "a" * 1000
        await peer.send(frame(TEXT, squeeze(b"a"), reserved=RSV1))
        assert (await peer.close_frame())[0] == 1002


async def test_compression_can_be_switched_off(carrier: str) -> None:
    async with (
        serve(Echo, carrier, compression=None) as server,
        await Peer.connect(server) as peer,
    ):
        await peer.send(head([OFFER]))
        _, headers, _ = await peer.response()
        assert "sec-websocket-extensions" not in headers


async def test_a_malformed_offer_is_refused(carrier: str) -> None:
    async with serve(Echo, carrier) as server, await Peer.connect(server) as peer:
        await peer.send(head([("Sec-WebSocket-Extensions", "permessage-deflate; =")]))
        status, _, body = await peer.response()
        assert status == 400
        assert b"Sec-WebSocket-Extensions" in body


async def test_offers_on_several_lines_are_one_list(carrier: str) -> None:
    lines = [("Sec-WebSocket-Extensions", "permessage-deflate; unknown"), OFFER]
    async with serve(Echo, carrier) as server, await Peer.connect(server) as peer:
        await peer.send(head(lines))
        _, headers, _ = await peer.response()
        assert headers["sec-websocket-extensions"].startswith("permessage-deflate")


async def test_process_response_may_take_the_extension_out(carrier: str) -> None:
    def take_out(ws: Any, request: Any, response: fastws.Response) -> None:
        del response.headers["Sec-WebSocket-Extensions"]

    async with (
        serve(Echo, carrier, process_response=take_out) as server,
        await Peer.connect(server) as peer,
    ):
        await peer.send(head([OFFER]))
        _, headers, _ = await peer.response()
        assert "sec-websocket-extensions" not in headers
        await peer.text("a" * 1000)
        assert await peer.message() == "a" * 1000


@pytest_loop
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "takeover"])
@pytest.mark.parametrize("handler", [Echo, echo], ids=["listener", "coroutine"])
async def test_websockets_and_we_understand_each_other(
    carrier: str, handler: Any, alone: bool
) -> None:
    deflate = Deflate(
        server_no_context_takeover=alone, client_no_context_takeover=alone, threshold=0
    )
    messages: list[str | bytes] = ["", b"", "naïve 日本語 😀", b"\xff\x00" * 300]
    messages += [document.decode() for document in documents(5, 2000)]
    messages += [random.Random(3).randbytes(70_000), "x" * 700_000]
    async with (
        serve(handler, carrier, compression=deflate) as server,
        websockets.connect(url(server)) as ws,
    ):
        assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]  # type: ignore[union-attr]
        for message in messages:
            await ws.send(message)
            assert await ws.recv() == message


@pytest_loop
@pytest.mark.parametrize("bits", [9, 12, 15])
async def test_windows_of_every_size_are_kept_to(carrier: str, bits: int) -> None:
    factory = ClientPerMessageDeflateFactory(
        server_max_window_bits=bits, client_max_window_bits=bits
    )
    deflate = Deflate(server_no_context_takeover=False, client_no_context_takeover=False)
    async with (
        serve(Echo, carrier, compression=deflate) as server,
        websockets.connect(url(server), extensions=[factory]) as ws,
    ):
        for document in documents(10, 5000):
            await ws.send(document)
            assert await ws.recv() == document


async def test_what_is_short_or_does_not_shrink_is_sent_as_it_is(carrier: str) -> None:
    noise = random.Random(4).randbytes(1000)
    async with serve(Held(), carrier) as server, await Peer.open(server, headers=[OFFER]) as peer:
        (ws,) = server.connections
        ws.send("a" * 255)
        ws.send(noise)
        ws.send("a" * 1000, compress=False)
        ws.send(fastws.PreparedMessage(noise))
        ws.send(fastws.PreparedMessage("a" * 255))
        assert [await peer.message() for _ in range(5)] == [
            "a" * 255,
            noise,
            "a" * 1000,
            noise,
            "a" * 255,
        ]


async def test_with_takeover_too_what_does_not_shrink_is_sent_as_it_is(carrier: str) -> None:
    noise = random.Random(4).randbytes(1000)
    deflate = Deflate(server_no_context_takeover=False)
    async with (
        serve(Held(), carrier, compression=deflate) as server,
        await Peer.open(server, headers=[OFFER]) as peer,
    ):
        (ws,) = server.connections
        stream = zlib.decompressobj(wbits=-15)
        for _ in range(3):
            ws.send("a" * 300)
            assert expand(await read_compressed(peer), stream=stream) == b"a" * 300
            ws.send(noise)
            assert await peer.message() == noise


async def read_compressed(peer: Peer) -> bytes:
    first, second = await peer.exactly(2)
    assert first in (0xC1, 0xC2), "FIN, RSV1 and the opcode of a message"
    assert second < 126
    return await peer.exactly(second)


async def test_a_message_can_be_compressed_on_request_below_the_threshold(carrier: str) -> None:
    async with serve(Held(), carrier) as server, await Peer.open(server, headers=[OFFER]) as peer:
        (ws,) = server.connections
        ws.send("a" * 100, compress=True)
        ws.send(fastws.PreparedMessage("b" * 100), compress=True)
        ws.send(bytearray(b"c" * 300))
        ws.send(memoryview(b"d" * 300))
        assert [expand(await read_compressed(peer)) for _ in range(4)] == [
            b"a" * 100,
            b"b" * 100,
            b"c" * 300,
            b"d" * 300,
        ]
        with pytest.raises(TypeError):
            ws.send(1, compress=True)  # type: ignore[arg-type]


async def test_a_broadcast_is_compressed_once(
    carrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    compress = Deflater.compress

    def counted(self: Deflater, data: bytes) -> bytes:
        calls.append(bytes(data))
        return compress(self, data)

    monkeypatch.setattr(Deflater, "compress", counted)
    held = Held()
    async with serve(held, carrier, compression=Deflate(package="zlib")) as server:
        peers = [await Peer.open(server, headers=[OFFER]) for _ in range(3)]
        plain = await Peer.open(server)
        await until(lambda: len(server.connections) == 4)
        fastws.broadcast(server.connections, "a" * 1000)
        for peer in peers:
            assert expand(await read_compressed(peer)) == b"a" * 1000
        assert await plain.message() == "a" * 1000
        assert calls == [b"a" * 1000]
        for peer in [*peers, plain]:
            peer.close()


@pytest_loop
async def test_broadcasts_and_messages_of_ones_own_may_take_turns_with_takeover(
    carrier: str,
) -> None:
    deflate = Deflate(server_no_context_takeover=False, threshold=0)
    held = Held()
    async with (
        serve(held, carrier, compression=deflate) as server,
        websockets.connect(url(server)) as ws,
    ):
        mine = await held.connection()
        for number, document in enumerate(documents(12, 500)):
            if number % 3 == 2:
                fastws.broadcast([mine], document)
            else:
                mine.send(document)
            assert await ws.recv() == document


async def test_a_bad_stream_closes_the_connection_with_1007(carrier: str) -> None:
    async with serve(Echo, carrier) as server, await Peer.open(server, headers=[OFFER]) as peer:
        await peer.send(frame(TEXT, b"\xff\xff", reserved=RSV1))
        assert (await peer.close_frame())[0] == 1007


async def test_a_bomb_closes_the_connection_with_1009_and_hurts_nobody_else(carrier: str) -> None:
    async with (
        serve(Echo, carrier) as server,
        await Peer.open(server, headers=[OFFER]) as bomber,
        await Peer.open(server) as other,
    ):
        await bomber.send(frame(BINARY, squeeze(bytes(200 * 2**20)), reserved=RSV1))
        await other.text("still there")
        assert await other.message() == "still there"
        assert (await bomber.close_frame())[0] == 1009


async def test_without_a_limit_on_messages_they_are_inflated_too(carrier: str) -> None:
    for limit in (None, sys.maxsize, 2**63 - 1, 2**31):
        async with (
            serve(Echo, carrier, max_size=limit) as server,
            await Peer.open(server, headers=[OFFER]) as peer,
        ):
            await peer.send(frame(TEXT, squeeze(b"a" * 1000), reserved=RSV1))
            assert expand(await read_compressed(peer)) == b"a" * 1000


async def test_a_client_whose_messages_inflate_to_much_lets_others_have_their_turn(
    carrier: str,
) -> None:
    received = 0

    class Counting(fastws.Listener):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            nonlocal received
            received += 1

    turns_with_many = 0
    bomb = frame(BINARY, squeeze(bytes(2**20)), reserved=RSV1)
    async with (
        serve(Counting, carrier) as server,
        await Peer.open(server, headers=[OFFER]) as peer,
    ):
        await peer.send(bomb * 60)
        while received < 60:
            before = received
            await asyncio.sleep(0)
            turns_with_many += received - before > 8
    assert turns_with_many == 0


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "takeover"])
async def test_what_comes_after_we_have_closed_is_not_inflated(
    carrier: str, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    deflate = Deflate(client_no_context_takeover=alone)
    async with (
        serve(held, carrier, compression=deflate) as server,
        await Peer.open(server, headers=[OFFER]) as peer,
    ):
        ws = await held.connection()
        ws.close()
        assert (await peer.close_frame())[0] == 1000

        def refuse(*arguments: Any) -> bytes:
            raise AssertionError("inflated for nobody")

        monkeypatch.setattr(Inflater, "inflate", refuse)
        monkeypatch.setattr(Agreement, "inflate", refuse)
        message = squeeze(b"a" * 1000)
        await peer.send(frame(TEXT, message, reserved=RSV1))
        await peer.send(frame(TEXT, message[:5], reserved=RSV1, fin=False))
        await peer.send(frame(CONT, message[5:]))
        await peer.say_close(1000)
        assert await peer.ended() == "fin"
        await ws.wait_closed()
        assert ws.close_code == 1000


async def test_after_a_message_that_could_not_be_queued_the_next_one_is_understood(
    carrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    deflate = Deflate(server_no_context_takeover=False)
    compress = Deflater.compress

    def failing(self: Deflater, data: bytes) -> bytes:
        compress(self, data)
        raise MemoryError

    async with (
        serve(held, carrier, compression=deflate) as server,
        await Peer.open(server, headers=[OFFER]) as peer,
    ):
        ws = await held.connection()
        ws.send("a" * 300)
        stream = zlib.decompressobj(wbits=-15)
        assert expand(await read_compressed(peer), stream=stream) == b"a" * 300
        with monkeypatch.context() as patch:
            patch.setattr(Deflater, "compress", failing)
            with pytest.raises(MemoryError):
                ws.send("b" * 300)
        ws.send("b" * 300)
        assert expand(await read_compressed(peer), stream=stream) == b"b" * 300


async def test_process_response_must_not_change_the_answer_about_extensions(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    def change(ws: Any, request: Any, response: fastws.Response) -> None:
        del response.headers["Sec-WebSocket-Extensions"]
        response.headers["Sec-WebSocket-Extensions"] = "permessage-deflate"

    async with (
        serve(Echo, carrier, process_response=change) as server,
        await Peer.connect(server) as peer,
    ):
        await peer.send(head([OFFER]))
        assert await peer.drain() == 0
    assert "must not change" in caplog.text


async def test_a_closed_connection_keeps_no_stream(carrier: str) -> None:
    deflate = Deflate(server_no_context_takeover=False, client_no_context_takeover=False)
    held = Held()
    async with serve(held, carrier, compression=deflate) as server:
        peer = await Peer.open(server, headers=[OFFER])
        ws = await held.connection()
        await peer.send(frame(TEXT, squeeze(b"a" * 1000), reserved=RSV1))
        await ws.recv()
        ws.send("b" * 1000)
        await turns()
        assert any(isinstance(one, Inflater) for one in gc_objects())
        peer.close()
        await ws.wait_closed()
        await asyncio.sleep(0)
        assert not any(isinstance(one, Inflater) for one in gc_objects())


# --- messages in fragments


async def read_fragment(peer: Peer) -> tuple[int, bytes]:
    """First byte and payload of a server's next frame."""
    first, length = await peer.exactly(2)
    if length == 126:
        length = int.from_bytes(await peer.exactly(2), "big")
    return first, await peer.exactly(length)


def takeover(alone: bool, **settings: Any) -> Deflate:
    return Deflate(server_no_context_takeover=alone, client_no_context_takeover=alone, **settings)


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "takeover"])
async def test_fragments_are_compressed_as_they_are_sent(
    carrier: str, package: str, alone: bool
) -> None:
    texts = [document.decode() for document in documents(3, 500)]
    async with (
        serve(Held(), carrier, compression=takeover(alone, package=package)) as server,
        await Peer.open(server, headers=[OFFER]) as peer,
    ):
        (ws,) = server.connections
        stream = zlib.decompressobj(wbits=-15)
        for _ in range(2):
            await ws.send([texts[0], "", *texts[1:]])
            payload = b""
            for number, text in enumerate([texts[0], "", *texts[1:], ""]):
                first, part = await read_fragment(peer)
                fin, opcode = number == 4, TEXT if number == 0 else CONT
                assert first == (0x80 * fin | 0x40 * (number == 0) | opcode)
                assert len(part) < max(len(text.encode()), 1)
                # Nothing of a fragment is left in the compressor.
                assert stream.decompress(part).decode() == text
                payload += part
            assert not stream.decompress(TAIL)
            if alone:
                assert expand(payload).decode() == "".join(texts)
                stream = zlib.decompressobj(wbits=-15)
            # One that is whole refers to the same window.
            ws.send(texts[0])
            whole = await read_fragment(peer)
            assert whole[0] == 0xC1
            assert expand(whole[1], stream=stream).decode() == texts[0]
            if alone:
                stream = zlib.decompressobj(wbits=-15)
            else:
                assert len(whole[1]) < 60


@pytest.mark.parametrize(
    ("items", "compress", "compressed"),
    [
        (["a" * 256, "b"], None, True),
        (["a" * 255, "b" * 1000], None, False),
        (["a", "b" * 1000], True, True),
        (["", ""], True, True),
        (["a" * 1000], False, False),
        ([b"a" * 256, b""], None, True),
    ],
)
async def test_the_first_fragment_says_whether_a_message_is_compressed(
    carrier: str, items: list[Any], compress: bool | None, compressed: bool
) -> None:
    async with serve(Held(), carrier) as server, await Peer.open(server, headers=[OFFER]) as peer:
        (ws,) = server.connections
        await ws.send(items, compress=compress)
        first, payload = await read_fragment(peer)
        assert first & 0x40 == (0x40 if compressed else 0)
        while not first & 0x80:
            first, more = await read_fragment(peer)
            assert not first & 0x7F
            payload += more
        if compressed:
            payload = expand(payload)
        assert payload == b"".join(
            item.encode() if isinstance(item, str) else item for item in items
        )


async def test_messages_behind_fragments_are_compressed_as_was_asked(carrier: str) -> None:
    deflate = takeover(alone=False)
    async with (
        serve(Held(), carrier, compression=deflate) as server,
        await Peer.open(server, headers=[OFFER]) as peer,
    ):
        (ws,) = server.connections
        go_on = asyncio.Event()

        async def items() -> Any:
            yield "a" * 300
            await go_on.wait()

        sending = asyncio.ensure_future(ws.send(items()))
        await turns(3)
        ws.send("b" * 300, compress=False)
        ws.send("c" * 10, compress=True)
        ws.send("d" * 300)
        fastws.broadcast([ws], "e" * 300)
        go_on.set()
        await sending
        stream = zlib.decompressobj(wbits=-15)
        assert stream.decompress((await read_fragment(peer))[1]) == b"a" * 300
        assert await read_fragment(peer) == (0x80 | CONT, b"")
        stream.decompress(TAIL)
        assert await read_fragment(peer) == (0x80 | TEXT, b"b" * 300)
        for letter, size in ((b"c", 10), (b"d", 300), (b"e", 300)):
            first, payload = await read_fragment(peer)
            assert first == 0xC0 | TEXT
            assert expand(payload, stream=stream) == letter * size


async def test_others_compress_while_a_message_goes_out_in_fragments(carrier: str) -> None:
    # Without context takeover all connections of a loop share one compressor.
    async with (
        serve(Held(), carrier) as server,
        await Peer.open(server, headers=[OFFER]) as one,
    ):
        (mine,) = server.connections
        other = await Peer.open(server, headers=[OFFER])
        (others,) = set(server.connections) - {mine}
        text = documents(1, 1000)[0].decode()

        async def items() -> Any:
            for _ in range(3):
                yield text
                others.send(text)

        await mine.send(items())
        frames = [await read_fragment(one) for _ in range(4)]
        assert expand(b"".join(payload for _, payload in frames)).decode() == text * 3
        assert len(frames[1][1]) < 60
        async with other:
            for _ in range(3):
                assert expand((await read_fragment(other))[1]).decode() == text


@pytest_loop
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "takeover"])
async def test_websockets_reads_our_fragments_one_by_one(carrier: str, alone: bool) -> None:
    texts = [document.decode() for document in documents(4, 2000)]
    noise = [random.Random(6).randbytes(30_000), b"", b"x" * 100_000]
    held = Held()
    async with (
        serve(held, carrier, compression=takeover(alone)) as server,
        websockets.connect(url(server), compression="deflate", max_size=None) as peer,
    ):
        (ws,) = server.connections
        for items in (texts, noise, texts):
            sending = asyncio.ensure_future(ws.send(items))
            assert [item async for item in peer.recv_streaming()] == [*items, type(items[0])()]
            await sending
        ws.send(texts[0])
        assert await peer.recv() == texts[0]


@pytest_loop
@pytest.mark.parametrize("alone", [True, None], ids=["alone", "takeover"])
async def test_a_client_streams_to_websockets_and_back(carrier: str, alone: bool | None) -> None:
    async def handler(ws: Any) -> None:
        while True:
            # Their streamed messages are compressed by fragments too.
            await ws.send([piece async for piece in ws.recv_streaming()])

    deflate = Deflate(server_no_context_takeover=alone, client_no_context_takeover=alone)
    texts = [document.decode() for document in documents(4, 2000)]
    async with websockets.serve(handler, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with fastws.connect(uri, carrier=carrier, compression=deflate) as ws:
            for _ in range(3):
                await ws.send(iter(texts))
                assert await ws.recv() == "".join(texts)
                await ws.send(texts[1])
                assert await ws.recv() == texts[1]


async def test_fragments_that_break_off_leave_nothing_to_others(carrier: str) -> None:
    async with serve(Held(), carrier) as server, await Peer.open(server, headers=[OFFER]) as peer:
        (ws,) = server.connections

        async def items() -> Any:
            yield "a" * 300
            raise ValueError("no more")

        with pytest.raises(ValueError, match="no more"):
            await ws.send(items())
        assert (await read_fragment(peer))[0] == 0x40 | TEXT
        assert (await read_fragment(peer))[0] == 0x88
        async with await Peer.open(server, headers=[OFFER]) as other:
            (another,) = set(server.connections) - {ws}
            another.send("b" * 300)
            assert expand((await read_fragment(other))[1]) == b"b" * 300


# --- the client


@pytest_loop
@pytest.mark.parametrize("alone", [None, True], ids=["takeover", "alone"])
async def test_a_client_of_ours_and_websockets_understand_each_other(
    carrier: str, alone: bool | None
) -> None:
    async def handler(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    deflate = Deflate(
        server_no_context_takeover=alone, client_no_context_takeover=alone, threshold=0
    )
    messages: list[str | bytes] = ["", "naïve 日本語 😀", random.Random(5).randbytes(70_000)]
    messages += [document.decode() for document in documents(5, 2000)]
    async with websockets.serve(handler, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        uri = f"ws://127.0.0.1:{port}"
        async with fastws.connect(uri, carrier=carrier, compression=deflate) as ws:
            assert ws.response is not None
            assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
            for message in messages:
                await ws.send(message)
                assert await ws.recv() == message
            prepared = fastws.PreparedMessage(messages[-1])
            for _ in range(3):
                await ws.send(prepared)
                assert await ws.recv() == messages[-1]


@pytest_loop
async def test_client_and_server_of_ours_understand_each_other(carrier: str) -> None:
    for settings in (
        {},
        {"server_no_context_takeover": False, "client_no_context_takeover": False},
    ):
        async with (
            serve(Echo, carrier, compression=Deflate(threshold=0, **settings)) as server,
            fastws.connect(url(server), carrier=carrier) as ws,
        ):
            for document in documents(5, 2000):
                await ws.send(document.decode())
                assert await ws.recv() == document.decode()


async def test_a_client_asked_for_a_window_that_zlib_lacks_sends_all_as_it_is(
    carrier: str,
) -> None:
    async def handler(peer: ServerPeer) -> None:
        _, lines = await peer.request()
        answer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=8\r\n\r\n"
        await peer.send(switching(lines)[:-2] + answer)
        first, _ = await peer.exactly(2)
        await peer.send(bytes([0x82, 1, first]))
        with contextlib.suppress(ConnectionError):
            await peer.drain()

    async with raw_server(handler) as uri:
        ws = await fastws.connect(uri, carrier=carrier)
        ws.send("a" * 1000, compress=True)
        assert await ws.recv() == b"\x81"
        ws.abort()


def gc_objects() -> list[Any]:
    """Streams that are alive: they hold no other object, so the collector does not know them."""
    gc.collect()
    return [one for one in gc.get_objects() if type(one) in (Inflater, Deflater)]


def test_the_reference_knows_the_reserved_bits() -> None:
    assert reference.frame(TEXT, b"", key=None, reserved=RSV1) == b"\xc1\x00"
