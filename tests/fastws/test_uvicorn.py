"""Our WebSockets under uvicorn, beside its own: where the two must agree, both are tested."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import uvicorn
import websockets
from uvicorn.protocols.utils import ClientDisconnected

from fastws.uvicorn import WebSocketProtocol
from tests.conftest import available_carriers
from tests.fastws.certificates import client_context, server_context
from tests.fastws.client import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Peer,
    frame,
    head,
    until,
)
from tests.fastws.reference import CONT

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[Any]]


class OnTransport(WebSocketProtocol):
    """Ours, on uvicorn's transport even where the socket could be taken."""

    takes_socket = False


OURS: dict[str, Any] = {"ours": WebSocketProtocol}
if "reactor" in available_carriers():
    OURS["ours-on-transport"] = OnTransport
THEIRS = {"uvicorn's": "websockets-sansio"}


@pytest.fixture(params=[*OURS, *THEIRS], scope="module")
def ws(request: pytest.FixtureRequest) -> Any:
    """What ``--ws`` names: ours, then uvicorn's own."""
    return {**OURS, **THEIRS}[request.param]


@pytest.fixture(params=[*OURS], scope="module")
def ours(request: pytest.FixtureRequest) -> Any:
    """Ours only: uvicorn's own does something else, or nothing."""
    return OURS[request.param]


@contextlib.asynccontextmanager
async def running(app: App, ws: Any, **options: Any) -> AsyncIterator[uvicorn.Server]:
    """A server of uvicorn's in this loop; ``where(server)`` is its address."""
    options.setdefault("lifespan", "off")
    options.setdefault("log_config", None)
    options.setdefault("ws_per_message_deflate", False)
    tls = options.pop("tls", None)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, ws=ws, **options)
    config.load()
    config.ssl = tls
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or task.done())
        yield server
    finally:
        server.should_exit = True
        await task


def where(server: uvicorn.Server) -> tuple[str, int]:
    name: tuple[str, int] = server.servers[0].sockets[0].getsockname()
    return name


def url(server: uvicorn.Server, path: str = "/") -> str:
    return "ws://{}:{}{}".format(*where(server), path)


def connect(server: uvicorn.Server, path: str = "/", **options: Any) -> Any:
    return websockets.connect(url(server, path), compression=None, proxy=None, **options)


async def echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Accepts, and sends back what comes until the end."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


