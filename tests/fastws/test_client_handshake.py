"""What a server may answer to an opening handshake, and what bad servers cost (RFC 6455 4.1)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

import fastws
from fastws._response import MAX_BODY, ResponseParser
from tests.fastws.client import Echo, serve, url
from tests.fastws.raw_server import ServerPeer, no_proxy, raw_server, switching

pytestmark = pytest.mark.usefixtures("loop_kind", "no_proxy")

__all__ = ["no_proxy"]


async def fail(
    carrier: str, data: bytes, *, stay: bool = False, cut: int = 0, **options: Any
) -> fastws.InvalidHandshake:
    """Connect to a server that answers ``data``, in pieces of ``cut`` bytes; what that raises."""

    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(data), cut or len(data) or 1):
                await peer.send(data[at : at + cut] if cut else data)
                await asyncio.sleep(0)
            if stay:
                await peer.drain()

    async with raw_server(handler) as uri:
        with pytest.raises(fastws.InvalidHandshake) as caught:
            await fastws.connect(uri, carrier=carrier, **options)
    return caught.value


# --- not a response

MALFORMED = {
    "garbage": (b"SSH-2.0-OpenSSH\r\n", "not an HTTP/1 response"),
    "a frame": (b"\x88\x02\x03\xe8", "not an HTTP/1 response"),
    "HTTP/2": (b"HTTP/2 200\r\n\r\n", "not an HTTP/1 response"),
    "no status": (b"HTTP/1.1\r\n\r\n", "malformed status line|not an HTTP/1"),
    "a status of letters": (b"HTTP/1.1 abc OK\r\n\r\n", "malformed status line"),
    "a status of four digits": (b"HTTP/1.1 1010 OK\r\n\r\n", "malformed status line"),
    "LF alone": (b"HTTP/1.1 101 OK\nUpgrade: websocket\n\n", "without CR"),
    "a line without colon": (b"HTTP/1.1 101 OK\r\nUpgrade\r\n\r\n", "header line 1"),
    "a space before the colon": (b"HTTP/1.1 101 OK\r\nA: b\r\nUpgrade : x\r\n\r\n", "line 2"),
    "a folded line": (b"HTTP/1.1 101 OK\r\nA: b\r\n c\r\n\r\n", "header line 2"),
    "NUL in a value": (b"HTTP/1.1 101 OK\r\nA: b\0c\r\n\r\n", "malformed value in header line 1"),
    "CR in a value": (b"HTTP/1.1 101 OK\r\nA: b\rc\r\n\r\n", "malformed value in header line 1"),
    "many lines": (b"HTTP/1.1 101 OK\r\n" + b"A: b\r\n" * 129 + b"\r\n", "more than 128 header"),
    "an endless line": (b"HTTP/1.1 101 " + b"O" * 20_000, "more than 16384 bytes"),
    "endless interim responses": (b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, "more than 16384"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_no_response_is_refused_while_it_comes(carrier: str, name: str) -> None:
    data, text = MALFORMED[name]
    for cut in (0, 1) if len(data) < 1000 else (0, 1000):
        # The server stays: nothing waits for the end of what is wrong already.
        error = await fail(carrier, data, stay=True, cut=cut)
        assert isinstance(error, fastws.InvalidMessage)
        with pytest.raises(fastws.InvalidMessage, match=text):
            raise error


@pytest.mark.parametrize("data", [b"", b"HT", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs"])
async def test_a_server_that_goes_before_its_answer(carrier: str, data: bytes) -> None:
    error = await fail(carrier, data)
    assert isinstance(error, fastws.InvalidMessage)
    assert isinstance(error.__cause__, EOFError)


async def test_a_connection_reset_before_the_answer(carrier: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        peer.reset()

    async with raw_server(handler) as uri:
        with pytest.raises(fastws.InvalidMessage, match="lost") as caught:
            await fastws.connect(uri, carrier=carrier)
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_nobody_listens(carrier: str) -> None:
    with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.1:1"):
        await fastws.connect("ws://127.0.0.1:1/", carrier=carrier)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 101 Switching Protocols\r\nUpgr"])
async def test_a_server_that_stalls_is_left_after_open_timeout(carrier: str, data: bytes) -> None:
    gone = asyncio.Event()

    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        await peer.send(data)
        await peer.drain()
        gone.set()

    async with raw_server(handler) as uri:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=r"no connection to ws://.* within 0\.2 s"):
            await fastws.connect(uri, carrier=carrier, open_timeout=0.2)
        assert time.monotonic() - started < 5
        await gone.wait()


async def test_cancelling_leaves_nothing_behind(carrier: str) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def handler(peer: ServerPeer) -> None:
        await peer.request()
        asked.set()
        await peer.drain()
        gone.set()

    async with raw_server(handler) as uri:
        connecting = asyncio.ensure_future(fastws.connect(uri, carrier=carrier)._connect())
        await asked.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await gone.wait()


# --- a 101 response that does not open a WebSocket

WRONG: dict[str, tuple[list[tuple[str, str]], str | None, type[Exception], str]] = {
    "no Upgrade": ([], "Upgrade", fastws.InvalidUpgrade, "header Upgrade is missing"),
    "another Upgrade": ([("Upgrade", "h2c")], "Upgrade", fastws.InvalidUpgrade, "'h2c', not webs"),
    "two Upgrades": ([("Upgrade", "h2c")], None, fastws.InvalidUpgrade, "'websocket, h2c'"),
    "no Connection": ([], "Connection", fastws.InvalidUpgrade, "header Connection is missing"),
    "another Connection": (
        [("Connection", "keep-alive")],
        "Connection",
        fastws.InvalidUpgrade,
        "'keep-alive', not Upgrade",
    ),
    "no Accept": ([], "Sec-WebSocket-Accept", fastws.InvalidHeader, "Accept is missing"),
    "a wrong Accept": (
        [("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")],
        "Sec-WebSocket-Accept",
        fastws.InvalidHeader,
        "not the answer to our key",
    ),
    "two Accepts": (
        [("Sec-WebSocket-Accept", "x")],
        None,
        fastws.InvalidHeader,
        "not the answer to our key",
    ),
    "an extension": (
        [("Sec-WebSocket-Extensions", "x-made-up; a=b")],
        None,
        fastws.NegotiationError,
        "'x-made-up' was not offered",
    ),
    "another subprotocol": (
        [("Sec-WebSocket-Protocol", "c")],
        None,
        fastws.NegotiationError,
        "'c' was not offered",
    ),
    "two subprotocols": (
        [("Sec-WebSocket-Protocol", "a"), ("Sec-WebSocket-Protocol", "b")],
        None,
        fastws.NegotiationError,
        "chose 2 subprotocols",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_101_response_that_opens_no_websocket(carrier: str, name: str) -> None:
    added, removed, kind, text = WRONG[name]

    async def handler(peer: ServerPeer) -> None:
        _, lines = await peer.request()
        right = switching(lines).decode().split("\r\n")[:-2]
        kept = [line for line in right if removed is None or not line.startswith(removed + ":")]
        await peer.send("\r\n".join((*kept, *map(": ".join, added), "", "")).encode())
        with contextlib.suppress(ConnectionError):
            await peer.drain()

    async with raw_server(handler) as uri:
        with pytest.raises(kind, match=text):
            await fastws.connect(uri, carrier=carrier, subprotocols=["a", "b"])


async def test_an_old_http_version_switches_to_nothing(carrier: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        _, lines = await peer.request()
        await peer.send(switching(lines).replace(b"HTTP/1.1", b"HTTP/1.0"))

    async with raw_server(handler) as uri:
        with pytest.raises(fastws.InvalidMessage, match=r"HTTP/1\.0"):
            await fastws.connect(uri, carrier=carrier)


async def test_the_answer_may_come_byte_by_byte_behind_interim_ones(carrier: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        _, lines = await peer.request()
        data = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + switching(
            lines, [("Server", "slow"), ("X", "")]
        )
        for byte in data:
            await peer.send(bytes([byte]))
            await asyncio.sleep(0)
        await peer.close_handshake()

    async with raw_server(handler) as uri, fastws.connect(uri, carrier=carrier) as ws:
        assert ws.response is not None
        assert ws.response.headers["Server"] == "slow"


async def test_names_and_tokens_of_the_answer_compare_without_regard_to_case(carrier: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        _, lines = await peer.request()
        answer = switching(lines, [("connection", "keep-alive")])
        answer = answer.replace(b"Upgrade: websocket", b"uPGRADE:WebSocket")
        await peer.send(answer.replace(b"Connection: Upgrade", b"CONNECTION:\tx, uPgrade \t"))
        await peer.close_handshake()

    async with raw_server(handler) as uri, fastws.connect(uri, carrier=carrier):
        pass


# --- refusals


async def test_a_refusal_carries_the_response(carrier: str) -> None:
    def refuse(ws: fastws.ServerConnection, request: fastws.Request) -> fastws.Response:
        return ws.respond(403, "not you\n")

    async with serve(Echo, carrier, process_request=refuse) as server:
        with pytest.raises(fastws.InvalidStatus, match="HTTP 403") as caught:
            await fastws.connect(url(server), carrier=carrier)
    response = caught.value.response
    assert (response.status_code, response.reason_phrase) == (403, "Forbidden")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.body == b"not you\n"


BODIES = {
    "none": (b"Content-Length: 0\r\n\r\n", b""),
    "by length": (b"Content-Length: 5\r\n\r\nhello, and more", b"hello"),
    "by chunks": (
        b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n",
        b"hello",
    ),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("cut", [0, 1])
async def test_a_body_ends_where_it_says(carrier: str, name: str, cut: int) -> None:
    data, body = BODIES[name]
    error = await fail(carrier, b"HTTP/1.1 500 Oops\r\n" + data, stay=True, cut=cut)
    assert isinstance(error, fastws.InvalidStatus)
    assert (error.response.status_code, error.response.body) == (500, body)


CUT_SHORT = {
    "no length": (b"\r\nuntil the end", b"until the end"),
    "a length that is not reached": (b"Content-Length: 100\r\n\r\nshort", b"short"),
    "a length that is no number": (b"Content-Length: -5\r\n\r\nwhat came", b"what came"),
    "two lengths": (b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nwhat came", b"what came"),
    "a chunk that is not finished": (b"Transfer-Encoding: chunked\r\n\r\n9\r\nwhat", b"what"),
    "chunks that are none": (b"Transfer-Encoding: chunked\r\n\r\nzz\r\nwhat", b""),
    "HTTP/1.0": (b"\r\nold", b"old"),
}


@pytest.mark.parametrize("name", CUT_SHORT)
async def test_a_body_that_ends_with_the_connection(carrier: str, name: str) -> None:
    data, body = CUT_SHORT[name]
    version = b"1.0" if name == "HTTP/1.0" else b"1.1"
    error = await fail(carrier, b"HTTP/" + version + b" 404 Not Found\r\n" + data)
    assert isinstance(error, fastws.InvalidStatus)
    assert error.response.body == body


@pytest.mark.parametrize(
    "length", [b"", b"Content-Length: 700000\r\n", b"Content-Length: 9" + b"9" * 50 + b"\r\n"]
)
async def test_a_huge_body_is_cut_and_not_waited_for(carrier: str, length: bytes) -> None:
    data = b"HTTP/1.1 500 Oops\r\n" + length + b"\r\n" + b"x" * 1_000_000
    error = await fail(carrier, data, stay=True)
    assert isinstance(error, fastws.InvalidStatus)
    assert error.response.body == b"x" * MAX_BODY


async def test_a_body_that_stalls_is_not_waited_for_long(carrier: str) -> None:
    data = b"HTTP/1.1 503 Busy\r\nContent-Length: 10\r\n\r\nwhat"
    started = time.monotonic()
    error = await fail(carrier, data, stay=True)
    assert time.monotonic() - started < 5
    assert isinstance(error, fastws.InvalidStatus)
    assert (error.response.status_code, error.response.body) == (503, b"what")


def test_a_body_in_many_tiny_chunks_costs_no_more_than_its_bytes() -> None:
    parser = ResponseParser(switching=())
    parser.feed(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n")
    started = time.process_time()
    for _ in range(MAX_BODY - 1):
        assert not parser.feed(b"1\r\nx\r\n")
    assert parser.feed(b"1\r\nx\r\n")
    assert parser.response is not None and len(parser.response.body) == MAX_BODY
    assert time.process_time() - started < 5


# --- resources


async def test_failed_handshakes_leave_no_connection_in_the_reactor(carrier: str) -> None:
    reactor = getattr(asyncio.get_running_loop(), "_fastws_reactor", None)
    for data in (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", b"garbage", b""):
        await fail(carrier, data)
    reactor = getattr(asyncio.get_running_loop(), "_fastws_reactor", None)
    assert reactor is not None and len(reactor) == 0
