"""Any bytes as an opening handshake: the head, what is checked in it, and the answer.

The first bit of byte 0 tells a request to a server from a response to a client; byte 1 is where it
is cut. The rest is what the peer sends.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from fastws._pure import head as twin
from fastws._response import MAX_BODY, ResponseParser
from fastws.deflate import Agreement, Deflate, parse_extensions
from fastws.exceptions import InvalidHandshake
from fastws.handshake import check_head, check_origin, offered_subprotocols, refusal, switching
from fastws.http import Request, Response

from . import picked
from ._chosen import head as chosen

MAX_HEAD = 16384

FIELDS = ("size", "raw", "key", "origin", "origins", "extensions", "wants_websocket", "fault")

REFUSED = "refused"

Outcome = tuple[Any, ...] | None


def run(data: bytes, *, thorough: bool = False) -> None:
    if len(data) < 3:
        return
    side, cut = data[:2]
    if side & 1:
        read_response(data[2:], cut)
    else:
        read_request(data[2:], cut, thorough or picked(data))


# --- a request to a server


def read_request(data: bytes, cut: int, thorough: bool) -> None:
    outcome = parse(chosen, data)
    if thorough:
        assert parse(twin, data) == outcome, "the twin differs"
        for end in range(len(data)):
            beginning_agrees(data[:end], outcome)
    beginning_agrees(data[:cut], outcome)
    try:
        head = chosen.parse_head(data)
    except InvalidHandshake as error:
        answered(refusal(error))
        return
    if head is not None:
        answer(head)


def parse(module: ModuleType, data: bytes) -> Outcome:
    """What ``parse_head`` makes of ``data``, to compare it."""
    try:
        head = module.parse_head(data)
    except InvalidHandshake as error:
        assert 400 <= error.status < 600
        return REFUSED, error.status, str(error)
    if head is None:
        return None
    assert head.size <= len(data) and head.raw.endswith(b"\r\n\r\n")
    return (*(getattr(head, name) for name in FIELDS), head.method, head.target, head.lines())


def beginning_agrees(data: bytes, outcome: Outcome) -> None:
    """It is unfinished, or what the whole is too; of two faults either may be told."""
    begun = parse(chosen, data)
    if begun is not None and begun[0] == REFUSED:
        assert outcome is not None and outcome[0] == REFUSED, "it depends on the cuts"
    else:
        assert begun is None or begun == outcome, "it depends on the cuts"


def answer(head: Any) -> None:
    """All that a server does with a head, short of a socket."""
    request = Request.from_head(head)
    try:
        check_head(head)
        check_origin(head, ["https://example.org", None])
        offered_subprotocols(request.headers.get_all("Sec-WebSocket-Protocol"))
        negotiate(", ".join(request.headers.get_all("Sec-WebSocket-Extensions")))
    except (InvalidHandshake, LookupError) as error:
        if isinstance(error, InvalidHandshake):
            answered(refusal(error))
        return
    assert head.fault is None and len(head.key) == 24
    assert switching(head.key).count(b"\r\n") == 5


def negotiate(offers: str) -> None:
    if not offers:
        return
    settings = Deflate()
    agreed = settings.accept(parse_extensions(offers))
    if agreed is not None:
        assert str(agreed).isascii() and "\r" not in str(agreed)
        Agreement(settings, agreed, client=False, shared={})


def answered(response: Response) -> None:
    head, end, body = response.serialize().partition(b"\r\n\r\n")
    assert end and body == response.body
    assert head.startswith(b"HTTP/1.1 4") or head.startswith(b"HTTP/1.1 5")


# --- a response to a client


def read_response(data: bytes, cut: int) -> None:
    whole = response_of([data])
    in_parts = response_of([data[:cut], data[cut:]])
    if in_parts is not None and in_parts[0] == REFUSED:
        assert whole is not None and whole[0] == REFUSED, "it depends on the cuts"
    else:
        assert in_parts == whole, "it depends on the cuts"


def response_of(parts: list[bytes]) -> Outcome:
    parser = ResponseParser(switching=(101,))
    complete = False
    try:
        for part in parts:
            if complete:
                break
            complete = parser.feed(part)
    except InvalidHandshake as error:
        return REFUSED, type(error), str(error)
    response = parser.response
    if response is None:
        assert not complete
        return None
    assert len(response.body) <= MAX_BODY
    lines = list(response.headers.raw_items())
    return complete, response.status_code, response.reason_phrase, lines, response.body


# --- seeds

LINES = (
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
    "Origin: https://example.org",
    "Sec-WebSocket-Protocol: chat, superchat",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
    'client_no_context_takeover; server_max_window_bits="10"; client_max_window_bits=9',
)

RESPONSES = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x02hi",
    "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnever",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
    "HTTP/1.0 302 Found\r\nLocation: ws://example.org/\r\n\r\nbody",
    "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
)


def request(first: str, lines: tuple[str, ...]) -> bytes:
    return "\r\n".join((first, *lines, "", "")).encode("latin-1")


def seeds() -> Iterator[bytes]:
    for cut in (0, 60):
        yield bytes((0, cut)) + request("GET /chat?x=%20 HTTP/1.1", LINES)
        yield bytes((0, cut)) + b"\r\n" + request("GET / HTTP/1.1", LINES[:5]) + b"\x81\x80abcd"
        yield bytes((0, cut)) + request("POST / HTTP/1.0", ("Host: a", "Host: b", "X:\ty "))
        for index in range(5):
            yield bytes((0, cut)) + request("GET / HTTP/1.1", LINES[:index] + LINES[index + 1 :])
        for text in RESPONSES:
            yield bytes((1, cut)) + text.encode()