class Recording:
    """An application that accepts and keeps every event that it receives."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.scope: dict[str, Any] = {}
        self.accept: dict[str, Any] = {"type": "websocket.accept"}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.scope = scope
        assert await receive() == {"type": "websocket.connect"}
        await send(self.accept)
        while not self.ended:
            self.events.append(await receive())

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1]["type"] == "websocket.disconnect"

    async def disconnect(self) -> dict[str, Any]:
        await until(lambda: self.ended)
        return self.events[-1]


# --- messages


@pytest.mark.usefixtures("loop_kind")
async def test_messages_of_every_kind_and_size_come_back(ws: Any) -> None:
    async with running(echo, ws) as server, connect(server, max_size=None) as client:
        for message in ("", "text", "ŵ ∞ 🎉", b"", b"\0\xff", b"x" * 70_000, "y" * 200_000):
            await client.send(message)
            assert await client.recv() == message


async def test_a_client_of_aiohttp_is_served(ws: Any) -> None:
    async with (
        running(echo, ws) as server,
        aiohttp.ClientSession() as session,
        session.ws_connect(url(server), compress=15) as client,
    ):
        await client.send_str("hello")
        assert await client.receive_str() == "hello"
        await client.close(code=1001)
        assert client.close_code == 1001


async def test_a_fragmented_message_arrives_whole(ws: Any) -> None:
    async with running(echo, ws) as server, await Peer.open(where(server)) as peer:
        await peer.send(frame(TEXT, "ŵ".encode()[:1], fin=False))
        await peer.send(frame(PING, b"between"))
        assert await peer.frame() == (PONG, b"between")
        await peer.send(frame(0, "ŵ".encode()[1:]))
        assert await peer.message() == "ŵ"


async def test_a_burst_is_answered_in_order(ours: Any) -> None:
    burst = b"".join(frame(BINARY, b"%d" % number) for number in range(200))
    async with running(echo, ours) as server, await Peer.open(where(server)) as peer:
        await peer.send(burst)
        assert [await peer.message() for _ in range(200)] == [b"%d" % n for n in range(200)]


async def test_what_comes_right_behind_the_handshake_is_not_lost(ours: Any) -> None:
    """Not from the same segment: uvicorn drops what its parser has not taken."""
    go_on = asyncio.Event()

    async def slow(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await go_on.wait()
        await echo(scope, receive, send)

    async with running(slow, ours) as server, await Peer.connect(where(server)) as peer:
        await peer.send(head())
        await until(lambda: server.server_state.tasks)
        await peer.send(frame(TEXT, b"early"))
        await asyncio.sleep(0.05)
        go_on.set()
        assert (await peer.response())[0] == 101
        assert await peer.message() == "early"


async def test_an_application_that_does_not_receive_is_not_flooded(ours: Any) -> None:
    """What is over ws_max_queue is left in the socket, until the sender is stopped by it."""
    receiving = asyncio.Event()
    sizes: list[int] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receiving.wait()
        while (event := await receive())["type"] == "websocket.receive":
            sizes.append(len(event["bytes"]))

    async with (
        running(app, ours, ws_max_queue=4) as server,
        await Peer.open(where(server), buffers=65536) as peer,
    ):
        flood = asyncio.create_task(peer.send(frame(BINARY, b"x" * 16384) * 2000))
        await asyncio.sleep(0.2)
        assert not flood.done()
        receiving.set()
        await flood
        await peer.say_close()
        await until(lambda: len(sizes) == 2000)
        assert set(sizes) == {16384}


async def test_an_application_that_awaits_send_is_slowed_to_its_peer(ours: Any) -> None:
    sent = 0

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        nonlocal sent
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(1000):
            await send({"type": "websocket.send", "bytes": b"x" * 65536})
            sent += 1

    async with (
        running(app, ours) as server,
        await Peer.open(where(server), buffers=65536) as peer,
    ):
        await asyncio.sleep(0.3)
        stopped_at = sent
        assert stopped_at < 1000
        assert await peer.drain() > 1000 * 65536
    assert sent == 1000


async def test_a_message_larger_than_any_queue_is_sent(ours: Any) -> None:
    size = 20 * 2**20

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": bytes(size)})
        await send({"type": "websocket.close"})

    async with running(app, ours) as server, connect(server, max_size=None) as client:
        assert len(await client.recv()) == size


async def test_a_receive_that_is_cancelled_loses_nothing(ws: Any) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(receive(), 0.01)
        await send({"type": "websocket.send", "text": "go"})
        event = await receive()
        await send({"type": "websocket.send", "text": event["text"]})
        await receive()

    async with running(app, ws) as server, connect(server) as client:
        assert await client.recv() == "go"
        await client.send("kept")
        assert await client.recv() == "kept"


async def test_text_and_bytes_that_are_none_are_as_if_absent(ws: Any) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": None, "text": "text"})
        await send({"type": "websocket.send", "bytes": b"bytes", "text": None})
        await receive()

    async with running(app, ws) as server, connect(server) as client:
        assert [await client.recv(), await client.recv()] == ["text", b"bytes"]


async def test_messages_are_compressed_if_the_client_offers_it(ws: Any) -> None:
    async with (
        running(echo, ws, ws_per_message_deflate=True) as server,
        websockets.connect(url(server), proxy=None) as client,
    ):
        assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
        for message in ("x" * 100_000, "short", "y" * 1000):
            await client.send(message)
            assert await client.recv() == message


async def test_nothing_is_compressed_where_it_is_turned_off(ws: Any) -> None:
    async with (
        running(echo, ws, ws_per_message_deflate=False) as server,
        websockets.connect(url(server), proxy=None) as client,
    ):
        assert "Sec-WebSocket-Extensions" not in client.response.headers


async def test_offers_that_are_no_list_of_extensions_get_400(ours: Any) -> None:
    async with (
        running(echo, ours, ws_per_message_deflate=True) as server,
        await Peer.connect(where(server)) as peer,
    ):
        await peer.send(head([("Sec-WebSocket-Extensions", "a; =b")]))
        assert (await peer.response())[0] == 400


# --- the handshake


async def test_the_scope_is_the_same_as_that_of_uvicorns_own(ours: Any) -> None:
    request = [
        ("Cookie", "a=1; b=2"),
        ("X-Latin", "\xe9"),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("Sec-WebSocket-Protocol", "one, two"),
        ("Sec-WebSocket-Protocol", "three"),
    ]
    scopes = []
    for ws in (ours, THEIRS["uvicorn's"]):
        app = Recording()
        async with (
            running(app, ws, root_path="/mounted") as server,
            await Peer.open(where(server), path="/a%20b/%C3%A9?q=%20&r", headers=request) as peer,
        ):
            assert app.scope.pop("server") == where(server)
            assert app.scope.pop("client") == peer.sock.getsockname()
            await peer.say_close()
        scopes.append(app.scope)
    assert scopes[0] == scopes[1]
    assert scopes[0]["path"] == "/mounted/a b/é"
    assert scopes[0]["raw_path"] == b"/mounted/a%20b/%C3%A9"
    assert scopes[0]["subprotocols"] == ["one", "two", "three"]


async def test_a_trusted_proxy_says_that_the_client_uses_tls(ws: Any) -> None:
    app = Recording()
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
    async with (
        running(app, ws, forwarded_allow_ips="127.0.0.1") as server,
        connect(server, additional_headers=headers),
    ):
        assert app.scope["scheme"] == "wss"
        assert app.scope["client"][0] == "203.0.113.7"


async def test_state_of_the_lifespan_is_copied_for_each_connection(ws: Any) -> None:
    app = Recording()

    async def with_lifespan(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        scope["state"]["shared"] = ["pool"]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async with running(with_lifespan, ws, lifespan="on") as server:
        async with connect(server):
            first = app.scope["state"]
            first["own"] = True
        await app.disconnect()
        app.events.clear()
        async with connect(server):
            assert app.scope["state"] == {"shared": ["pool"]}
            assert app.scope["state"]["shared"] is first["shared"]


async def test_accept_sends_the_subprotocol_and_headers_and_the_servers_own(ws: Any) -> None:
    app = Recording()
    app.accept |= {
        "subprotocol": "two",
        "headers": [(b"X-Session", b"\xe9"), (b"server", b"mine"), (b"set-cookie", b"a=1")],
    }
    async with (
        running(app, ws, headers=[("x-configured", "yes")]) as server,
        connect(server, subprotocols=["one", "two"]) as client,
    ):
        headers = client.response.headers
        assert client.subprotocol == "two"
        assert headers["x-session"] == "\xe9"
        assert headers["x-configured"] == "yes"
        assert headers.get_all("server") == ["uvicorn", "mine"]
        assert "date" in headers


async def test_headers_may_be_left_out(ws: Any) -> None:
    async with (
        running(echo, ws, server_header=False, date_header=False) as server,
        connect(server) as client,
    ):
        assert "server" not in client.response.headers
        assert "date" not in client.response.headers


async def test_a_request_that_is_no_handshake_gets_400_and_no_application(ws: Any) -> None:
    async with running(echo, ws) as server, await Peer.connect(where(server)) as peer:
        await peer.send(head(without="Sec-WebSocket-Key"))
        status, headers, body = await peer.response()
        assert (status, headers["connection"]) == (400, "close")
        assert body
        assert not server.server_state.tasks
        assert await peer.ended() == "fin"


async def test_closing_before_accepting_is_403(ws: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = Recording()
    app.accept = {"type": "websocket.close", "code": 4001, "reason": "nobody sees it"}
    caplog.set_level(logging.INFO, "uvicorn.error")
    async with running(app, ws) as server, await Peer.connect(where(server)) as peer:
        await peer.send(head(path="/a%20b?c"))
        status, headers, body = await peer.response()
        assert (status, headers["connection"], body) == (403, "close", b"")
        assert await peer.ended() == "fin"
        assert await app.disconnect() == {"type": "websocket.disconnect", "code": 1006}
        client = "{}:{}".format(*peer.sock.getsockname())
    assert f'{client} - "WebSocket /a%20b?c" 403' in caplog.messages


async def test_accepting_is_logged_like_an_access(
    ws: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "uvicorn.error")
    async with running(echo, ws) as server, connect(server, "/chat?room=1") as client:
        own = "{}:{}".format(*client.local_address)
    assert f'{own} - "WebSocket /chat?room=1" [accepted]' in caplog.messages


def denial(status: int, *parts: bytes, headers: Any = ()) -> App:
    """An application that refuses with a response in so many parts."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert "websocket.http.response" in scope["extensions"]
        await receive()
        start = {"type": "websocket.http.response.start", "status": status, "headers": headers}
        await send(start)
        for number, part in enumerate(parts, 1):
            event = {"type": "websocket.http.response.body", "body": part}
            await send({**event, "more_body": number < len(parts)})
        assert await receive() == {"type": "websocket.disconnect", "code": 1006}
        with pytest.raises((RuntimeError, ClientDisconnected)):
            await send({"type": "websocket.accept"})

    return app


