"""``wss`` from the client's side: whom it trusts, and what it does not wait for."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

import fastws
from tests.fastws.certificates import client_context, server_context
from tests.fastws.client import echo, url
from tests.fastws.raw_server import ServerPeer, no_proxy, raw_server

pytestmark = pytest.mark.usefixtures("loop_kind", "no_proxy")

__all__ = ["no_proxy"]


def serve(*names: str, **options: Any) -> Any:
    return fastws.serve(echo, "127.0.0.1", 0, ssl=server_context(*names), **options)


def connect(carrier: str, uri: str, **options: Any) -> fastws.connect:
    return fastws.connect(uri, carrier=carrier, **options)


def secure(server: fastws.Server, path: str = "/") -> str:
    return url(server, path).replace("ws://", "wss://")


async def test_messages_of_every_size_over_tls(carrier: str) -> None:
    async with serve() as server, connect(carrier, secure(server), ssl=client_context()) as ws:
        assert ws.remote_address == server.sockets[0].getsockname()
        for size in (0, 125, 65536, 1_000_000):
            await ws.send(bytes(size))
            assert await ws.recv() == bytes(size)
    assert ws.close_code == 1000


def servers_may_complain() -> None:
    """asyncio reports a TLS handshake that a client broke off; that is what these tests want."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)


async def test_a_server_that_nobody_vouches_for_is_refused(carrier: str) -> None:
    servers_may_complain()
    async with serve() as server:
        for context in (None, True):
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(carrier, secure(server), ssl=context)


async def test_a_certificate_must_have_the_hosts_name(carrier: str) -> None:
    servers_may_complain()
    async with serve("example.test") as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(carrier, secure(server), ssl=client_context())
        async with connect(
            carrier, secure(server), ssl=client_context(), server_hostname="example.test"
        ) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


async def test_the_name_that_is_checked_is_the_uris_wherever_we_connect_to(carrier: str) -> None:
    async with serve("example.test") as server:
        host, port = server.sockets[0].getsockname()
        async with connect(
            carrier, "wss://example.test/", host=host, port=port, ssl=client_context()
        ) as ws:
            assert ws.request.headers["Host"] == "example.test"


async def test_a_context_may_trust_anyone(carrier: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with serve("example.test") as server, connect(carrier, secure(server), ssl=context) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"


async def test_tls_over_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with (
        fastws.unix_serve(echo, path, ssl=server_context()),
        fastws.unix_connect(path, ssl=client_context()) as ws,
    ):
        await ws.send("hello")
        assert await ws.recv() == "hello"


async def test_a_listener_over_tls(carrier: str) -> None:
    got: asyncio.Queue[str | bytes] = asyncio.Queue()

    class Client(fastws.Listener):
        def on_open(self, ws: fastws.Connection) -> None:
            ws.send("hello")

        def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
            got.put_nowait(message)

    async with (
        serve() as server,
        connect(carrier, secure(server), ssl=client_context(), listener=Client),
    ):
        assert await got.get() == "hello"


async def test_a_server_that_speaks_no_tls(carrier: str) -> None:
    async with fastws.serve(echo, "127.0.0.1", 0) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(carrier, secure(server), ssl=client_context())


async def test_a_server_that_stalls_in_the_tls_handshake_is_left(carrier: str) -> None:
    async def handler(peer: ServerPeer) -> None:
        with contextlib.suppress(ConnectionError):
            await peer.drain()

    async with raw_server(handler) as plain:
        started = time.monotonic()
        uri = plain.replace("ws://", "wss://")
        with pytest.raises(TimeoutError, match="no connection"):
            await connect(carrier, uri, open_timeout=0.1)
        with pytest.raises(OSError):
            await fastws.connect(uri, ssl_handshake_timeout=0.1)
        assert time.monotonic() - started < 5


# --- redirects


def to(target: str) -> Any:
    def process_request(
        ws: fastws.ServerConnection, request: fastws.Request
    ) -> fastws.Response | None:
        response = ws.respond(301, "over there\n")
        response.headers["Location"] = target
        return response

    return process_request


@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_redirects_lead_to_tls(
    carrier: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = client_context()
    monkeypatch.setattr(ssl, "create_default_context", lambda: context)
    async with serve() as server:
        target = secure(server).replace("wss", scheme)
        async with (
            fastws.serve(echo, "127.0.0.1", 0, process_request=to(target)) as plain,
            connect(carrier, url(plain)) as ws,
        ):
            await ws.send("hello")
            assert await ws.recv() == "hello"


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_redirects_do_not_lead_away_from_tls(carrier: str, scheme: str) -> None:
    async with fastws.serve(echo, "127.0.0.1", 0) as plain:
        target = url(plain).replace("ws", scheme)
        async with serve(process_request=to(target)) as server:
            with pytest.raises(fastws.SecurityError, match="from wss to ws"):
                await connect(carrier, secure(server), ssl=client_context())
