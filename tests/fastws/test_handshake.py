"""The opening handshake (RFC 6455 4.2), and plain HTTP on the same port."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable
from typing import Any

import pytest
from websockets.asyncio.client import connect

import fastws
from tests.fastws.client import (
    ACCEPT,
    HEADERS,
    TEXT,
    Held,
    Peer,
    Recorder,
    echo,
    frame,
    head,
    logged,
    serve,
    turns,
    until,
    url,
)

pytestmark = pytest.mark.usefixtures("loop_kind")


async def answer(server: fastws.Server, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """The response to ``data``; a refusal ends the connection."""
    async with await Peer.connect(server) as peer:
        await peer.send(data)
        response = await peer.response()
        if response[0] != 101:
            assert await peer.ended() == "fin"
            peer.half_close()
        return response


# --- what is accepted


async def test_response_is_that_of_the_example_in_the_rfc(carrier: str) -> None:
    async with serve(echo, carrier) as server, await Peer.connect(server) as peer:
        await peer.send(head())
        while b"\r\n\r\n" not in peer.unread:
            await peer._more()
        assert peer.unread == (
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n\r\n"
        )


GOOD = {
    "Firefox names two connection options": head(
        [("Connection", "keep-alive, Upgrade")], without="Connection"
    ),
    "options in any case": head([("connection", "UPGRADE")], without="Connection"),
    "connection options on two lines": head([("Connection", "keep-alive")]),
    "connection options on two lines, the other way": head(
        [("Connection", "Upgrade")],
        base=[("Connection", "keep-alive"), *(h for h in HEADERS if h[0] != "Connection")],
    ),
    "empty list elements": head([("Connection", ", ,Upgrade ,")], without="Connection"),
    "upgrade in another case": head([("Upgrade", "WebSocket")], without="Upgrade"),
    "upgrade is a list": head([("Upgrade", "h2c, websocket")], without="Upgrade"),
    "headers in another order": head(base=reversed(HEADERS)),
    "header names in upper case": head(base=[(name.upper(), value) for name, value in HEADERS]),
    "header names in lower case": head(base=[(name.lower(), value) for name, value in HEADERS]),
    "no space behind the colon": head().replace(b": ", b":"),
    "much space around values": head().replace(b": ", b":  \t ").replace(b"\r\nU", b" \t\r\nU"),
    "an empty line first": b"\r\n" + head(),
    "headers that nobody asked for": head([("X-Unknown", "\xff\t!"), ("Empty", "")]),
    "an extension that we do not have": head(
        [("Sec-WebSocket-Extensions", "permessage-bzip2; compression_level=9, x-unknown")]
    ),
    "an absolute target": head(request_line="GET http://localhost/chat?x=1 HTTP/1.1"),
    "a head of almost 16 KiB": head([("Cookie", "x" * 16000)]),
    "120 headers": head([(f"X-{index}", "x") for index in range(120)]),
}


async def test_every_valid_way_to_write_a_handshake_is_accepted(carrier: str) -> None:
    async with serve(echo, carrier) as server:
        for case, data in GOOD.items():
            async with await Peer.connect(server) as peer:
                await peer.send(data)
                status, headers, _ = await peer.response()
                assert status == 101, case
                assert headers["sec-websocket-accept"] == ACCEPT, case
                assert "sec-websocket-extensions" not in headers, case
                await peer.text(case)
                assert await peer.message() == case


async def test_handshake_may_come_byte_by_byte(carrier: str) -> None:
    async with serve(echo, carrier) as server, await Peer.connect(server) as peer:
        for byte in head() + frame(TEXT, b"hello"):
            await peer.send(bytes([byte]))
            await turns(1)
        assert (await peer.response())[0] == 101
        assert await peer.message() == "hello"


async def test_bytes_right_behind_the_handshake_are_frames(carrier: str) -> None:
    async with serve(echo, carrier) as server:
        behind = frame(TEXT, b"one") + frame(TEXT, b"two" * 10_000)
        async with await Peer.open(server, behind=behind) as peer:
            assert await peer.message() == "one"
            assert await peer.message() == "two" * 10_000


async def test_header_of_a_frame_may_be_cut_by_the_handshake_segment(carrier: str) -> None:
    async with serve(echo, carrier) as server:
        data = frame(TEXT, b"x" * 200)
        async with await Peer.open(server, behind=data[:3]) as peer:
            await peer.send(data[3:])
            assert await peer.message() == "x" * 200


async def test_request_has_path_and_headers(carrier: str) -> None:
    held = Held()
    async with serve(held, carrier) as server:
        headers = [("Cookie", "a=1"), ("X-Twice", "1"), ("x-twice", "2")]
        async with await Peer.open(server, path="/chat%20room?x=1&y=%C3%A4", headers=headers):
            ws = await held.connection()
            assert ws.request.path == "/chat%20room?x=1&y=%C3%A4"
            assert ws.request.headers["COOKIE"] == "a=1"
            assert ws.request.headers["Host"] == "localhost"
            assert ws.request.headers.get_all("X-Twice") == ["1", "2"]
            with pytest.raises(fastws.MultipleValuesError):
                ws.request.headers["X-Twice"]


async def test_request_of_a_listener_is_kept_only_if_on_open_reads_it(carrier: str) -> None:
    class Reading(Recorder):
        def on_open(self, ws: fastws.Connection) -> None:
            if reads:
                assert ws.request.path == "/x"
            super().on_open(ws)

    recorder = Reading()
    async with serve(recorder, carrier) as server:
        reads = True
        async with await Peer.open(server, path="/x"):
            assert (await recorder.opened.get()).request.path == "/x"
        reads = False
        async with await Peer.open(server, path="/x"):
            ws = await recorder.opened.get()
            with pytest.raises(RuntimeError, match="on_open"):
                _ = ws.request


# --- what is refused

BAD = {
    "a request that is no upgrade": (head(without="Upgrade"), 400, "Upgrade"),
    "an upgrade to something else": (head([("Upgrade", "h2c")], without="Upgrade"), 400, "Upgrade"),
    "no Connection header": (head(without="Connection"), 400, "Connection"),
    "a Connection header that lacks Upgrade": (
        head([("Connection", "keep-alive, upgrades")], without="Connection"),
        400,
        "Connection",
    ),
    "no Host header": (head(without="Host"), 400, "Host"),
    "two Host headers": (head([("Host", "b")]), 400, "Host"),
    "no key": (head(without="Sec-WebSocket-Key"), 400, "Sec-WebSocket-Key"),
    "two keys": (head([("Sec-WebSocket-Key", "x")]), 400, "Sec-WebSocket-Key"),
    "a key that is too short": (
        head([("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAA")], without="Sec-WebSocket-Key"),
        400,
        "base64",
    ),
    "a key that is not base64": (
        head([("Sec-WebSocket-Key", "!" * 22 + "==")], without="Sec-WebSocket-Key"),
        400,
        "base64",
    ),
    "no version": (head(without="Sec-WebSocket-Version"), 400, "Sec-WebSocket-Version"),
    "two versions": (head([("Sec-WebSocket-Version", "8")]), 400, "Sec-WebSocket-Version"),
    "a method other than GET": (head(request_line="POST / HTTP/1.1"), 400, "GET"),
    "HTTP/1.0": (head(request_line="GET / HTTP/1.0"), 400, "1.1"),
    "HTTP/2.0": (head(request_line="GET / HTTP/2.0"), 505, "1.1"),
    "a request line of one word": (b"GET\r\n\r\n", 400, "request line"),
    "a request line of four words": (head(request_line="GET / x HTTP/1.1"), 400, "request line"),
    "a space before the colon": (head().replace(b"Host:", b"Host :"), 400, "header line"),
    "a folded line": (head([("X", "1\r\n 2")]), 400, "header line"),
    "a line without a colon": (head([]).replace(b"Host: ", b"Host "), 400, "header line"),
    "a NUL in a value": (head([("X", "a\0b")]), 400, "header line"),
    "a bare line feed in a value": (head([("X", "a\nb")]), 400, "header line"),
    "a head of more than 16 KiB": (head([("X", "x" * 16384)]), 431, "16384"),
    "more than 128 headers": (head([(f"X{i}", "") for i in range(130)]), 431, "128"),
    "a TLS handshake": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "HTTP"),
    "garbage": (b"\x00\x01\x02\x03", 400, "HTTP"),
}


async def test_every_fault_of_a_handshake_is_refused_with_its_status(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server:
        for case, (data, expected, word) in BAD.items():
            status, headers, body = await answer(server, data)
            assert status == expected, case
            assert headers["connection"] == "close", case
            assert headers["content-type"] == "text/plain; charset=utf-8", case
            assert word in body.decode(), case
        assert recorder.opened.empty() and recorder.closed.empty()


async def test_wrong_version_is_426_and_names_ours(carrier: str) -> None:
    async with serve(echo, carrier) as server:
        for version in ("12", "8", "013", "13.0", "x", ""):
            status, headers, _ = await answer(
                server,
                head([("Sec-WebSocket-Version", version)], without="Sec-WebSocket-Version"),
            )
            assert status == 426, version
            assert headers["sec-websocket-version"] == "13"
            assert headers["upgrade"] == "websocket"


async def test_head_that_never_ends_is_431_when_it_is_over_the_limit(carrier: str) -> None:
    async with serve(echo, carrier) as server, await Peer.connect(server) as peer:
        await peer.send(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(17):
            await peer.send(b"x" * 1000)
        status, _, body = await peer.response()
        assert status == 431 and b"16384" in body


async def test_bytes_behind_a_refused_request_are_ignored(carrier: str) -> None:
    async with serve(echo, carrier) as server, await Peer.connect(server) as peer:
        await peer.send(head(without="Sec-WebSocket-Key") + b"GET / HTTP/1.1\r\n\r\n" * 100)
        assert (await peer.response())[0] == 400
        await peer.send(head() + frame(TEXT, b"x"))
        assert await peer.ended() == "fin"


async def test_refused_client_that_stays_is_dropped_after_the_close_timeout(carrier: str) -> None:
    async with (
        serve(echo, carrier, close_timeout=0.1) as server,
        await Peer.connect(server) as peer,
    ):
        await peer.send(b"\0")
        assert (await peer.response())[0] == 400
        await until(lambda: not len(server.reactor))


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_slow_head_is_408_after_the_open_timeout(carrier: str, sent: bytes) -> None:
    async with serve(echo, carrier, open_timeout=0.1) as server:
        began = time.monotonic()
        async with await Peer.connect(server) as peer:
            await peer.send(sent)
            status, headers, _ = await peer.response()
            assert status == 408 and headers["connection"] == "close"
            assert 0.09 < time.monotonic() - began < 2
            assert await peer.ended() == "fin"


async def test_open_timeout_ends_with_the_handshake(carrier: str) -> None:
    async with (
        serve(echo, carrier, open_timeout=0.05) as server,
        await Peer.open(server) as peer,
    ):
        await asyncio.sleep(0.15)
        await peer.text("x")
        assert await peer.message() == "x"


async def test_client_that_is_gone_when_it_is_refused_leaves_nothing(carrier: str) -> None:
    """Its RST comes between the answer and the FIN behind it: shutdown(2) then fails."""
    peers: list[Peer] = []

    async def process_request(
        ws: fastws.ServerConnection, request: fastws.Request
    ) -> fastws.Response:
        # Just before the answer: no loop has seen the client's FIN then.
        asyncio.get_running_loop().call_soon(peers.pop().close)
        return ws.respond(403, "no")

    async with serve(echo, carrier, process_request=process_request) as server:
        for _ in range(5):
            peer = await Peer.connect(server)
            peers.append(peer)
            await peer.send(head())
            await until(lambda: not peers and not len(server.reactor))


async def test_client_that_goes_away_in_its_handshake_leaves_nothing(carrier: str) -> None:
    recorder = Recorder()
    async with serve(recorder, carrier) as server:
        for how in ("close", "half_close", "reset"):
            async with await Peer.connect(server) as peer:
                await peer.send(head()[:50])
                await until(lambda: len(server.reactor))
                getattr(peer, how)()
                await until(lambda: not len(server.reactor))
        assert recorder.opened.empty() and recorder.closed.empty()


# --- origins


async def test_origin_must_be_one_of_those_allowed(carrier: str) -> None:
    allowed = ["https://example.org", re.compile(r"https://[a-z]+\.example\.com")]
    cases = [
        ("https://example.org", 101),
        ("https://a.example.com", 101),
        ("https://a.example.com.evil.org", 403),
        ("https://example.org.evil.org", 403),
        ("http://example.org", 403),
        ("null", 403),
        (None, 403),
    ]
    async with serve(echo, carrier, origins=allowed) as server:
        for origin, expected in cases:
            headers = [("Origin", origin)] if origin is not None else []
            assert (await answer(server, head(headers)))[0] == expected, origin


async def test_origins_may_allow_clients_that_send_none(carrier: str) -> None:
    async with serve(echo, carrier, origins=[None, "https://a"]) as server:
        assert (await answer(server, head()))[0] == 101
        assert (await answer(server, head([("Origin", "https://a")])))[0] == 101
        assert (await answer(server, head([("Origin", "https://b")])))[0] == 403


async def test_two_origin_headers_are_refused(carrier: str) -> None:
    async with serve(echo, carrier, origins=["https://a"]) as server:
        twice = [("Origin", "https://a"), ("Origin", "https://a")]
        assert (await answer(server, head(twice)))[0] == 403


# --- subprotocols


async def test_first_subprotocol_that_we_speak_and_is_offered_is_chosen(carrier: str) -> None:
    cases = [
        (["chat.v2, chat.v1"], "chat.v1"),
        (["chat.v2", "chat.v1"], "chat.v1"),
        (["unknown,chat.v2"], "chat.v2"),
    ]
    held = Held()
    async with serve(held, carrier, subprotocols=["chat.v1", "chat.v2"]) as server:
        for offers, chosen in cases:
            async with await Peer.connect(server) as peer:
                await peer.send(head([("Sec-WebSocket-Protocol", offer) for offer in offers]))
                _, headers, _ = await peer.response()
                assert headers.get("sec-websocket-protocol") == chosen, offers
                assert (await held.connection()).subprotocol == chosen, offers


async def test_a_client_without_a_subprotocol_in_common_gets_a_400(carrier: str) -> None:
    async with serve(echo, carrier, subprotocols=["chat.v1", "chat.v2"]) as server:
        for lines in ([], [("Sec-WebSocket-Protocol", "unknown")]):
            status, _, body = await answer(server, head(lines))
            assert status == 400
            assert b"no subprotocol in common, only chat.v1, chat.v2" in body


async def test_a_server_without_subprotocols_takes_any_client(carrier: str) -> None:
    for ours in (None, []):
        async with serve(echo, carrier, subprotocols=ours) as server:
            offered = head([("Sec-WebSocket-Protocol", "unknown")])
            status, headers, _ = await answer(server, offered)
            assert status == 101 and "sec-websocket-protocol" not in headers


@pytest.mark.parametrize(
    ("subprotocols", "error"), [("chat", TypeError), (["a b"], ValueError), ([""], ValueError)]
)
async def test_subprotocols_that_nobody_could_offer(
    subprotocols: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="subprotocols"):
        fastws.serve(echo, "127.0.0.1", 0, subprotocols=subprotocols)


async def test_malformed_subprotocol_offer_is_a_400(carrier: str) -> None:
    async with serve(echo, carrier, subprotocols=["a"]) as server:
        for offer in ("a b", "a,,b", "a;b", ""):
            offered = head([("Sec-WebSocket-Protocol", offer)])
            assert (await answer(server, offered))[0] == 400, offer


async def test_select_subprotocol_decides(carrier: str) -> None:
    seen: list[Any] = []

    def select(ws: fastws.Connection, offered: Any) -> str | None:
        seen.append(list(offered))
        return offered[-1] if offered else None

    async with serve(echo, carrier, select_subprotocol=select) as server:
        _, headers, _ = await answer(server, head([("Sec-WebSocket-Protocol", "a, b")]))
        assert headers["sec-websocket-protocol"] == "b"
        _, headers, _ = await answer(server, head())
        assert "sec-websocket-protocol" not in headers
        assert seen == [["a", "b"], []]


async def test_select_subprotocol_may_refuse(carrier: str) -> None:
    def select(ws: fastws.Connection, offered: Any) -> str | None:
        raise fastws.NegotiationError("none in common")

    async with serve(echo, carrier, select_subprotocol=select) as server:
        status, _, body = await answer(server, head([("Sec-WebSocket-Protocol", "a")]))
        assert status == 400 and b"none in common" in body


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("wrong", ["raises", "not offered"])
async def test_select_subprotocol_that_raises_or_chooses_what_was_not_offered_is_a_500(
    carrier: str, wrong: str, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def select(ws: fastws.Connection, offered: Any) -> str | None:
        if wrong == "raises":
            raise ValueError("select failed")
        return "something else"

    async def process(ws: fastws.Connection, request: fastws.Request) -> None:
        await asyncio.sleep(0)

    options = {"process_request": process} if asynchronous else {}
    async with serve(echo, carrier, select_subprotocol=select, **options) as server:
        offered = head([("Sec-WebSocket-Protocol", "a")])
        assert (await answer(server, offered))[0] == 500
    if wrong == "raises":
        (record,) = logged(caplog)
        assert record.exc_info is not None and str(record.exc_info[1]) == "select failed"


# --- process_request, process_response

ProcessRequest = Any


def synchronous_or_not(asynchronous: bool, function: Any) -> ProcessRequest:
    if not asynchronous:
        return function

    async def process(ws: fastws.Connection, request: fastws.Request) -> Any:
        await asyncio.sleep(0.001)
        return function(ws, request)

    return process


asynchronously = pytest.mark.parametrize("asynchronous", [False, True])


@asynchronously
async def test_process_request_sees_the_request_and_lets_it_go_on(
    carrier: str, asynchronous: bool
) -> None:
    seen = []

    def process(ws: fastws.Connection, request: fastws.Request) -> None:
        seen.append((request.path, request.headers["Host"], ws.request is request))
        ws.user = "somebody"

    held = Held()
    async with (
        serve(held, carrier, process_request=synchronous_or_not(asynchronous, process)) as server,
        await Peer.open(server, path="/x?y", behind=frame(TEXT, b"early")),
    ):
        ws = await held.connection()
        assert ws.user == "somebody"
        assert ws.request.path == "/x?y"
        assert await ws.recv() == "early"
    assert seen == [("/x?y", "localhost", True)]


@asynchronously
async def test_process_request_answers_in_place_of_the_upgrade(
    carrier: str, asynchronous: bool
) -> None:
    recorder = Recorder()

    def process(ws: fastws.Connection, request: fastws.Request) -> fastws.Response:
        response = ws.respond(401, "Who are you?\n")
        response.headers["WWW-Authenticate"] = "Basic"
        return response

    async with serve(
        recorder, carrier, process_request=synchronous_or_not(asynchronous, process)
    ) as server:
        status, headers, body = await answer(server, head())
        assert (status, body) == (401, b"Who are you?\n")
        assert headers["www-authenticate"] == "Basic"
        assert recorder.opened.empty() and recorder.closed.empty()


@asynchronously
async def test_process_request_that_raises_is_a_500_and_is_logged(
    carrier: str, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def process(ws: fastws.Connection, request: fastws.Request) -> None:
        raise ValueError("secret")

    async with serve(
        echo, carrier, process_request=synchronous_or_not(asynchronous, process)
    ) as server:
        status, _, body = await answer(server, head())
        assert status == 500 and b"secret" not in body
    (record,) = logged(caplog)
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None and "secret" in str(record.exc_info[1])


@asynchronously
async def test_process_request_may_raise_a_refusal(
    carrier: str, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def process(ws: fastws.Connection, request: fastws.Request) -> None:
        raise fastws.InvalidHandshake("come back later", status=503)

    async with serve(
        echo, carrier, process_request=synchronous_or_not(asynchronous, process)
    ) as server:
        status, _, body = await answer(server, head())
        assert status == 503 and b"come back later" in body
    assert [r for r in logged(caplog) if r.levelno > logging.DEBUG] == []


@asynchronously
async def test_process_request_may_drop_the_connection(carrier: str, asynchronous: bool) -> None:
    recorder = Recorder()

    def process(ws: fastws.Connection, request: fastws.Request) -> None:
        ws.abort()

    async with serve(
        recorder, carrier, process_request=synchronous_or_not(asynchronous, process)
    ) as server:
        async with await Peer.connect(server) as peer:
            await peer.send(head())
            assert await peer.ended() == "fin"
        assert recorder.opened.empty() and recorder.closed.empty()


async def test_response_that_would_break_out_of_its_header_is_a_500(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    def process(ws: fastws.Connection, request: fastws.Request) -> fastws.Response:
        response = ws.respond(302, "")
        response.headers["Location"] = "/x\r\nSet-Cookie: evil=1"
        return response

    async with serve(echo, carrier, process_request=process) as server:
        status, headers, _ = await answer(server, head())
        assert status == 500 and "set-cookie" not in headers
    assert len(logged(caplog)) == 1


async def test_bytes_that_come_while_process_request_thinks_are_kept(carrier: str) -> None:
    decision: asyncio.Event = asyncio.Event()

    async def process(ws: fastws.Connection, request: fastws.Request) -> None:
        await decision.wait()

    async with (
        serve(echo, carrier, process_request=process) as server,
        await Peer.connect(server) as peer,
    ):
        await peer.send(head() + frame(TEXT, b"one"))
        await turns()
        data = frame(TEXT, b"two" * 100)
        await peer.send(data[:50])
        await turns()
        await peer.send(data[50:] + frame(TEXT, b"three"))
        await turns()
        decision.set()
        assert (await peer.response())[0] == 101
        assert [await peer.message() for _ in range(3)] == ["one", "two" * 100, "three"]


async def test_flood_while_process_request_thinks_is_refused_and_opens_nothing(
    carrier: str,
) -> None:
    decision: asyncio.Event = asyncio.Event()
    recorder = Recorder()

    async def process(ws: fastws.Connection, request: fastws.Request) -> None:
        await decision.wait()

    async with serve(recorder, carrier, process_request=process) as server:
        async with await Peer.connect(server) as peer:
            await peer.send(head())
            await peer.send(bytes(200_000))
            assert (await peer.response())[0] == 400
            decision.set()
            assert await peer.ended() == "fin"
        assert recorder.opened.empty() and recorder.closed.empty()


async def test_process_request_that_ends_after_the_time_out_opens_nothing(carrier: str) -> None:
    decision: asyncio.Event = asyncio.Event()
    recorder = Recorder()

    async def process(ws: fastws.Connection, request: fastws.Request) -> None:
        await decision.wait()

    async with serve(recorder, carrier, process_request=process, open_timeout=0.05) as server:
        async with await Peer.connect(server) as peer:
            await peer.send(head())
            assert (await peer.response())[0] == 408
            decision.set()
            await turns()
            assert await peer.ended() == "fin"
        assert recorder.opened.empty() and recorder.closed.empty()


async def test_process_request_that_is_lost_before_its_first_step_leaves_no_warning(
    carrier: str,
) -> None:
    async def think() -> None:
        raise AssertionError("not reached")

    def process(ws: fastws.Connection, request: fastws.Request) -> Any:
        asyncio.get_running_loop().call_soon(ws.abort)
        return think()

    async with serve(echo, carrier, process_request=process) as server:
        async with await Peer.connect(server) as peer:
            await peer.send(head())
            assert await peer.drain() == 0
        await until(lambda: not len(server.reactor))


async def test_process_request_is_cancelled_when_the_client_goes_away(carrier: str) -> None:
    began: asyncio.Event = asyncio.Event()
    cancelled: asyncio.Event = asyncio.Event()

    async def process(ws: fastws.Connection, request: fastws.Request) -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serve(echo, carrier, process_request=process) as server:
        async with await Peer.connect(server) as peer:
            await peer.send(head())
            await began.wait()
        await cancelled.wait()


async def test_process_response_adds_a_header(carrier: str) -> None:
    def process(ws: fastws.Connection, request: fastws.Request, response: fastws.Response) -> None:
        assert response.status_code == 101
        assert request.path == "/x"
        response.headers["Set-Cookie"] = "session=1"

    async with (
        serve(echo, carrier, process_response=process, subprotocols=["a"]) as server,
        await Peer.connect(server) as peer,
    ):
        await peer.send(head([("Sec-WebSocket-Protocol", "a")], path="/x"))
        status, headers, _ = await peer.response()
        assert status == 101
        assert headers["set-cookie"] == "session=1"
        assert headers["sec-websocket-accept"] == ACCEPT
        assert headers["sec-websocket-protocol"] == "a"
        await peer.text("x")
        assert await peer.message() == "x"


async def test_process_response_may_answer_something_else(carrier: str) -> None:
    recorder = Recorder()

    def process(
        ws: fastws.Connection, request: fastws.Request, response: fastws.Response
    ) -> fastws.Response:
        return ws.respond(503, "full")

    async with serve(recorder, carrier, process_response=process) as server:
        status, _, body = await answer(server, head())
        assert (status, body) == (503, b"full")
        assert recorder.opened.empty() and recorder.closed.empty()


async def test_process_response_that_raises_is_a_500(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    def process(ws: fastws.Connection, request: fastws.Request, response: fastws.Response) -> None:
        raise ValueError("no")

    async with serve(echo, carrier, process_response=process) as server:
        assert (await answer(server, head()))[0] == 500
    assert len(logged(caplog)) == 1


async def test_process_response_may_drop_the_connection(carrier: str) -> None:
    recorder = Recorder()

    def process(ws: fastws.Connection, request: fastws.Request, response: fastws.Response) -> None:
        ws.abort()

    async with serve(recorder, carrier, process_response=process) as server:
        async with await Peer.connect(server) as peer:
            await peer.send(head() + frame(TEXT, b"early"))
            assert await peer.ended() in ("fin", "reset")
        await turns()
        assert server.connections == set()
        assert recorder.opened.empty() and recorder.closed.empty()


async def test_server_header_is_sent_if_asked_for(carrier: str) -> None:
    async with serve(echo, carrier, server_header="test/1") as server:
        assert (await answer(server, head()))[1]["server"] == "test/1"
    async with serve(echo, carrier) as server:
        assert "server" not in (await answer(server, head()))[1]


# --- plain HTTP on the same port


class Responder(asyncio.Protocol):
    """HTTP of one request: echoes method, target and body, then closes."""

    made: list[Responder]

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()
        type(self).made.append(self)

    def data_received(self, data: bytes) -> None:
        self.data += data
        request, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        length = re.search(rb"(?i)content-length: *(\d+)", request)
        if len(body) < (int(length[1]) if length else 0):
            return
        answer = request.split(b"\r\n")[0] + b"\n" + body
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
        )
        self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


@pytest.fixture
def responder() -> type[Responder]:
    return type("Responder", (Responder,), {"made": []})


async def test_request_that_is_no_upgrade_goes_to_the_http_protocol(
    carrier: str, responder: type[Responder]
) -> None:
    async with serve(echo, carrier, http=responder) as server:
        async with await Peer.connect(server) as peer:
            await peer.send(b"GET /health?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            status, _, body = await peer.response()
            assert (status, body) == (200, b"GET /health?x=1 HTTP/1.1\n")
            assert await peer.ended() == "fin"
        assert await responder.made[0].lost is None
        # The same port still speaks WebSocket.
        async with await Peer.open(server) as peer:
            await peer.text("x")
            assert await peer.message() == "x"
        assert len(responder.made) == 1


async def test_http_protocol_gets_all_bytes_of_a_body_that_comes_in_parts(
    carrier: str, responder: type[Responder]
) -> None:
    body = bytes(range(256)) * 1000
    async with serve(echo, carrier, http=responder) as server:
        async with await Peer.connect(server) as peer:
            request = b"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            await peer.send(request[:10])
            await turns()
            await peer.send(request[10:] + body[:1000])
            await turns()
            await peer.send(body[1000:])
            status, _, answered = await peer.response()
            assert (status, answered) == (200, b"POST /publish HTTP/1.1\n" + body)
        assert responder.made[0].data == request + body


async def test_http_protocol_gets_what_is_no_http_at_all(
    carrier: str, responder: type[Responder]
) -> None:
    async with (
        serve(echo, carrier, http=responder) as server,
        await Peer.connect(server) as peer,
    ):
        await peer.send(b"\x16\x03\x01")
        await until(lambda: responder.made and responder.made[0].data)
        assert responder.made[0].data == b"\x16\x03\x01"
        responder.made[0].transport.close()
        assert await peer.ended() == "fin"


async def test_faulty_upgrade_is_refused_by_us_and_not_handed_over(
    carrier: str, responder: type[Responder]
) -> None:
    async with serve(echo, carrier, http=responder) as server:
        assert (await answer(server, head(without="Sec-WebSocket-Key")))[0] == 400
    assert responder.made == []


async def test_connection_handed_over_is_no_longer_ours(
    carrier: str, responder: type[Responder]
) -> None:
    """It has no slot, no time-out, and closing the server leaves it to its protocol."""
    async with (
        serve(echo, carrier, http=responder, open_timeout=0.05) as server,
        await Peer.connect(server) as peer,
    ):
        await peer.send(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
        await until(lambda: responder.made)
        assert len(server.reactor) == 0
        await asyncio.sleep(0.1)
        server.close()
        await server.wait_closed()
        await peer.send(b"!")
        status, _, body = await peer.response()
        assert (status, body) == (200, b"POST / HTTP/1.1\n!")


async def test_requests_pipelined_behind_the_first_are_handed_over_too(
    carrier: str, responder: type[Responder]
) -> None:
    garbage = b"GET /second HTTP/1.1\r\n\r\n" + bytes(1000)
    async with serve(echo, carrier, http=responder) as server:
        async with await Peer.connect(server) as peer:
            first = b"GET /first HTTP/1.1\r\n\r\n"
            await peer.send(first + garbage)
            assert (await peer.response())[0] == 200
        assert responder.made[0].data == first + garbage


# --- what others wrote


async def test_client_of_websockets_opens_talks_and_closes(carrier: str) -> None:
    def process(ws: fastws.Connection, request: fastws.Request) -> Awaitable[None] | None:
        assert request.path == "/chat"
        return None

    async with serve(
        echo, carrier, origins=["https://a"], subprotocols=["b", "a"], process_request=process
    ) as server:
        async with connect(
            url(server, "/chat"),
            origin="https://a",
            subprotocols=["a", "b"],  # type: ignore[arg-type, list-item]
        ) as ws:
            assert ws.subprotocol == "b"
            for message in ("text", b"binary", "\N{SNOWMAN}" * 1000, bytes(200_000)):
                await ws.send(message)
                assert await ws.recv() == message
        assert ws.close_code == 1000