@pytest.mark.usefixtures("loop_kind")
async def test_a_denial_has_the_status_headers_and_body_of_the_application(
    ws: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "uvicorn.error")
    app = denial(401, b"who are you?", headers=[(b"www-authenticate", b"Basic")])
    async with running(app, ws) as server, await Peer.connect(where(server)) as peer:
        await peer.send(head())
        status, headers, body = await peer.response()
        assert (status, body) == (401, b"who are you?")
        assert headers["www-authenticate"] == "Basic"
        assert headers["content-length"] == "12"
        assert await peer.ended() == "fin"
    assert any(message.endswith('"WebSocket /" 401') for message in caplog.messages)


@pytest.mark.usefixtures("loop_kind")
async def test_a_denial_in_parts_goes_at_the_clients_pace(ours: Any) -> None:
    sent = 0

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        nonlocal sent
        await receive()
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        for _ in range(1000):
            body = {"type": "websocket.http.response.body", "body": b"x" * 65536}
            await send({**body, "more_body": True})
            sent += 1
        await send({"type": "websocket.http.response.body", "body": b"."})

    async with (
        running(app, ours) as server,
        await Peer.connect(where(server), buffers=65536) as peer,
    ):
        await peer.send(head())
        await asyncio.sleep(0.3)
        assert 0 < sent < 1000
        assert await peer.drain() > 1000 * 65536
    assert sent == 1000


