"""What is measured: each case is one run of the load generator against one server."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from bench.backend import call_for, request
from bench.deflate import NO_TAKEOVER, TAKEOVER, check_echo, messages_file
from bench.dialects import (
    CHANNEL,
    PLAIN,
    flags,
    port_beside,
    publish_commands,
    push_size,
    subscribe_commands,
    with_token,
)
from bench.generator import Share
from bench.generator import run as run_shares
from bench.peers import Peer
from bench.process import (
    BenchError,
    Load,
    descendants,
    load_core,
    memory,
    peak_memory,
    run_load,
    wait_for_upgrade,
)

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
    once: bool = False
    """Measured in the first round only: counts that do not change, or minutes of a run."""
    gateways: bool = False
    """Of gateways, which serve channels to clients, not of libraries."""
    role: ClassVar[str] = "echo"
    """What the server is asked to do."""
    columns: ClassVar[tuple[Column, ...]] = ()

    def wants(self, peer: Peer) -> bool:
        """Whether it is one for this server."""
        if self.role not in peer.roles or not set(self.features) <= set(peer.features):
            return False
        if peer.only and peer.only not in self.features:
            return False
        return self.gateways == (peer.dialect is not PLAIN) or peer.name in self.beside()

    def beside(self) -> tuple[str, ...]:
        """Servers to compare with although they are of the other kind."""
        return ("limit", "fastws_listener") if self.gateways else ()

    def server_arguments(self) -> list[str]:
        """More for the command line of the server."""
        return []

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
        return run_load(port, pid, arguments, seconds * 2 + 90)


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
        arguments = ["--mode", "handshake", *flags(options), *self.opening_of(peer)]
        return run_load(port, pid, arguments, seconds * 2 + 30)

    def opening_of(self, peer: Peer) -> list[str]:
        """Arguments of what a connection does before it ends."""
        return []


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
    """At most: after twice the measured time, and three of them, it ends."""
    interval: float = 0
    burst: int = 1
    stalled: int = 0
    """Connections that never read, beside the others."""
    timeout: float = 60
    role = "broadcast"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("server_cpu_us", "CPU us/delivery", 2, "low"),
        Column("per_second", "deliveries/s", 0),
        Column("p50_us", "delivery p50 us", 0, "low"),
        Column("p99_us", "delivery p99 us", 0, "low"),
        Column("last_p50_us", "last arrival us", 0, "low"),
        Column("bytes_per_delivery", "bytes/delivery", 0),
    )

    def run(self, peer: Peer, port: int, pid: int, seconds: float) -> Result:
        options: dict[str, object] = {
            "connections": self.connections + self.stalled,
            "rounds": self.rounds,
            "interval": self.interval,
            "burst": self.burst,
            "duration": seconds * 2,
            "stalled": self.stalled,
            "timeout": self.timeout,
        }
        plain = peer.dialect is PLAIN
        size = push_size(self.size) if plain and self.envelope else self.size
        publishing = peer.dialect.publishing(size, port)
        arguments = ["--mode", "fanout", *flags(options), *publishing]
        return run_load(port, pid, arguments, 2 * self.timeout + 30)


@dataclass(frozen=True)
class StalledFanout(Fanout):
    """The same beside connections that never read: whether the others get theirs, and the memory.

    Kernels hold little for them, as their windows are small; what they are sent must be kept,
    dropped, or end the connection.
    """

    columns: ClassVar[tuple[Column, ...]] = (
        *Fanout.columns[:5],
        Column("peak_mib", "MiB at most", 0, "low"),
    )

    def run(self, peer: Peer, port: int, pid: int, seconds: float) -> Result:
        result = super().run(peer, port, pid, seconds)
        return {**result, "peak_mib": peak_memory(pid) / 2**20}


@dataclass(frozen=True)
class Latency(Fanout):
    """The same at a steady rate that all servers can keep, for its latencies.

    A publication counts from when it was due.
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column("p50_us", "p50 us", 0, "low"),
        Column("p99_us", "p99 us", 0, "low"),
        Column("p999_us", "p99.9 us", 0),
        Column("server_cpu_us", "CPU us/delivery", 2, "low"),
    )


