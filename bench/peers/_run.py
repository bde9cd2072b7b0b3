"""Command line and event loop of the Python servers under test."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

HOST = "127.0.0.1"
BACKLOG = 4096
MAX_SIZE = 64 * 2**20
"""Largest message that servers accept, so that no case runs into a limit."""


@dataclass(frozen=True)
class Options:
    """What a server is asked to do."""

    port: int
    broadcast: bool


def parse() -> Options:
    """Reads `--port` and `--role`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--role", choices=("echo", "idle", "broadcast", "asgi"), default="echo")
    arguments = parser.parse_args()
    return Options(arguments.port, arguments.role == "broadcast")


def run(serve: Callable[[Options], Awaitable[object]]) -> None:
    """Starts a server on uvloop and keeps it running until the process is killed.

    `serve` returns when the server listens; what it returns is kept alive.
    """
    options = parse()

    async def main() -> None:
        server = await serve(options)
        await asyncio.Event().wait()
        del server

    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
