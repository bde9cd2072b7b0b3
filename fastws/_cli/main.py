"""What ``python -m fastws`` does."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any, Protocol, Self

from ..client import ClientConnection, connect
from ..exceptions import (
    ConnectionClosed,
    ConnectionClosedOK,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProtocolError,
    WebSocketException,
)
from ..frames import CloseCode
from .arguments import DESCRIPTION, Exit, connect_options, parse_arguments
from .editor import visible
from .indent import indented
from .pipe import Pipe

__all__ = ["main"]


class Console(Protocol):
    """Where lines come from and messages go to: a ``Terminal`` or a ``Pipe``."""

    prompting: bool

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...
    def lines(self) -> Any: ...
    def show_message(self, message: str | bytes) -> None: ...
    def show_status(self, text: str) -> None: ...
    def show_error(self, text: str) -> None: ...


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit status."""
    _open_closed_streams()
    options = parse_arguments(arguments)
    try:
        return asyncio.run(_run(options))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone: nothing shall be flushed to there at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.LOST


def _open_closed_streams() -> None:
    """In the place of standard streams that were closed (``<&-``), which Python has as ``None``: no
    input, and an output that nobody reads.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


async def _run(options: argparse.Namespace) -> int:
    first: bytes | None = None
    try:
        if options.binary_file is not None:
            first = options.binary_file.read_bytes()
        connecting = connect(options.url, **connect_options(options))
    except (OSError, InvalidURI, ValueError) as error:
        _complain(error)
        return Exit.USAGE
    try:
        ws = await connecting
    except (OSError, WebSocketException, ImportError) as error:
        _complain(error)
        return Exit.NOT_OPENED
    except ValueError as error:  # a header that cannot be sent
        _complain(error)
        return Exit.USAGE
    try:
        async with _console(options) as console:
            await _Session(ws, console, options).run(first)
    finally:
        ws.abort()  # if it is open still: interrupted
    return Exit.OK if isinstance(ws._closed_error(), ConnectionClosedOK) else Exit.LOST


def _complain(error: Exception) -> None:
    text = str(error) or type(error).__name__
    if isinstance(error, InvalidStatus | InvalidProxyStatus):
        body = error.response.body[:2000].decode("utf-8", "replace").strip()
        text = f"{text} {error.response.reason_phrase}\n{body}".rstrip()
    print(f"fastws: {visible(text)}", file=sys.stderr)


def _console(options: argparse.Namespace) -> Console:
    if sys.stdin.isatty() and sys.stdout.isatty():
        try:
            from .terminal import Terminal
        except ModuleNotFoundError:  # Windows: no termios
            pass
        else:
            return Terminal(quiet=options.quiet, history=options.history)
    return Pipe(quiet=options.quiet)


class _Session:
    """An open connection between a console and a server."""

    def __init__(self, ws: ClientConnection, console: Console, options: argparse.Namespace) -> None:
        self.ws = ws
        self.console = console
        self.options = options
        self.commands = {
            "/ping": self._ping,
            "/send-file": self._send_file,
            "/close": self._close,
            "/help": self._help,
        }
        self.pings: set[asyncio.Task[None]] = set()

    async def run(self, first: bytes | None) -> None:
        """Until the connection is closed."""
        chosen = f", subprotocol {self.ws.subprotocol}" if self.ws.subprotocol else ""
        self.console.show_status(f"connected to {self.options.url}{chosen}")
        sending = asyncio.ensure_future(self._send_all(first))
        receiving = asyncio.ensure_future(self._receive_all())
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not self.console.prompting:
                await asyncio.wait({receiving}, timeout=min(self.options.wait, 1e9))
            await self.ws.close()
            await receiving
        finally:
            sending.cancel()
            receiving.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)
        self.console.show_status(f"closed: {self.ws._closed_error()}")

    async def _receive_all(self) -> None:
        try:
            while True:
                message = await self.ws.recv()
                self.console.show_message(indented(message) if self.options.json else message)
        except ConnectionClosed:
            pass

    async def _send_all(self, first: bytes | None) -> None:
        try:
            if first is not None:
                await self.ws.send(first)
            async for line in self.console.lines():
                if self.console.prompting and line.startswith("/"):
                    await self._command(line)
                else:
                    await self.ws.send(line)
        except ConnectionClosed:
            pass

    # --- commands

    async def _command(self, line: str) -> None:
        if line.startswith("//"):
            await self.ws.send(line[1:])
            return
        name, _, rest = line.partition(" ")
        command = self.commands.get(name)
        if command is None:
            self.console.show_error(f"there is no {name}; /help says what there is")
            return
        try:
            await command(rest.strip())
        except (OSError, ValueError, ProtocolError, RuntimeError) as error:
            self.console.show_error(str(error))

    async def _ping(self, text: str) -> None:
        pong = await self.ws.ping(text or None)
        task = asyncio.ensure_future(self._await_pong(pong))
        self.pings.add(task)
        task.add_done_callback(self.pings.discard)

    async def _await_pong(self, pong: asyncio.Future[float]) -> None:
        try:
            latency = await pong
        except ConnectionClosed:
            return
        self.console.show_error(f"pong after {latency * 1000:.1f} ms")

    async def _send_file(self, name: str) -> None:
        data = await asyncio.to_thread(_contents, name)
        await self.ws.send(data)
        self.console.show_status(f"sent {len(data)} bytes")

    async def _close(self, text: str) -> None:
        code, _, reason = text.partition(" ")
        await self.ws.close(int(code) if code else CloseCode.NORMAL_CLOSURE, reason.strip())

    async def _help(self, _: str) -> None:
        for line in DESCRIPTION.splitlines():
            if line.startswith("  /"):
                self.console.show_error(line.strip())


def _contents(name: str) -> bytes:
    return Path(name).expanduser().read_bytes()