@pytest.mark.usefixtures("loop_kind")
async def test_an_application_whose_denial_is_not_read_learns_that_the_client_has_gone(
    ours: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        body = {"type": "websocket.http.response.body", "body": b"x" * 65536, "more_body": True}
        try:
            while True:
                await send(body)
        except ClientDisconnected:
            told.set()

    async with running(app, ours) as server:
        async with await Peer.connect(where(server), buffers=65536) as peer:
            await peer.send(head())
            await asyncio.sleep(0.2)
            assert not told.is_set()
            peer.reset()
        await told.wait()
        await until(lambda: not server.server_state.tasks)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_denial_is_no_error_of_the_application(
    ours: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        running(denial(401, b"no"), ours) as server,
        await Peer.connect(where(server)) as peer,
    ):
        await peer.send(head())
        assert (await peer.response())[0] == 401
        await until(lambda: not server.server_state.tasks)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_denial_may_come_in_parts(ws: Any) -> None:
    async with (
        running(denial(503, b"come ", b"back ", b"later"), ws) as server,
        aiohttp.ClientSession() as session,
        session.get(
            url(server).replace("ws:", "http:"),
            headers={
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version": "13",
            },
        ) as response,
    ):
        assert response.status == 503
        assert await response.read() == b"come back later"


async def test_a_denial_in_parts_is_not_held_back(ours: Any) -> None:
    go_on = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 400, "headers": []})
        body = {"type": "websocket.http.response.body"}
        await send({**body, "body": b"first", "more_body": True})
        await go_on.wait()
        await send({**body, "body": b"last"})

    async with running(app, ours) as server, await Peer.connect(where(server)) as peer:
        await peer.send(head())
        assert (await peer.response())[1]["transfer-encoding"] == "chunked"
        assert await peer.exactly(10) == b"5\r\nfirst\r\n"
        go_on.set()
        assert await peer.rest() == b"4\r\nlast\r\n0\r\n\r\n"


