"""Load for any WebSocket server: `python -m bench.load ws://host:port/path`.

By default every connection keeps a message in flight (closed loop). `--rate` sends so many messages
a second whatever the server does (open loop), and counts each latency from the moment when its
message was due. Echoes are checked. Ctrl-C ends the measurement early.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fastws
from bench.deflate import NO_TAKEOVER, messages_file
from bench.dialects import flags
from bench.generator import SATURATED, Outcome, Share, percentile, run
from bench.native import NoCompiler
from bench.process import BenchError, descendants
from fastws.uri import parse_uri

KINDS = ("binary", "ascii", "latin", "cjk", "emoji")
MODES = ("echo", "handshake", "idle")
PERCENTILES = (0.5, 0.9, 0.99, 0.999, 0.9999)
_UNITS = {"echo": "messages", "handshake": "handshakes", "idle": "pings answered"}
_COUNTS = {"echo": "messages", "handshake": "handshakes", "idle": "pings"}


@dataclass(frozen=True)
class Target:
    """A server: where it is, and how it wants to be called."""

    url: str
    address: str
    port: int
    host: str
    """For the Host header and, with TLS, for its certificate."""
    path: str
    secure: bool

    def arguments(self, options: argparse.Namespace) -> list[str]:
        """For `load`."""
        told: dict[str, object] = {"address": self.address, "port": self.port, "host": self.host}
        told["path"] = self.path
        for name in ("origin", "subprotocol"):
            if getattr(options, name):
                told[name] = getattr(options, name)
        security = []
        if self.secure:
            security = ["--tls"] if options.insecure else ["--tls", "--verify-tls"]
            if options.ca:
                security += ["--ca", options.ca]
        return [*security, *flags(told)]


def resolve(url: str) -> Target:
    """Looks up the server of a URL. Raises BenchError for a bad URL or an unknown name."""
    try:
        parts = parse_uri(url)
    except fastws.InvalidURI as error:
        raise BenchError(f"{error} (expected ws://host:port/path or wss://...)") from None
    try:
        found = socket.getaddrinfo(parts.host, parts.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise BenchError(f"no address for '{parts.host}': {error.strerror}") from None
    name = f"[{parts.host}]" if ":" in parts.host else parts.host
    return Target(
        url,
        str(found[0][4][0]),
        parts.port,
        f"{name}:{parts.port}",
        parts.resource_name,
        parts.secure,
    )


def _context(target: Target, options: argparse.Namespace) -> ssl.SSLContext | None:
    if not target.secure:
        return None
    context = ssl.create_default_context(cafile=options.ca)
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _talk(target: Target, options: argparse.Namespace) -> str:
    async with fastws.connect(
        target.url,
        ssl=_context(target, options),
        proxy=None,
        compression="deflate" if options.deflate else None,
        subprotocols=[options.subprotocol] if options.subprotocol else None,
        origin=options.origin,
        max_size=None,
        open_timeout=options.timeout,
        ping_interval=None,
        close_timeout=1,
    ) as ws:
        if options.deflate and "permessage-deflate" not in (
            ws.response.headers.get("Sec-WebSocket-Extensions", "") if ws.response else ""
        ):
            raise BenchError("the server does not agree to permessage-deflate: leave --deflate out")
        address = str(ws.remote_address[0])
        if options.mode != "echo":
            return address
        text = "x" * min(options.size, 4096)
        sent = text.encode() if options.kind == "binary" and not options.deflate else text
        await ws.send(sent)
        try:
            answer = await asyncio.wait_for(ws.recv(), options.timeout)
        except TimeoutError:
            raise BenchError(
                f"no echo within {options.timeout:g} s: --mode handshake or --mode idle need none"
            ) from None
        if answer != sent:
            raise BenchError(
                f"not an echo: {_short(sent)} was sent and {_short(answer)} came back; "
                "--mode handshake or --mode idle need no echo"
            )
        return address


def _short(message: str | bytes) -> str:
    kind = "text" if isinstance(message, str) else "binary"
    shown = repr(message[:24]) + ("..." if len(message) > 24 else "")
    return f"{kind} of {len(message)} {shown}"


def probe(target: Target, options: argparse.Namespace) -> Target:
    """One connection with one message, to say in words what is wrong. Raises BenchError.

    Returns the server with that of its addresses which answered.
    """
    where = f"{target.host} ({target.address})"
    try:
        return replace(target, address=asyncio.run(_talk(target, options)))
    except BenchError:
        raise
    except ConnectionRefusedError:
        raise BenchError(f"connection refused: nobody listens at {where}") from None
    except ssl.SSLError as error:
        hint = "; --insecure leaves certificates unchecked, --ca FILE trusts another authority"
        unknown = isinstance(error, ssl.SSLCertVerificationError)
        raise BenchError(
            f"TLS with {where}: {error.reason or error}{hint if unknown else ''}"
        ) from None
    except TimeoutError:
        raise BenchError(f"{where} did not answer within {options.timeout:g} s") from None
    except fastws.InvalidHandshake as error:
        raise BenchError(f"{target.url} is not a WebSocket: {error}") from None
    except fastws.ConnectionClosed as error:
        raise BenchError(f"the server closed the connection: {error}") from None
    except OSError as error:
        raise BenchError(f"{where}: {error.strerror or error}") from None


def _shares(
    target: Target, options: argparse.Namespace, messages: tuple[Path, int] | None
) -> list[Share]:
    """What each process does: its part of connections and rate."""
    count = min(options.processes, options.connections)
    shares = []
    for index in range(count):
        mine = options.connections // count + (index < options.connections % count)
        told: dict[str, object] = {
            "mode": options.mode,
            "opening": max(1, options.opening // count),
            "timeout": options.timeout,
            "warmup": options.warmup,
            "duration": options.seconds,
        }
        if options.mode == "handshake":
            told["opening"] = mine
        else:
            told["connections"] = mine
        if options.mode == "echo":
            told |= {"depth": options.depth, "size": options.size, "payload": options.kind}
            if options.rate:
                told["rate"] = options.rate * mine / options.connections
        if options.deflate:
            told["deflate"] = NO_TAKEOVER
        if messages:
            told |= {"messages": messages[0], "size": messages[1], "payload": "ascii"}
        arguments = [*target.arguments(options), *flags(told)]
        if options.pid and index == 0:
            for pid in descendants(options.pid):
                arguments += ["--pid", str(pid)]
        core = options.cores[index % len(options.cores)] if options.cores else None
        shares.append(Share(arguments, core))
    return shares


def summary(outcome: Outcome, options: argparse.Namespace, target: Target) -> dict[str, Any]:
    """The report as data."""
    count, buckets = outcome.total(_COUNTS[options.mode]), outcome.buckets()
    seconds, longest = outcome.greatest("seconds"), outcome.greatest("max_us")
    latency = {
        f"p{share * 100:g}": min(percentile(buckets, share), longest) for share in PERCENTILES
    }
    told: dict[str, Any] = {
        "url": target.url,
        "mode": options.mode,
        "loop": "open" if options.rate else "closed",
        "processes": len(outcome.results),
        "connections": options.connections,
        "seconds": round(seconds, 3),
        "count": int(count),
        "per_second": count / seconds if seconds else 0.0,
        "latency_us": latency | {"max": longest},
        "load_cpu": [result["load_cpu"] for result in outcome.results],
        "load_saturated": outcome.saturated(),
        "waited": outcome.greatest("waited"),
        "failures": int(outcome.total("failures")),
        "lost": int(outcome.total("lost")),
        "mismatches": int(outcome.total("mismatches")),
    }
    if options.mode == "echo":
        told |= {"depth": options.depth, "size": options.size, "kind": options.kind}
    if options.rate:
        told |= {
            "rate": options.rate,
            "unanswered": int(outcome.total("unanswered")),
            "late_p99_us": outcome.greatest("late_p99_us"),
        }
    if options.pid:
        cpu = outcome.results[0]["server_cpu"]
        told |= {"server_cpu": cpu, "server_cpu_us": cpu * seconds * 1e6 / count if count else None}
    told["histogram_ns"] = sorted(buckets.items())
    return told


def describe(told: dict[str, Any]) -> Iterator[str]:
    """The report in words, a line each."""
    yield (
        f"{told['count']:,} {_UNITS[told['mode']]} in {told['seconds']:.2f} s: "
        f"{told['per_second']:,.0f} a second, {told['connections']:,} connections, "
        f"{told['loop']} loop, {told['processes']} process{'es'[: 2 * (told['processes'] > 1)]}"
    )
    if told["mode"] != "idle":
        parts = [f"{name} {value:,.0f}" for name, value in told["latency_us"].items()]
        yield f"latency in us: {', '.join(parts)}"
    if "server_cpu" in told and told["server_cpu_us"] is not None:
        yield f"server: {told['server_cpu']:.0%} of a core, {told['server_cpu_us']:.3f} us each"
    shares = ", ".join(f"{share:.0%}" for share in told["load_cpu"])
    yield f"load: {shares} of a core"
    if told.get("unanswered"):
        yield f"{told['unanswered']:,} messages were due and had no answer at the end"
    if told["load_saturated"]:
        yield (
            f"WARNING: a load process used over {SATURATED:.0%} of its core or came late to its "
            "messages: the server may be faster than this. Use more --processes, on cores of "
            "their own."
        )
    if told["waited"] > 0.05:
        share = f"{told['waited']:.0%}"
        yield f"WARNING: other programs kept load or server from running, {share} of the time"
    if told["lost"] or told["failures"]:
        yield f"ERROR: {told['lost']:,} connections lost, {told['failures']:,} could not be opened"
    if told["mismatches"]:
        yield f"ERROR: {told['mismatches']:,} wrong echoes"


@contextlib.contextmanager
def _progress(
    options: argparse.Namespace,
) -> Iterator[tuple[Callable[..., None], Callable[..., None]]]:
    """A progress bar on a terminal's standard error, if that is one and `rich` is there."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield (lambda *_: None), (lambda *_: None)
        return
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    total = options.seconds + (0 if options.mode == "idle" else options.warmup)
    hidden = options.quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("opening connections", total=None)
        steps = 0

        def opened(count: int, seconds: float) -> None:
            bar.update(task, description=f"{count:,} connections in {seconds:.2f} s", total=total)

        def counted(count: int) -> None:
            nonlocal steps
            steps += 1
            done = min(total, steps * 0.2 / min(options.processes, options.connections))
            bar.update(task, completed=done, description=f"{count:,} {_UNITS[options.mode]}")

        yield opened, counted


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures what the command line asks for. Raises BenchError."""
    target = probe(resolve(options.url), options)
    with tempfile.TemporaryDirectory() as folder:
        messages = None
        if options.deflate and options.mode == "echo":
            messages = messages_file(max(options.size, 128), Path(folder))
        with _progress(options) as (opened, counted):
            outcome = run(_shares(target, options, messages), opened, counted)
    return summary(outcome, options, target)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a number over 0")
    return value


def _not_negative(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else _positive(text)


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number over 0")
    return value


def _size(text: str) -> int:
    units = {"k": 2**10, "m": 2**20}
    scale = units.get(text[-1:].lower(), 1)
    value = int(text[:-1] if scale > 1 else text) * scale
    if not 0 <= value <= 64 * 2**20:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 64m")
    return value


def _cores(text: str) -> list[int]:
    chosen = [int(core) for core in text.split(",")]
    if unknown := set(chosen) - os.sched_getaffinity(0):
        raise argparse.ArgumentTypeError(f"there is no core {min(unknown)} for this process")
    return chosen


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    add = made.add_argument
    add("url", metavar="URL", help="ws://host:port/path or wss://...")
    add("-c", "--connections", type=_whole, default=100)
    add("-n", "--depth", type=_whole, default=1, help="messages in flight per connection, at most")
    add("-s", "--size", type=_size, default=128, help="bytes per message, as 100, 16k or 1m")
    add("-k", "--kind", choices=KINDS, default="binary", help="binary, or letters of text")
    add("-r", "--rate", type=_positive, help="open loop: messages a second over all connections")
    add("-t", "--seconds", type=_positive, default=5.0, help="measured time (5)")
    add("-w", "--warmup", type=_not_negative, default=1.0, help="seconds before that (1)")
    add("-m", "--mode", choices=MODES, default="echo", help="handshake: open and reset; idle: hold")
    add("-p", "--processes", type=_whole, default=1, help="load processes (1)")
    add("--cores", type=_cores, help="cores for the processes, as 1,2,3")
    add("--opening", type=_whole, default=64, help="handshakes at a time")
    add(
        "--timeout",
        type=_positive,
        default=10.0,
        help="seconds for opening, and for the first echo",
    )
    add("--deflate", action="store_true", help="permessage-deflate, JSON of --size bytes")
    add("--insecure", action="store_true", help="leave the server's certificate unchecked")
    add("--ca", metavar="FILE", help="certificates to trust instead of the system's")
    add("--origin")
    add("--subprotocol")
    add("--pid", type=_whole, help="server process on this machine, for its CPU per message")
    add("--json", action="store_true", help="the report as JSON on standard output")
    add("--quiet", action="store_true", help="no progress bar")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns 0, 1 when the server failed, 2 when nothing was measured."""
    options = parser().parse_args(arguments)
    if options.rate and options.mode != "echo":
        print("load: --rate goes with --mode echo", file=sys.stderr)
        return 2
    if options.rate and options.depth == 1:
        options.depth = 64  # an open loop waits for nobody, within reason
    try:
        told = measure(options)
    except (BenchError, NoCompiler) as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("load: interrupted before anything was measured", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(told))
    else:
        print("\n".join(describe(told)))
    return int(bool(told["lost"] or told["failures"] or told["mismatches"]))


if __name__ == "__main__":
    sys.exit(main())
