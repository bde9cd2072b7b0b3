"""How the load generator speaks to a server: plain messages, or the Centrifuge protocol."""

from collections.abc import Sequence
from dataclasses import dataclass

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

    def publishing(self, size: int) -> list[str]:
        """Publications of `size` bytes of data to everybody."""
        raise NotImplementedError


class _Plain(Dialect):
    def publishing(self, size: int) -> list[str]:
        return [*self.basic(), "--size", str(size), "--payload", "ascii"]


class _Centrifuge(Dialect):
    def publishing(self, size: int) -> list[str]:
        command = f'{{"id":3,"publish":{{"channel":"{CHANNEL}","data":{_data(size)}}}}}'
        return [*self.opening(), "--match", '"pub":', "--publish", command]


PLAIN = _Plain("/", ("x" * 128,), "x" * 128)
CENTRIFUGE = _Centrifuge(
    "/connection/websocket",
    ('{"id":1,"connect":{}}', f'{{"id":2,"subscribe":{{"channel":"{CHANNEL}"}}}}'),
    '"id":2',
    ("{}", "{}"),
)


def push_size(size: int) -> int:
    """Bytes of the Centrifuge message that delivers `size` bytes of data."""
    return len(f'{{"push":{{"channel":"{CHANNEL}","pub":{{"data":{_data(size)}}}}}}}')
