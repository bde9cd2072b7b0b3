"""``connect``: the three ways, its arguments, and an open connection from the client's side."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

import fastws
from fastws import Close, State
from fastws.client_handshake import USER_AGENT
from tests.fastws import reference
from tests.fastws.client import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Echo,
    Recorder,
    echo,
    has_nodelay,
    serve,
    until,
    url,
)
from tests.fastws.raw_server import ServerPeer, no_proxy, raw_server

pytestmark = pytest.mark.usefixtures("loop_kind", "no_proxy")

__all__ = ["no_proxy"]


def connect(uri: str, carrier: str, **options: Any) -> fastws.connect:
    return fastws.connect(uri, carrier=carrier, **options)


# --- three ways


async def test_await_gives_an_open_connection_that_is_the_callers_to_close(carrier: str) -> None:
    async with serve(echo, carrier) as server:
        ws = await connect(url(server), carrier)
        assert isinstance(ws, fastws.ClientConnection) and isinstance(ws, fastws.Connection)
        assert ws.state is State.OPEN
        assert ws.remote_address == server.sockets[0].getsockname()
        assert ws.local_address[0] == "127.0.0.1"
        await ws.close(4000, "done")
        assert (ws.close_code, ws.close_reason, ws.state) == (4000, "done", State.CLOSED)
        assert ws.remote_address == server.sockets[0].getsockname()


async def test_the_context_closes_with_1000(carrier: str) -> None:
    async with serve(echo, carrier) as server:
        async with connect(url(server), carrier) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        assert ws.state is State.CLOSED
        assert ws.close_code == 1000
        with pytest.raises(fastws.ConnectionClosedOK):
            await ws.recv()


async def test_the_context_closes_with_1011_after_an_exception(carrier: str) -> None:
    async with serve(echo, carrier) as server:
        with pytest.raises(KeyError):
            async with connect(url(server), carrier) as ws:
                raise KeyError
        assert ws.close_code == 1011


async def test_one_connect_is_not_entered_twice_at_once(carrier: str) -> None:
    async with serve(echo, carrier) as server:
        connecting = connect(url(server), carrier)
        async with connecting:
            with pytest.raises(RuntimeError, match="in use"):
                async with connecting:
                    pass
        async with connecting as ws:
            assert ws.state is State.OPEN


# --- messages


@pytest.mark.parametrize("handler", [echo, Echo], ids=["coroutine", "listener"])
async def test_text_and_binary_come_back_as_they_went(carrier: str, handler: Any) -> None:
    async with serve(handler, carrier) as server, connect(url(server), carrier) as ws:
        for size in (0, 1, 125, 126, 127, 65535, 65536, 1_000_000):
            data = os.urandom(size)
            await ws.send(data)
            assert await ws.recv() == data
        for text in ("", "ascii", "\xe4\xf6\xfc", "\N{SNOWMAN}" * 50_000, "\N{GRINNING FACE}"):
            await ws.send(text)
            assert await ws.recv() == text


async def test_every_frame_has_a_mask_key_of_its_own(carrier: str) -> None:
    keys: list[bytes] = []

    async def handler(peer: ServerPeer) -> None:
        await peer.accept()
        for _ in range(2000):
            first, key, payload = await peer.raw_frame()
            assert (first, payload) == (0x81, b"payload")
            keys.append(key)
        await peer.close_handshake()

    async with raw_server(handler) as uri, connect(uri, carrier) as ws:
        for _ in range(2000):
            await ws.send("payload")
    assert len(set(keys)) > 1990  # of 2**32: two alike are possible, but not likely
    assert b"\0\0\0\0" not in keys


async def test_what_the_caller_sends_is_not_changed_by_masking(carrier: str) -> None:
    async with serve(echo, carrier) as server, connect(url(server), carrier) as ws:
        for size in (10, 100_000):
            data = os.urandom(size)
            for message in (data, bytearray(data), memoryview(bytearray(data))):
                await ws.send(message)
                assert bytes(message) == data
                assert await ws.recv() == data
            prepared = fastws.PreparedMessage(data)
            for _ in range(2):
                await ws.send(prepared)
                fastws.broadcast([ws], prepared)
                assert [await ws.recv(), await ws.recv()] == [data, data]


async def test_messages_in_one_segment_with_the_handshake_are_received(carrier: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        frames = [reference.frame(TEXT, str(n).encode(), key=None) for n in range(3)]
        await peer.accept(behind=b"".join(frames))
        await peer.close_handshake()

    async with raw_server(handler) as uri, connect(uri, carrier) as ws:
        assert [await ws.recv() for _ in range(3)] == ["0", "1", "2"]


async def test_what_comes_before_a_fault_is_answered_even_right_behind_the_handshake(
    carrier: str,
) -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.accept(behind=reference.frame(TEXT, b"good", key=None) + b"\xff\x00")
        assert await peer.frame() == (TEXT, b"good")
        assert (await peer.close_frame())[0] == 1002

    async with raw_server(handler) as uri:
        ws = await connect(uri, carrier)
        with pytest.raises(fastws.ConnectionClosedError):
            await echo(ws)
        await ws.wait_closed()


@pytest.mark.parametrize("listener", [None, Recorder], ids=["coroutine", "listener"])
async def test_a_fault_right_behind_the_handshake(carrier: str, listener: Any) -> None:
    codes: asyncio.Queue[int] = asyncio.Queue()

    async def handler(peer: ServerPeer) -> None:
        await peer.accept(behind=b"\xff\x00")
        codes.put_nowait((await peer.close_frame())[0])

    async with raw_server(handler) as uri:
        ws = await connect(uri, carrier, listener=listener)
        assert await codes.get() == 1002
        await ws.wait_closed()


async def test_what_came_before_the_end_right_behind_the_handshake_is_received(
    carrier: str,
) -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.accept(
            behind=reference.frame(TEXT, b"1", key=None) + reference.frame(CLOSE, b"", key=None)
        )

    async with raw_server(handler) as uri:
        ws = await connect(uri, carrier)
        await asyncio.sleep(0.05)
        assert [message async for message in ws] == ["1"]


async def test_a_listener_gets_what_recv_would(carrier: str) -> None:
    recorder = Recorder()
    async with serve(echo, carrier) as server:
        async with connect(url(server), carrier, listener=recorder) as ws:
            assert await recorder.opened.get() is ws
            ws.send("text")
            ws.send(b"data")
            assert [await recorder.messages.get() for _ in range(2)] == ["text", b"data"]
            await (await ws.ping(b"beat"))
            assert await recorder.pongs.get() == b"beat"
            assert ws.request.path == "/"
        assert await recorder.closed.get() == (ws, 1000, "")


async def test_a_listener_may_be_a_class_or_a_factory(carrier: str) -> None:
    made = []

    def factory() -> Recorder:
        made.append(Recorder())
        return made[-1]

    async with serve(echo, carrier) as server:
        async with connect(url(server), carrier, listener=Recorder) as ws:
            assert isinstance(ws.listener, Recorder)
        async with connect(url(server), carrier, listener=factory) as ws:
            assert [ws.listener] == made


async def test_a_listener_that_raises_closes_with_1011(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Bad(fastws.Listener):
        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            raise KeyError(message)

    async with serve(echo, carrier) as server:
        ws = await connect(url(server), carrier, listener=Bad)
        ws.send("boom")
        await ws.wait_closed()
        with pytest.raises(fastws.ConnectionClosedError) as caught:
            ws.send("more")
        assert caught.value.sent is not None and caught.value.sent.code == 1011
    assert [record.name for record in caplog.records if record.exc_info] == ["fastws.client"]


async def test_own_subclasses_are_made_and_attributes_may_be_set(carrier: str) -> None:
    class Mine(fastws.ClientConnection):
        pass

    async with (
        serve(echo, carrier) as server,
        connect(url(server), carrier, create_connection=Mine) as ws,
    ):
        assert type(ws) is Mine
        ws.name = "ada"
        await ws.send("as ever")
        assert await ws.recv() == "as ever"


async def test_the_queue_of_messages_holds_the_server_back(carrier: str) -> None:
    async def flood(ws: fastws.Connection) -> None:
        for number in range(2000):
            await ws.send(f"{number:04}" + "x" * 1000)

    async with (
        serve(flood, carrier, write_limit=10_000) as server,
        connect(url(server), carrier, max_queue=4) as ws,
    ):
        await asyncio.sleep(0.05)
        got = [message[:4] async for message in ws]
        assert got == [f"{number:04}" for number in range(2000)]


# --- the request


async def request_of(carrier: str, uri_of: Any = lambda uri: uri, **options: Any) -> Any:
    asked: asyncio.Queue[Any] = asyncio.Queue()

    async def handler(peer: ServerPeer) -> None:
        first, lines = await peer.request()
        asked.put_nowait((first, lines))
        await peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    async with raw_server(handler) as uri:
        with pytest.raises(fastws.InvalidStatus):
            await connect(uri_of(uri), carrier, **options)
        return uri, *await asked.get()


async def test_the_request_is_that_of_a_websocket_and_no_more(carrier: str) -> None:
    uri, first, lines = await request_of(carrier)
    assert first == "GET / HTTP/1.1"
    key = dict(lines)["Sec-WebSocket-Key"]
    assert lines == [
        ("Host", uri[len("ws://") : -1]),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
        ("User-Agent", USER_AGENT),
    ]
    assert len(key) == 24 and key.endswith("==")
    assert key != dict((await request_of(carrier))[2])["Sec-WebSocket-Key"]


async def test_the_request_says_what_it_is_told_to(carrier: str) -> None:
    _, first, lines = await request_of(
        carrier,
        lambda uri: uri.replace("ws://", "ws://ada:s%40cret@") + "chat?room=1&x=%20",
        origin="https://example.org",
        subprotocols=["v2.chat", "v1.chat"],
        additional_headers=[("Cookie", "a=1"), ("X-Trace", "\xe9"), ("X-Trace", "2")],
        user_agent_header=None,
        compression=None,
    )
    assert first == "GET /chat?room=1&x=%20 HTTP/1.1"
    assert lines[5:] == [
        ("Sec-WebSocket-Protocol", "v2.chat, v1.chat"),
        ("Origin", "https://example.org"),
        ("Authorization", "Basic YWRhOnNAY3JldA=="),
        ("Cookie", "a=1"),
        ("X-Trace", "\xe9"),
        ("X-Trace", "2"),
    ]


async def test_headers_of_the_callers_replace_ours(carrier: str) -> None:
    given = {"host": "elsewhere", "User-agent": "me", "Authorization": "Bearer token"}
    _, _, lines = await request_of(
        carrier, lambda uri: uri.replace("ws://", "ws://a:b@"), additional_headers=given
    )
    names = [name.lower() for name, _ in lines]
    assert len(set(names)) == len(names)
    assert set(given.items()) <= set(lines)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-WebSocket-Key": "mine"},
        {"Connection": "close"},
        {"Upgrade": "h2c"},
        {"X": "a\r\nb"},
        {"X": "\N{SNOWMAN}"},
        {"User-Agent": "a\0b"},
        {"X\n": "a"},
        {"X Y": "a"},
        {"": "a"},
    ],
)
async def test_headers_that_would_break_the_request_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        await fastws.connect("ws://127.0.0.1:9/", additional_headers=headers)
    with pytest.raises(ValueError, match="header Origin"):
        await fastws.connect("ws://127.0.0.1:9/", origin="a\r\nX: y")


async def test_the_subprotocol_is_what_the_server_chose(carrier: str) -> None:
    async with (
        serve(echo, carrier, subprotocols=["b", "c"]) as server,
        connect(url(server), carrier, subprotocols=["a", "b", "c"]) as ws,
    ):
        assert ws.subprotocol == "b"
        assert ws.response is not None and ws.response.status_code == 101
        assert ws.response.headers["sec-websocket-protocol"] == "b"
    async with (
        serve(echo, carrier) as server,
        connect(url(server), carrier, subprotocols=["a"]) as ws,
    ):
        assert ws.subprotocol is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"carrier": "pigeon"}, ValueError),
        ({"ssl": True}, ValueError),
        ({"subprotocols": "chat"}, TypeError),
        ({"subprotocols": ["a b"]}, ValueError),
        ({"subprotocols": ["a,b"]}, ValueError),
        ({"listener": 1}, TypeError),
        ({"max_size": 0}, ValueError),
        ({"open_timeout": 0}, ValueError),
        ({"nonsense": 1}, TypeError),
    ],
    ids=str,
)
def test_arguments_out_of_their_bounds_are_refused_at_once(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        fastws.connect("ws://localhost/", **options)


async def test_the_reactor_is_refused_where_it_cannot_be() -> None:
    with pytest.raises(RuntimeError, match="no ssl_"):
        await fastws.connect("wss://127.0.0.1:9/", carrier="reactor", ssl_shutdown_timeout=1)


# --- other ways to the server


async def test_host_and_port_say_where_to_connect_and_nothing_else(carrier: str) -> None:
    asked = []

    async def handler(ws: fastws.ServerConnection) -> None:
        asked.append(ws.request.headers["Host"])

    async with serve(handler, carrier) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect("ws://example.org:81/", carrier, host="127.0.0.1", port=port):
            pass
    assert asked == ["example.org:81"]


async def test_a_socket_may_be_given(carrier: str) -> None:
    async with serve(echo, carrier) as server:
        sock = socket.socket()
        sock.connect(server.sockets[0].getsockname())
        async with connect("ws://whatever/", carrier, sock=sock) as ws:
            assert has_nodelay(ws)
            await ws.send("by my socket")
            assert await ws.recv() == "by my socket"
        assert sock.fileno() == -1
        with pytest.raises(ValueError, match="used up"):
            await connect("ws://whatever/", carrier, sock=sock)
        with pytest.raises(ValueError, match="not both"):
            connect("ws://whatever/", carrier, sock=sock, port=1)


async def test_more_connections_than_the_reactor_was_made_for(
    carrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastws._loop._descriptor_limit", lambda: 2)
    async with serve(echo, carrier) as server, connect(url(server), carrier):  # both ends
        with pytest.raises(OverflowError, match="2 connections"):
            await connect(url(server), carrier)
        await asyncio.sleep(0.05)  # until the server has refused it as well


@pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets")
async def test_unix_sockets(carrier: str, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with fastws.unix_serve(echo, path, carrier=carrier):
        async with fastws.unix_connect(path, carrier=carrier) as ws:
            assert ws.request.headers["Host"] == "localhost"
            await ws.send("hello")
            assert await ws.recv() == "hello"
        async with fastws.unix_connect(path, "ws://name/path", carrier=carrier) as ws:
            assert (ws.request.headers["Host"], ws.request.path) == ("name", "/path")


# --- control frames


async def test_ping_measures_the_round_trip(carrier: str) -> None:
    async with serve(echo, carrier) as server, connect(url(server), carrier) as ws:
        assert ws.latency == 0
        latency = await (await ws.ping())
        assert 0 < latency == ws.latency


async def test_keepalive_keeps_the_latency_up_to_date(carrier: str) -> None:
    async with (
        serve(echo, carrier) as server,
        connect(url(server), carrier, ping_interval=0.05) as ws,
    ):
        await until(lambda: ws.latency)
        first = ws.latency
        await until(lambda: ws.latency != first)


async def test_a_server_that_answers_no_ping_is_given_up_with_1011(carrier: str) -> None:
    codes: asyncio.Queue[int] = asyncio.Queue()

    async def handler(peer: ServerPeer) -> None:
        await peer.accept()
        code, _ = await peer.close_frame()
        codes.put_nowait(code)

    async with raw_server(handler) as uri:
        ws = await connect(uri, carrier, ping_interval=0.05, ping_timeout=0.05)
        with pytest.raises(fastws.ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.sent == Close(1011, "keepalive ping timeout")
        assert await codes.get() == 1011
        await ws.wait_closed()


async def test_pings_are_answered_in_masked_frames(carrier: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.accept()
        await peer.say(PING, b"beat")
        assert await peer.frame() == (PONG, b"beat")
        await peer.say(TEXT, b"good")
        await peer.close_handshake()

    async with raw_server(handler) as uri, connect(uri, carrier) as ws:
        assert await ws.recv() == "good"


# --- the end


async def test_the_server_closes_the_tcp_connection_first(carrier: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.accept()
        await peer.close_handshake()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(peer.exactly(1), 0.2)
        done.set()

    done = asyncio.Event()
    async with raw_server(handler) as uri:
        ws = await connect(uri, carrier)
        closing = asyncio.ensure_future(ws.close())
        await done.wait()
        await closing
        assert ws.close_code == 1000


async def test_a_close_frame_from_the_server_is_answered_and_its_fin_awaited(carrier: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.accept()
        await peer.say(CLOSE, (4001).to_bytes(2, "big") + b"bye")
        assert await peer.frame() == (CLOSE, (4001).to_bytes(2, "big") + b"bye")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(peer.exactly(1), 0.1)

    async with raw_server(handler) as uri:
        ws = await connect(uri, carrier)
        with pytest.raises(fastws.ConnectionClosedError, match="4001") as caught:
            await ws.recv()
        assert caught.value.rcvd == caught.value.sent == Close(4001, "bye")
        await ws.wait_closed()


async def test_a_server_that_does_not_close_is_left_after_close_timeout(carrier: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.accept()
        await peer.close_handshake()
        await peer.drain()  # until the client is gone

    async with raw_server(handler) as uri:
        ws = await connect(uri, carrier, close_timeout=0.1)
        await ws.close()
        assert ws.close_code == 1000


async def test_a_server_that_answers_no_close_frame_is_left_after_close_timeout(
    carrier: str,
) -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.accept()
        await peer.drain()

    async with raw_server(handler) as uri:
        ws = await connect(uri, carrier, close_timeout=0.1)
        await ws.close()
        assert ws.close_code == 1006


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (reference.frame(TEXT, b"masked", key=b"1234"), 1002),
        (b"\xc1\x00", 1002),
        (reference.frame(TEXT, b"\xff", key=None), 1007),
        (reference.frame(BINARY, bytes(1001), key=None), 1009),
    ],
    ids=["masked", "reserved bit", "not UTF-8", "too big"],
)
async def test_a_server_that_breaks_the_rules_gets_a_close_frame(
    carrier: str, data: bytes, code: int
) -> None:
    codes: asyncio.Queue[int] = asyncio.Queue()

    async def handler(peer: ServerPeer) -> None:
        await peer.accept()
        await peer.send(data)
        codes.put_nowait((await peer.close_frame())[0])

    async with raw_server(handler) as uri:
        ws = await connect(uri, carrier, max_size=1000)
        with pytest.raises(fastws.ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.sent is not None and caught.value.sent.code == code
        assert isinstance(caught.value.__cause__, fastws.ProtocolError)
        assert await codes.get() == code
        await ws.wait_closed()


@pytest.mark.parametrize("end", ["fin", "reset"])
async def test_a_connection_that_is_lost_is_1006(carrier: str, end: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        await peer.accept()
        if end == "reset":
            peer.reset()

    async with raw_server(handler) as uri:
        ws = await connect(uri, carrier)
        with pytest.raises(fastws.ConnectionClosedError):
            await ws.recv()
        assert ws.close_code == 1006
