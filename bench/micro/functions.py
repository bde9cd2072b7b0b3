"""What is compared: for each job, a function of each library that does it, under its name.

Each entry makes, from the data, what is timed. A library that is not installed is left out. One
that has no function for a job that can be called by itself is not among them: picows masks and
parses within its transport.
"""

import codecs
import contextlib
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from fastws import _codec, _head

KEY = b"\x12\x34\x56\x78"
SIZES = (1, 16, 125, 1024, 16 * 1024, 2**20, 16 * 2**20)
ECHO_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3
REQUEST = (
    "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nConnection: keep-alive, Upgrade\r\n"
    "Pragma: no-cache\r\nCache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
    f"Upgrade: websocket\r\nOrigin: http://example.com\r\nSec-WebSocket-Version: 13\r\n"
    f"Accept-Encoding: gzip, deflate, br\r\nSec-WebSocket-Key: {ECHO_KEY}\r\n\r\n"
).encode()

Timed = Callable[[], Any]
Job = dict[str, Callable[[bytes], Timed]]


def frame(first: int, payload: bytes) -> bytes:
    """A masked frame, as clients send it."""
    return _codec.encode_frame(first & 15, payload, fin=bool(first & 0x80), mask_key=KEY)


def _copy(data: bytes) -> Timed:
    view = memoryview(data)
    return lambda: bytes(view)


def mask() -> Job:
    """Data masked: a new object of it where the library returns one, else in place."""
    jobs: Job = {
        "fastws": lambda data: lambda: _codec.mask(data, KEY),
        "memcpy (limit)": _copy,
    }

    def in_place(data: bytes) -> Timed:
        buffer = bytearray(data)
        return lambda: _codec.mask_inplace(buffer, KEY)

    jobs["fastws, in place"] = in_place
    with contextlib.suppress(ImportError):
        from websockets.speedups import apply_mask

        jobs["websockets"] = lambda data: lambda: apply_mask(data, KEY)
    with contextlib.suppress(ImportError):
        mask_cython = import_module("aiohttp._websocket.mask")._websocket_mask_cython

        def aiohttp(data: bytes) -> Timed:
            buffer = bytearray(data)
            return lambda: mask_cython(KEY, buffer)

        jobs["aiohttp, in place"] = aiohttp
    with contextlib.suppress(ImportError):
        from tornado.speedups import websocket_mask

        jobs["tornado"] = lambda data: lambda: websocket_mask(KEY, data)
    with contextlib.suppress(ImportError):
        from wsproto.frame_protocol import XorMaskerSimple

        jobs["wsproto"] = lambda data: lambda: XorMaskerSimple(KEY).process(cast(Any, data))
    return jobs


def utf8() -> Job:
    """Bytes of a whole message as `str`: what other libraries do is `bytes.decode()`."""
    return {
        "fastws": lambda data: lambda: _codec.decode_utf8(data),
        "bytes.decode (all others)": lambda data: data.decode,
        "incremental decoder (wsproto)": lambda data: (
            lambda: codecs.getincrementaldecoder("utf-8")().decode(data, True)
        ),
    }


def decode() -> Job:
    """Frames from a client as messages, by a decoder that is there already.

    The data are the bytes of one frame or of all fragments of a message.
    """

    def fastws(data: bytes) -> Timed:
        decoder = _codec.Decoder(max_size=None)
        return lambda: decoder.feed(data)

    jobs: Job = {"fastws": fastws}
    with contextlib.suppress(ImportError):
        from websockets.frames import Opcode
        from websockets.protocol import SERVER, Protocol

        def websockets(data: bytes) -> Timed:
            protocol: Any = Protocol(SERVER, max_size=None)

            def run() -> bytes:
                protocol.receive_data(data)
                events = protocol.events_received()
                # Its connections join the fragments.
                assert events[0].opcode is not Opcode.CONT
                return b"".join([event.data for event in events])

            return run

        jobs["websockets"] = websockets
    with contextlib.suppress(ImportError):
        from wsproto.frame_protocol import FrameProtocol

        def wsproto(data: bytes) -> Timed:
            protocol = FrameProtocol(False, [])

            def run() -> bytes:
                protocol.receive_bytes(data)
                return b"".join(
                    [bytes(cast(Any, one.payload)) for one in protocol.received_frames()]
                )

            return run

        jobs["wsproto"] = wsproto
    with contextlib.suppress(ImportError):
        import asyncio

        from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
        from aiohttp.base_protocol import BaseProtocol

        def aiohttp(data: bytes) -> Timed:
            loop = asyncio.new_event_loop()
            queue = WebSocketDataQueue(BaseProtocol(loop), 2**30, loop=loop)
            reader = WebSocketReader(queue, 2**30, False, True)
            loop.close()

            def run() -> Any:
                reader.feed_data(data)
                return queue._buffer.popleft()

            return run

        jobs["aiohttp"] = aiohttp
    return jobs


def encode() -> Job:
    """A binary message as the frame that a server sends."""
    jobs: Job = {"fastws": lambda data: lambda: _codec.encode_frame(2, data)}
    with contextlib.suppress(ImportError):
        from websockets.frames import Frame, Opcode

        jobs["websockets"] = lambda data: lambda: Frame(Opcode.BINARY, data).serialize(mask=False)
    with contextlib.suppress(ImportError):
        from wsproto.frame_protocol import FrameProtocol

        def wsproto(data: bytes) -> Timed:
            protocol = FrameProtocol(False, [])
            return lambda: protocol.send_data(data)

        jobs["wsproto"] = wsproto
    return jobs


def handshake() -> Job:
    """A browser's request read, and the answer to it written, sans I/O."""

    def fastws(data: bytes) -> Timed:
        from fastws.handshake import accept_key

        def run() -> bytes:
            head = _head.parse_head(data)
            assert head is not None
            assert head.wants_websocket
            assert head.key is not None
            accept = accept_key(head.key).decode()
            return (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            ).encode()

        return run

    jobs: Job = {"fastws": fastws}
    with contextlib.suppress(ImportError):
        from websockets.server import ServerProtocol

        def websockets(data: bytes) -> Timed:
            def run() -> list[bytes]:
                protocol = ServerProtocol()
                protocol.receive_data(data)
                (request,) = protocol.events_received()
                protocol.send_response(protocol.accept(request))  # type: ignore[arg-type]
                return protocol.data_to_send()

            return run

        jobs["websockets"] = websockets
    with contextlib.suppress(ImportError):
        from wsproto import ConnectionType, WSConnection
        from wsproto.events import AcceptConnection

        def wsproto(data: bytes) -> Timed:
            def run() -> bytes:
                connection = WSConnection(ConnectionType.SERVER)
                connection.receive_data(data)
                next(connection.events())
                return connection.send(AcceptConnection())

            return run

        jobs["wsproto"] = wsproto
    return jobs
