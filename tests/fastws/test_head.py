"""Request heads: what is a WebSocket handshake, and what is refused with which words."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import fastws._pure.head as twin
from fastws.exceptions import InvalidMessage

HEADS = {"fastws._codec": "fastws._head", "fastws._pure.codec": "fastws._pure.head"}


@pytest.fixture(scope="module")
def head_module(codec: ModuleType) -> ModuleType:
    return importlib.import_module(HEADS[codec.__name__])


KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = b"GET /chat?room=1 HTTP/1.1"
LINES = [
    b"Host: server.example.com",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: " + KEY,
    b"Sec-WebSocket-Version: 13",
    b"Origin: http://example.com",
]


def head(lines: list[bytes] = LINES, request: bytes = REQUEST) -> bytes:
    return b"\r\n".join([request, *lines, b"", b""])


def replaced(name: bytes, *lines: bytes) -> list[bytes]:
    """``LINES`` with others in the place of the one called ``name``."""
    place = next(i for i, line in enumerate(LINES) if line.startswith(name + b":"))
    return [*LINES[:place], *lines, *LINES[place + 1 :]]


def without(name: bytes) -> list[bytes]:
    return replaced(name)


def refused(head_module: ModuleType, data: bytes) -> tuple[int, str]:
    with pytest.raises(InvalidMessage) as caught:
        head_module.parse_head(data)
    return caught.value.status, str(caught.value)


# --- what is accepted


def test_handshake_of_the_rfc(head_module: ModuleType) -> None:
    data = head()
    parsed = head_module.parse_head(data + b"\x81\x00")
    assert parsed.fault is None and parsed.wants_websocket is True
    assert parsed.raw == data and parsed.size == len(data)
    assert (parsed.method, parsed.target) == ("GET", "/chat?room=1")
    assert parsed.key == KEY
    assert (parsed.origin, parsed.origins) == (b"http://example.com", 1)
    assert parsed.lines() == [
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY.decode()),
        ("Sec-WebSocket-Version", "13"),
        ("Origin", "http://example.com"),
    ]


def test_handshake_of_firefox(head_module: ModuleType) -> None:
    data = head(
        [
            b"Host: 127.0.0.1:8000",
            b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            b"Accept: */*",
            b"Accept-Language: en-US,en;q=0.5",
            b"Accept-Encoding: gzip, deflate, br, zstd",
            b"Sec-WebSocket-Version: 13",
            b"Origin: http://127.0.0.1:8000",
            b"Sec-WebSocket-Extensions: permessage-deflate",
            b"Sec-WebSocket-Key: " + KEY,
            b"Connection: keep-alive, Upgrade",
            b"Sec-Fetch-Dest: empty",
            b"Sec-Fetch-Mode: websocket",
            b"Sec-Fetch-Site: same-origin",
            b"Pragma: no-cache",
            b"Cache-Control: no-cache",
            b"Upgrade: websocket",
        ]
    )
    parsed = head_module.parse_head(data)
    assert parsed.fault is None
    assert parsed.origin == b"http://127.0.0.1:8000"


def test_order_of_headers_is_free(head_module: ModuleType) -> None:
    assert head_module.parse_head(head(LINES[::-1])).fault is None


@pytest.mark.parametrize("change", [bytes.lower, bytes.upper, bytes.swapcase])
def test_names_and_tokens_have_no_case(head_module: ModuleType, change: Any) -> None:
    lines = [
        change(line) if b"Key" not in line else change(line[:17]) + line[17:] for line in LINES
    ]
    parsed = head_module.parse_head(head(lines))
    assert parsed.fault is None and parsed.key == KEY


@pytest.mark.parametrize(
    "lines",
    [
        replaced(b"Connection", b"Connection: keep-alive", b"Connection: Upgrade"),
        replaced(b"Connection", b"Connection: Upgrade", b"Connection: keep-alive"),
        replaced(b"Connection", b"Connection:\t, ,keep-alive ,\tupgrade\t ,"),
        replaced(b"Upgrade", b"Upgrade: h2c", b"Upgrade: WebSocket"),
        replaced(b"Upgrade", b"Upgrade: WebSocket, h2c", b"Upgrade:"),
        replaced(b"Host", b"Host:"),
        [line.replace(b": ", b":") for line in LINES],
        [line + b" \t " for line in LINES],
        [line.replace(b": ", b":\t \t") for line in LINES],
    ],
)
def test_lists_may_be_spread_over_lines_and_space(
    head_module: ModuleType, lines: list[bytes]
) -> None:
    parsed = head_module.parse_head(head(lines))
    assert parsed.fault is None and parsed.key == KEY


@pytest.mark.parametrize("count", [1, 4])
def test_empty_lines_before_the_request_are_ignored(head_module: ModuleType, count: int) -> None:
    data = b"\r\n" * count + head()
    parsed = head_module.parse_head(data)
    assert parsed.fault is None and parsed.raw == head() and parsed.size == len(data)


def test_more_empty_lines_are_refused(head_module: ModuleType) -> None:
    assert refused(head_module, b"\r\n" * 5 + head()) == (400, "malformed request line")


def test_bytes_beyond_ascii_survive(head_module: ModuleType) -> None:
    data = head([*LINES, b"X-Name: \xe9\xff"], request="GET /é HTTP/1.1".encode())
    parsed = head_module.parse_head(data)
    assert parsed.target == "/é"
    assert parsed.lines()[-1] == ("X-Name", "\xe9\xff")
    parsed = head_module.parse_head(head(request=b"GET /\xe9 HTTP/1.1"))
    assert parsed.target.encode("utf-8", "surrogateescape") == b"/\xe9"


def test_head_may_have_no_lines(head_module: ModuleType) -> None:
    parsed = head_module.parse_head(b"GET / HTTP/1.1\r\n\r\n")
    assert parsed.lines() == [] and not parsed.wants_websocket


def test_only_bytes_are_taken(head_module: ModuleType) -> None:
    for data in (bytearray(head()), head().decode()):
        with pytest.raises(TypeError):
            head_module.parse_head(data)


# --- heads that are no handshake


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (head(request=b"POST / HTTP/1.1"), 400, "method is not GET"),
        (head(request=b"get / HTTP/1.1"), 400, "method is not GET"),
        (head(request=b"GETS / HTTP/1.1"), 400, "method is not GET"),
        (
            head(request=b"GET / HTTP/1.0"),
            400,
            "HTTP version is 1.0; a WebSocket needs 1.1",
        ),
        (head([]), 400, "header Upgrade: websocket is missing"),
        (head(without(b"Upgrade")), 400, "header Upgrade: websocket is missing"),
        (
            head(replaced(b"Upgrade", b"Upgrade: websockets, h2c")),
            400,
            "header Upgrade does not name websocket",
        ),
        (head(without(b"Connection")), 400, "header Connection: Upgrade is missing"),
        (
            head(replaced(b"Connection", b"Connection: keep-alive", b"Connection: close upgrade")),
            400,
            "header Connection does not name Upgrade",
        ),
        (head(without(b"Host")), 400, "header Host is missing"),
        (head([*LINES, b"host: other"]), 400, "more than one Host header"),
        (
            head(without(b"Sec-WebSocket-Version")),
            400,
            "header Sec-WebSocket-Version is missing",
        ),
        (
            head([*LINES, b"Sec-WebSocket-Version: 13"]),
            400,
            "more than one Sec-WebSocket-Version header",
        ),
        *(
            (
                head(replaced(b"Sec-WebSocket-Version", b"Sec-WebSocket-Version: " + version)),
                426,
                "Sec-WebSocket-Version is not 13",
            )
            for version in (b"8", b"", b"013", b"13, 8", b"31")
        ),
        (head(without(b"Sec-WebSocket-Key")), 400, "header Sec-WebSocket-Key is missing"),
        (
            head([*LINES, b"Sec-WebSocket-Key: " + KEY]),
            400,
            "more than one Sec-WebSocket-Key header",
        ),
        *(
            (
                head(replaced(b"Sec-WebSocket-Key", b"Sec-WebSocket-Key: " + key)),
                400,
                "Sec-WebSocket-Key is not 16 bytes in base64",
            )
            for key in (b"", KEY[:-1], KEY + b"=", b"*" + KEY[1:], KEY[:-3] + b"===", KEY[4:])
        ),
    ],
)
def test_fault_says_what_is_wrong(
    head_module: ModuleType, data: bytes, status: int, text: str
) -> None:
    parsed = head_module.parse_head(data)
    assert parsed.fault == (status, text)
    assert parsed.key is None
    assert parsed.raw == data


def test_first_fault_is_the_one_that_is_told(head_module: ModuleType) -> None:
    order = [
        (b"Upgrade", "header Upgrade: websocket is missing"),
        (b"Connection", "header Connection: Upgrade is missing"),
        (b"Host", "header Host is missing"),
        (b"Sec-WebSocket-Version", "header Sec-WebSocket-Version is missing"),
        (b"Sec-WebSocket-Key", "header Sec-WebSocket-Key is missing"),
    ]
    lines: list[bytes] = []
    for name, text in order:
        assert head_module.parse_head(head(lines)).fault == (400, text)
        lines += [line for line in LINES if line.startswith(name + b":")]
    assert head_module.parse_head(head(lines)).fault is None


def test_websocket_is_wanted_whatever_else_is_wrong(head_module: ModuleType) -> None:
    assert head_module.parse_head(head([b"Upgrade: websocket"])).wants_websocket
    assert not head_module.parse_head(head(without(b"Upgrade"))).wants_websocket


def test_origins_are_counted_and_the_last_is_kept(head_module: ModuleType) -> None:
    parsed = head_module.parse_head(head([*LINES, b"Origin: http://other"]))
    assert (parsed.origin, parsed.origins) == (b"http://other", 2)
    parsed = head_module.parse_head(head(without(b"Origin")))
    assert (parsed.origin, parsed.origins) == (None, 0)


# --- what is no HTTP/1.1


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET",
        b"GET ",
        b"GET /",
        b"GET / ",
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET /a b HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"GET / HTTP/1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/1.x",
        b"GET / HTTP/x.1",
        b"GET / HTTP/1,1",
        b"GET / http/1.1",
        b"GET / HTPP/1.1",
        b"GET / HTTP/1.1\rHost: x",
        b"GET / HTTP/1.\r",
        b"GET / HTTP/1.1\nHost: x",
    ],
)
def test_malformed_request_line(head_module: ModuleType, request_line: bytes) -> None:
    assert refused(head_module, head(request=request_line)) == (400, "malformed request line")


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02", b" GET / HTTP/1.1\r\n", b"\nGET /", b"\x81"])
def test_other_protocols_are_refused_at_their_first_byte(
    head_module: ModuleType, data: bytes
) -> None:
    assert refused(head_module, data) == (400, "not an HTTP request")
    assert refused(head_module, data[:1]) == (400, "not an HTTP request")


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9", b"HTTP/3.1"])
def test_other_versions(head_module: ModuleType, version: bytes) -> None:
    data = head(request=b"GET / " + version)
    assert refused(head_module, data) == (505, "HTTP version is not 1.1")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"no colon", "malformed header line 2"),
        (b": no name", "malformed header line 2"),
        (b"Space : before colon", "malformed header line 2"),
        (b"Na\x00me: x", "malformed header line 2"),
        (b"Na(me: x", "malformed header line 2"),
        (b"N\xe4me: x", "malformed header line 2"),
        (b" folded: by a space", "malformed header line 2"),
        (b"\tfolded by a tab", "malformed header line 2"),
        (b"X: a\x00b", "malformed value in header line 2"),
        (b"X: a\x7fb", "malformed value in header line 2"),
        (b"X: a\rb", "malformed value in header line 2"),
        (b"X: a\nY: b", "malformed value in header line 2"),
        (b"X: a\r", "malformed value in header line 2"),
        (b"\nX: a", "malformed header line 2"),
    ],
)
def test_malformed_header_line(head_module: ModuleType, line: bytes, text: str) -> None:
    assert refused(head_module, head([LINES[0], line, *LINES[1:]])) == (400, text)


@pytest.mark.parametrize(
    "data",
    [
        head().replace(b"\r\n", b"\n"),
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\nHost: x\n",
        b"GET / HTTP/1.1\r\n\n",
    ],
)
def test_line_that_ends_without_cr_is_not_waited_for(head_module: ModuleType, data: bytes) -> None:
    assert refused(head_module, data) == (400, "line of the request head ends without CR")


# --- limits


def padded(size: int) -> bytes:
    """A handshake of ``size`` bytes."""
    name = b"X-Padding: "
    return head([*LINES, name + b"x" * (size - len(head([*LINES, name])))])


def test_head_of_16384_bytes(head_module: ModuleType) -> None:
    data = padded(head_module.MAX_HEAD)
    assert len(data) == 16384
    assert head_module.parse_head(data).fault is None
    assert head_module.parse_head(data[:-1]) is None
    # Neither what follows nor empty lines before it count.
    assert head_module.parse_head(b"\r\n" + data + b"x" * 100_000).fault is None


@pytest.mark.parametrize("over", [1, 2, 3, 100_000])
def test_larger_head(head_module: ModuleType, over: int) -> None:
    text = "request head of more than 16384 bytes"
    data = padded(16384 + over)
    assert refused(head_module, data) == (431, text)
    assert refused(head_module, data[:16385]) == (431, text)
    assert head_module.parse_head(data[:16384]) is None


def test_larger_request_line(head_module: ModuleType) -> None:
    data = head(request=b"GET /" + b"x" * 16384 + b" HTTP/1.1")
    assert head_module.parse_head(data[:16384]) is None
    for end in (16385, len(data)):
        assert refused(head_module, data[:end])[0] == 431


def test_128_lines(head_module: ModuleType) -> None:
    assert head_module.MAX_LINES == 128
    lines = [*LINES, *[b"x: y"] * (128 - len(LINES))]
    assert head_module.parse_head(head(lines)).fault is None
    lines.append(b"x: y")
    assert refused(head_module, head(lines)) == (431, "more than 128 header lines")


# --- cut anywhere


@pytest.mark.parametrize("data", [head(), b"\r\n" * 2 + head(), head([])])
def test_byte_by_byte_there_is_none_until_it_is_complete(
    head_module: ModuleType, data: bytes
) -> None:
    for end in range(len(data)):
        assert head_module.parse_head(data[:end]) is None
    assert head_module.parse_head(data).raw == data.lstrip(b"\r\n")


# --- both heads


def outcome(module: ModuleType, data: bytes) -> Any:
    try:
        parsed = module.parse_head(data)
    except InvalidMessage as error:
        return error.status, str(error)
    if parsed is None:
        return None
    return (
        parsed.raw,
        parsed.size,
        parsed.method,
        parsed.target,
        parsed.lines(),
        parsed.wants_websocket,
        parsed.fault,
        parsed.key,
        parsed.origin,
        parsed.origins,
    )


pieces = st.sampled_from(
    [
        *(line + b"\r\n" for line in LINES),
        *(bytes((byte,)) for byte in b"\r\n\t :,/\x00\x7f\x80\xff=H"),
        b"\r\n",
        b"\r\n\r\n",
        b"connection: keep-alive, UPGRADE\r\n",
        b"Connection: close\r\n",
        b"upgrade:\twebsocket ,h2c \r\n",
        b"Upgrade: h2c\r\n",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"x: y\r\n" * 130,
        b"x" * 17000,
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A handshake with something put in, taken out or replaced, in a few places."""
    data = head(draw(st.permutations(LINES)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.sampled_from([0, 0, 1, 2, 20]))
        data = data[:start] + draw(st.one_of(pieces, st.binary(max_size=3))) + data[end:]
    return data[: draw(st.one_of(st.none(), st.integers(0, len(data))))]


@hypothesis.example(b"")
@hypothesis.example(b"\r")
@hypothesis.example(b"\rX\r\n")
@hypothesis.example(b"\r\n\r\r\n")
@hypothesis.example(head([*LINES, b""]))
@hypothesis.given(
    data=st.one_of(mutated(), st.lists(pieces).map(b"".join), st.binary(max_size=200))
)
def test_twins_agree(head_module: ModuleType, data: bytes) -> None:
    assert outcome(head_module, data) == outcome(twin, data)


@hypothesis.given(data=mutated(), extra=st.binary(max_size=50))
def test_what_follows_changes_nothing(head_module: ModuleType, data: bytes, extra: bytes) -> None:
    before = outcome(head_module, data)
    if before is not None and len(before) > 2:
        assert outcome(head_module, data + extra) == before