@dataclass(frozen=True)
class Heartbeats(Case):
    """What it costs to know that idle connections are alive: pings, every `ping` seconds.

    Several processes of the gateway share them, as one may have 20,000 open files; several load
    processes open them, each from an address of its own.
    """

    connections: int = 30_000
    processes: int = 3
    workers: int = 3
    ping: int = 10
    intervals: int = 2
    role = "heartbeat"
    columns = (
        Column("connections", "connections", 0),
        Column("processes", "processes", 0),
        Column("server_cpu_us", "CPU us/ping", 2, "low"),
        Column("core", "% of a core", 1),
        Column("pings", "pings", 0),
        Column("lost", "lost", 0),
    )

    def server_arguments(self) -> list[str]:
        return ["--ping", str(self.ping), "--workers", str(self.workers)]

    def run(self, peer: Peer, port: int, pid: int, seconds: float) -> Result:
        shares = []
        pids = descendants(pid)
        for index in range(self.processes):
            one = port_beside(port, index % self.workers)
            wait_for_upgrade(one, peer.dialect.path)
            options: dict[str, object] = {
                "port": one,
                "mode": "idle",
                "connections": self.connections // self.processes,
                "source": f"127.0.0.{index + 2}",
                "duration": self.ping * self.intervals,
            }
            arguments = [*flags(options), *peer.dialect.opening()]
            if index == 0:
                arguments += [part for each in pids for part in ("--pid", str(each))]
            shares.append(Share(arguments, load_core()))
        outcome = run_shares(shares)
        pings, first = outcome.total("pings"), outcome.results[0]
        if not pings:
            raise BenchError("no ping came")
        return {
            "connections": self.connections,
            "processes": len(pids),
            "pings": pings,
            "lost": outcome.total("lost"),
            "core": first["server_cpu"] * 100,
            "server_cpu_us": first["server_cpu"] * first["seconds"] * 1e6 / pings,
        }


@dataclass(frozen=True)
class Commands(Case):
    """Closed loop: every client of the gateway keeps `depth` commands in flight, each in a frame of
    its own. With a `size`, it publishes that many bytes where nobody listens; without, it goes into
    one of 32 channels and out again.
    """

    size: int = 0
    depth: int = 16
    connections: int = 100
    role = "commands"
    columns = (
        Column("per_second", "commands/s", 0, "high"),
        Column("server_cpu_us", "CPU us/command", 2, "low"),
        *_LATENCY,
    )

    def run(self, peer: Peer, port: int, pid: int, seconds: float) -> Result:
        options: dict[str, object] = {
            "connections": self.connections,
            "depth": self.depth,
            "warmup": max(0.3, seconds / 4),
            "duration": seconds,
        }
        asks = publish_commands(self.size) if self.size else subscribe_commands(32)
        arguments = ["--mode", "echo", *flags(options), *peer.dialect.opening(), *asks]
        return run_load(port, pid, arguments, seconds * 2 + 60)


@dataclass(frozen=True)
class Connects(Handshakes):
    """The same with a token and one subscription, in a channel with presence and history: from the
    TCP connection to the reply.
    """

    role = "tokens"
    columns = (
        Column("per_second", "connects/s", 0, "high"),
        Column("server_cpu_us", "CPU us/connect", 1, "low"),
        *_LATENCY,
    )

    def opening_of(self, peer: Peer) -> list[str]:
        return with_token(peer.dialect).opening()


@dataclass(frozen=True)
class ApiPublish(Case):
    """Publications through the HTTP API, eight calls at a time, one or a `batch` in each."""

    size: int = 128
    batch: int = 1
    role = "tokens"
    columns = (
        Column("per_second", "publications/s", 0, "high"),
        Column("server_cpu_us", "CPU us/publication", 1, "low"),
    )

    def run(self, peer: Peer, port: int, pid: int, seconds: float) -> Result:
        one = {"channel": CHANNEL, "data": "x" * (self.size - 2)}
        if self.batch == 1:
            call = request(port, "publish", one)
        else:
            commands = {"parallel": False, "commands": [{"publish": one}] * self.batch}
            call = request(port, "batch", commands)
        calls, passed, cpu = call_for(seconds, descendants(pid)[-1], port, call)
        count = calls * self.batch
        return {"per_second": count / passed, "server_cpu_us": cpu * 1e6 / count}


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


_SIZES = ((16, "16 B"), (128, "128 B"), (1024, "1 KiB"), (16384, "16 KiB"), (2**20, "1 MiB"))
_FLIGHT = (("lockstep", 1, "one in flight"), ("pipelined", 16, "16 in flight"))
_TEXT = (("ascii", "ASCII"), ("latin", "two-byte"), ("cjk", "CJK"), ("emoji", "emoji"))


def _echo_cases() -> Iterator[Echo]:
    """One and 16 in flight, of each size; those of 128 B have the short names."""
    for size, text in _SIZES:
        for prefix, depth, words in _FLIGHT:
            # A megabyte in flight 1,600 times would measure memory.
            connections = 10 if size == 2**20 else 100
            name = prefix if size == 128 else f"{prefix}-{text.replace(' ', '').lower()}"
            title = f"Echo, {connections} connections, {text} binary, {words}"
            yield Echo(name, title, depth=depth, size=size, connections=connections)