async def test_a_denial_without_a_body_has_none(ours: Any) -> None:
    async with (
        running(denial(204, b""), ours) as server,
        await Peer.connect(where(server)) as peer,
    ):
        await peer.send(head())
        _, headers, _ = await peer.response()
        assert headers.keys() & {"content-length", "transfer-encoding"} == set()
        assert await peer.ended() == "fin"


@pytest.mark.parametrize("status", [99, 101, 600])
async def test_a_status_that_ends_no_request_is_the_applications_error(
    ours: Any, status: int
) -> None:
    async with (
        running(denial(status, b""), ours) as server,
        await Peer.connect(where(server)) as peer,
    ):
        await peer.send(head())
        assert (await peer.response())[0] == 500


@pytest.mark.parametrize("where_it_is", ["name", "value"])
async def test_a_header_that_would_be_two_is_the_applications_error(
    ours: Any, where_it_is: str
) -> None:
    app = Recording()
    bad = b"x\r\nset-cookie: a=1"
    app.accept["headers"] = [(bad, b"1") if where_it_is == "name" else (b"x", bad)]
    async with running(app, ours) as server, await Peer.connect(where(server)) as peer:
        await peer.send(head())
        status, headers, _ = await peer.response()
        assert status == 500
        assert "set-cookie" not in headers


# --- what an application does wrong


