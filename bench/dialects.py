"""How the load generator speaks to a server: plain messages, or the protocol of a gateway."""

import base64
import hmac
import json
import struct
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

CHANNEL = "bench"


def flags(options: dict[str, object]) -> list[str]:
    """`{"depth": 16}` as `["--depth", "16"]`."""
    return [part for key, value in options.items() for part in (f"--{key}", str(value))]


def _data(size: int) -> str:
    """A JSON string of so many bytes with its quotes."""
    return f'"{"x" * (size - 2)}"'


@dataclass(frozen=True)
class Dialect:
    """Arguments of the load generator."""

    path: str
    hello: Sequence[str]
    """Sent by every connection when it is open."""
    ready: str
    """In the reply after which the connection counts as ready."""
    ping: tuple[str, str] | None = None
    """Text by which the server asks for a sign of life, and what is to be answered."""
    subprotocol: str = ""

    def basic(self) -> list[str]:
        """A connection."""
        arguments = ["--path", self.path]
        if self.ping:
            arguments += ["--ping", self.ping[0], "--pong", self.ping[1]]
        if self.subprotocol:
            arguments += ["--subprotocol", self.subprotocol]
        return arguments

    def opening(self) -> list[str]:
        """A connection that has been greeted and has got its reply."""
        arguments = [*self.basic(), "--ready", self.ready]
        for text in self.hello:
            arguments += ["--hello", text]
        return arguments

    def publishing(self, size: int, port: int) -> list[str]:
        """Publications of `size` bytes of data to everybody, at the server on this port."""
        raise NotImplementedError


class _Plain(Dialect):
    def publishing(self, size: int, port: int) -> list[str]:
        return [*self.basic(), "--size", str(size), "--payload", "ascii"]


class _Centrifuge(Dialect):
    def publishing(self, size: int, port: int) -> list[str]:
        command = f'{{"id":3,"publish":{{"channel":"{CHANNEL}","data":{_data(size)}}}}}'
        return [*self.opening(), "--match", '"pub":', "--publish", command]


def _asking(*commands: tuple[str, str]) -> list[str]:
    """Commands in turn, each padded to the length of the longest, and the answers to them."""
    longest = max(len(ask) for ask, _ in commands)
    arguments = []
    for ask, answer in commands:
        arguments += ["--ask", ask.ljust(longest), "--answer", answer]
    return arguments


def publish_commands(size: int) -> list[str]:
    """Publications of `size` bytes of data where nobody listens, and their replies."""
    command = f'{{"id":5,"publish":{{"channel":"quiet","data":{_data(size)}}}}}'
    return _asking((command, '{"id":5,"publish":{}}'))


def subscribe_commands(channels: int) -> list[str]:
    """Into each of so many channels and out again, up to 32 of them, and the replies."""
    commands = []
    for number in range(channels):
        for what in ("subscribe", "unsubscribe"):
            command = f'{{"id":6,"{what}":{{"channel":"room-{number}"}}}}'
            commands.append((command, f'{{"id":6,"{what}":{{}}}}'))
    return _asking(*commands)


_TAG = "bench:"
"""At the beginning of each publication, where a server sends its clients other messages too."""


class _Tagged(Dialect):
    """Plain text, and answers of the server to who publishes, which are not counted."""

    def basic(self) -> list[str]:
        return ["--path", self.path]

    def opening(self) -> list[str]:
        return self.basic()

    def publishing(self, size: int, port: int) -> list[str]:
        text = _TAG + "x" * (size - len(_TAG))
        return [*self.basic(), "--match", _TAG, "--publish", text]


class _SocketIo(Dialect):
    """Engine.IO 4 and Socket.IO 5: an event `message` with a string."""

    def publishing(self, size: int, port: int) -> list[str]:
        event = f'42["message",{_data(size)}]'
        return [*self.opening(), "--match", '42["message",', "--publish", event]


def port_beside(port: int, index: int) -> int:
    """The port of a server itself (0), or one of four more for it (1 to 4).

    Those are below what the kernel gives to clients, of which the load has thousands.
    """
    return 10_000 + port % 5_000 * 4 + index - 1 if index else port


class _Pushpin(_Tagged):
    """Publications through the ZeroMQ socket on a port of its own (ZMTP 3.0 by hand)."""

    def publishing(self, size: int, port: int) -> list[str]:
        text = _TAG + "x" * (size - len(_TAG))
        item = {"channel": "test", "formats": {"ws-message": {"content": text}}}
        body = b"J" + json.dumps(item, separators=(",", ":")).encode()
        folder = Path(tempfile.mkdtemp(prefix="bench-"))
        hello, message = folder / "hello", folder / "message"
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
        ready = b"\x05READY\x0bSocket-Type" + struct.pack("!I", 4) + b"PUSH"
        hello.write_bytes(greeting + bytes([4, len(ready)]) + ready)
        message.write_bytes(struct.pack("!BQ", 2, len(body)) + body)
        told = {
            "publish-port": port_beside(port, 1),
            "publish-hello": hello,
            "publish-raw": message,
        }
        return [*self.basic(), "--match", _TAG, *flags(dict(told))]


PLAIN = _Plain("/", ("x" * 128,), "x" * 128)
CENTRIFUGE = _Centrifuge(
    "/connection/websocket",
    ('{"id":1,"connect":{}}', f'{{"id":2,"subscribe":{{"channel":"{CHANNEL}"}}}}'),
    '"id":2',
    ("{}", "{}"),
)
TOKEN_SECRET = "secret of the benchmark's tokens, 32 bytes or more"


def with_token(dialect: Dialect) -> Dialect:
    """The same, each connection with a token (RFC 7519, HS256) of one user for an hour."""
    claims = {"sub": "42", "exp": int(time.time()) + 3600}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT"}, claims)
    ]
    signature = hmac.digest(TOKEN_SECRET.encode(), b".".join(parts), "sha256")
    parts.append(base64.urlsafe_b64encode(signature).rstrip(b"="))
    connect = {"id": 1, "connect": {"token": b".".join(parts).decode()}}
    hello = (json.dumps(connect, separators=(",", ":")), *dialect.hello[1:])
    return replace(dialect, hello=hello)


TAGGED = _Tagged("/", (), "")
SOCKET_IO = _SocketIo("/socket.io/?EIO=4&transport=websocket", ("40",), '40{"sid"', ("2", "3"))
PUSHPIN = _Pushpin("/ws", (), "")


def push_size(size: int) -> int:
    """Bytes of the Centrifuge message that delivers `size` bytes of data."""
    return len(f'{{"push":{{"channel":"{CHANNEL}","pub":{{"data":{_data(size)}}}}}}}')
