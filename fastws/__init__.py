"""WebSockets as fast as C, in Python.

    import asyncio, fastws

    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async def main():
        async with fastws.serve(echo, "127.0.0.1", 8765) as server:
            await server.serve_forever()

    asyncio.run(main())

and the other side:

    async with fastws.connect("ws://127.0.0.1:8765/") as ws:
        await ws.send("hello")
        print(await ws.recv())

Names and behaviour are those of ``websockets`` wherever it has one. ``Listener`` is the faster
style.
"""

from __future__ import annotations

from ._impl import PreparedMessage, broadcast, broadcast_ready, codec_name
from ._version import __version__
from .authentication import basic_auth
from .client import ClientConnection, connect, unix_connect
from .connection import Connection
from .deflate import Deflate
from .exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidOrigin,
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    ProtocolError,
    ProxyError,
    SecurityError,
    WebSocketException,
)
from .frames import Close, CloseCode, Opcode, State
from .http import Headers, MultipleValuesError, Request, Response
from .listener import Listener
from .reconnect import process_exception
from .server import Server, ServerConnection, serve, unix_serve
from .typing import Data, HeadersLike, LoggerLike, Origin, StatusLike, Subprotocol

__all__ = [
    "ClientConnection",
    "Close",
    "CloseCode",
    "ConcurrencyError",
    "Connection",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Data",
    "Deflate",
    "Headers",
    "HeadersLike",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidMessage",
    "InvalidOrigin",
    "InvalidProxy",
    "InvalidProxyMessage",
    "InvalidProxyStatus",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "Listener",
    "LoggerLike",
    "MultipleValuesError",
    "NegotiationError",
    "Opcode",
    "Origin",
    "PreparedMessage",
    "ProtocolError",
    "ProxyError",
    "Request",
    "Response",
    "SecurityError",
    "Server",
    "ServerConnection",
    "State",
    "StatusLike",
    "Subprotocol",
    "WebSocketException",
    "__version__",
    "basic_auth",
    "broadcast",
    "broadcast_ready",
    "codec_name",
    "connect",
    "process_exception",
    "serve",
    "unix_connect",
    "unix_serve",
]
