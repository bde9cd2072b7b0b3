"""The parser of responses: however they are cut, and whatever comes (RFC 9112)."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fastws._response import MAX_BODY, ResponseParser
from fastws.exceptions import InvalidMessage
from fastws.http import Response

RESPONSES = [
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x01a", b""),
    (b"HTTP/1.1 100 \r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 101\r\n\r\nrest", b""),
    (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone, long ago", b"gone"),
    (b"HTTP/1.0 500 \r\n\r\nuntil the end", b"until the end"),
    (
        b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5 ;a=b\r\nchunk\r\n00A\r\n0123456789\r\n0\r\n\r\nmore",
        b"chunk0123456789",
    ),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\nwhatever", b""),
]

PIECES = [
    *(b"HTTP/1.1 ", b"101", b"500 Oops", b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"A: b\r\n"),
    *(b"Content-Length: ", b"9", b"Transfer-Encoding: chunked", b"0", b"ffffffff", b";"),
]
PREFIXES = [
    b"",
    b"HTTP/1.1 500 Oops\r\n",
    b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n",
]

pieces = st.lists(st.one_of(st.binary(max_size=20), st.sampled_from(PIECES)), max_size=30)


def take(chunks: list[bytes]) -> tuple[Response | None, bytes]:
    """Feed ``chunks`` until the response is complete; it, and what follows a 101."""
    parser = ResponseParser(switching=(101,))
    rest = b""
    complete = False
    for chunk in chunks:
        if complete:
            rest += chunk
        else:
            complete = parser.feed(chunk)
    return parser.response, parser.rest + rest


@given(st.sampled_from(RESPONSES), st.lists(st.integers(0, 150), max_size=8))
def test_a_response_is_the_same_however_it_is_cut(
    example: tuple[bytes, bytes], cuts: list[int]
) -> None:
    data, body = example
    at = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    response, rest = take([data[a:b] for a, b in itertools.pairwise(at)])
    assert response is not None
    whole, whole_rest = take([data])
    assert response == whole and response.body == body
    if response.status_code == 101:
        assert rest == whole_rest == data[data.rindex(b"\r\n\r\n") + 4 :]


@given(st.sampled_from(PREFIXES), pieces)
def test_whatever_comes_is_a_response_or_refused(prefix: bytes, chunks: list[bytes]) -> None:
    try:
        response, _ = take([prefix, *chunks])
    except InvalidMessage:
        return
    assert response is None or len(response.body) <= MAX_BODY
