"""Arbitrary frames, right and wrong, cut anywhere: each codec does what the reference does."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from fastws.exceptions import ProtocolError
from tests.fastws import reference
from tests.fastws.reference import BINARY, CLOSE, CONT, PING, PONG, TEXT

# On a busy machine drawing frames may take longer than Hypothesis expects.
run = hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.too_slow])

# --- bytes and texts

BORDERS = "\x00\x7f\x80\xff\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"

texts = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=BORDERS + "aé漢😀", max_size=60),
    st.builds(
        lambda text, times: text * times,
        st.sampled_from(["a", "é", "漢", "😀a"]),
        st.sampled_from([42, 126, 400]),
    ),
)
sizes = st.sampled_from([0, 1, 2, 3, 124, 125, 126, 127, 500, 2047, 2048, 2049])
binaries = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda size, byte: bytes((byte,)) * size, sizes, st.integers(0, 255)),
)
broken_texts = st.lists(
    st.sampled_from(
        [
            b"a",
            b"hello, world",
            "é".encode(),
            "漢".encode(),
            "😀".encode(),
            b"\x80",
            b"\xc0\xaf",
            b"\xc3",
            b"\xe0\x80\x80",
            b"\xe2\x82",
            b"\xed\xa0\x80",
            b"\xf0\x9f\x98",
            b"\xf4\x90\x80\x80",
            b"\xff",
            b"x" * 70,
        ]
    ),
    max_size=8,
).map(b"".join)
keys = st.one_of(st.just(bytes(4)), st.binary(min_size=4, max_size=4))
close_payloads = st.one_of(
    st.just(b""),
    st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason[:30].encode(),
        st.sampled_from([1000, 1001, 1003, 1007, 1014, 3000, 4999]),
        texts,
    ),
)


# --- streams of frames


@st.composite
def control_frames(draw: st.DrawFn, key: bytes | None) -> tuple[bytes, tuple[int, bytes]]:
    opcode = draw(st.sampled_from([PING, PONG]))
    payload = draw(binaries)[:125]
    return reference.frame(opcode, payload, key=key), (opcode, payload)


@st.composite
def conversations(draw: st.DrawFn, client: bool) -> tuple[bytes, list[tuple[int, str | bytes]]]:
    """A stream that breaks no rule, and the events that are in it by construction."""
    stream = b""
    events: list[tuple[int, str | bytes]] = []

    def key() -> bytes | None:
        return None if client else draw(keys)

    for _ in range(draw(st.integers(0, 4))):
        message: str | bytes
        if draw(st.booleans()):
            opcode, message = TEXT, draw(texts)
            payload = message.encode()
        else:
            opcode, message = BINARY, draw(binaries)
            payload = message
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
        bounds = [0, *cuts, len(payload)]
        last = len(bounds) - 2
        for index in range(last + 1):
            if draw(st.booleans()):
                frame, event = draw(control_frames(key()))
                stream += frame
                events.append(event)
            stream += reference.frame(
                opcode if index == 0 else CONT,
                payload[bounds[index] : bounds[index + 1]],
                key=key(),
                fin=index == last,
            )
        events.append((opcode, message))
    if draw(st.booleans()):
        payload = draw(close_payloads)
        stream += reference.frame(CLOSE, payload, key=key())
        events.append((CLOSE, payload))
        stream += draw(st.binary(max_size=10))
    return stream, events


@st.composite
def wild_frames(draw: st.DrawFn, client: bool) -> bytes:
    """A frame in which each part may be wrong, and mostly is right."""

    def rarely(likely: Any, unlikely: st.SearchStrategy[Any]) -> Any:
        return draw(unlikely) if draw(st.integers(0, 11)) == 0 else likely

    opcode = rarely(
        draw(st.sampled_from([CONT, CONT, TEXT, TEXT, BINARY, PING, PONG, CLOSE])),
        st.integers(0, 15),
    )
    if opcode == CLOSE:
        payload = rarely(draw(close_payloads), st.one_of(binaries, broken_texts))
    elif opcode == BINARY or opcode >= CLOSE:
        payload = draw(binaries)[: 125 if opcode >= CLOSE else None]
    else:
        payload = rarely(draw(texts).encode(), broken_texts)
        # So that a fragment may end inside a code point.
        payload = payload[: draw(st.integers(0, len(payload)))]
    return reference.frame(
        opcode,
        payload,
        key=rarely(None if client else draw(keys), st.one_of(st.none(), keys)),
        fin=rarely(opcode >= CLOSE or draw(st.booleans()), st.booleans()),
        reserved=rarely(0, st.integers(0, 7)),
        length=rarely(
            None, st.sampled_from([65535, 65536, 2**20, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
        ),
        # The shortest form for lengths up to 125 is none at all.
        length_bytes=None,
    )


@st.composite
def corrupted(draw: st.DrawFn, stream: bytes) -> bytes:
    """`stream` with a few bytes changed, dropped or put in."""
    data = bytearray(stream)
    for _ in range(draw(st.integers(1, 3))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["flip", "replace", "drop", "insert"])):
            case "flip":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "replace":
                data[at] = draw(st.integers(0, 255))
            case "drop":
                del data[at]
            case "insert":
                data.insert(at, draw(st.integers(0, 255)))
    return bytes(data)


def pieces(draw: Callable[[st.SearchStrategy[Any]], Any], data: bytes) -> list[bytes]:
    """`data` at once, byte by byte, in equal steps or cut anywhere."""
    step = draw(st.sampled_from([0, 1, 1, 2, 3, 7, 64, len(data) + 1]))
    if step:
        bounds = list(range(step, len(data), step))
    else:
        bounds = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *bounds], [*bounds, len(data)], strict=True)]


# --- what is compared


def assert_follows_the_reference(
    codec: ModuleType, parts: list[bytes], options: dict[str, Any]
) -> None:
    """After every piece: the events that are complete, and the fault if it shows by then."""
    expected, fault = reference.decode(b"".join(parts), **options)
    decoder = codec.Decoder(**options)
    fed = 0
    events: list[tuple[int, str | bytes]] = []
    for part in parts:
        new = decoder.feed(part)
        fed += len(part)
        events += new
        assert events == [(e.opcode, e.payload) for e in expected if e.end <= fed]
        assert all(type(payload) is (str if code == TEXT else bytes) for code, payload in new)
        assert decoder.closed is any(e.opcode == CLOSE and e.end <= fed for e in expected)
        if fault is None or fed < fault.end:
            assert decoder.error is None
        else:
            assert (decoder.error.code, str(decoder.error)) == (fault.code, fault.text)
    assert decoder.feed(b"") == []


@pytest.mark.parametrize("client", [False, True])
@run
@hypothesis.given(data=st.data())
def test_messages_cut_anywhere_come_out_as_they_went_in(
    codec: ModuleType, client: bool, data: st.DataObject
) -> None:
    stream, events = data.draw(conversations(client))
    parts = pieces(data.draw, stream)
    decoder = codec.Decoder(client=client)
    assert [event for part in parts for event in decoder.feed(part)] == events
    assert decoder.error is None
    assert_follows_the_reference(codec, parts, {"client": client})


@pytest.mark.parametrize("client", [False, True])
@run
@hypothesis.given(data=st.data())
def test_corrupted_messages_fail_at_the_byte_and_for_the_reason_that_the_reference_gives(
    codec: ModuleType, client: bool, data: st.DataObject
) -> None:
    stream, _ = data.draw(conversations(client))
    parts = pieces(data.draw, data.draw(corrupted(stream)))
    assert_follows_the_reference(codec, parts, {"client": client})


@pytest.mark.parametrize("client", [False, True])
@run
@hypothesis.given(data=st.data())
def test_frames_with_wrong_parts_are_judged_as_the_reference_judges_them(
    codec: ModuleType, client: bool, data: st.DataObject
) -> None:
    frames = data.draw(st.lists(wild_frames(client), min_size=1, max_size=8))
    options = {
        "client": client,
        "max_size": data.draw(st.sampled_from([None, 2**20, 2**20, 0, 10, 126, 300])),
        "max_fragments": data.draw(st.sampled_from([None, 4096, 0, 1, 2, 3])),
    }
    assert_follows_the_reference(codec, pieces(data.draw, b"".join(frames)), options)


@pytest.mark.parametrize("client", [False, True])
@run
@hypothesis.given(data=st.data())
def test_any_bytes_at_all_are_judged_as_the_reference_judges_them(
    codec: ModuleType, client: bool, data: st.DataObject
) -> None:
    stream = data.draw(st.binary(max_size=60))
    assert_follows_the_reference(codec, pieces(data.draw, stream), {"client": client})


@run
@hypothesis.given(first=st.integers(0, 255), second=st.integers(0, 255), opened=st.booleans())
def test_any_two_bytes_of_a_header_are_judged_as_the_reference_judges_them(
    codec: ModuleType, first: int, second: int, opened: bool
) -> None:
    for client in (False, True):
        key = None if client else reference.KEY
        start = reference.frame(TEXT, b"a", key=key, fin=False) if opened else b""
        for tail in (b"", bytes(20)):
            parts = [start, bytes((first, second)), tail]
            assert_follows_the_reference(codec, parts, {"client": client})


@run
@hypothesis.given(
    length=st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 140), st.integers(65530, 65540)),
    form=st.sampled_from([2, 8]),
    limit=st.one_of(st.none(), st.just(2**20), st.integers(0, 2**63 - 1)),
)
def test_any_length_is_judged_as_the_reference_judges_it(
    codec: ModuleType, length: int, form: int, limit: int | None
) -> None:
    length %= 2 ** (8 * form)
    for client in (False, True):
        key = None if client else reference.KEY
        head = reference.frame(BINARY, key=key, length=length, length_bytes=form)
        for parts in ([head], [head[i : i + 1] for i in range(len(head))]):
            assert_follows_the_reference(codec, parts, {"client": client, "max_size": limit})


@run
@hypothesis.given(data=st.data(), payload=st.one_of(texts.map(str.encode), broken_texts))
def test_any_text_is_checked_byte_for_byte(
    codec: ModuleType, data: st.DataObject, payload: bytes
) -> None:
    validator = codec.Utf8Validator()
    bad, whole = reference.scan_utf8(payload)
    fed = 0
    for part in pieces(data.draw, payload):
        fed += len(part)
        assert validator.feed(part) is (bad is None or fed <= bad)
    assert validator.finish() is (bad is None and whole)


@run
@hypothesis.given(
    opcode=st.sampled_from([CONT, TEXT, BINARY]),
    payload=st.one_of(binaries, st.sampled_from([bytes(65535), bytes(65536)])),
    key=st.one_of(st.none(), keys),
    fin=st.booleans(),
)
def test_any_frame_is_encoded_as_the_reference_encodes_it(
    codec: ModuleType, opcode: int, payload: bytes, key: bytes | None, fin: bool
) -> None:
    encoded = codec.encode_frame(opcode, payload, fin=fin, mask_key=key)
    assert encoded == reference.frame(opcode, payload, key=key, fin=fin)


@run
@hypothesis.given(
    data=st.binary(max_size=300),
    key=keys,
    offset=st.integers(0, 1000),
    start=st.integers(0, 70),
)
def test_any_data_is_masked_as_the_reference_masks_it(
    codec: ModuleType, data: bytes, key: bytes, offset: int, start: int
) -> None:
    expected = reference.xor(data[start:], key, offset)
    assert codec.mask(memoryview(data)[start:], key, offset) == expected
    buffer = bytearray(data)
    codec.mask_inplace(memoryview(buffer)[start:], key, offset)
    assert buffer == data[:start] + expected


@run
@hypothesis.given(payload=st.one_of(st.binary(max_size=20), close_payloads))
def test_any_close_payload_is_judged_as_in_a_frame(codec: ModuleType, payload: bytes) -> None:
    events, fault = reference.decode(reference.frame(CLOSE, payload))
    if fault is not None:
        with pytest.raises(ProtocolError) as caught:
            codec.parse_close(payload)
        assert (caught.value.code, str(caught.value)) == (fault.code, fault.text)
    else:
        assert [event.payload for event in events] == [payload]
        code, reason = codec.parse_close(payload)
        assert payload == (b"" if code == 1005 else codec.encode_close(code, reason))