def _text_cases() -> Iterator[Echo]:
    for kind, words in _TEXT:
        name = "pipelined-text" if kind == "ascii" else f"pipelined-{kind}"
        title = f"Echo, 100 connections, 128 B {words} text, 16 in flight"
        yield Echo(name, title, depth=16, payload=kind)


def _connection_cases() -> Iterator[Echo]:
    for count in (1, 1000, 10_000):
        title = f"Echo, {count:,} connection{'s'[: count - 1]}, 128 B binary, one in flight"
        yield Echo(f"lockstep-{count}", title, connections=count, once=count == 10_000)


CORE: tuple[Case, ...] = (
    *_echo_cases(),
    *_text_cases(),
    *_connection_cases(),
    Handshakes("handshakes", "Opening handshakes, 64 at a time"),
    IdleMemory("memory", "Memory of 10,000 idle connections", once=True),
    Fanout("fanout", "Fan-out to 1,000 connections, 128 B text, one publication at a time"),
    Fanout("fanout-burst", "Fan-out to 1,000 connections, 128 B text, in bursts of 16", burst=16),
    Fanout(
        "fanout-10k",
        "Fan-out to 10,000 connections, 128 B text, one publication at a time",
        connections=10_000,
        once=True,
    ),
    Fanout(
        "fanout-10k-burst",
        "Fan-out to 10,000 connections, 128 B text, in bursts of 16",
        connections=10_000,
        burst=16,
        once=True,
    ),
    StalledFanout(
        "fanout-stalled",
        "Fan-out to 990 connections, 1 KiB text, in bursts of 16, beside 10 that never read",
        connections=990,
        stalled=10,
        size=1024,
        burst=16,
        timeout=15,
    ),
)
GATEWAY: tuple[Case, ...] = (
    Fanout(
        "gateway-fanout",
        "Fan-out to 10,000 subscribers of one channel, 128 B of data, five publications a second",
        connections=10_000,
        envelope=True,
        rounds=20,
        interval=0.2,
        gateways=True,
        once=True,
    ),
    Commands(
        "gateway-publish",
        "Publications of 128 B where nobody listens, 100 clients, 16 commands in flight",
        size=128,
        gateways=True,
    ),
    Commands(
        "gateway-subscribe",
        "Subscribe and unsubscribe, presence and join/leave on, 100 clients, 16 in flight",
        gateways=True,
    ),
    Connects(
        "gateway-connect",
        "Connect with a token and subscribe, 64 at a time; presence and history on",
        gateways=True,
    ),
    ApiPublish("gateway-api", "Publications through the HTTP API, one a call", gateways=True),
    ApiPublish(
        "gateway-api-batch",
        "Publications through the HTTP API, 100 a call",
        batch=100,
        gateways=True,
    ),
    Fanout(
        "gateway-burst",
        "Fan-out to 1,000 subscribers of one channel, 128 B of data, in bursts of 16",
        envelope=True,
        burst=16,
        gateways=True,
    ),
    StalledFanout(
        "gateway-stalled",
        "Fan-out to 990 subscribers, 1 KiB of data, in bursts of 16, beside 10 that never read",
        connections=990,
        stalled=10,
        size=1024,
        envelope=True,
        burst=16,
        timeout=15,
        gateways=True,
    ),
    Latency(
        "gateway-latency",
        "Publication to delivery, 100 subscribers, 128 B of data, 100 publications a second",
        connections=100,
        envelope=True,
        interval=0.01,
        rounds=1000,
        gateways=True,
    ),
    IdleMemory(
        "gateway-memory",
        "Memory of 10,000 idle connections, a gateway's subscribed",
        gateways=True,
        once=True,
    ),
    Heartbeats(
        "heartbeats",
        "Heartbeats of 30,000 idle connections, every 10 s",
        gateways=True,
        once=True,
    ),
    Sweep("sweep", "One heartbeat sweep over 100,000 connections", gateways=True, once=True),
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
        "memory-tls",
        "Memory of 2,000 idle connections over TLS",
        ("tls",),
        connections=2000,
        once=True,
    ),
    IdleMemory(
        "memory-silent",
        "Memory of 10,000 connections that said nothing",
        ("deflate",),
        silent=True,
        once=True,
    ),
    IdleMemory(
        "memory-deflate",
        "Memory of 10,000 connections that negotiated deflate and said nothing",
        ("deflate",),
        silent=True,
        once=True,
        offer=TAKEOVER,
    ),
    AsgiEcho("asgi-lockstep", "FastAPI echo, 100 connections, 128 B binary, one in flight"),
    AsgiEcho(
        "asgi-pipelined", "FastAPI echo, 100 connections, 128 B binary, 16 in flight", depth=16
    ),
)
CASES: dict[str, Case] = {case.name: case for case in (*CORE, *GATEWAY, *PROTOCOL)}
