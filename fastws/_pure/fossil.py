"""Twin of ``fastws/_fossil.pyx``, which says how it works."""

from __future__ import annotations

from typing import Final

# Less than the compiled one takes: a pathological pair of this size keeps a loop busy long enough.
MAX_SIZE: Final = 65536

_BLOCK: Final = 8
_WORTH_IT: Final = 12
_CHAIN: Final = 4
_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"


def _number(number: int, mark: bytes) -> bytes:
    digits = [_DIGITS[number & 63]]
    while number := number >> 6:
        digits.append(_DIGITS[number & 63])
    return bytes(reversed(digits)) + mark


def _copy(size: int, offset: int) -> bytes:
    return _number(size, b"@") + _number(offset, b",") if size else b""


def _literal(data: bytes) -> bytes:
    return _number(len(data), b":") + data if data else b""


def _checksum(data: bytes) -> int:
    padded = data + bytes(-len(data) % 4)
    words = (padded[i : i + 4] for i in range(0, len(padded), 4))
    return sum(int.from_bytes(word, "big") for word in words) & 0xFFFFFFFF


def _is_inside(data: bytes, place: int) -> bool:
    return place < len(data) and data[place] & 0xC0 == 0x80


def _same(a: bytes, b: bytes, most: int) -> int:
    """How many of the first bytes are the same, by halves: slices are compared in C."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _middle(base: bytes, target: bytes, begin: int, end: int) -> list[bytes]:
    if end - begin < _WORTH_IT or len(base) < _BLOCK:
        return [_literal(target[begin:end])]
    places: dict[bytes, list[int]] = {}
    for place in range(0, len(base) - _BLOCK + 1, _BLOCK):
        found = places.setdefault(base[place : place + _BLOCK], [])
        if len(found) < _CHAIN:
            found.append(place)
    parts = []
    i = literal = begin
    while i + _BLOCK <= end:
        best = start = source = 0
        for place in places.get(target[i : i + _BLOCK], ()):
            ahead = _BLOCK
            while (
                i + ahead < end
                and target[i + ahead : i + ahead + 1] == (base[place + ahead : place + ahead + 1])
            ):
                ahead += 1
            behind = 0
            while (
                i - behind > literal
                and place > behind
                and target[i - behind - 1] == base[place - behind - 1]
            ):
                behind += 1
            if ahead + behind > best:
                best, start, source = ahead + behind, i - behind, place - behind
        length = best
        if length >= _WORTH_IT:
            while length and _is_inside(target, start):
                start, source, length = start + 1, source + 1, length - 1
            while length and _is_inside(target, start + length):
                length -= 1
        if length >= _WORTH_IT:
            parts += [_literal(target[literal:start]), _copy(length, source)]
            i = literal = start + length
        else:
            i += 1
    parts.append(_literal(target[literal:end]))
    return parts


def create_delta(base: bytes, target: bytes) -> bytes | None:
    size, old_size = len(target), len(base)
    if not size or old_size > MAX_SIZE or size > MAX_SIZE:
        return None
    shorter = min(old_size, size)
    prefix = _same(base, target, shorter)
    while prefix and _is_inside(target, prefix):
        prefix -= 1
    if prefix < _WORTH_IT:
        prefix = 0
    most = shorter - prefix
    suffix = _same(base[old_size - most :][::-1], target[size - most :][::-1], most)
    while suffix and _is_inside(target, size - suffix):
        suffix -= 1
    if suffix < _WORTH_IT:
        suffix = 0
    parts = [_number(size, b"\n"), _copy(prefix, 0)]
    parts += _middle(base, target, prefix, size - suffix)
    parts += [_copy(suffix, old_size - suffix), _number(_checksum(target), b";")]
    delta = b"".join(parts)
    return delta if len(delta) < size else None
