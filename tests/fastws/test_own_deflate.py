"""Our own code for compressed messages that refer to none before them, beside zlib's."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastws._impl import COMPILED
from fastws.deflate import Agreement, Deflate, Parameters
from fastws.exceptions import ProtocolError
from tests.fastws.test_deflate import TAIL, agree, documents, expand, squeeze

# Without the extension there is nothing here to test, rather than something to skip.
__test__ = COMPILED
if COMPILED:
    from fastws._deflate import OwnDeflater, OwnInflater

FINAL = b"\x03\x00"  # an empty last block
ROOM = 100_000
KINDS = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)


def never() -> Deflate:
    raise AssertionError("a stream was asked for")


def deflater(bits: int = 15) -> OwnDeflater:
    return OwnDeflater(Deflate(package="fastws").deflater_key(bits), never)  # type: ignore[arg-type]


def samples() -> Iterator[bytes]:
    draw = random.Random(1)
    for size in (*range(8), 63, 64, 258, 259, 513, 5000, 16384, 16385, 40_000, 65_535):
        yield bytes(size)
        yield draw.randbytes(size)
        yield bytes(draw.choices(b"ab", k=size))
        yield (draw.randbytes(37) * size)[:size]
        yield bytes(min(255, int(draw.expovariate(0.1))) for _ in range(size))
    yield from documents(5, 300)
    yield from documents(5, 30_000)
    # What makes the deepest trees: deeper than codes may be long.
    counts = [1, 1]
    while sum(counts) < 30_000:
        counts.append(counts[-1] + counts[-2])
    deep = [symbol for symbol, count in enumerate(counts) for _ in range(count)]
    draw.shuffle(deep)
    yield bytes(deep)


SAMPLES = list(samples())


def read_within(payload: bytes, bits: int) -> bytes:
    """What zlib reads with such a window: in steps, between which it keeps no more than that."""
    stream = zlib.decompressobj(wbits=-bits)
    out = b""
    rest = payload + TAIL + FINAL
    while not stream.eof:
        piece = stream.decompress(rest, 64)
        assert piece or stream.eof
        out += piece
        rest = stream.unconsumed_tail
    assert not stream.unused_data
    return out


@pytest.mark.parametrize("bits", [9, 12, 15])
def test_zlib_reads_what_we_compress(bits: int) -> None:
    own = deflater(bits)
    for data in SAMPLES:
        assert read_within(own.compress(data), bits) == data


@given(st.binary() | st.lists(st.sampled_from([b"a", b"bc", b"abcdefgh"])).map(b"".join))
def test_zlib_reads_whatever_we_compress(data: bytes) -> None:
    assert read_within(deflater(9).compress(data), 9) == data


def test_a_message_does_not_depend_on_those_before_it() -> None:
    own = deflater()
    expected = [deflater().compress(data) for data in SAMPLES]
    assert [own.compress(data) for data in SAMPLES] == expected


def test_documents_get_as_small_as_with_zlib_at_the_same_level() -> None:
    own = deflater()
    for size in (300, 1000, 8000, 60_000):
        for data in documents(5, size):
            stream = zlib.compressobj(1, wbits=-15)
            assert len(own.compress(data)) <= 1.03 * len(squeeze(data, stream=stream))


def test_a_few_bytes_get_no_codes_of_their_own() -> None:
    assert len(deflater().compress(b"c" * 10)) <= len(squeeze(b"c" * 10))
    assert deflater().compress(b"") == b"\x00"


def test_what_is_random_gets_hardly_longer() -> None:
    for size in (1, 100, 10_000, 65_535):
        data = random.Random(size).randbytes(size)
        assert len(deflater().compress(data)) < size + size // 8 + 20


def test_any_buffer_is_compressed() -> None:
    data = documents(1, 500)[0]
    for buffer in (bytearray(data), memoryview(data)):
        assert expand(deflater().compress(buffer)) == data
    with pytest.raises(TypeError):
        deflater().compress("text")  # type: ignore[arg-type]


def test_what_is_too_long_is_left_to_a_stream() -> None:
    agreement = agree(alone=True, package="fastws")
    assert agreement.deflater is not None
    for size in (3072, 3073, 65_535, 65_536, 200_000):
        data = documents(1, size)[0][:size]
        assert expand(agreement.deflater.compress(data)) == data


def reference(payload: bytes, room: int) -> bytes | None:
    """What zlib makes of it; `None` if that is too much, or no message."""
    stream = zlib.decompressobj(wbits=-15)
    try:
        out = stream.decompress(payload, room + 1)
        if len(out) > room or stream.decompress(TAIL + FINAL, 8192):
            return None
    except zlib.error:
        return None
    return out if stream.eof and not stream.unused_data else None


def payloads(data: bytes) -> Iterator[bytes]:
    for level in (0, 1, 6):
        for kind in KINDS:
            stream = zlib.compressobj(level, wbits=-15, strategy=kind)
            yield squeeze(data, stream=stream)
    stream = zlib.compressobj(wbits=-15)
    half = len(data) // 2
    first = stream.compress(data[:half]) + stream.flush(zlib.Z_SYNC_FLUSH)
    yield first + squeeze(data[half:], stream=stream)


def test_what_zlib_compresses_is_read_as_by_zlib() -> None:
    inflater = OwnInflater()
    for data in SAMPLES:
        for payload in payloads(data):
            if len(payload) <= 16384:  # beyond, it is left to a stream
                assert inflater.inflate(payload, len(data)) == data
                assert not data or inflater.inflate(payload, len(data) - 1) is None


def test_what_is_cut_or_changed_is_read_as_by_zlib_or_left_to_it() -> None:
    inflater = OwnInflater()
    draw = random.Random(2)
    for data in [*documents(3, 300), b"a" * 300, *documents(3, 3000)]:
        for payload in payloads(data):
            damaged = [payload[:size] for size in range(min(len(payload), 150))]
            damaged += [payload + more for more in (b"\x00", b"\x01", b"\xff", TAIL, TAIL + FINAL)]
            for _ in range(100):
                changed = bytearray(payload)
                changed[draw.randrange(min(len(payload), 80))] ^= 1 << draw.randrange(8)
                damaged.append(bytes(changed))
            for one in damaged:
                out = inflater.inflate(one, 5000)
                assert out is None or out == reference(one, 5000)


@given(st.binary(max_size=300), st.integers(0, 2000))
@example(b"\x00", 0)
@example(b"", 0)
@example(b"\x03\x00", 10)
def test_any_bytes_are_read_as_by_zlib_or_left_to_it(payload: bytes, room: int) -> None:
    out = OwnInflater().inflate(payload, room)
    assert out is None or out == reference(payload, room)


def test_what_is_longer_than_the_room_is_left_to_a_stream_wherever_it_ends() -> None:
    """Literals are taken three at a time, and a repetition may follow any of them."""
    inflater = OwnInflater()
    for literals in range(1, 20):
        data = bytes(range(literals)) * 30
        for kind in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED):
            payload = squeeze(data, stream=zlib.compressobj(9, wbits=-15, strategy=kind))
            for room in range(len(data)):
                assert inflater.inflate(payload, room) is None
            assert inflater.inflate(payload, len(data)) == data


@pytest.mark.parametrize("kind", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED])
def test_nothing_is_written_beyond_the_longest_message_that_we_take(kind: int) -> None:
    """A sanitizer would show it: literals across the end, and then a repetition."""
    inflater = OwnInflater()
    for front in range(65_536 - 30, 65_536):
        data = bytes(front) + bytes(range(1, 25)) * 20
        payload = squeeze(data, stream=zlib.compressobj(9, wbits=-15, strategy=kind))
        assert inflater.inflate(payload, len(data)) is None


@pytest.mark.parametrize("size", [70_000, 1_000_000])
def test_a_message_too_long_for_us_is_read_all_the_same(size: int) -> None:
    agreement = agree(alone=True)
    data = random.Random(size).randbytes(size // 2).hex().encode()
    assert OwnInflater().inflate(squeeze(data), size) is None
    assert agreement.inflate(squeeze(data), size) == data
    assert agreement.inflate(squeeze(bytes(size)), size) == bytes(size)


def test_what_is_wrong_is_said_as_without_us() -> None:
    agreement = agree(alone=True)
    payload = squeeze(b"a" * 5000)
    for bad, room, code in ((payload, 4999, 1009), (payload[:-1], 5000, 1007), (b"\xff", 9, 1007)):
        with pytest.raises(ProtocolError) as caught:
            agreement.inflate(bad, room)
        assert caught.value.code == code


def test_connections_of_a_loop_share_what_we_work_with() -> None:
    shared: dict[object, object] = {}
    first, second = (
        Agreement(Deflate(), Parameters(True, True), client=client, shared=shared)
        for client in (False, True)
    )
    assert first.deflater is second.deflater
    assert first._at_once is second._at_once
