"""What a client does with a delta, read strictly from the format."""

from __future__ import annotations

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"


def apply_delta(base: bytes, delta: bytes) -> bytes:
    """The format of fossil-scm.org, "Delta Encoding", read strictly."""
    place = 0

    def number() -> tuple[int, str]:
        nonlocal place
        value = 0
        start = place
        while (digit := DIGITS.find(chr(delta[place]))) >= 0:
            value = value * 64 + digit
            place += 1
        assert place > start
        place += 1
        return value, chr(delta[place - 1])

    size, mark = number()
    assert mark == "\n"
    target = b""
    while True:
        value, mark = number()
        if mark == "@":
            offset, comma = number()
            assert comma == ","
            assert 0 < value <= len(base) - offset
            target += base[offset : offset + value]
        elif mark == ":":
            assert 0 < value < len(delta) - place
            target += delta[place : place + value]
            place += value
        else:
            break
    assert mark == ";"
    assert place == len(delta)
    assert len(target) == size
    padded = target + bytes(-size % 4)
    words = (int.from_bytes(padded[i : i + 4], "big") for i in range(0, len(padded), 4))
    assert value == sum(words) % 2**32
    return target