async def returns(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()


async def raises(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    raise RuntimeError("on purpose")


async def sends_before_it_accepts(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.send", "text": "too early"})


@pytest.mark.parametrize("app", [returns, raises, sends_before_it_accepts])
async def test_an_application_that_answers_no_handshake_is_500(
    ws: Any, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(app, ws) as server, await Peer.connect(where(server)) as peer:
        await peer.send(head())
        status, headers, body = await peer.response()
        assert (status, headers["connection"]) == (500, "close")
        assert body == b"Internal Server Error"
        assert await peer.ended() == "fin"
    assert [record for record in caplog.records if record.levelno == logging.ERROR]


async def returns_at_once(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "still sent"})


async def returns_something(scope: dict[str, Any], receive: Receive, send: Send) -> int:
    await returns_at_once(scope, receive, send)
    return 1


async def raises_late(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await returns_at_once(scope, receive, send)
    raise RuntimeError("on purpose")


async def accepts_twice(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await returns_at_once(scope, receive, send)
    await send({"type": "websocket.accept"})


@pytest.mark.usefixtures("loop_kind")
@pytest.mark.parametrize("app", [returns_at_once, returns_something, raises_late, accepts_twice])
async def test_an_application_that_ends_without_closing_leaves_no_close_frame(
    ws: Any, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(app, ws) as server, await Peer.open(where(server)) as peer:
        assert await peer.message() == "still sent"
        assert await peer.ended() == "fin"
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert bool(errors) == (app is not returns_at_once)


async def test_sending_after_closing_is_an_error(ws: Any) -> None:
    raised: list[BaseException] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 3000})
        try:
            await send({"type": "websocket.send", "text": "too late"})
        except RuntimeError as error:
            raised.append(error)
        await receive()

    async with running(app, ws) as server, connect(server) as client:
        with pytest.raises(websockets.ConnectionClosed):
            await client.recv()
        await until(lambda: raised)
        assert client.close_code == 3000


async def test_an_application_that_is_cancelled_ends_its_connection(ws: Any) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()

    async with running(app, ws, timeout_graceful_shutdown=1) as server:
        client = await Peer.open(where(server))
        (task,) = server.server_state.tasks
        task.cancel()
        assert await client.ended() == "fin"
        client.close()


# --- the end


@pytest.mark.usefixtures("loop_kind")
@pytest.mark.parametrize("code", [None, 1001, 4321])
async def test_the_application_closes_with_its_code_and_reason(ws: Any, code: int | None) -> None:
    told: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        event: dict[str, Any] = {"type": "websocket.close", "reason": "enough ŵ"}
        await send(event if code is None else {**event, "code": code})
        told.append(await receive())

    async with running(app, ws) as server, await Peer.open(where(server)) as peer:
        assert await peer.close_frame() == (code or 1000, "enough ŵ")
        await peer.say_close(code or 1000)
        assert await peer.ended() == "fin"
    end = {"type": "websocket.disconnect", "code": code or 1000, "reason": "enough ŵ"}
    assert told == [end]


@pytest.mark.usefixtures("loop_kind")
async def test_the_application_is_told_how_the_peer_closed(ws: Any) -> None:
    app = Recording()
    async with running(app, ws) as server, await Peer.open(where(server)) as peer:
        await peer.text("last")
        await peer.say_close(4000, "bye ŵ")
        assert await peer.close_frame() == (4000, "bye ŵ")
        assert await peer.ended() == "fin"
    assert app.events == [
        {"type": "websocket.receive", "text": "last"},
        {"type": "websocket.disconnect", "code": 4000, "reason": "bye ŵ"},
    ]


async def test_a_close_frame_without_a_code_is_told_as_1005(ws: Any) -> None:
    app = Recording()
    async with running(app, ws) as server, await Peer.open(where(server)) as peer:
        await peer.send(frame(CLOSE))
        assert (await app.disconnect())["code"] == 1005


@pytest.mark.usefixtures("loop_kind")
@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_a_lost_connection_is_told_as_1006(ours: Any, how: str) -> None:
    """uvicorn's default says 1005, its older one 1006; RFC 6455 7.1.5 has 1006."""
    app = Recording()
    async with running(app, ours) as server:
        peer = await Peer.open(where(server))
        if how == "fin":
            peer.close()
        else:
            peer.reset()
        assert await app.disconnect() == {"type": "websocket.disconnect", "code": 1006}
        await until(lambda: not server.server_state.connections)


async def test_receiving_again_after_the_end_says_the_same(ours: Any) -> None:
    ends: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        ends.extend([await receive(), await receive()])

    async with running(app, ours) as server, await Peer.open(where(server)) as peer:
        await peer.say_close(1001)
        await until(lambda: len(ends) == 2)
    assert ends[0] == ends[1]


@pytest.mark.usefixtures("loop_kind")
async def test_sending_to_a_peer_that_is_gone_raises_client_disconnected(ws: Any) -> None:
    raised: list[BaseException] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        await until(lambda: not server.server_state.connections)
        for event in ({"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}):
            try:
                await send(event)
            except OSError as error:
                raised.append(error)

    async with running(app, ws) as server:
        peer = await Peer.open(where(server))
        peer.close()
        await until(lambda: len(raised) == 2)
    assert [type(error) for error in raised] == [ClientDisconnected] * 2


async def test_an_application_that_lets_client_disconnected_pass_is_not_at_fault(
    ws: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(0.01)

    async with running(app, ws) as server:
        peer = await Peer.open(where(server))
        assert await peer.message() == "tick"
        await peer.say_close()
        await until(lambda: not server.server_state.tasks)
        peer.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_client_that_leaves_during_the_handshake_is_told_as_1006(ws: Any) -> None:
    events: list[Any] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert await receive() == {"type": "websocket.connect"}
        events.append(await receive())
        try:
            await send({"type": "websocket.accept"})
        except OSError as error:
            events.append(type(error))

    async with running(app, ws) as server:
        peer = await Peer.connect(where(server))
        await peer.send(head())
        await until(lambda: server.server_state.tasks)
        peer.close()
        await until(lambda: len(events) == 2)
    assert events == [{"type": "websocket.disconnect", "code": 1006}, ClientDisconnected]


# --- limits


async def test_a_message_over_ws_max_size_is_1009(ws: Any) -> None:
    app = Recording()
    async with (
        running(app, ws, ws_max_size=1000) as server,
        await Peer.open(where(server)) as peer,
    ):
        await peer.send(frame(BINARY, b"x" * 1000))
        await until(lambda: app.events)
        await peer.send(frame(BINARY, b"x" * 1001))
        assert (await peer.close_frame())[0] == 1009
        assert (await app.disconnect())["code"] == 1009


async def test_a_ws_max_size_of_nothing_refuses_messages_and_not_connections(ws: Any) -> None:
    app = Recording()
    async with running(app, ws, ws_max_size=0) as server, await Peer.open(where(server)) as peer:
        await peer.send(frame(BINARY, b"xy"))
        assert (await peer.close_frame())[0] == 1009
        assert (await app.disconnect())["code"] == 1009


async def test_a_message_of_more_than_4096_fragments_is_1009(ours: Any) -> None:
    app = Recording()
    async with running(app, ours) as server, await Peer.open(where(server)) as peer:
        await peer.send(frame(TEXT, fin=False) + frame(CONT, fin=False) * 4096)
        assert (await peer.close_frame())[0] == 1009


@pytest.mark.parametrize(
    ("data", "code"), [(frame(TEXT, b"\xff"), 1007), (frame(3, b""), 1002)], ids=["utf-8", "opcode"]
)
async def test_bytes_that_break_the_protocol_close_with_the_code_of_the_rfc(
    ws: Any, data: bytes, code: int
) -> None:
    app = Recording()
    async with running(app, ws) as server, await Peer.open(where(server)) as peer:
        await peer.send(data)
        assert (await peer.close_frame())[0] == code
        assert (await app.disconnect())["code"] == code


@pytest.mark.usefixtures("loop_kind")
async def test_a_peer_that_answers_no_ping_gets_1011(ws: Any) -> None:
    app = Recording()
    async with (
        running(app, ws, ws_ping_interval=0.05, ws_ping_timeout=0.1) as server,
        await Peer.open(where(server)) as peer,
    ):
        assert (await peer.frame())[0] == PING
        assert await peer.close_frame() == (1011, "keepalive ping timeout")
        await app.disconnect()


@pytest.mark.parametrize("interval", [None, 0.0])
async def test_there_are_no_pings_without_an_interval(ws: Any, interval: float | None) -> None:
    async with (
        running(echo, ws, ws_ping_interval=interval, ws_ping_timeout=0.05) as server,
        await Peer.open(where(server)) as peer,
    ):
        await asyncio.sleep(0.15)
        await peer.text("quiet")
        assert await peer.message() == "quiet"


# --- shutdown


@pytest.mark.usefixtures("loop_kind")
async def test_a_server_that_stops_says_1012_to_both_sides(ws: Any) -> None:
    app = Recording()
    async with running(app, ws) as server:
        peer = await Peer.open(where(server))
    assert app.events == [{"type": "websocket.disconnect", "code": 1012}]
    assert await peer.close_frame() == (1012, "")
    assert await peer.ended() == "fin"
    peer.close()


async def test_a_server_that_stops_during_a_handshake_says_500(ws: Any) -> None:
    events: list[Any] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        events.extend([await receive(), await receive()])

    async with running(app, ws) as server:
        peer = await Peer.connect(where(server))
        await peer.send(head())
        await until(lambda: events or server.server_state.tasks)
    assert (await peer.response())[0] == 500
    assert events[-1] == {"type": "websocket.disconnect", "code": 1006}
    peer.close()


async def test_a_stopping_server_does_not_wait_for_a_silent_peer(ours: Any) -> None:
    async with running(echo, ours) as server:
        peer = await Peer.open(where(server))
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 5
    peer.close()


async def test_a_stopping_server_waits_for_the_application(ws: Any) -> None:
    saved = False

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        nonlocal saved
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await asyncio.sleep(0.2)
        saved = True

    async with running(app, ws) as server, connect(server):
        pass
    assert saved


async def test_connections_and_tasks_are_counted_while_they_last(ws: Any) -> None:
    app = Recording()
    async with running(app, ws) as server:
        assert not server.server_state.connections
        peer = await Peer.open(where(server))
        assert len(server.server_state.connections) == 1
        assert len(server.server_state.tasks) == 1
        await peer.say_close()
        await until(lambda: not server.server_state.connections and not server.server_state.tasks)
        peer.close()


async def test_a_server_at_its_limit_of_connections_answers_503(ws: Any) -> None:
    async with (
        running(echo, ws, limit_concurrency=2) as server,
        connect(server) as client,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(url(server).replace("ws:", "http:")) as response:
            assert response.status == 503
        await client.send("still served")
        assert await client.recv() == "still served"


# --- carriers


@pytest.mark.usefixtures("loop_kind")
async def test_a_plain_socket_is_carried_by_our_reactor_where_there_is_one() -> None:
    async with running(echo, WebSocketProtocol) as server, await Peer.open(where(server)) as peer:
        (protocol,) = server.server_state.connections
        taken = protocol.transport.is_closing()  # type: ignore[union-attr]
        assert taken == ("reactor" in available_carriers())
        await peer.text("carried")
        assert await peer.message() == "carried"


async def test_an_upgrade_after_other_requests_on_the_connection_is_served(ws: Any) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 10})

    async with running(app, ws) as server, await Peer.connect(where(server)) as peer:
        await peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, headers, _ = await peer.response()
        assert status == 200
        if headers.get("transfer-encoding") == "chunked":
            await peer.exactly(len(b"a\r\n" + b"x" * 10 + b"\r\n0\r\n\r\n"))
        await peer.send(head())
        assert (await peer.response())[0] == 101
        await peer.text("hello")
        assert await peer.message() == "hello"


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_both_http_parsers_of_uvicorn_hand_over(ours: Any, http: str) -> None:
    async with running(echo, ours, http=http) as server, connect(server) as client:
        await client.send("hello")
        assert await client.recv() == "hello"


@pytest.mark.usefixtures("loop_kind")
async def test_tls_is_served_on_uvicorns_transport(ws: Any) -> None:
    app = Recording()
    async with (
        running(app, ws, tls=server_context()) as server,
        websockets.connect(
            f"wss://localhost:{where(server)[1]}", ssl=client_context(), proxy=None
        ) as client,
    ):
        assert app.scope["scheme"] == "wss"
        await client.send("secret")
        await until(lambda: app.events)
        await client.close()
        await app.disconnect()
    assert app.events[0] == {"type": "websocket.receive", "text": "secret"}


async def test_a_unix_socket_is_served(ws: Any, tmp_path: Any) -> None:
    path = str(tmp_path / "socket")
    config = uvicorn.Config(echo, uds=path, ws=ws, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    async with websockets.unix_connect(path) as client:
        await client.send("hello")
        assert await client.recv() == "hello"
    server.should_exit = True
    await task


def test_the_command_line_of_uvicorn_takes_the_name() -> None:
    config = uvicorn.Config(echo, ws="fastws.uvicorn:WebSocketProtocol", log_config=None)
    config.load()
    assert config.ws_protocol_class is WebSocketProtocol
