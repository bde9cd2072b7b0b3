"""Deltas: applied by an independent reading of the format, they give what they were made for."""

from __future__ import annotations

import importlib
import json
import random
import time
from types import ModuleType

import hypothesis
import pytest
from hypothesis import strategies as st

import fastws.fossil
from tests.fastws.fossil_reader import apply_delta

MODULES = {"fastws._codec": "fastws._fossil", "fastws._pure.codec": "fastws._pure.fossil"}


@pytest.fixture(scope="module")
def fossil(codec: ModuleType) -> ModuleType:
    return importlib.import_module(MODULES[codec.__name__])


chunks = st.lists(st.binary(max_size=40), max_size=12)


@hypothesis.given(chunks, st.data())
def test_applied_to_the_base_it_gives_the_target(
    fossil: ModuleType, pieces: list[bytes], data: st.DataObject
) -> None:
    base = b"".join(pieces)
    mixed = st.lists(st.one_of(st.sampled_from(pieces or [b""]), st.binary(max_size=9)))
    target = b"".join(data.draw(mixed))
    delta = fossil.create_delta(base, target)
    if delta is not None:
        assert len(delta) < len(target)
        assert apply_delta(base, delta) == target


letters = st.text(alphabet='aäяह€中😀\n"', max_size=30)


@hypothesis.given(st.lists(letters, max_size=10), st.data())
def test_between_texts_it_is_text(
    fossil: ModuleType, pieces: list[str], data: st.DataObject
) -> None:
    base = "".join(pieces).encode()
    mixed = st.lists(st.one_of(st.sampled_from(pieces or [""]), letters))
    target = "".join(data.draw(mixed)).encode()
    delta = fossil.create_delta(base, target)
    if delta is not None:
        delta.decode()
        assert apply_delta(base, delta) == target


def test_characters_that_differ_in_their_last_byte_only_are_not_cut(fossil: ModuleType) -> None:
    for one, other in ("äö", "中丯", "😀😁"):
        base, target = (f"{'x' * 30}{c}{'y' * 30}".encode() for c in (one, other))
        delta = fossil.create_delta(base, target)
        assert other in delta.decode()
        assert apply_delta(base, delta) == target


def document(change: int) -> bytes:
    rows = [{"id": i, "price": 1000 + i * 7, "name": f"stock {i}"} for i in range(50)]
    rows[change % 50]["price"] = change
    return json.dumps(rows).encode()


def test_a_small_change_of_a_document_is_a_small_delta(fossil: ModuleType) -> None:
    delta = fossil.create_delta(document(1234), document(777))
    assert len(delta) < 60
    assert apply_delta(document(1234), delta) == document(777)


def test_what_has_moved_is_found(fossil: ModuleType) -> None:
    half = random.Random(1).randbytes(2000)
    other = random.Random(2).randbytes(2000)
    delta = fossil.create_delta(half + other, other + b"between" + half)
    assert len(delta) < 60
    assert apply_delta(half + other, delta) == other + b"between" + half


@pytest.mark.parametrize("base", [b"", b"x", b"something else altogether"])
def test_what_has_nothing_in_common_has_no_delta(fossil: ModuleType, base: bytes) -> None:
    for target in (b"", b"0123456789", bytes(range(1, 200))):
        assert fossil.create_delta(base, target) is None


def test_what_is_too_large_has_no_delta(fossil: ModuleType) -> None:
    fits, large = b"x" * fossil.MAX_SIZE, b"x" * (fossil.MAX_SIZE + 1)
    assert fossil.create_delta(fits, fits) is not None
    assert fossil.create_delta(fits, large) is fossil.create_delta(large, fits) is None


@pytest.mark.parametrize("base", [b"a" * 60_000, b"ab" * 30_000, bytes(range(256)) * 230])
def test_the_worst_takes_no_longer_than_its_size_allows(fossil: ModuleType, base: bytes) -> None:
    target = b"".join(base[i : i + 11] + b"#" for i in range(0, len(base), 11))[:60_000]
    before = time.process_time()
    delta = fossil.create_delta(base, target)
    compiled = fossil.__name__ == "fastws._fossil"
    assert time.process_time() - before < (0.5 if compiled else 5)
    if delta is not None:
        assert apply_delta(base, delta) == target


def test_the_public_module_has_the_same(fossil: ModuleType) -> None:
    assert fastws.fossil.create_delta(document(1), document(2)) is not None
    assert fastws.fossil.MAX_SIZE in (65536, 262144)
