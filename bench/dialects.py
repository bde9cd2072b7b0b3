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

    def opening(self) -> list[str]:
        """A connection that has been greeted and has got its reply."""
        arguments = ["--path", self.path, "--ready", self.ready]
        for text in self.hello:
            arguments += ["--hello", text]
        return arguments

    def publishing(self, size: int) -> list[str]:
        """Publications of `size` bytes of data to everybody."""
        raise NotImplementedError


class _Plain(Dialect):
    def publishing(self, size: int) -> list[str]:
        return ["--path", self.path, "--size", str(size), "--payload", "ascii"]


class _Centrifuge(Dialect):
    def publishing(self, size: int) -> list[str]:
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


PLAIN = _Plain("/", ("x" * 128,), "x" * 128)
CENTRIFUGE = _Centrifuge(
    "/connection/websocket",
    ('{"id":1,"connect":{}}', f'{{"id":2,"subscribe":{{"channel":"{CHANNEL}"}}}}'),
    '"id":2',
)


def push_size(size: int) -> int:
    """Bytes of the Centrifuge message that delivers `size` bytes of data."""
    return len(f'{{"push":{{"channel":"{CHANNEL}","pub":{{"data":{_data(size)}}}}}}}')
