"""The benchmarks. Each checks first that all libraries give the same."""

from typing import Any

import pytest

from bench.micro import functions
from bench.micro.functions import SIZES, Job, frame

_TEXTS = {
    "ASCII": "a line of text in a message, as they come. ",
    "two-byte": "Grüße aus Köln, привет. ",
    "CJK": "漢字とひらがな。",
    "emoji": "\N{ROCKET}\N{GRINNING FACE}\N{SNAKE}",
}


def _size(size: int) -> str:
    for unit, text in ((2**20, "MiB"), (1024, "KiB")):
        if size >= unit:
            return f"{size // unit} {text}"
    return f"{size} B"


def _random(size: int) -> bytes:
    return bytes(range(256)) * (size // 256) + bytes(range(size % 256))


def _text(kind: str, size: int) -> bytes:
    """As many whole characters as fit, and ASCII to fill up."""
    text = _TEXTS[kind].encode()
    whole = (text * (size // len(text) + 1))[:size].decode(errors="ignore").encode()
    return whole.ljust(size, b".")


def _each(job: Job, *groups: tuple[str, bytes]) -> list[Any]:
    return [
        pytest.param(name, library, make, data, id=f"{library}-{name}")
        for name, data in groups
        for library, make in job.items()
    ]


def _time(benchmark: Any, group: str, library: str, make: Any, data: bytes) -> None:
    benchmark.group = group
    benchmark.extra_info.update(library=library, bytes=len(data))
    benchmark(make(data))


@pytest.mark.parametrize(
    ("group", "library", "make", "data"),
    _each(functions.mask(), *((f"mask, {_size(size)}", _random(size)) for size in SIZES)),
)
def test_mask(benchmark: Any, group: str, library: str, make: Any, data: bytes) -> None:
    result = make(data)()
    if result is not None and "limit" not in library:
        number = int.from_bytes(data[:16], "big")
        wanted = number ^ int.from_bytes((functions.KEY * 4)[: len(data[:16])], "big")
        assert int.from_bytes(result[:16], "big") == wanted
    _time(benchmark, group, library, make, data)


@pytest.mark.parametrize(
    ("group", "library", "make", "data"),
    _each(
        functions.utf8(),
        *(
            (f"UTF-8 {kind}, {_size(size)}", _text(kind, size))
            for kind in _TEXTS
            for size in SIZES
            if size < 16 * 2**20 or kind in ("ASCII", "CJK")
        ),
    ),
)
def test_utf8(benchmark: Any, group: str, library: str, make: Any, data: bytes) -> None:
    assert make(data)() == data.decode()
    _time(benchmark, group, library, make, data)


def _payload(result: Any) -> bytes:
    """What a decoder gave, whatever kind of thing it is."""
    if isinstance(result, list):
        result = result[0][1]
    elif isinstance(result, tuple):
        result = result[0]
    return bytes(getattr(result, "data", result))


@pytest.mark.parametrize(
    ("group", "library", "make", "data"),
    _each(
        functions.decode(),
        *((f"decode, {_size(size)}", frame(0x82, _random(size))) for size in (0, *SIZES)),
    ),
)
def test_decode(benchmark: Any, group: str, library: str, make: Any, data: bytes) -> None:
    head = {**dict.fromkeys(range(126), 6)}.get(len(data) - 6, 8 if len(data) < 65544 else 14)
    assert _payload(make(data)()) == _random(len(data) - head)
    _time(benchmark, group, library, make, data)


def _fragments(size: int) -> bytes:
    """A message of so many bytes in 16 fragments."""
    payload, step = _random(size), size // 16
    parts = [payload[i * step : (i + 1) * step] for i in range(16)]
    middle = b"".join(frame(0x00, part) for part in parts[1:-1])
    return frame(0x02, parts[0]) + middle + frame(0x80, parts[-1])


@pytest.mark.parametrize(
    ("group", "library", "make", "data"),
    _each(
        functions.decode(),
        *((f"16 fragments, {_size(size)}", _fragments(size)) for size in SIZES if size >= 1024),
    ),
)
def test_reassembly(benchmark: Any, group: str, library: str, make: Any, data: bytes) -> None:
    assert _payload(make(data)())[:64] == _random(64)
    _time(benchmark, group, library, make, data)


@pytest.mark.parametrize(
    ("group", "library", "make", "data"),
    _each(functions.encode(), *((f"encode, {_size(size)}", _random(size)) for size in SIZES)),
)
def test_encode(benchmark: Any, group: str, library: str, make: Any, data: bytes) -> None:
    result = bytes(make(data)())
    assert result[0] == 0x82
    assert result.endswith(data)
    _time(benchmark, group, library, make, data)


@pytest.mark.parametrize(
    ("group", "library", "make", "data"),
    _each(functions.handshake(), ("handshake of a browser", functions.REQUEST)),
)
def test_handshake(benchmark: Any, group: str, library: str, make: Any, data: bytes) -> None:
    result = make(data)()
    answer = result if isinstance(result, bytes) else b"".join(result)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer  # RFC 6455 1.3
    _time(benchmark, group, library, make, data)
