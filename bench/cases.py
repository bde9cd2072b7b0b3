"""What is measured: each case is one run of the load generator against one server."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from bench.deflate import NO_TAKEOVER, TAKEOVER, check_echo, messages_file
from bench.dialects import PLAIN, flags, push_size
from bench.peers import Peer
from bench.process import BenchError, Load, memory, run_load

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One figure of a case in the report."""

    key: str
    heading: str
    digits: int = 1
    best: str = ""
    """"low" or "high" when the figure is compared with the limit's."""


_CPU = Column("server_cpu_us", "CPU us/message", 3, "low")
_LATENCY = (Column("p50_us", "p50 us", 0), Column("p99_us", "p99 us", 0))


@dataclass(frozen=True)
class Case:
    """Something to measure on a running server."""

    name: str
    title: str
    features: tuple[str, ...] = ()
    """What the server must have for it: "tls", "deflate"."""
    role: ClassVar[str] = "echo"
    """What the server is asked to do."""
    columns: ClassVar[tuple[Column, ...]] = ()

    def security(self) -> list[str]:
        """Arguments of the load generator for a server with TLS."""
        return ["--tls"] if "tls" in self.features else []

    def run(self, peer: Peer, port: int, pid: int, seconds: float) -> Result:
        """Measures the server with this process id for about so many seconds.

        Raises BenchError when the server fails or answers wrongly.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Echo(Case):
    """Closed loop: every connection keeps `depth` messages of `size` bytes in flight."""

    depth: int = 1
    size: int = 128
    payload: str = "binary"
    connections: int = 100
    columns = (Column("per_second", "messages/s", 0, "high"), _CPU, *_LATENCY)

    def run(self, peer: Peer, port: int, pid: int, seconds: float) -> Result:
        options: dict[str, object] = {
            "connections": self.connections,
            "depth": self.depth,
            "size": self.size,
            "payload": self.payload,
            "warmup": max(0.3, seconds / 4),
            "duration": seconds,
        }
        arguments = ["--mode", "echo", *self.security(), *flags(options)]
        return run_load(port, pid, arguments, seconds * 2 + 60)


@dataclass(frozen=True)
class DeflateEcho(Case):
    """Closed loop as `Echo`, of JSON documents of about `size` bytes in permessage-deflate.

    Both sides negotiate `offer`. What is sent was compressed before; the server inflates each
    message and compresses its answer, of which one is checked.
    """

    size: int = 1024
    offer: str = NO_TAKEOVER
    connections: int = 100
    columns = (*Echo.columns, Column("answer_bytes", "bytes/answer", 0))

    def run(self, peer: Peer, port: int, pid: int, seconds: float) -> Result:
        check_echo(port, self.offer, self.size)
        with TemporaryDirectory() as folder:
            path, length = messages_file(self.size, Path(folder))
            options: dict[str, object] = {
                "connections": self.connections,
                "deflate": self.offer,
                "messages": path,
                "size": length,
                "payload": "ascii",
                "warmup": max(0.3, seconds / 4),
                "duration": seconds,
            }
            return run_load(port, pid, ["--mode", "echo", *flags(options)], seconds * 2 + 60)


@dataclass(frozen=True)
class AsgiEcho(Echo):
    """The same, of an ASGI application under uvicorn."""

    role = "asgi"


@dataclass(frozen=True)
class Handshakes(Case):
    """Connect, upgrade, reset, again, `opening` at a time."""

    opening: int = 64
    columns = (
        Column("per_second", "handshakes/s", 0, "high"),
        Column("server_cpu_us", "CPU us/handshake", 1, "low"),
        *_LATENCY,
    )

    def run(self, peer: Peer, port: int, pid: int, seconds: float) -> Result:
        options: dict[str, object] = {
            "opening": self.opening,
            "warmup": max(0.3, seconds / 4),
            "duration": seconds,
        }
        return run_load(port, pid, ["--mode", "handshake", *flags(options)], seconds * 2 + 30)


@dataclass(frozen=True)
class IdleMemory(Case):
    """Memory that open connections add, each after one message there and back, or `silent`.

    Opened first and closed again are a few connections whose cost is not that of a connection:
    imports, caches, arenas.
    """

    connections: int = 10_000
    silent: bool = False
    offer: str = ""
    """Extension that each connection negotiates."""
    role = "idle"
    columns = (
        Column("pss_per_connection", "bytes/connection", 0, "low"),
        Column("private_per_connection", "private bytes/connection", 0),
        Column("opened_per_second", "opened/s", 0),
    )

    def run(self, peer: Peer, port: int, pid: int, seconds: float) -> Result:
        opening = peer.dialect.basic() if self.silent else peer.dialect.opening()
        arguments = ["--mode", "idle", *self.security(), *opening]
        if self.offer:
            arguments += ["--deflate", self.offer]
        with Load(port, pid, [*arguments, "--connections", "200"]) as load:
            load.event()
            load.finish()
        time.sleep(0.5)
        before = memory(pid)
        with Load(port, pid, [*arguments, "--connections", str(self.connections)]) as load:
            ready = load.event()
            time.sleep(1)
            after = memory(pid)
            result = load.finish()
        added = {f"{key}_per_connection": after[key] - before[key] for key in before}
        return {
            **result,
            **{key: value / self.connections for key, value in added.items()},
            "opened_per_second": self.connections / ready["seconds"],
            "before": before,
            "after": after,
        }


@dataclass(frozen=True)
class Fanout(Case):
    """One connection publishes `size` bytes, all receive; a round ends when all have it.

    With `envelope`, servers of plain messages publish what the gateway's clients receive: the data
    in its JSON, so that both deliver as many bytes.
    """

    connections: int = 1000
    size: int = 128
    envelope: bool = False
    rounds: int = 200
    interval: float = 0
    burst: int = 1
    role = "broadcast"
    columns = (
        Column("server_cpu_us", "CPU us/delivery", 2, "low"),
        Column("per_second", "deliveries/s", 0),
        Column("last_p50_us", "last arrival us", 0, "low"),
        Column("bytes_per_delivery", "bytes/delivery", 0),
    )

    def run(self, peer: Peer, port: int, pid: int, seconds: float) -> Result:
        options: dict[str, object] = {
            "connections": self.connections,
            "rounds": self.rounds,
            "interval": self.interval,
            "burst": self.burst,
            "duration": seconds * 2,
        }
        plain = peer.dialect is PLAIN
        size = push_size(self.size) if plain and self.envelope else self.size
        arguments = ["--mode", "fanout", *flags(options), *peer.dialect.publishing(size, port)]
        return run_load(port, pid, arguments, 120)


@dataclass(frozen=True)
class Sweep(Case):
    """The gateway's heartbeat table alone; no server and no load."""

    role = "sweep"
    columns = (
        Column("median_ms", "ms, median", 3),
        Column("p99_ms", "ms, p99", 3),
        Column("idle_ms", "ms, nothing due", 3),
    )

    def run(self, peer: Peer, port: int, pid: int, seconds: float) -> Result:
        command = [sys.executable, "-m", "bench.sweep"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise BenchError(done.stderr.strip().splitlines()[-1])
        result: Result = json.loads(done.stdout)
        return result


CORE: tuple[Case, ...] = (
    Echo("lockstep", "Echo, 100 connections, 128 B binary, one in flight"),
    Echo("pipelined", "Echo, 100 connections, 128 B binary, 16 in flight", depth=16),
    Echo(
        "pipelined-text",
        "Echo, 100 connections, 128 B ASCII text, 16 in flight",
        depth=16,
        payload="ascii",
    ),
    Echo("large", "Echo, 100 connections, 16 KiB binary, one in flight", size=16384),
    Handshakes("handshakes", "Opening handshakes, 64 at a time"),
    IdleMemory("memory", "Memory of 10,000 idle connections"),
    Fanout("fanout", "Fan-out to 1,000 connections, 128 B text, one publication at a time"),
)
GATEWAY: tuple[Case, ...] = (
    Fanout(
        "gateway-fanout",
        "Fan-out to 10,000 subscribers of one channel, 128 B of data, five publications a second",
        connections=10_000,
        envelope=True,
        rounds=20,
        interval=0.2,
    ),
    IdleMemory("gateway-memory", "Memory of 10,000 idle connections, the gateway's subscribed"),
    Sweep("sweep", "One heartbeat sweep over 100,000 connections"),
)
PROTOCOL: tuple[Case, ...] = (
    DeflateEcho(
        "deflate-1k", "Echo, 100 connections, 1 KiB JSON, deflate, one in flight", ("deflate",)
    ),
    DeflateEcho(
        "deflate-8k",
        "Echo, 100 connections, 8 KiB JSON, deflate, one in flight",
        ("deflate",),
        size=8192,
    ),
    DeflateEcho(
        "deflate-takeover",
        "Echo, 100 connections, 1 KiB JSON, deflate with context takeover, one in flight",
        ("deflate",),
        offer=TAKEOVER,
    ),
    Echo("tls-lockstep", "Echo over TLS, 100 connections, 128 B, one in flight", ("tls",)),
    Echo(
        "tls-pipelined", "Echo over TLS, 100 connections, 128 B, 16 in flight", ("tls",), depth=16
    ),
    Echo(
        "tls-large", "Echo over TLS, 100 connections, 16 KiB, one in flight", ("tls",), size=16384
    ),
    IdleMemory(
        "memory-tls", "Memory of 2,000 idle connections over TLS", ("tls",), connections=2000
    ),
    IdleMemory(
        "memory-silent",
        "Memory of 10,000 connections that said nothing",
        ("deflate",),
        silent=True,
    ),
    IdleMemory(
        "memory-deflate",
        "Memory of 10,000 connections that negotiated deflate and said nothing",
        ("deflate",),
        silent=True,
        offer=TAKEOVER,
    ),
    AsgiEcho("asgi-lockstep", "FastAPI echo, 100 connections, 128 B binary, one in flight"),
    AsgiEcho(
        "asgi-pipelined", "FastAPI echo, 100 connections, 128 B binary, 16 in flight", depth=16
    ),
)
CASES: dict[str, Case] = {case.name: case for case in (*CORE, *GATEWAY, *PROTOCOL)}
