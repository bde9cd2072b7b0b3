"""Stand-ins for what lies around a session, so that nothing here needs a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gateway.app import App
from gateway.config import Config
from gateway.engines import Engine, MemoryEngine
from gateway.heartbeat import Heartbeat
from gateway.node import Node
from gateway.protocols.base import ClientProtocol
from gateway.protocols.centrifuge import CentrifugeJson
from gateway.session import Session
from gateway.transports.base import Transport

# Anyone may do anything, so that a test is about one thing.
DEV = Config(dev=True)


class FakeConnection:
    """Keeps what is sent; as the real one, it sends nothing after a close."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.full = False  # it reads too slowly
        self.closed: tuple[int, str] | None = None

    def send(self, message: bytes, text: bool | None = None, /) -> None:
        assert text is True
        if self.closed is None:
            self.frames.append(message)

    def close(self, code: int, reason: str, /) -> None:
        if self.closed is None:
            self.closed = code, reason


class FakeEndpoint:
    def __init__(self, protocol: ClientProtocol) -> None:
        self.protocol = protocol
        self.payloads: list[bytes] = []

    def fan_out_ready(
        self, transports: Iterable[Transport], payload: bytes
    ) -> list[Transport]:
        full = [transport for transport in transports if getattr(transport, "full", False)]
        self.fan_out([each for each in transports if each not in full], payload)
        return full

    def fan_out(self, transports: Iterable[Transport], payload: bytes) -> None:
        self.payloads.append(payload)
        for transport in list(transports):
            transport.send(payload, True)


class Client:
    """A client on a fake connection."""

    def __init__(self, world: World, slot: int) -> None:
        self.connection = FakeConnection()
        self.session = Session(world.endpoint)
        self._world = world
        world.node.open(self.session, self.connection, slot)

    def send(self, *commands: Any) -> None:
        """One frame with these commands (dicts, or text as it is)."""
        lines = [c if isinstance(c, str) else json.dumps(c) for c in commands]
        self.receive("\n".join(lines))

    def receive(self, frame: str | bytes) -> None:
        self._world.protocol.receive(self.session, frame)

    def take_frames(self) -> list[bytes]:
        """What has come since the last look."""
        frames = list(self.connection.frames)
        self.connection.frames.clear()
        return frames

    def take(self) -> list[Any]:
        """The same, as objects."""
        return [json.loads(line) for frame in self.take_frames() for line in frame.split(b"\n")]

    def ask(self, command: dict[str, Any]) -> Any:
        """Send a command and give its reply, which has to be all that comes."""
        self.send({"id": 99, **command})
        [reply] = self.take()
        assert reply.pop("id") == 99
        return reply

    def connect(self, **request: Any) -> str:
        client: str = self.ask({"connect": request})["connect"]["client"]
        return client

    def leave(self, code: int = 1001) -> None:
        self._world.node.leave(self.session, code)

    @property
    def closed(self) -> tuple[int, str] | None:
        return self.connection.closed


class World:
    """A node with its protocol and heartbeat, on a clock that tests turn."""

    def __init__(
        self,
        config: Config | None = None,
        engine: Engine | None = None,
        app: App | None = None,
    ) -> None:
        self.now = 1000.0
        self.node = Node(
            config or DEV,
            engine or MemoryEngine(lambda: self.now),
            clock=lambda: self.now,
            wall=lambda: self.now,
            app=app,
        )
        self.protocol = CentrifugeJson(self.node)
        self.endpoint = FakeEndpoint(self.protocol)
        self.last_seen = np.zeros(1000)
        self.pinged: list[Session] = []
        client = self.node.config.client
        self.heartbeat = self.node.heartbeat = Heartbeat(
            self.last_seen,
            interval=client.ping_interval,
            timeout=client.pong_timeout,
            stale_delay=client.stale_close_delay,
            on_ping=self.pinged.extend,
            on_dead=self.node.disconnect,
            on_expired=self.node.admission.expire,
        )
        self._slots = 0

    async def __aenter__(self) -> World:
        await self.node.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.node.close()

    def turn(self, seconds: float) -> None:
        """Let time pass, and do what is due then."""
        self.now += seconds
        self.node.tick()

    def open(self) -> Client:
        """A client whose transport is open, no more."""
        self._slots += 1
        return Client(self, self._slots - 1)

    def client(self, **request: Any) -> Client:
        """A client that has connected."""
        client = self.open()
        client.connect(**request)
        return client


class SlowEngine(MemoryEngine):
    """A memory engine each of whose operations waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.immediate = None
        self.waiting: list[asyncio.Future[None]] = []
        self.calls: list[str] = []
        self.error: Exception | None = None

    async def let_go(self) -> None:
        """Finish the operations that wait now, and run what follows from it up to the next wait."""
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            future.set_result(None)
        for _ in range(5):
            await asyncio.sleep(0)


def _slow(name: str) -> Callable[..., Any]:
    async def operation(self: SlowEngine, *args: Any) -> Any:
        self.calls.append(name)
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        await future
        if self.error is not None:
            raise self.error
        return await getattr(MemoryEngine, name)(self, *args)

    return operation


for _name in ("publish", "publish_join", "publish_leave", "subscribe", "unsubscribe"):
    setattr(SlowEngine, _name, _slow(_name))
for _name in ("presence_add", "presence_remove", "presence", "presence_stats", "history"):
    setattr(SlowEngine, _name, _slow(_name))
